"""Decides on which frames of a source the detector runs: on every Nth frame, or as often as time allows.

All times are passed in. Knows nothing about networks, threads, channels and clocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np

JUMP_S = 0.5
"""People are not followed over a gap longer than this, because the scene may have changed."""


LOOK_WITHIN_S = 1.0
"""Maximum time between two detections of `Spending`, so that new people are found."""


NETWORKS_SHARE = 0.9
"""Share of the time between two frames that the networks may use. Drawing and encoding need the rest."""


COSTS_KEPT = 9
"""The cost of a detection is the median of this many recent ones, so that the slow first one has little effect."""


MOST_SAVED = 2
"""Maximum savings, in detections, so that a quiet minute is not followed by a burst of detections."""


MOST_DEBT_S = 0.5
"""Maximum debt after detections that the budget did not cover, in seconds."""


ACTIVE_S = 2.0
"""A source without a frame for longer than this gets no share of the networks' time."""


MOST_FPS = 240.0
"""Higher nominal rates are ignored, because Matroska and RTMP may declare 1000. The measured time between frames is
used instead."""


class Schedule(Protocol):
    """Decides when the detector runs, regardless of the people."""

    def is_due(self, index: int) -> bool:
        """Return whether frame `index` is due by its number.

        Called once per frame, in order, possibly before the frame's turn.
        """
        ...

    def is_due_now(self, pts_s: float, fps: float | None, now_s: float) -> bool:
        """Return whether the current frame is due by its time. Called once per frame.

        Args:
            pts_s: time of the frame in the source.
            fps: nominal frame rate of the source.
            now_s: time of capture, always on the same clock.
        """
        ...

    def looked(self, pts_s: float) -> None:
        """Record that the detector ran on the frame at `pts_s`."""
        ...

    def begin_after(self, index: int) -> None:
        """Continue behind a frame of an earlier run."""
        ...


class EveryNth:
    """Selects the frames 0, N, 2N, ..., or the frames after them if they were dropped.

    Only the number of a frame matters, so detections of several frames can be batched.
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

    def begin_after(self, index: int) -> None:
        self._before = index


class Budget:
    """The time budget of the networks, shared by all sources.

    Each frame adds the time until the next frame of its source, divided by the number of active sources. Poses are paid
    first. Each source spends its equal share of the rest on detections.
    """

    def __init__(self, sources: int) -> None:
        self._saved_s = [0.0] * sources
        self._costs_s: deque[float] = deque(maxlen=COSTS_KEPT)
        self._last_s = [float("-inf")] * sources
        self._active: list[int] = []

    @property
    def detection_s(self) -> float:
        """Cost of a detection in seconds; 0 until one has been measured."""
        return float(np.median(self._costs_s)) if self._costs_s else 0.0

    def earn(self, source: int, period_s: float, now_s: float) -> None:
        """Record a frame of `source` at `now_s`, always on the same clock. The next is expected `period_s` later."""
        self._last_s[source] = now_s
        self._active = [number for number, last_s in enumerate(self._last_s) if now_s - last_s <= ACTIVE_S]
        self._deal(NETWORKS_SHARE * period_s / len(self._active))

    def pay_poses(self, cost_s: float) -> None:
        """Pay `cost_s` for the poses of a batch; all active sources share the cost."""
        for number in self._active:
            self._pay(number, cost_s / len(self._active))

    def pay_detections(self, sources: Sequence[int], cost_s: float) -> None:
        """Pay for one detection for each of `sources`; `cost_s` is the cost of all of them together."""
        self._costs_s.append(cost_s / len(sources))
        for source in sources:
            self._pay(source, self.detection_s)

    def covers_detection(self, source: int) -> bool:
        """Return whether the savings of `source` cover a detection."""
        return self._saved_s[source] >= self.detection_s

    def _pay(self, source: int, cost_s: float) -> None:
        self._saved_s[source] = max(-MOST_DEBT_S, self._saved_s[source] - cost_s)

    def _deal(self, seconds: float) -> None:
        """Share time equally among the active sources. Time that exceeds the limit of one goes to the others."""
        most_s = MOST_SAVED * self.detection_s
        by_room = sorted(self._active, key=lambda number: self._saved_s[number], reverse=True)
        for place, number in enumerate(by_room):
            share_s = min(seconds / (len(by_room) - place), max(0.0, most_s - self._saved_s[number]))
            self._saved_s[number] += share_s
            seconds -= share_s


class Spending:
    """Spends a source's share of a budget on detections, and detects at least every `LOOK_WITHIN_S`."""

    def __init__(self, budget: Budget, source: int) -> None:
        self._budget = budget
        self._source = source
        self._looked_s = float("-inf")
        self._before_s: float | None = None
        self._steps_s: deque[float] = deque(maxlen=16)

    def is_due(self, _index: int) -> bool:
        return False  # the available time is not known in advance

    def is_due_now(self, pts_s: float, fps: float | None, now_s: float) -> bool:
        if self._before_s is not None and pts_s > self._before_s:
            self._steps_s.append(pts_s - self._before_s)
        self._before_s = pts_s
        if fps is not None and 0 < fps <= MOST_FPS:
            self._budget.earn(self._source, 1 / fps, now_s)
        elif self._steps_s:
            # Use the shortest step, because steps over dropped frames are longer than the period.
            self._budget.earn(self._source, min(*self._steps_s, JUMP_S), now_s)
        return pts_s - self._looked_s >= LOOK_WITHIN_S or self._budget.covers_detection(self._source)

    def looked(self, pts_s: float) -> None:
        self._looked_s = pts_s

    def begin_after(self, index: int) -> None:
        pass
