"""Prints the status line of a run and the summary at its end."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from streampose.cli.terminal import CLEAR, say
from streampose.networks.known import DEFAULT_QUALITY, PAIRS

if TYPE_CHECKING:
    from streampose.pipeline.parts import FrameSource
    from streampose.pipeline.run import Run

TERMINAL_EVERY_S = 0.2
"""Interval between updates of the status line on a terminal."""
LOG_EVERY_S = 10.0
"""Interval between status lines if standard error is not a terminal."""


class Status:
    """The status line of a run and the summary at its end."""

    def __init__(self, pipeline: Run, *, shown: bool) -> None:
        self._pipeline = pipeline
        self._shown = shown
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._every_s = TERMINAL_EVERY_S if self._terminal else LOG_EVERY_S
        self._last_s = time.monotonic()

    def update(self) -> None:
        """Print the status if it is due."""
        now_s = time.monotonic()
        if not self._shown or now_s - self._last_s < self._every_s:
            return
        self._last_s = now_s
        lines = self._lines()
        if not self._terminal:
            say(" | ".join(lines))
            return
        columns = 80
        with suppress(OSError, ValueError):
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
        # Cut long lines: a wrapped line would not be cleared completely by the next update.
        drawn = "\n".join(line[: columns - 1] for line in lines)
        say(f"{CLEAR}{drawn}" + (f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else "") + "\r", end="")

    def _lines(self) -> list[str]:
        sources = self._pipeline.sources
        if len(sources) == 1 and not sources[0].info.is_live:
            return [self._recorded_line(sources[0])]
        return [*map(_live_line, sources), *self._publishing_lines()]

    def _distinct_people(self) -> str:
        sources = self._pipeline.stats()["sources"].values()
        tracks = [source["tracks"] for source in sources if "tracks" in source]
        return f"{sum(track['people'] for track in tracks)}, " if tracks else ""

    def _publishing_lines(self) -> list[str]:
        lines = []
        for name, counts in self._pipeline.stats()["sinks"].items():
            if "state" in counts:
                dropped = sum(counts["dropped"].values())
                lines.append(f"{name} {counts['state']}" + (f", dropped {dropped}" if dropped else ""))
        return lines

    def _recorded_line(self, source: FrameSource) -> str:
        meter, total = self._pipeline.meter, source.info.frame_count
        of = f"/{total}" if total else ""
        line = f"{meter.frames}{of} frames, {meter.fps:.1f} fps, {meter.people} people"
        if total and 0 < meter.frames <= total:
            line += f", {(total - meter.frames) / meter.fps:.0f} s left"
        return line

    def end(self) -> None:
        """Print the summary."""
        if not self._shown:
            return
        if self._terminal:
            say(CLEAR, end="")
        meter = self._pipeline.meter
        if not meter.frames:
            return
        say(f"frames   {meter.frames} in {meter.elapsed_s:.1f} s, {meter.fps:.1f} fps")
        say(f"people   {self._distinct_people()}{meter.people / max(meter.frames, 1):.1f} per frame")
        for number, line in enumerate(self._pipeline.summaries()):
            say(f"{'' if number else 'written':9}{line}")
        if self._terminal and self._pipeline.models == PAIRS[DEFAULT_QUALITY]._asdict():
            say("networks bundled, small; for published accuracy: --quality balanced")


def run_to_end(run: Run, *, shown: bool) -> None:
    """Run it, with a status line and a summary if they are to be shown."""
    status = Status(run, shown=shown)
    try:
        for _ in run.ticks():
            status.update()
    finally:
        status.end()


def _live_line(source: FrameSource) -> str:
    now, stats = source.meter.now(), source.meter.stats()
    line = f"{source.info.source_id} {now['state']}, {now['fps_in']:.1f} fps in, {now['fps_out']:.1f} out"
    line += f", {now['people']} people"
    if stats["dropped"]:
        line += ", dropped " + " ".join(f"{cause} {count}" for cause, count in stats["dropped"].items())
    if stats["latency_ms"]["p50"] is not None:
        line += ", latency {p50:.0f}/{p95:.0f}/{p99:.0f} ms".format(**stats["latency_ms"])
    return line
