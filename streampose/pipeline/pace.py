"""Decides when detection of the next live frame starts. Knows only times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """Delays detection so that it ends when the pose network becomes free.

    With an earlier start, the frame would wait for the pose network while newer frames arrive. The pose thread calls
    `posing`; the detector's thread calls all other methods.
    """

    _NEW_SHARE = 0.3
    """Weight of the latest duration in the moving average."""

    def __init__(self, detections_beside_poses: float) -> None:
        """Set how early detection starts: this many average detection times before the pose network is free.

        Use slightly more than 1, so that the pose network does not wait, or 0 to run the networks one after the other.
        """
        self._beside = detections_beside_poses
        self._detect_s: float | None = None
        self._pose_s: float | None = None
        self._handed_s = self._began_s = 0.0
        self._is_posing = False

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until detection should start, at `now_s` of `time.monotonic()`.

        The pose thread must have taken all frames that were handed over.
        """
        is_about_to_begin = self._began_s < self._handed_s
        if self._detect_s is None or self._pose_s is None or not (self._is_posing or is_about_to_begin):
            return 0.0
        began_s = now_s if is_about_to_begin else self._began_s
        return max(0.0, began_s + self._pose_s - self._beside * self._detect_s - now_s)

    def handing_over(self) -> None:
        """Record that a frame is handed over to the pose network."""
        self._handed_s = time.monotonic()

    @contextmanager
    def detecting(self) -> Iterator[None]:
        """Time the block, which runs the detector and hands the frames over."""
        began_s = time.monotonic()
        yield
        self._detect_s = self._expected(self._detect_s, time.monotonic() - began_s)

    @contextmanager
    def posing(self) -> Iterator[None]:
        """Time the block, which runs the pose network on the frames taken."""
        self._began_s, self._is_posing = time.monotonic(), True
        yield
        self._is_posing = False
        self._pose_s = self._expected(self._pose_s, time.monotonic() - self._began_s)

    def _expected(self, before_s: float | None, latest_s: float) -> float:
        return latest_s if before_s is None else before_s + self._NEW_SHARE * (latest_s - before_s)
