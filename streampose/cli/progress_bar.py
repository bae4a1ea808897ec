"""The progress bar on a terminal, drawn by rich. Messages appear above it."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from streampose.cli.progress import BAR_EVERY_S, Now, SourceNow, batch_line, duration_text, lines_of
from streampose.cli.terminal import say_above

NARROW = 60
"""On a terminal of fewer columns, there are only numbers."""


class Bar:
    """A bar for every recording, and a line for every live source."""

    every_s = BAR_EVERY_S

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._has_begun = False

    def show(self, now: Now) -> None:
        """Draw the bars again."""
        if not self._has_begun:
            self._has_begun = True
            self._live.start()
            say_above(self._say)
        self._live.update(self._drawn(now), refresh=True)

    def close(self) -> None:
        """Remove the bars. Safe to call twice."""
        if self._has_begun:
            self._has_begun = False
            say_above(None)
            self._live.stop()

    def _say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def _drawn(self, now: Now) -> Table:
        whole = Table.grid()
        recordings = [source for source in now.sources if not source.is_live]
        if self._console.width < NARROW or (not recordings and now.files_total is None):
            for line in lines_of(now):
                whole.add_row(Text(line, no_wrap=True, overflow="ellipsis"))
            return whole
        bars = Table.grid(padding=(0, 2, 0, 0), expand=True)
        bars.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
        bars.add_column(ratio=1)
        bars.add_column(no_wrap=True, justify="right")
        if now.files_total is not None:
            done = (now.files_done or 0) + now.files_failed
            bars.add_row(Text("all files"), _bar(done, now.files_total), Text(batch_line(now)))
        for source in recordings:
            bars.add_row(Text(source.name), _bar(source.frames, source.total), Text(_numbers(source)))
        whole.add_row(bars)
        others = [source for source in now.sources if source.is_live]
        rest = Now(now.elapsed_s, 0, 0, 0.0, others, notes=now.notes)
        for line in lines_of(rest):
            whole.add_row(Text(line, no_wrap=True, overflow="ellipsis"))
        return whole


def _bar(done: int, total: int | None) -> ProgressBar:
    if not total:
        return ProgressBar(total=None, pulse=True)
    return ProgressBar(total=max(total, done), completed=done)


def _numbers(source: SourceNow) -> str:
    of = f"/{source.total}" if source.total else ""
    left = "" if source.left_s is None else f"  {duration_text(source.left_s)} left"
    return f"{source.frames}{of}  {source.fps:.1f} fps  {source.people} people{left}"
