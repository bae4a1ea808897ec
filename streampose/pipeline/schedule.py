"""When the detector looks at a source's frames: every Nth, or as often as the networks' time allows.

Pure logic over times that are passed in; knows no network, thread, channel or clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np

JUMP_S = 0.5
"""Over a longer gap in a source's time nobody is followed: cameras come back as another picture, people turn round."""


LOOK_WITHIN_S = 1.0
"""`Spending` looks at least so often in a source's time, so that new people are found."""


NETWORKS_SHARE = 0.9
"""Of a frame's time, what the networks may spend: drawing and encoding need some as well."""


COSTS_KEPT = 9
"""The median of so many measured detections is what one costs: the first, which warms up, does not count for long."""


MOST_SAVED = 2
"""Detections that may be saved up, so that an idle minute is not followed by a rush."""


MOST_DEBT_S = 0.5
"""After a rush of forced detections, auto is back within about so many seconds of unspent time."""


ACTIVE_S = 2.0
"""A source without a frame for so long has no share in the networks' time."""


MOST_FPS = 240.0
"""A container's higher nominal rate is none (Matroska and RTMP may say 1000): the time between frames rules."""


class Schedule(Protocol):
    """When the detector looks at a source's frames, whatever the people do."""

    def is_due(self, index: int) -> bool:
        """Whether frame `index` is due as far as its number says; asked once a frame, in order, maybe some ahead."""
        ...

    def is_due_now(self, pts_s: float, fps: float | None, now_s: float) -> bool:
        """Whether the frame whose turn has come is due; asked once a frame.

        Args:
            pts_s: the source's time.
            fps: its nominal rate.
            now_s: when the frame was captured, of any one clock.
        """
        ...

    def looked(self, pts_s: float) -> None:
        """The detector looked at the frame of this time, for whatever reason."""
        ...


class EveryNth:
    """The frames 0, N, 2N, ... of a source or, where those were dropped, the next ones; known from the number alone, so
    that the detections of several frames can be made together.
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
    """The networks' time over all sources that share them. Every frame earns its period, divided by the number of
    active sources; what the poses leave of it is dealt to the sources in equal shares, and each pays its detections.
    """

    def __init__(self, sources: int) -> None:
        self._saved_s = [0.0] * sources
        self._costs_s: deque[float] = deque(maxlen=COSTS_KEPT)
        self._last_s = [float("-inf")] * sources
        self._active: list[int] = []

    @property
    def detection_s(self) -> float:
        """What a detection costs; 0 until one was measured."""
        return float(np.median(self._costs_s)) if self._costs_s else 0.0

    def earn(self, source: int, period_s: float, now_s: float) -> None:
        """A frame of `source` came at `now_s` of any one clock; the next is expected `period_s` later."""
        self._last_s[source] = now_s
        self._active = [number for number, last_s in enumerate(self._last_s) if now_s - last_s <= ACTIVE_S]
        self._deal(NETWORKS_SHARE * period_s / len(self._active))

    def pay_poses(self, cost_s: float) -> None:
        """The poses of some frames took so long."""
        for number in self._active:
            self._pay(number, cost_s / len(self._active))

    def pay_detections(self, sources: Sequence[int], cost_s: float) -> None:
        """One detection for each of `sources` took so long together."""
        self._costs_s.append(cost_s / len(sources))
        for source in sources:
            self._pay(source, self.detection_s)

    def covers_detection(self, source: int) -> bool:
        """Whether `source` has saved up a detection."""
        return self._saved_s[source] >= self.detection_s

    def _pay(self, source: int, cost_s: float) -> None:
        self._saved_s[source] = max(-MOST_DEBT_S, self._saved_s[source] - cost_s)

    def _deal(self, seconds: float) -> None:
        """Deal time to the active sources in equal shares; what one cannot save up goes to the others."""
        most_s = MOST_SAVED * self.detection_s
        by_room = sorted(self._active, key=lambda number: self._saved_s[number], reverse=True)
        for place, number in enumerate(by_room):
            share_s = min(seconds / (len(by_room) - place), max(0.0, most_s - self._saved_s[number]))
            self._saved_s[number] += share_s
            seconds -= share_s


class Spending:
    """The schedule of a source that spends its share of a budget, and looks at least every `LOOK_WITHIN_S`."""

    def __init__(self, budget: Budget, source: int) -> None:
        self._budget = budget
        self._source = source
        self._looked_s = float("-inf")
        self._before_s: float | None = None
        self._steps_s: deque[float] = deque(maxlen=16)

    def is_due(self, _index: int) -> bool:
        return False  # what will be left over is not known ahead

    def is_due_now(self, pts_s: float, fps: float | None, now_s: float) -> bool:
        if self._before_s is not None and pts_s > self._before_s:
            self._steps_s.append(pts_s - self._before_s)
        self._before_s = pts_s
        if fps is not None and 0 < fps <= MOST_FPS:
            self._budget.earn(self._source, 1 / fps, now_s)
        elif self._steps_s:
            # The shortest step: where frames are dropped, the others are several periods long.
            self._budget.earn(self._source, min(*self._steps_s, JUMP_S), now_s)
        return pts_s - self._looked_s >= LOOK_WITHIN_S or self._budget.covers_detection(self._source)

    def looked(self, pts_s: float) -> None:
        self._looked_s = pts_s
