"""What a run did and how long its steps worked: counts, rates and the share of each step. Knows nothing of the
pipeline.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """What a step is doing at this moment."""

    step: str
    what: str
    since_s: float
    """`time.monotonic()` when it began."""


class Meter:
    """Counts of one run; every method may be called from any thread."""

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
        """Finished frames a second, over the whole run."""
        return self.frames / max(self.elapsed_s, 1e-9)

    @property
    def busy_s(self) -> dict[str, float]:
        """Seconds each step has worked, not counting the time it waited for its neighbours."""
        with self._lock:
            return dict(self._busy_s)

    def start(self) -> None:
        """The run begins now."""
        self._started_s = time.monotonic()

    def finished(self, people: int) -> None:
        """Count one finished frame with so many people."""
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
                del self._now[step]
                self._busy_s[step] = self._busy_s.get(step, 0.0) + time.monotonic() - began_s

    def longest_work(self) -> Work | None:
        """The step that has been at its present work for longest, if any is working."""
        with self._lock:
            return min(self._now.values(), key=lambda work: work.since_s, default=None)
