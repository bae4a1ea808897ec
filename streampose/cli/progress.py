"""Shows how far a run or a batch is: as a bar on a terminal, as lines in a log, or as JSON for programs.

What is shown is a value, `Now`; where it comes from is not known here. `progress_bar` has the bar.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from streampose.cli.terminal import say, say_json

Kind = Literal["auto", "bar", "log", "json", "off"]

LOG_EVERY_S = 10.0
"""Interval between lines in a log,"""
JSON_EVERY_S = 1.0
"""between lines of JSON,"""
BAR_EVERY_S = 0.2
"""and between updates of the bar."""
RATE_OVER_S = 20.0
"""The time left is estimated from the rate of this many last seconds: the first ones, and a slow scene, say little."""


@dataclass(frozen=True, slots=True)
class SourceNow:
    """How far one source is."""

    name: str
    state: str
    """See `SourceMeter.state`."""
    is_live: bool
    frames: int
    """Finished frames. With those of an interrupted run that is continued."""
    total: int | None
    """Of a recording, if it is known."""
    fps: float
    """Frames per second, recently."""
    people: int
    """People in all frames together."""
    left_s: float | None = None
    """Estimated seconds until the end of a recording."""
    fps_in: float | None = None
    """Of a live source: captured frames per second,"""
    dropped: dict[str, int] | None = None
    """dropped frames by cause,"""
    latency_ms: dict[str, float | None] | None = None
    """and latencies from capture to delivery: `p50`, `p95`, `p99`."""


@dataclass(frozen=True, slots=True)
class Now:
    """How far a run or a batch is."""

    elapsed_s: float
    frames: int
    people: int
    fps: float
    """Frames per second of all sources, recently."""
    sources: Sequence[SourceNow]
    """Those that are running."""
    left_s: float | None = None
    """Estimated seconds until the end of a batch."""
    files_done: int | None = None
    """Of a batch: files that are done,"""
    files_failed: int = 0
    """that have failed,"""
    files_total: int | None = None
    """and all of them."""
    notes: Sequence[str] = ()
    """Lines about live streams that are published."""


class RecentRate:
    """The rate of a count that grows, over the last `RATE_OVER_S`."""

    def __init__(self, count: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        """Note the count at the beginning."""
        self._clock = clock
        self._counts = deque([(clock(), count)])

    def per_s(self, count: int) -> float:
        """Note the count, and return how fast it grows per second."""
        now_s = self._clock()
        self._counts.append((now_s, count))
        while now_s - self._counts[0][0] > RATE_OVER_S and len(self._counts) > 2:
            self._counts.popleft()
        since_s, before = self._counts[0]
        return (count - before) / (now_s - since_s) if now_s > since_s else 0.0


def left_s(frames: int, total: int | None, fps: float) -> float | None:
    """Return the estimated seconds until the end; None if they cannot be estimated."""
    if not total or not 0 < frames <= total or fps <= 0:
        return None
    return (total - frames) / fps


class Display(Protocol):
    """Shows how far a run is."""

    every_s: float
    """Interval between two calls of `show`."""

    def show(self, now: Now) -> None:
        """Show it."""

    def close(self) -> None:
        """Show nothing from now on. Safe to call twice."""


class Nothing:
    """Shows nothing."""

    every_s = float("inf")

    def show(self, now: Now) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Log:
    """A line in a log."""

    every_s = LOG_EVERY_S

    def show(self, now: Now) -> None:
        """Write a line that begins with the time."""
        say(f"{_time()} {' | '.join(lines_of(now))}")

    def close(self) -> None:
        """Do nothing."""


class Json:
    """A line of JSON, on standard error."""

    every_s = JSON_EVERY_S

    def show(self, now: Now) -> None:
        """Write a line."""
        say_json({"event": "progress", **values_of(now)})

    def close(self) -> None:
        """Do nothing."""


def display_of(kind: Kind) -> Display:
    """Return the display of a kind. `auto` is a bar on a terminal, otherwise a log."""
    if kind == "auto":
        kind = "bar" if is_terminal() else "log"
    if kind == "bar":
        from streampose.cli.progress_bar import Bar  # takes half a second

        return Bar()
    if kind == "json":
        return Json()
    return Log() if kind == "log" else Nothing()


def is_terminal() -> bool:
    """Return whether standard error is a terminal that can draw a bar."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


def values_of(now: Now) -> dict[str, Any]:
    """Return what is known, as JSON values."""
    values = asdict(now)
    if now.files_total is None:
        for name in ("files_done", "files_failed", "files_total"):
            del values[name]
    for source in values["sources"]:
        for name in ("fps_in", "dropped", "latency_ms") if not source["is_live"] else ("total", "left_s"):
            del source[name]
    return {"time": _time()} | _rounded(values)  # type: ignore[no-any-return]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 2)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def lines_of(now: Now) -> list[str]:
    """Return lines for people."""
    is_alone = len(now.sources) == 1 and now.files_total is None
    lines = [line_of(source, is_alone=is_alone) for source in now.sources]
    if now.files_total is not None:
        lines = [batch_line(now)]  # the files in progress change all the time
    return [*lines, *now.notes]


def batch_line(now: Now) -> str:
    """Return how far a batch is, in a line."""
    done = (now.files_done or 0) + now.files_failed
    failed = f" ({now.files_failed} failed)" if now.files_failed else ""
    line = f"{done}/{now.files_total} files{failed}, {now.frames} frames, {now.fps:.1f} fps, {now.people} people"
    return line + _left(now.left_s)


def line_of(source: SourceNow, *, is_alone: bool = False) -> str:
    """Return how far a source is, in a line. The name of a recording that `is_alone` is left out."""
    if source.is_live:
        return _live_line(source)
    of = f"/{source.total}" if source.total else ""
    line = "" if is_alone else f"{source.name} "
    line += f"{source.frames}{of} frames, {source.fps:.1f} fps, {source.people} people"
    return line + _left(source.left_s)


def _live_line(source: SourceNow) -> str:
    line = f"{source.name} {source.state}, {source.fps_in or 0:.1f} fps in, {source.fps:.1f} out"
    line += f", {source.people} people"
    if source.dropped:
        line += ", dropped " + " ".join(f"{cause} {count}" for cause, count in source.dropped.items())
    latencies = [value for value in (source.latency_ms or {}).values() if value is not None]
    if latencies:
        line += f", latency {'/'.join(f'{value:.0f}' for value in latencies)} ms"
    return line


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f", {duration_text(seconds)} left"


def duration_text(seconds: float) -> str:
    """Return a duration such as `45 s`, `12 min` or `3 h 20 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _time() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
