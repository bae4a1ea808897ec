"""Frame times of a live source across all its connections. All times are passed in; it opens nothing."""

from __future__ import annotations

from fractions import Fraction

from streampose.sources.recorded import STILLS_PER_S

TICKS_PER_S = 90_000
"""Time resolution of a live source, the same as in RTP and MPEG."""

_FORGET_S_PER_S = 1e-3
"""Growth rate of the recorded minimum delay: faster than clock drift (1e-4), and too slow to hide a backlog."""
_SETTLE_S = 1.0
_CATCHES_UP_S_PER_S = 0.1
"""If late frames do not catch up at this rate within `_SETTLE_S`, they never will: the stream's clock lost time."""
_STEP_BACK_S, _STEP_AHEAD_S = 1.0, 10.0
"""If stream time jumps back, or ahead of the wall clock, by more than this, the stream has a new clock."""


class Timing:
    """Computes frame times of a live source across connections, and how far each frame lags behind the freshest ones.

    A connection starts at the monotonic time elapsed since the source's first frame, then follows its own clock. Times
    always increase. The minimum delay between a frame's time and its arrival is taken as the delay of a fresh frame.
    """

    def __init__(self, freshness_s: float) -> None:
        self._freshness_s = freshness_s
        self._origin_s: float | None = None
        self._last_tick = -1
        self.connected(Fraction(1, TICKS_PER_S), None, is_paced=False)

    def connected(self, time_base: Fraction, rate: Fraction | None, *, is_paced: bool) -> None:
        """Start a new connection with timestamps in `time_base` and about `rate` frames per second.

        A paced connection may deliver frames before they are due.
        """
        self._time_base = time_base
        self._step_s = float(1 / rate) if rate else 1 / STILLS_PER_S
        self._is_paced = is_paced
        self._offset_s: float | None = None
        self._stream_s = self._now_s = self._least_s = 0.0
        self._stale_since: tuple[float, float] | None = None

    def place(self, pts: int | None, now_s: float) -> tuple[float, float]:
        """Return the source time of a frame that arrives at `now_s` of `time.monotonic()`, and its lateness in seconds.

        A negative lateness means that a frame of a paced connection is early.
        """
        if self._origin_s is None:
            self._origin_s = now_s
        elapsed_s = now_s - self._origin_s
        if pts is not None:
            stream_s = float(pts * self._time_base)
        elif self._offset_s is not None:
            # FFmpeg's H.264 parser loses the next timestamps after a pause in the data.
            stream_s = self._stream_s + self._step_s
        else:
            # RTSP: the server has not sent its start time yet.
            return self._tick(elapsed_s), 0.0
        if self._offset_s is None or self._is_new_clock(stream_s, now_s):
            self._offset_s = max(elapsed_s, (self._last_tick + 1) / TICKS_PER_S) - stream_s
            self._least_s = elapsed_s - stream_s - self._offset_s
            self._stale_since = None
            self._stream_s, self._now_s = stream_s, now_s
        time_s = stream_s + self._offset_s
        behind_s = self._behind(elapsed_s - time_s, stream_s, now_s)
        self._stream_s, self._now_s = stream_s, now_s
        return self._tick(time_s), behind_s

    def _tick(self, time_s: float) -> float:
        self._last_tick = max(self._last_tick + 1, round(time_s * TICKS_PER_S))
        return self._last_tick / TICKS_PER_S

    def _is_new_clock(self, stream_s: float, now_s: float) -> bool:
        step_s = stream_s - self._stream_s
        return step_s < -_STEP_BACK_S or step_s > now_s - self._now_s + _STEP_AHEAD_S

    def _behind(self, delay_s: float, stream_s: float, now_s: float) -> float:
        waited_s = now_s - self._now_s
        if not self._is_paced:
            self._least_s = min(self._least_s + waited_s * _FORGET_S_PER_S, delay_s)
        if delay_s - self._least_s <= self._freshness_s:
            self._stale_since = None
        elif self._stale_since is None or waited_s - (stream_s - self._stream_s) > self._freshness_s:
            self._stale_since = now_s, delay_s  # a stall: catching up starts only now
        else:
            since_s, from_s = self._stale_since
            if now_s - since_s >= _SETTLE_S:
                if from_s - delay_s < _CATCHES_UP_S_PER_S * (now_s - since_s):
                    self._least_s = delay_s
                    self._stale_since = None
                else:
                    self._stale_since = now_s, delay_s
        return delay_s - self._least_s
