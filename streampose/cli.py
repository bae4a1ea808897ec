"""Reads argv, runs, and speaks to the person at the terminal: flags, exit codes, signals and one-line errors live here.

Standard output is for data, standard error for people. Exit codes: 0 ended or quit, 1 a known failure in one line,
2 wrong usage, 130 interrupted after a clean finish.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from streampose._version import __version__
from streampose.api import DEFAULT_KEYPOINT_THRESHOLD, stream
from streampose.errors import StreamposeError, describe
from streampose.models import DEFAULT_DETECTOR, DEFAULT_POSE, models_table

if TYPE_CHECKING:
    from streampose.pipeline import Pipeline

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 + SIGINT, as shells report it."""
TERMINAL_EVERY_S = 0.2
"""How often the status line is redrawn on a terminal."""
LOG_EVERY_S = 10.0
"""How often a status line is written where there is no terminal."""

DESCRIPTION = "Live or recorded video to human pose, in real time, with ViTPose."
EXAMPLES = """\
examples:
  streampose run demo --to out/demo.mp4 --to out/poses.jsonl
  streampose run clip.mp4 --to window
  streampose run photos/ --to drawn/ --to photos.jsonl --boxes --labels
  streampose run clip.mp4 --to out.mkv --pose usyd-community/vitpose-plus-base --detector PekingU/rtdetr_r50vd_coco_o365
"""
SOURCES = "a video file, a picture, a folder or glob of pictures, or demo (the bundled clip)"
SINKS = (
    "where results go; may be given several times: a video file (.mp4, .mkv, .mov), keypoints as JSON Lines (.jsonl, "
    "- for standard output), a folder for pictures (drawn/), a picture (.jpg, .png) for a picture, window, null "
    "(default: window)"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="streampose: %(levelname)s: %(message)s", level=logging.WARNING)
    logging.addLevelName(logging.WARNING, "warning")
    logging.addLevelName(logging.ERROR, "error")
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except StreamposeError as error:
        if arguments.debug:
            raise
        _say(f"streampose: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        if arguments.debug:
            raise
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our standard output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if arguments.debug:
            raise
        _say(f"streampose: a defect in streampose: {type(error).__name__}: {describe(error)}; --debug shows where")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streampose",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"streampose {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="find the people of a source and their poses",
        description="Find the people of a source and their poses, frame after frame.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.set_defaults(command=_run)
    run.add_argument("source", metavar="SOURCE", help=SOURCES)
    run.add_argument("--to", metavar="SINK", action="append", help=SINKS)
    run.add_argument("--overwrite", action="store_true", help="let sinks replace existing files")

    networks = run.add_argument_group("networks (a bundled name, a hub id, or a folder in hub layout; see: models)")
    networks.add_argument("--pose", metavar="NAME", default=DEFAULT_POSE, help="ViTPose checkpoint (%(default)s)")
    networks.add_argument("--detector", metavar="NAME", default=DEFAULT_DETECTOR, help="detector (%(default)s)")
    networks.add_argument(
        "--classes", metavar="NAME,...", type=_names, help="the detector's classes to take (default: people)"
    )
    networks.add_argument(
        "--dataset-index", metavar="N", type=int, help="expert of a mixture-of-experts (plus) checkpoint (default: 0)"
    )
    networks.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu, cuda, cuda:1, mps, xpu")
    networks.add_argument("--dtype", metavar="NAME", default="auto", help="auto, float32, bfloat16, float16")
    networks.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read weights that are no safetensors: such files can run code when they are loaded",
    )

    results = run.add_argument_group("people and keypoints")
    results.add_argument(
        "--box-threshold", metavar="P", type=_share, help="least score of a box, 0 to 1 (default: the detector's)"
    )
    results.add_argument("--max-people", metavar="N", type=_count, help="most people a frame, best first")
    results.add_argument(
        "--flip-test", action="store_true", help="average with the mirrored crops: a little better, twice the work"
    )
    results.add_argument(
        "--blur", choices=("hf", "paper"), help="Gaussian before the sub-pixel step (default: the better one)"
    )
    results.add_argument("--detect-batch", metavar="N", type=_count, help="most frames a detector call")
    results.add_argument("--pose-batch", metavar="N", type=_count, help="most people a pose call")

    picture = run.add_argument_group("picture")
    picture.add_argument("--style", choices=("lines", "weighted"), default="lines", help="default: %(default)s")
    picture.add_argument("--boxes", action="store_true", help="draw the boxes")
    picture.add_argument("--labels", action="store_true", help="draw a label at each box")
    picture.add_argument(
        "--keypoint-threshold",
        metavar="P",
        type=_share,
        default=DEFAULT_KEYPOINT_THRESHOLD,
        help="least score of a drawn keypoint (%(default)s); data always holds all",
    )

    running = run.add_argument_group("running")
    running.add_argument(
        "--stall-timeout",
        metavar="S",
        type=_seconds,
        default=300.0,
        help="give up when a step does not come back for so long (%(default)g s)",
    )
    running.add_argument("--quiet", action="store_true", help="no status line and no closing table")

    models = commands.add_parser(
        "models",
        help="list the networks known by name",
        description="List the networks known by name: the bundled ones, ViTPose and detectors of the Hugging Face hub. "
        "Any other ViTPose checkpoint and any checkpoint of AutoModelForObjectDetection can be named as well.",
    )
    models.set_defaults(command=_models)
    for command in (run, models):
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    pipeline = stream(
        arguments.source,
        to=arguments.to or ["window"],
        overwrite=arguments.overwrite,
        pose=arguments.pose,
        detector=arguments.detector,
        classes=arguments.classes,
        dataset_index=arguments.dataset_index,
        allow_pickle=arguments.allow_pickle,
        device=arguments.device,
        dtype=arguments.dtype,
        box_threshold=arguments.box_threshold,
        max_people=arguments.max_people,
        flip_test=arguments.flip_test,
        blur=arguments.blur,
        detect_batch=arguments.detect_batch,
        pose_batch=arguments.pose_batch,
        keypoint_threshold=arguments.keypoint_threshold,
        style=arguments.style,
        boxes=arguments.boxes,
        labels=arguments.labels,
        results_wanted=False,
        stall_after_s=arguments.stall_timeout,
    )
    with pipeline, _interrupts(pipeline) as interrupted:
        status = _Status(pipeline, shown=not arguments.quiet)
        try:
            for _ in pipeline:
                status.update()
        finally:
            status.end()
    return INTERRUPTED if interrupted() else 0


@contextmanager
def _interrupts(pipeline: Pipeline) -> Iterator[Callable[[], bool]]:
    """Let a first Ctrl-C (or SIGTERM) finish the run cleanly, a second one force it; yields whether there was one."""
    count = 0

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count > 1:
            os._exit(INTERRUPTED)
        # Not print: a handler may interrupt a write to the same stream, which must not be entered twice.
        os.write(2, b"\nstreampose: finishing what is under way; Ctrl-C again stops at once\n")
        pipeline.stop()

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: count > 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Status:
    """The line that says how the run goes, and the table at its end."""

    def __init__(self, pipeline: Pipeline, *, shown: bool) -> None:
        self._pipeline = pipeline
        self._shown = shown
        self._terminal = sys.stderr.isatty()
        self._every_s = TERMINAL_EVERY_S if self._terminal else LOG_EVERY_S
        self._last_s = time.monotonic()

    def update(self) -> None:
        """Say where the run is, if it is time to."""
        now_s = time.monotonic()
        if not self._shown or now_s - self._last_s < self._every_s:
            return
        self._last_s = now_s
        meter, total = self._pipeline.meter, self._pipeline.sources[0].info.frame_count
        of = f"/{total}" if total else ""
        line = f"{meter.frames}{of} frames, {meter.fps:.1f} fps, {meter.people} people"
        if total and meter.frames <= total:
            line += f", {(total - meter.frames) / meter.fps:.0f} s left"
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
        else:
            _say(line)

    def end(self) -> None:
        """Print the table."""
        if not self._shown:
            return
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
        meter = self._pipeline.meter
        _say(f"frames   {meter.frames} in {meter.elapsed_s:.1f} s, {meter.fps:.1f} fps")
        _say(f"people   {meter.people}, {meter.people / max(meter.frames, 1):.1f} a frame")
        for number, line in enumerate(self._pipeline.summaries()):
            _say(f"{'' if number else 'written':9}{line}")


def _models(_arguments: argparse.Namespace) -> int:
    print(models_table())
    sys.stdout.flush()
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    return names or _wrong(f"{text!r}: names, separated by commas, e.g. person,dog")


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    return value if 0 <= value <= 1 else _wrong(f"{text!r}: a number from 0 to 1")


def _count(text: str) -> int:
    return int(text) if text.isdecimal() and int(text) > 0 else _wrong(f"{text!r}: a whole number from 1 up")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    return value if value > 0 else _wrong(f"{text!r}: seconds, more than 0")


def _wrong(message: str) -> NoReturn:
    raise argparse.ArgumentTypeError(message)
