"""Detects a step that makes no progress, during a run and while its threads are joined."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from streampose.errors import StalledError
from streampose.meter import Meter, Work
from streampose.pipeline.sink_run import SinkRun

LOOK_EVERY_S = 0.1
"""Interval at which the waiting caller's thread serves windows and checks for stalls."""


class Stalls:
    """Ends a run when a step makes no progress."""

    def __init__(
        self,
        meter: Meter,
        runs: Callable[[], Iterable[SinkRun]],
        stop_asked: threading.Event,
        stall_after_s: float,
        join_within_s: float,
    ) -> None:
        """Watch the work that `meter` records.

        Args:
            runs: returns the sinks. Some of them wait on purpose; see `Sink.resumed_at_s`.
            stop_asked: set when the run must end. From then on, the shorter of both limits applies.
            stall_after_s: maximum seconds for one piece of work.
            join_within_s: maximum seconds for a step to end after the stop.
        """
        self._meter = meter
        self._runs = runs
        self._stop_asked = stop_asked
        self._stall_after_s = stall_after_s
        self._join_within_s = join_within_s

    def check(self) -> None:
        """Raise `StalledError` if one piece of work has taken too long."""
        if (stalled := self.stalled()) is not None:
            raise stalled[1]

    def stalled(self) -> tuple[Work, StalledError] | None:
        """Return the work that has taken too long, with the error that says so; None if none has."""
        limit_s = self._stall_after_s
        if self._stop_asked.is_set():
            limit_s = min(limit_s, self._join_within_s)
        work = self._meter.longest_work({run.step: run.sink.resumed_at_s for run in self._runs()})
        if work is None or time.monotonic() - work.since_s <= limit_s:
            return None
        return work, StalledError(f"{work.step} made no progress on {work.what} for {limit_s:g} s: aborted")

    def join(self, threads: Sequence[threading.Thread]) -> StalledError | None:
        """Wait until all threads have ended. Return an error if one does not end in time."""
        began_s = time.monotonic()
        try:
            while alive := [thread.name for thread in threads if thread.is_alive()]:
                self.check()
                if self._stop_asked.is_set() and time.monotonic() - began_s > self._join_within_s:
                    raise StalledError(f"{alive[0]} did not end within {self._join_within_s:g} s: aborted")
                for thread in threads:
                    thread.join(LOOK_EVERY_S)
        except StalledError as error:
            return error
        return None
