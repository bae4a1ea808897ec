"""`streampose run`: processes sources and writes the results to sinks."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streampose.api import stream
from streampose.cli.config import read_config
from streampose.cli.flags import add_flags
from streampose.cli.json_file import check_json, write_json
from streampose.cli.process import INTERRUPTED, interrupts, set_up_process
from streampose.cli.status import run_to_end
from streampose.cli.terminal import say, say_as_json, say_error
from streampose.errors import SinkError, UsageError
from streampose.inputs import Input, parse_input
from streampose.networks.hub import hide_bars
from streampose.options import options_of
from streampose.sinks.target import name_of

if TYPE_CHECKING:
    from streampose.pipeline.pipeline import Pipeline

EXAMPLES = """\
examples:
  streampose run demo --to out/demo.mp4 --to out/poses.jsonl
  streampose run clip.mp4 --to window
  streampose run clip.mp4 --start 10s --end 1m20s --to part.mp4 --to part.jsonl
  streampose run 0 --to window
  streampose run cam1=rtsp://host/1 cam2=rtsp://host/2 --to 'rtmp://host/live/{source}' --to '{source}.jsonl'
  streampose run photos/ --to drawn/ --to photos.jsonl --boxes --labels
  streampose run clip.mp4 --to out.mkv --pose usyd-community/vitpose-plus-base --detector PekingU/rtdetr_r50vd_coco_o365
"""
DURATIONS = "T is a duration: a number of seconds, or a number with a unit, such as 30s, 1m20s or 1h."
SOURCES = (
    "a video file, a still, a folder or glob pattern of stills, demo (the bundled clip), a camera (0, /dev/video2), "
    "rtsp://, rtmp:// or http(s):// (including HLS), or - for a video on standard input; repeatable; NAME=SOURCE gives "
    "a source a name: cam1=rtsp://..."
)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    run_parser = commands.add_parser(
        "run",
        help="find people and their poses in a source",
        description="Find people and their poses in a source, frame by frame.",
        epilog=f"{DURATIONS}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run_parser.set_defaults(command=run)
    run_parser.add_argument("source", metavar="SOURCE", nargs="*", help=SOURCES)
    run_parser.add_argument(
        "--config",
        metavar="FILE",
        default=None,
        help="read sources and options from a TOML file; options on the command line override it",
    )
    add_flags(run_parser, "run")
    return run_parser


def run(arguments: argparse.Namespace) -> int:
    """Run the pipeline to its end. Return the exit code."""
    inputs, values = _asked_for(arguments)
    stats, quiet = values.pop("stats", None), values.pop("quiet", False)
    progress = values.pop("progress", "auto")
    if stats is not None:
        check_json(stats, [str(one.source) for one in inputs], overwrite=True)
    say_as_json(progress == "json" and not quiet)
    set_up_process()
    if quiet:
        hide_bars()
    pipeline = stream(inputs, **values, results_wanted=False)
    try:
        with pipeline, interrupts(pipeline) as interrupted:
            if stats is not None:
                _check_no_sink(stats, inputs, values.get("to") or (), pipeline)
            with nullcontext() if stats is None else _stats_written(stats, pipeline):
                run_to_end(pipeline, progress, shown=not quiet)
    finally:
        if pipeline.is_half_done and not quiet:
            say("half done: repeat the command with --resume to continue")
    return INTERRUPTED if interrupted() else 0


def _asked_for(arguments: argparse.Namespace) -> tuple[list[Input], dict[str, Any]]:
    """Return the sources and the other options. Options on the command line override those in the file."""
    given = vars(arguments)
    inputs = [Input(source, name) for name, source in map(parse_input, arguments.source)]
    values: dict[str, Any] = {}
    if arguments.config is not None:
        if inputs:
            raise UsageError(
                "SOURCE and --config cannot be combined: name the sources either on the command line or in the file"
            )
        inputs, values = read_config(arguments.config)
    if not inputs:
        raise UsageError("no SOURCE given: name one, such as demo, or use --config FILE")
    of_sources: dict[str, Any] = {}
    for option in options_of("run"):
        if option.name in given:
            where = of_sources if option.of_source else values
            where[option.name] = given[option.name]
    inputs = [replace(one, **of_sources) for one in inputs]
    if not values.get("to"):
        if all(one.to is None for one in inputs):
            values["to"] = ["window"]
        nowhere = [one.name for one in inputs if one.to is None]
        if nowhere and "to" not in values:
            raise UsageError(f"[sources.{nowhere[0]}] names no sink: add to = [...] to it, or a `to` for all sources")
    return inputs, values


def _check_no_sink(stats: str, inputs: Sequence[Input], to: Sequence[Any], pipeline: Pipeline) -> None:
    """Raise `UsageError` if a sink writes to the file for `--stats`."""
    from streampose.sinks.open import fill_in

    for one, source in zip(inputs, pipeline.sources, strict=True):
        targets = [fill_in(str(target), source.info.source_id) for target in (to if one.to is None else one.to)]
        if os.path.realpath(stats) in map(os.path.realpath, targets):
            raise UsageError(f"{name_of(stats)}: a sink writes there; choose another file for --stats")


@contextmanager
def _stats_written(file: str, pipeline: Pipeline) -> Iterator[None]:
    """Write the statistics after the block, even if it fails. A failure to write them does not hide its error."""
    try:
        yield
    except BaseException:
        try:
            write_json(file, pipeline.stats())
        except SinkError as error:
            say_error(error)
        raise
    write_json(file, pipeline.stats())
