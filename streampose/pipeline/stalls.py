"""A step that does not come back: found while the run goes on, and when its threads are joined."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from streampose.errors import StalledError
from streampose.meter import Meter
from streampose.pipeline.sink_run import SinkRun

LOOK_EVERY_S = 0.1
"""How often the caller's thread, while it waits, looks after its windows and for a step that does not come back."""


class Stalls:
    """What ends a run when a step makes no progress."""

    def __init__(
        self,
        meter: Meter,
        runs: Sequence[SinkRun],
        stop_asked: threading.Event,
        stall_after_s: float,
        join_within_s: float,
    ) -> None:
        """Watch the work that `meter` is told of.

        Args:
            runs: sinks, some of which wait on purpose; see `Sink.resumed_at_s`.
            stop_asked: set when the run is told to end; from then on the shorter of both limits holds.
            stall_after_s: one piece of work may take so long.
            join_within_s: a step that is told to end may take so long.
        """
        self._meter = meter
        self._runs = runs
        self._stop_asked = stop_asked
        self._stall_after_s = stall_after_s
        self._join_within_s = join_within_s

    def check(self) -> None:
        """Raise `StalledError` when a step has worked on one thing for too long."""
        limit_s = self._stall_after_s
        if self._stop_asked.is_set():
            limit_s = min(limit_s, self._join_within_s)
        work = self._meter.longest_work({run.step: run.sink.resumed_at_s for run in self._runs})
        if work is not None and time.monotonic() - work.since_s > limit_s:
            raise StalledError(f"{work.step} has not come back from {work.what} for {limit_s:g} s: gave it up")

    def join(self, threads: Sequence[threading.Thread]) -> StalledError | None:
        """Wait until all threads have ended; return the error of one that does not."""
        began_s = time.monotonic()
        try:
            while alive := [thread.name for thread in threads if thread.is_alive()]:
                self.check()
                if self._stop_asked.is_set() and time.monotonic() - began_s > self._join_within_s:
                    raise StalledError(f"{alive[0]} has not ended within {self._join_within_s:g} s: gave it up")
                for thread in threads:
                    thread.join(LOOK_EVERY_S)
        except StalledError as error:
            return error
        return None
