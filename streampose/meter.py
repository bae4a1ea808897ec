"""Statistics of a run: frames, drops by cause, rates, latencies, and the work in progress. Does not know the pipeline.

Every frame is counted. During a run, captured = delivered + dropped + in progress; after it, nothing is in progress.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

RATE_OVER_S = 5.0
"""Rates in the status line are averages over this many seconds."""
LATENCIES_KEPT = 2000
"""Latency percentiles cover this many recent frames, about a minute at 30 fps. This also limits memory use."""


class Drop:
    """Causes of drops."""

    STALE = "stale"
    """The frame arrived later than the freshness limit allows."""
    BUSY = "busy"
    """A newer frame arrived before the networks were free. For a sink: the sink was too slow."""
    OUTPUT = "output"
    """Drawing, a window or the caller was too slow."""
    DISCONNECTED = "disconnected"
    """A sink had no connection."""
    UNRECORDED = "unrecorded"
    """The run whose poses are drawn again dropped the frame."""
    STOPPED = "stopped"
    """The run ended while the frame was being processed."""


@dataclass(frozen=True, slots=True)
class Work:
    """The work that a step is doing."""

    step: str
    what: str
    since_s: float
    """`time.monotonic()` at its start."""


class Rate:
    """Events per second over the last `RATE_OVER_S`. Not thread-safe."""

    def __init__(self) -> None:
        self._times_s: deque[float] = deque()

    def count(self, now_s: float) -> None:
        """Count an event at `now_s` of `time.monotonic()`."""
        self._times_s.append(now_s)
        self._forget(now_s)

    def per_s(self, now_s: float) -> float:
        """Return the events per second up to `now_s`."""
        self._forget(now_s)
        return len(self._times_s) / RATE_OVER_S

    def _forget(self, now_s: float) -> None:
        while self._times_s and self._times_s[0] < now_s - RATE_OVER_S:
            self._times_s.popleft()


class SourceMeter:
    """Counts of one source. Thread-safe."""

    def __init__(self) -> None:
        self.state = "opening"
        """`opening`, `opening: REASON`, `running` (a recording), `live`, `reconnecting: REASON` or `ended`."""
        self._resumed = 0, 0
        self._captured = 0
        self._delivered = 0
        self._people = 0
        self._reconnects = 0
        self._dropped: dict[str, int] = {}
        self._latencies_s: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._in, self._out = Rate(), Rate()
        self._first_s: float | None = None
        self._last_s = 0.0
        self._lock = threading.Lock()

    @property
    def under_way(self) -> int:
        """Captured frames that are neither delivered nor dropped yet."""
        with self._lock:
            return self._captured - self._delivered - sum(self._dropped.values())

    @property
    def resumed(self) -> int:
        """Frames of earlier runs, which this one continues. They do not count as captured or delivered."""
        return self._resumed[0]

    def resume(self, frames: int, people: int) -> None:
        """Note the frames of earlier runs, and the people in them."""
        self._resumed = frames, people

    def captured(self) -> None:
        """Count a frame that was read."""
        with self._lock:
            now_s = self._now()
            self._captured += 1
            self._in.count(now_s)

    def dropped(self, cause: str, count: int = 1) -> None:
        """Count captured frames that will not be delivered, by `cause`, one of `Drop`."""
        if count:
            with self._lock:
                self._dropped[cause] = self._dropped.get(cause, 0) + count

    def delivered(self, people: int, captured_at_s: float) -> None:
        """Count a delivered frame with its people. `captured_at_s` is its capture time by `time.monotonic()`."""
        with self._lock:
            now_s = self._now()
            self._delivered += 1
            self._people += people
            self._latencies_s.append(now_s - captured_at_s)
            self._out.count(now_s)

    def reconnected(self) -> None:
        """Count a reconnection."""
        with self._lock:
            self._reconnects += 1

    def now(self) -> dict[str, Any]:
        """Return the values for a status line: `state`, current `fps_in` and `fps_out`, and `people` so far."""
        with self._lock:
            now_s = time.monotonic()
            return {
                "state": self.state,
                "fps_in": self._in.per_s(now_s),
                "fps_out": self._out.per_s(now_s),
                "people": self._people,
            }

    def stats(self) -> dict[str, Any]:
        """Return the counts of the whole run as JSON values. Rates cover the time from the first to the last event."""
        with self._lock:
            elapsed_s = max(self._last_s - (self._first_s or 0.0), 1e-9) if self._captured > 1 else float("inf")
            p50, p95, p99 = (
                (float(value) * 1000 for value in np.percentile(self._latencies_s, [50, 95, 99]))
                if self._latencies_s
                else (None, None, None)
            )
            return {
                "resumed": self._resumed[0],
                "resumed_people": self._resumed[1],
                "captured": self._captured,
                "delivered": self._delivered,
                "dropped": dict(self._dropped),
                "reconnects": self._reconnects,
                "fps_in": round(self._captured / elapsed_s, 2),
                "fps_out": round(self._delivered / elapsed_s, 2),
                "latency_ms": {
                    name: None if value is None else round(value, 1)
                    for name, value in (("p50", p50), ("p95", p95), ("p99", p99))
                },
                "people": self._people,
                "state": self.state,
            }

    def _now(self) -> float:
        self._last_s = time.monotonic()
        if self._first_s is None:
            self._first_s = self._last_s
        return self._last_s


class Meter:
    """Counts and current work of a run. Thread-safe."""

    def __init__(self) -> None:
        self.frames = 0
        """Finished frames."""
        self.people = 0
        """People in them."""
        self._started_s = time.monotonic()
        self._busy_s: dict[str, float] = {}
        self._now: dict[str, Work] = {}
        self._lock = threading.Lock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started_s

    @property
    def fps(self) -> float:
        """Finished frames per second, over the whole run."""
        return self.frames / max(self.elapsed_s, 1e-9)

    @property
    def busy_s(self) -> dict[str, float]:
        """Seconds that each step has worked, without the time spent waiting for other steps."""
        with self._lock:
            return dict(self._busy_s)

    def start(self) -> None:
        """Start the clock."""
        self._started_s = time.monotonic()

    def finished(self, people: int) -> None:
        """Count a finished frame with its people."""
        with self._lock:
            self.frames += 1
            self.people += people

    @contextmanager
    def working(self, step: str, what: str) -> Iterator[None]:
        """Time the block as work of `step` on `what`."""
        began_s = time.monotonic()
        with self._lock:
            self._now[step] = Work(step, what, began_s)
        try:
            yield
        finally:
            with self._lock:
                if self._now.pop(step, None) is not None:
                    self._busy_s[step] = self._busy_s.get(step, 0.0) + time.monotonic() - began_s

    def forget(self, step: str) -> None:
        """Forget the work of a step that has left the run, or that is waited for no longer."""
        with self._lock:
            self._now.pop(step, None)
            self._busy_s.pop(step, None)

    def longest_work(self, resumed_s: Mapping[str, float] = MappingProxyType({})) -> Work | None:
        """Return the work in progress that has taken longest so far; None if no step is working.

        `resumed_s` gives, for each step that waits on purpose, the time when it last stopped waiting, or `inf` while it
        waits. Only the time since then counts as work.
        """
        with self._lock:
            now = list(self._now.values())
        works = [replace(work, since_s=max(work.since_s, resumed_s.get(work.step, 0.0))) for work in now]
        return min(works, key=lambda work: work.since_s, default=None)
