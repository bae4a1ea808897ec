"""Shows the progress of a run, and the summary at its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from streampose.cli.progress import (
    Display,
    Kind,
    Now,
    RecentRate,
    SourceNow,
    display_of,
    is_terminal,
    left_s,
    values_of,
)
from streampose.cli.terminal import say, say_json, say_what_waits
from streampose.networks.known import DEFAULT_QUALITY, PAIRS

if TYPE_CHECKING:
    from streampose.pipeline.parts import FrameSource
    from streampose.pipeline.run import Run


class Status:
    """The progress of a run, and the summary at its end."""

    def __init__(self, run: Run, kind: Kind, *, shown: bool) -> None:
        """Show nothing yet; with `shown` off, nothing at all."""
        self._run = run
        self._shown = shown
        self._is_json = kind == "json" and shown
        self._display: Display = display_of(kind if shown else "off")
        self._rate = RecentRate()
        self._rates = {source.info.source_id: RecentRate(source.meter.resumed) for source in run.sources}
        self._last_s = time.monotonic()

    def update(self) -> None:
        """Show the progress if it is due."""
        say_what_waits()
        now_s = time.monotonic()
        if now_s - self._last_s >= self._display.every_s:
            self._last_s = now_s
            self._display.show(self._now())

    def end(self) -> None:
        """Show the summary."""
        self._display.close()
        say_what_waits()
        if self._is_json:
            say_json({"event": "end", **values_of(self._now()), "outputs": self._run.summaries()})
        elif self._shown:
            self._summary()

    def _now(self) -> Now:
        meter = self._run.meter
        sources = [self._source(source) for source in self._run.sources]
        notes = self._publishing_lines()
        fps = self._rate.per_s(meter.frames)
        return Now(meter.elapsed_s, meter.frames, meter.people, fps, sources, notes=notes)

    def _source(self, source: FrameSource) -> SourceNow:
        info, stats, now = source.info, source.meter.stats(), source.meter.now()
        frames = stats["delivered"] + stats["resumed"]
        if info.is_live:
            return SourceNow(
                info.source_id,
                now["state"],
                True,
                frames,
                None,
                now["fps_out"],
                stats["people"],
                fps_in=now["fps_in"],
                dropped=stats["dropped"],
                latency_ms=stats["latency_ms"],
            )
        fps, total = self._rates[info.source_id].per_s(frames), info.frame_count
        left = left_s(frames, total, fps)
        return SourceNow(info.source_id, now["state"], False, frames, total, fps, stats["people"], left)

    def _publishing_lines(self) -> list[str]:
        lines = []
        for name, counts in self._run.stats()["sinks"].items():
            if "state" in counts:
                dropped = sum(counts["dropped"].values())
                lines.append(f"{name} {counts['state']}" + (f", dropped {dropped}" if dropped else ""))
        return lines

    def _summary(self) -> None:
        meter = self._run.meter
        if not meter.frames:
            return
        resumed = sum(source.meter.resumed for source in self._run.sources)
        after = f", after {resumed} of an earlier run" if resumed else ""
        say(f"frames   {meter.frames} in {meter.elapsed_s:.1f} s, {meter.fps:.1f} fps{after}")
        say(f"people   {self._distinct_people()}{meter.people / max(meter.frames, 1):.1f} per frame")
        for number, line in enumerate(self._run.summaries()):
            say(f"{'' if number else 'written':9}{line}")
        if is_terminal() and self._run.models == PAIRS[DEFAULT_QUALITY]._asdict():
            say("networks bundled, small; for published accuracy: --quality balanced")

    def _distinct_people(self) -> str:
        sources: list[dict[str, Any]] = list(self._run.stats()["sources"].values())
        tracks = [source["tracks"] for source in sources if "tracks" in source]
        return f"{sum(track['people'] for track in tracks)}, " if tracks else ""


def run_to_end(run: Run, kind: Kind, *, shown: bool) -> None:
    """Run it. With `shown`, show its progress and a summary."""
    status = Status(run, kind, shown=shown)
    try:
        for _ in run.ticks():
            status.update()
    finally:
        status.end()
