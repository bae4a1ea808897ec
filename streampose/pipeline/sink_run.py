"""One sink in a run: its channel and its thread. A failure affects no other sink."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from streampose.channel import Channel, Closed, Empty, Finished
from streampose.errors import SinkError, StreamposeError, wrapped
from streampose.frames import Result, RunInfo
from streampose.meter import Drop, Meter
from streampose.pipeline.savepoints import Savepoint
from streampose.sinks.sink import Sink

log = logging.getLogger("streampose")


class Marked(NamedTuple):
    """A savepoint in the channel of a sink."""

    savepoint: Savepoint
    number: int
    """Of the sink, among those that take part."""


class SinkRun:
    """One sink in a run. It takes no more frames after a failure or after the user quits. Keeps the first error."""

    def __init__(
        self,
        sink: Sink,
        run_info: Callable[[], RunInfo],
        meter: Meter,
        step: str,
        *,
        name: str,
        is_alone: bool,
        depth: int,
        is_live: bool,
    ) -> None:
        """Take ownership of `sink`.

        Args:
            run_info: returns the description of the run for `Sink.open`.
            step: name of the sink's thread and work.
            name: name of the sink in statistics.
            is_alone: whether its source has no other sink.
            depth: maximum frames that wait for the sink.
            is_live: drop the oldest frame when the channel is full, and open the sink with the first frame.
        """
        self.sink = sink
        self.step = step
        self.name = name
        self.error: StreamposeError | None = None
        self.quit = False
        self.gone = False
        self._written = 0
        self._dropped = 0
        self.feed: Channel[Result | Marked] = Channel(depth, on_drop=self._drop if is_live else None)
        self._run_info = run_info
        self._opens_late = is_live
        self._opened = False
        self._meter = meter
        self._is_alone = is_alone

    def run(self) -> None:
        """Write frames until the feed ends. Runs in the sink's thread."""
        try:
            self.open()
            while not self.gone:
                try:
                    self._take(self.feed.take(self.sink.idle_every_s))
                except Empty:
                    self.idle()
        except Finished:
            pass
        except BaseException as error:  # for example SystemExit, which must not end this thread silently
            self._fail("running", error)
        finally:
            self.feed.close()
            self.close()

    def put(self, value: Result | Marked) -> None:
        """Pass a result or a savepoint to the sink's thread. Discard it if the sink has ended."""
        with suppress(Closed):
            self.feed.put(value)

    def open(self) -> None:
        """Open the sink. If its source is live, `write` opens it with the first frame, which tells the size."""
        if not self._opens_late:
            self._open()

    def _open(self) -> None:
        self._opened = True
        self._attempt("opening", lambda: self.sink.open(self._run_info()))

    def _take(self, value: Result | Marked) -> None:
        if isinstance(value, Result):
            self.write(value)
        elif self._opened and not self.gone:
            self._attempt("savepoint", lambda: value.savepoint.reached(value.number, self.sink.savepoint()))

    def write(self, result: Result) -> None:
        if not self._opened:
            self._open()
        if self.gone:
            return
        self._obey(self._attempt(f"frame {result.frame.index}", lambda: self.sink.write(result)))
        if self.error is None:
            self._written += 1

    def idle(self) -> None:
        if self._opened and not self.gone:
            self._obey(self._attempt("idle", self.sink.idle))

    def close(self) -> None:
        self._attempt("closing", self.sink.close)

    def abandon(self, error: StreamposeError) -> None:
        """Expect nothing more of the sink, which hangs. Called from another thread than the sink's."""
        self.error = self.error or error
        self.gone = True
        self.feed.close()

    def stats(self) -> dict[str, Any]:
        """Return the counts and the status of the sink. `error` is None if the sink has not failed."""
        status = self.sink.status()
        own = {key: value for key, value in status.items() if key != "dropped"}
        drops = {Drop.BUSY: self._dropped, Drop.DISCONNECTED: status.get("dropped", 0)}
        return {
            "written": self._written,
            "dropped": {cause: count for cause, count in drops.items() if count},
            "error": None if self.error is None else str(self.error),
            **own,
        }

    def _obey(self, wanted: bool | None) -> None:
        if wanted is False:
            self.gone = True
            self.quit = self.sink.quits_run

    def _drop(self, _value: Result | Marked) -> None:
        self._dropped += 1

    def _attempt(self, what: str, call: Callable[[], bool | None]) -> bool | None:
        try:
            with self._meter.working(self.step, f"{self.sink.text} ({what})"):
                return call()
        except Exception as error:
            self._fail(what, error)
            return None

    def _fail(self, what: str, error: BaseException) -> None:
        self.gone = True
        if self.error is None:
            self.error = wrapped(SinkError, f"{self.sink.text}: {what} failed", error)
            if not self._is_alone:
                report(self.error, "the other sinks continue")


def told_apart(sinks: Sequence[Sink]) -> list[str]:
    """Return the texts of the sinks, with a number appended to repeated texts."""
    seen: Counter[str] = Counter()
    names = []
    for sink in sinks:
        seen[sink.text] += 1
        names.append(sink.text if seen[sink.text] == 1 else f"{sink.text} {seen[sink.text]}")
    return names


def report(error: StreamposeError, consequence: str) -> None:
    """Log an error now. It is raised at the end of the run."""
    log.error("%s (%s)", error, consequence)
    error.is_reported = True
