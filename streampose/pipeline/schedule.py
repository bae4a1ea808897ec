"""When the detector runs on a source's frames: on every Nth, or as often as the networks have time.

Pure logic over times that are passed in. Knows no network, thread, channel or clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np

JUMP_S = 0.5
"""Nobody is followed over a longer gap: the scene may have changed."""


LOOK_WITHIN_S = 1.0
"""`Spending` detects at least this often, so that new people are found."""


NETWORKS_SHARE = 0.9
"""Share of a frame's time that the networks may use; drawing and encoding need the rest."""


COSTS_KEPT = 9
"""The cost of a detection is the median of this many; the slow first one is soon forgotten."""


MOST_SAVED = 2
"""Maximum detections saved up, so that no rush follows an idle minute."""


MOST_DEBT_S = 0.5
"""Maximum debt after forced detections, in seconds of unused time."""


ACTIVE_S = 2.0
"""A source without frames for longer gets no share of the networks' time."""


MOST_FPS = 240.0
"""Higher nominal rates are ignored (Matroska and RTMP may say 1000); the time between frames is used."""


class Schedule(Protocol):
    """When the detector runs, regardless of the people."""

    def is_due(self, index: int) -> bool:
        """Whether frame `index` is due by its number. Called once per frame, in order, possibly ahead of time."""
        ...

    def is_due_now(self, pts_s: float, fps: float | None, now_s: float) -> bool:
        """Whether the current frame is due. Called once per frame.

        Args:
            pts_s: the source's time.
            fps: its nominal rate.
            now_s: when the frame was captured, on any one clock.
        """
        ...

    def looked(self, pts_s: float) -> None:
        """Record that the detector ran on the frame of this time."""
        ...


class EveryNth:
    """The frames 0, N, 2N, ..., or the next ones if those were dropped.

    The number alone decides, so that detections of several frames can be batched.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._before: int | None = None

    def is_due(self, index: int) -> bool:
        before, self._before = self._before, index
        return before is None or index // self._every != before // self._every

    def is_due_now(self, _pts_s: float, _fps: float | None, _now_s: float) -> bool:
        return False

    def looked(self, pts_s: float) -> None:
        pass


class Budget:
    """The networks' time, shared by all sources.

    Every frame earns its period, divided by the number of active sources. Poses are paid from it first; the rest goes
    to the sources in equal shares, which pay for detections.
    """

    def __init__(self, sources: int) -> None:
        self._saved_s = [0.0] * sources
        self._costs_s: deque[float] = deque(maxlen=COSTS_KEPT)
        self._last_s = [float("-inf")] * sources
        self._active: list[int] = []

    @property
    def detection_s(self) -> float:
        """The cost of a detection; 0 until one has been measured."""
        return float(np.median(self._costs_s)) if self._costs_s else 0.0

    def earn(self, source: int, period_s: float, now_s: float) -> None:
        """Record a frame of `source` at `now_s`, on any one clock; the next is expected `period_s` later."""
        self._last_s[source] = now_s
        self._active = [number for number, last_s in enumerate(self._last_s) if now_s - last_s <= ACTIVE_S]
        self._deal(NETWORKS_SHARE * period_s / len(self._active))

    def pay_poses(self, cost_s: float) -> None:
        """Pay for the poses of some frames."""
        for number in self._active:
            self._pay(number, cost_s / len(self._active))

    def pay_detections(self, sources: Sequence[int], cost_s: float) -> None:
        """Pay for one detection for each of `sources`, at this cost together."""
        self._costs_s.append(cost_s / len(sources))
        for source in sources:
            self._pay(source, self.detection_s)

    def covers_detection(self, source: int) -> bool:
        """Whether `source` can pay for a detection."""
        return self._saved_s[source] >= self.detection_s

    def _pay(self, source: int, cost_s: float) -> None:
        self._saved_s[source] = max(-MOST_DEBT_S, self._saved_s[source] - cost_s)

    def _deal(self, seconds: float) -> None:
        """Share time equally among the active sources; what one cannot save goes to the others."""
        most_s = MOST_SAVED * self.detection_s
        by_room = sorted(self._active, key=lambda number: self._saved_s[number], reverse=True)
        for place, number in enumerate(by_room):
            share_s = min(seconds / (len(by_room) - place), max(0.0, most_s - self._saved_s[number]))
            self._saved_s[number] += share_s
            seconds -= share_s


class Spending:
    """The schedule of a source that spends its share of a budget and detects at least every `LOOK_WITHIN_S`."""

    def __init__(self, budget: Budget, source: int) -> None:
        self._budget = budget
        self._source = source
        self._looked_s = float("-inf")
        self._before_s: float | None = None
        self._steps_s: deque[float] = deque(maxlen=16)

    def is_due(self, _index: int) -> bool:
        return False  # the unused time is not known in advance

    def is_due_now(self, pts_s: float, fps: float | None, now_s: float) -> bool:
        if self._before_s is not None and pts_s > self._before_s:
            self._steps_s.append(pts_s - self._before_s)
        self._before_s = pts_s
        if fps is not None and 0 < fps <= MOST_FPS:
            self._budget.earn(self._source, 1 / fps, now_s)
        elif self._steps_s:
            # The shortest step: with dropped frames, the others span several periods.
            self._budget.earn(self._source, min(*self._steps_s, JUMP_S), now_s)
        return pts_s - self._looked_s >= LOOK_WITHIN_S or self._budget.covers_detection(self._source)

    def looked(self, pts_s: float) -> None:
        self._looked_s = pts_s
