"""When the detector should look at a live frame. Knows times, no channel and no network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """How long the detector had better wait before it looks at a live frame, so that people are found just when the
    pose network is free for them: a frame that waits for it gets old, and a newer one may have come.

    The detector's thread calls all of it but `posing`, which is for that of the pose network.
    """

    _NEW_SHARE = 0.3
    """What the latest of a step's times counts in what is expected of it."""

    def __init__(self, detections_beside_poses: float) -> None:
        """The last `detections_beside_poses` expected times of a detection before the pose network is free are for one:
        a little more than 1, so that it does not wait.
        """
        self._beside = detections_beside_poses
        self._detect_s: float | None = None
        self._pose_s: float | None = None
        self._handed_s = self._began_s = 0.0
        self._is_posing = False

    def wait_s(self, now_s: float) -> float:
        """Return the seconds from now, of `time.monotonic()`, until the detector should begin; all that it has handed
        over has been taken.
        """
        is_about_to_begin = self._began_s < self._handed_s
        if self._detect_s is None or self._pose_s is None or not (self._is_posing or is_about_to_begin):
            return 0.0
        began_s = now_s if is_about_to_begin else self._began_s
        return max(0.0, began_s + self._pose_s - self._beside * self._detect_s - now_s)

    def handing_over(self) -> None:
        """A frame goes to the pose network."""
        self._handed_s = time.monotonic()

    @contextmanager
    def detecting(self) -> Iterator[None]:
        """Time the block, in which frames are looked at and handed over."""
        began_s = time.monotonic()
        yield
        self._detect_s = self._expected(self._detect_s, time.monotonic() - began_s)

    @contextmanager
    def posing(self) -> Iterator[None]:
        """Time the block, in which the poses of all that was taken are found."""
        self._began_s, self._is_posing = time.monotonic(), True
        yield
        self._is_posing = False
        self._pose_s = self._expected(self._pose_s, time.monotonic() - self._began_s)

    def _expected(self, before_s: float | None, latest_s: float) -> float:
        return latest_s if before_s is None else before_s + self._NEW_SHARE * (latest_s - before_s)
