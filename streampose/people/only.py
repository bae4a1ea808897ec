"""Keeps one person and leaves out the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from streampose.frames import NO_TRACK, People, Result
from streampose.people import REMEMBER_S
from streampose.people.overlap import box_areas


class Only:
    """A step of the pipeline that keeps one person of a source. Not thread-safe.

    The person is chosen once and then kept by identity, also past others and while they are away. Without identities,
    the choice is made in each frame.
    """

    def __init__(self, whom: str | int, *, remember_s: float = REMEMBER_S) -> None:
        """Choose nobody yet.

        Args:
            whom: `largest`, `centre` (the box nearest the middle of the frame), or an identity.
            remember_s: how long to wait for the chosen person before somebody else is chosen, in seconds.
        """
        self._whom = whom
        self._remember_s = remember_s
        self._id = whom if isinstance(whom, int) else NO_TRACK
        self._seen_s = float("-inf")

    def __call__(self, result: Result) -> Result:
        """Return the result with that person, or with nobody."""
        height, width = result.frame.image.shape[:2]
        return replace(result, people=self.choose(result.people, result.frame.pts_s, height, width))

    def choose(self, people: People, pts_s: float, height: int, width: int) -> People:
        """Return the person of a frame at a time; none if they are not there."""
        is_lost = pts_s - self._seen_s > self._remember_s
        if isinstance(self._whom, str) and (self._id == NO_TRACK or is_lost):
            return self._first(people, pts_s, height, width)
        chosen = people[people.track_ids == self._id]
        if len(chosen):
            self._seen_s = pts_s
        return chosen

    def _first(self, people: People, pts_s: float, height: int, width: int) -> People:
        tracked = people[people.track_ids != NO_TRACK]
        people = tracked if len(tracked) else people
        if not len(people):
            return people
        if self._whom == "largest":
            best = int(np.argmax(box_areas(people.boxes_xyxy)))
        else:
            middles = (people.boxes_xyxy[:, :2] + people.boxes_xyxy[:, 2:]) / 2
            best = int(np.argmin(np.square(middles - (width / 2, height / 2)).sum(axis=1)))
        self._id, self._seen_s = int(people.track_ids[best]), pts_s
        return people[np.array([best])]
