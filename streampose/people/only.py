"""Keeps one person and leaves out the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from streampose.frames import NO_TRACK, People, Result
from streampose.people import REMEMBER_S, State
from streampose.people.overlap import box_areas, box_overlaps

SAME_BOX_IOU = 0.7
"""Minimum IoU of the boxes of one person in two frames in succession, if the person has another identity in each."""

_STATE = ("_id", "_seen_s", "_before_ids", "_before_xyxy")
"""The attributes that change with the frames."""


class Only:
    """A step of the pipeline that keeps one person of a source.

    The person is chosen once and then kept by identity, also past others and while they are away. Without identities,
    the choice is made in each frame. `keep` can be called from any thread; the other methods belong to one thread.
    """

    def __init__(self, whom: str | int | None, *, remember_s: float = REMEMBER_S) -> None:
        """Choose nobody yet.

        Args:
            whom: `largest`, `centre` (the box nearest the middle of the frame), or an identity; None keeps everybody.
            remember_s: how long to wait for the chosen person before somebody else is chosen, in seconds.
        """
        self._remember_s = remember_s
        self._asked: tuple[str | int | None] = (whom,)
        """What `keep` was given last; in a tuple of its own, so that each call is known."""
        self._obeyed: object = None
        self._id = NO_TRACK
        self._seen_s = float("-inf")
        self._before_ids = np.zeros(0, np.int64)
        """The identities of the people in the latest frame in which the person was there,"""
        self._before_xyxy = np.zeros((0, 4), np.float32)
        """and their boxes."""

    @property
    def whom(self) -> str | int | None:
        """Who is kept, as asked for; None if everybody is."""
        return self._asked[0]

    def keep(self, whom: str | int | None) -> None:
        """Choose again, from the next frame on; see the constructor."""
        self._asked = (whom,)

    def state(self) -> State:
        """Return everything that the next frames depend on, but for what `keep` was given."""
        return {name: getattr(self, name) for name in _STATE}

    def restore(self, state: State) -> None:
        """Continue as the step whose `state` it was."""
        for name in _STATE:
            setattr(self, name, state[name])
        self._obeyed = self._asked

    def __call__(self, result: Result) -> Result:
        """Return the result with that person, or with nobody."""
        height, width = result.frame.image.shape[:2]
        return replace(result, people=self.choose(result.people, result.frame.pts_s, height, width))

    def choose(self, people: People, pts_s: float, height: int, width: int) -> People:
        """Return the person of a frame at a time; none if they are not there."""
        asked = self._asked
        (whom,) = asked
        if asked is not self._obeyed:
            self._obeyed, self._id, self._seen_s = asked, whom if isinstance(whom, int) else NO_TRACK, float("-inf")
        if whom is None:
            return people
        is_lost = pts_s - self._seen_s > self._remember_s
        if isinstance(whom, str) and (self._id == NO_TRACK or is_lost):
            return self._first(whom, people, pts_s, height, width)
        self._id = self._renamed(people)
        chosen = people[people.track_ids == self._id]
        if len(chosen):
            self._remember(people, pts_s)
        return chosen

    def _renamed(self, people: People) -> int:
        """Return the person's identity in this frame: an older one if the tracker has recognised them since."""
        before = self._before_xyxy[self._before_ids == self._id]
        if not len(before) or self._id in people.track_ids:
            return self._id
        is_older = (people.track_ids < self._id) & ~np.isin(people.track_ids, [NO_TRACK, *self._before_ids])
        same = is_older & (box_overlaps(before, people.boxes_xyxy)[0] >= SAME_BOX_IOU)
        return int(people.track_ids[same][0]) if same.any() else self._id

    def _first(self, whom: str, people: People, pts_s: float, height: int, width: int) -> People:
        tracked = people[people.track_ids != NO_TRACK]
        people = tracked if len(tracked) else people
        if not len(people):
            return people
        if whom == "largest":
            best = int(np.argmax(box_areas(people.boxes_xyxy)))
        else:
            middles = (people.boxes_xyxy[:, :2] + people.boxes_xyxy[:, 2:]) / 2
            best = int(np.argmin(np.square(middles - (width / 2, height / 2)).sum(axis=1)))
        self._id = int(people.track_ids[best])
        self._remember(people, pts_s)
        return people[np.array([best])]

    def _remember(self, people: People, pts_s: float) -> None:
        self._seen_s, self._before_ids, self._before_xyxy = pts_s, people.track_ids, people.boxes_xyxy
