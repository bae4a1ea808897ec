"""`streampose batch`: processes many recordings, and goes on where an earlier start ended."""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from streampose.cli.flags import add_flags
from streampose.cli.process import INTERRUPTED, interrupts, set_up_process
from streampose.cli.progress import Kind, Now, RecentRate, SourceNow, display_of, left_s, values_of
from streampose.cli.terminal import print_data, say, say_as_json, say_error, say_json, say_what_waits
from streampose.errors import SinkError, UsageError
from streampose.networks.hub import hide_bars
from streampose.options import options_of, with_flags
from streampose.sinks.target import name_of

if TYPE_CHECKING:
    from streampose.archive.batch import Batch
    from streampose.archive.report import Running, Summary

EXAMPLES = """\
examples:
  streampose batch clips/ --out poses/
  streampose batch clips/ --out poses/ --to '{name}.parquet' --retry-failed
  streampose batch 'season/**/cam1_*.mp4' --out poses/ --dry-run
  find /archive -name '*.mkv' | streampose batch - --out poses/ --to '{name}.jsonl'
"""
MOST_FAILURES = 20
"""Maximum failed files in the summary; `batch.json` has all of them."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "batch",
        help="find people and their poses in many recordings",
        description="Find people and their poses in many recordings, in one process.\n"
        "The same command goes on where an earlier start ended, and does nothing if all files are done.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="a folder, which is searched for video files with its subfolders; a glob pattern in quotes; a text file "
        "with a path per line, or - for such a list on standard input; or several video files",
    )
    add_flags(parser, "batch")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Process the recordings that are not done. Return the exit code."""
    given = vars(arguments)
    values = {option.name: given[option.name] for option in options_of("batch") if option.name in given}
    if "out" not in values:
        raise UsageError("no output folder given: name one with `out`")
    quiet = values.get("quiet", False)
    from streampose.archive.batch import Batch  # imports OpenCV, which may be missing

    batch = Batch(arguments.inputs, values)
    if values.get("dry_run"):
        for line in batch.would_do():
            print_data(line)
        return 0
    if quiet:
        hide_bars()
    kind = values.get("progress", "auto")
    say_as_json(kind == "json" and not quiet)
    set_up_process(threads_change=True)
    with batch:
        batch.open()
        batch.load(partial(set_up_process, threads_change=True))
        progress = _Progress(batch, kind, shown=not quiet)
        has_failed = True
        try:
            with interrupts(batch) as interrupted:
                for _ in batch.ticks():
                    progress.update()
            has_failed = False
        finally:
            summary = _report(batch, hides_errors=has_failed)
            progress.end(summary)
    code = INTERRUPTED if interrupted() else 1 if summary.failed else 0
    if batch.leaves_threads:
        # A thread that hangs is still running. A normal exit of Python would make its libraries abort the process.
        sys.stdout.flush()
        os._exit(code)
    return code


class _Progress:
    """Shows how far a batch is."""

    def __init__(self, batch: Batch, kind: Kind, *, shown: bool) -> None:
        """Show nothing yet; with `shown` off, nothing at all."""
        self._batch = batch
        self._shown = shown
        self._is_json = kind == "json" and shown
        self._display = display_of(kind if shown else "off")
        self._rate = RecentRate()
        self._shown_s = time.monotonic()

    def update(self) -> None:
        """Show the progress if it is due."""
        say_what_waits()
        now_s = time.monotonic()
        if now_s - self._shown_s >= self._display.every_s:
            self._shown_s = now_s
            self._display.show(self._now())

    def end(self, summary: Summary) -> None:
        """Show the summary."""
        self._display.close()
        say_what_waits()
        report = name_of(self._batch.report_path)
        if self._is_json:
            say_json({"event": "end", **values_of(self._now()), "outputs": [report]})
        elif self._shown:
            for line in _table(summary, report):
                say(line)

    def _now(self) -> Now:
        now = self._batch.snapshot()
        return Now(
            now.seconds,
            now.frames,
            now.people,
            self._rate.per_s(now.frames),
            [_source(one) for one in now.running],
            left_s=now.left_s,
            files_done=now.files_done,
            files_failed=now.files_failed,
            files_total=now.files_total,
        )


def _source(one: Running) -> SourceNow:
    left = left_s(one.frames, one.total, one.fps)
    return SourceNow(one.name, "running", False, one.frames, one.total, one.fps, one.people, left)


def _report(batch: Batch, *, hides_errors: bool) -> Summary:
    """Write `batch.json`. With `hides_errors`, a failure does not hide the error before it."""
    try:
        batch.report()
    except SinkError as error:
        if not hides_errors:
            raise
        say_error(error)
    return batch.summary()


def _table(summary: Summary, report: str) -> list[str]:
    before = summary.done - summary.done_now
    earlier = f" ({before} of them before)" if before else ""
    lines = [f"files    {summary.done} done{earlier}, {summary.failed} failed, {summary.left} left"]
    if summary.frames:
        lines.append(f"frames   {summary.frames} in {summary.seconds:.1f} s, {summary.fps:.1f} fps")
        lines.append(f"people   {summary.people / summary.frames:.1f} per frame")
    lines.append(f"written  {report}")
    for number, (name, reason) in enumerate(summary.failures[:MOST_FAILURES]):
        told = reason if reason.startswith(name) else f"{name}: {reason}"
        lines.append(f"{'' if number else 'failed':9}{name_of(with_flags(told))}")
    more = len(summary.failures) - MOST_FAILURES
    return lines + ([f"{'':9}and {more} more, see {report}"] if more > 0 else [])
