"""Which boxes of a source's frames to find poses in, when the detector does not run on every frame.

Knows when to detect; who is where, the tracker knows. Pure logic: knows no network, thread, channel or clock.
"""

from __future__ import annotations

import numpy as np

from streampose.frames import Boxes, Frame, People
from streampose.people import State
from streampose.people.known import Bools
from streampose.people.track import Tracker
from streampose.pipeline.schedule import JUMP_S, Schedule


class Follower:
    """Chooses the boxes of one source's frames.

    For every frame, in order: call `looks`, then `boxes` with the detections if the detector ran, then `learn` with the
    poses in those boxes.
    """

    def __init__(self, tracker: Tracker | None, schedule: Schedule, *, max_people: int | None = None) -> None:
        """Start without people.

        Args:
            tracker: knows the people; None for frames that do not follow each other in time: all are detected.
            schedule: when the detector runs even if nobody is in doubt.
            max_people: maximum people per frame; detected people go first.
        """
        self._tracker = tracker
        self._schedule = schedule
        self._max_people = max_people
        self._size = 0, 0
        """Height and width of the frame."""
        self._pts_s = float("-inf")
        self._index = 0
        """Number of the latest frame."""
        self._is_found: Bools = np.zeros(0, np.bool_)
        """For each box returned, whether the detector found it."""
        self._has_looked = False

    def state(self) -> State:
        """Return everything that the next frames depend on."""
        tracker = {} if self._tracker is None else self._tracker.state()
        return {"tracker": tracker, "size": self._size, "pts_s": self._pts_s, "index": self._index}

    def restore(self, state: State) -> None:
        """Continue as the follower whose `state` it was."""
        if self._tracker is not None:
            self._tracker.restore(state["tracker"])
        height, width = state["size"]
        self._size, self._pts_s, self._index = (height, width), state["pts_s"], state["index"]
        self._schedule.begin_after(self._index)

    def is_due(self, frame: Frame) -> bool:
        """Whether the detector will run on a future frame, by its number alone. Called once per frame."""
        return self._tracker is None or self._schedule.is_due(frame.index)

    def looks(self, frame: Frame, fps: float | None) -> bool:
        """Whether the detector must run on the current frame: somebody is in doubt, the scene has changed, or the
        schedule says so.

        Args:
            fps: the source's nominal rate.
        """
        if self._tracker is None:
            return True
        height, width = frame.image.shape[:2]
        size = height, width
        if frame.pts_s - self._pts_s > JUMP_S or size != self._size:
            self._tracker.scene_changed()
        self._pts_s, self._size = frame.pts_s, size
        is_due = self._schedule.is_due_now(frame.pts_s, fps, frame.captured_at_s)
        return is_due or self._tracker.in_doubt

    def boxes(self, found: Boxes | None) -> Boxes:
        """Return the boxes to find poses in: the detections, then the people that they miss. Without a detection
        (None): where everybody is expected.
        """
        if self._tracker is None:
            return Boxes.none() if found is None else found
        self._has_looked = found is not None
        if found is None:
            expected = self._tracker.expected(self._pts_s, *self._size)
            self._is_found = np.zeros(len(expected), np.bool_)
            return expected
        self._schedule.looked(self._pts_s)
        missed = self._tracker.missed(found, self._pts_s, *self._size)
        if self._max_people is not None:
            missed = missed[: max(0, self._max_people - len(found))]
        self._is_found = np.arange(len(found) + len(missed)) < len(found)
        return _joined(found, missed)

    def learn(self, people: People, frame: Frame) -> People:
        """Return the people found in the boxes last returned, best box first, with their track ids."""
        self._index = frame.index
        if self._tracker is None:
            return people
        tracked = self._tracker.update(
            people, frame.image, frame.pts_s, is_found=self._is_found, looked=self._has_looked
        )
        return tracked[np.argsort(-tracked.box_scores, kind="stable")]


def _joined(first: Boxes, second: Boxes) -> Boxes:
    return Boxes(
        np.concatenate([first.xyxy, second.xyxy]),
        np.concatenate([first.scores, second.scores]),
        np.concatenate([first.class_ids, second.class_ids]),
    )
