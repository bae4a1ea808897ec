"""Reads argv, runs, and speaks to the person at the terminal: flags, exit codes, signals and one-line errors live here.

Standard output is for data, standard error for people. Exit codes: 0 ended or quit, 1 a known failure in one line,
2 wrong usage, 130 interrupted after a clean finish.
"""

from __future__ import annotations

import argparse
import ctypes
import inspect
import json
import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from streampose._version import __version__
from streampose.addresses import redact
from streampose.api import DEFAULT_KEYPOINT_THRESHOLD, stream
from streampose.cli.config import read_config
from streampose.errors import SinkError, StalledError, StreamposeError, UsageError, describe
from streampose.inputs import Input, parse_input
from streampose.networks.known import DEFAULT_DETECTOR, DEFAULT_POSE, models_table
from streampose.sinks.target import check_file, name_of

if TYPE_CHECKING:
    from streampose.pipeline.parts import FrameSource
    from streampose.pipeline.pipeline import Pipeline

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 + SIGINT, as shells report it."""
TERMINAL_EVERY_S = 0.2
"""How often the status line is redrawn on a terminal."""
LOG_EVERY_S = 10.0
"""How often a status line is written where there is no terminal."""
CLEAR = "\r\x1b[J"
"""Removes the status, at whose beginning the cursor of a terminal waits."""

_WITHOUT_LIBRARY = (
    "a system library is missing ({}): install it (Debian: apt install libgl1 libglib2.0-0), or take OpenCV without "
    "windows: pip uninstall opencv-python, then pip install opencv-python-headless"
)
_NOT_GIVEN = argparse.SUPPRESS
"""Flags that are not given leave no trace, so that those of a file and the defaults of `stream` hold."""
_LIVE_FLAGS = frozenset(["give_up_after_s", "freshness_s", "rtsp_transport", "size", "fps", "input_format"])
_NOT_MEASURED = frozenset(["command", "json", "overwrite", "debug"])
"""Flags of `bench` that are not those of `run_bench`."""
_STREAM_FLAGS = frozenset(inspect.signature(stream).parameters) - {"source"}

DESCRIPTION = "Live or recorded video to human pose, in real time, with ViTPose."
EXAMPLES = """\
examples:
  streampose run demo --to out/demo.mp4 --to out/poses.jsonl
  streampose run clip.mp4 --to window
  streampose run 0 --to window
  streampose run cam1=rtsp://host/1 cam2=rtsp://host/2 --to 'rtmp://host/live/{source}' --to '{source}.jsonl'
  streampose run photos/ --to drawn/ --to photos.jsonl --boxes --labels
  streampose run clip.mp4 --to out.mkv --pose usyd-community/vitpose-plus-base --detector PekingU/rtdetr_r50vd_coco_o365
"""
SOURCES = (
    "a video file, a picture, a folder or glob of pictures, demo (the bundled clip), a camera (0, /dev/video2), "
    "rtsp://, rtmp:// or http(s):// (HLS too), - for a container on standard input; several at once, also named: "
    "cam1=rtsp://..."
)
SINKS = (
    "where results go; may be given several times: a video file (.mp4, .mkv, .mov), keypoints as JSON Lines (.jsonl, "
    "- for standard output), a folder for pictures (drawn/), a picture (.jpg, .png) for a picture, rtmp:// or rtsp:// "
    "to publish, window, null (default: window); {source} stands for the source's name, {time} for the start of a "
    "segment"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    arguments = _parser().parse_args(argv)
    handler = _LogToPeople()
    handler.setFormatter(logging.Formatter("streampose: %(message)s"))
    logging.getLogger("streampose").handlers = [handler]
    logging.getLogger("streampose").setLevel(logging.INFO)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        with _ended_by_sigterm():
            return command(arguments)
    except StreamposeError as error:
        if arguments.debug:
            _say_traceback(error)
        elif not error.is_reported:
            _say(f"streampose: {error}")
        if isinstance(error, StalledError):
            # The step that was given up still runs; when Python ends around it, its libraries abort the process.
            os._exit(error.exit_code)
        return error.exit_code
    except KeyboardInterrupt as error:
        if arguments.debug:
            _say_traceback(error)
        return INTERRUPTED
    except Exception as error:
        if arguments.debug:
            _say_traceback(error)
            return 1
        if isinstance(error, ImportError) and ".so" in str(error):
            _say(f"streampose: {_WITHOUT_LIBRARY.format(describe(error))}")
            return 1
        _say(f"streampose: a defect in streampose: {type(error).__name__}: {describe(error)}; --debug shows where")
        return 1


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does: the first process of a container is not ended by it by itself."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Parser(argparse.ArgumentParser):
    """Words that it does not understand may be addresses with passwords."""

    def error(self, message: str) -> NoReturn:
        super().error(redact(message))


def _set_up_process() -> None:
    """Choose for the whole process what suits a pipeline, whose steps have the cores between them."""
    import cv2

    # Else a resize for the detector takes twice the processor's time, for the waiting of its threads for each other.
    cv2.setNumThreads(1)
    # Let the C library keep what pictures leave behind for the next ones. It would give it back to the system, which
    # has to clear every page before it gives it out again: a fifth of the time that reading a 720p frame takes.
    trim_threshold, mmap_threshold = -1, -3  # glibc's malloc.h
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 32 * 2**20)  # its most; a 2160p frame has 24 MB
        libc.mallopt(trim_threshold, 256 * 2**20)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="streampose",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"streampose {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        argument_default=_NOT_GIVEN,
        help="find the people of a source and their poses",
        description="Find the people of a source and their poses, frame after frame.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.set_defaults(command=_run)
    run.add_argument("source", metavar="SOURCE", nargs="*", help=SOURCES)
    run.add_argument(
        "--config", metavar="FILE", default=None, help="take sources and flags from a TOML file; flags given here win"
    )
    run.add_argument("--to", metavar="SINK", action="append", help=SINKS)
    run.add_argument("--overwrite", action="store_true", default=_NOT_GIVEN, help="let sinks replace existing files")

    networks = run.add_argument_group("networks (a bundled name, a hub id, or a folder in hub layout; see: models)")
    networks.add_argument("--pose", metavar="NAME", help=f"ViTPose checkpoint ({DEFAULT_POSE})")
    networks.add_argument("--detector", metavar="NAME", help=f"detector ({DEFAULT_DETECTOR})")
    networks.add_argument(
        "--classes", metavar="NAME,...", type=_names, help="the detector's classes to take (default: people)"
    )
    networks.add_argument(
        "--dataset-index", metavar="N", type=int, help="expert of a mixture-of-experts (plus) checkpoint (default: 0)"
    )
    networks.add_argument("--device", metavar="NAME", help="auto (default), cpu, cuda, cuda:1, mps, xpu")
    networks.add_argument("--dtype", metavar="NAME", help="auto (default), float32, bfloat16, float16")
    networks.add_argument(
        "--compile",
        action="store_true",
        default=_NOT_GIVEN,
        help="on an accelerator: compile the networks beside the run; kept for the next one",
    )
    networks.add_argument(
        "--warm-up", action="store_true", default=_NOT_GIVEN, help="compile, and wait for it before each first batch"
    )
    networks.add_argument(
        "--allow-pickle",
        action="store_true",
        default=_NOT_GIVEN,
        help="read weights that are no safetensors: such files can run code when they are loaded",
    )

    results = run.add_argument_group("people and keypoints")
    results.add_argument(
        "--box-threshold", metavar="P", type=_share, help="least score of a box, 0 to 1 (default: the detector's)"
    )
    results.add_argument(
        "--detect-every",
        metavar="N",
        type=_count_or_auto,
        help="look for people in every Nth frame and follow them between from their own keypoints; auto: as often as "
        "the source's frame rate leaves time (default: 1)",
    )
    results.add_argument("--max-people", metavar="N", type=_count, help="most people a frame, best first")
    results.add_argument(
        "--flip-test",
        action="store_true",
        default=_NOT_GIVEN,
        help="average with the mirrored crops: a little better, twice the work",
    )
    results.add_argument(
        "--blur", choices=("hf", "paper"), help="Gaussian before the sub-pixel step (default: the better one)"
    )
    results.add_argument("--detect-batch", metavar="N", type=_count, help="most frames a detector call")
    results.add_argument("--pose-batch", metavar="N", type=_count, help="most people a pose call")

    picture = run.add_argument_group("picture")
    picture.add_argument("--style", choices=("lines", "weighted"), help="default: lines")
    picture.add_argument("--boxes", action="store_true", default=_NOT_GIVEN, help="draw the boxes")
    picture.add_argument("--labels", action="store_true", default=_NOT_GIVEN, help="draw a label at each box")
    picture.add_argument(
        "--keypoint-threshold",
        metavar="P",
        type=_share,
        help=f"least score of a drawn keypoint ({DEFAULT_KEYPOINT_THRESHOLD}); data always holds all",
    )

    live = run.add_argument_group("live sources")
    live.add_argument(
        "--give-up-after",
        metavar="S",
        type=_seconds_or_zero,
        dest="give_up_after_s",
        help="give up when a source has not been there for so long (default: never; a single source fails at once "
        "when it is not there at the start)",
    )
    live.add_argument(
        "--freshness", metavar="S", type=_seconds, dest="freshness_s", help="skip frames older than this (0.5)"
    )
    live.add_argument("--rtsp-transport", choices=("tcp", "udp"), help="default: tcp")
    live.add_argument("--size", metavar="WxH", help="a camera's picture, as 1280x720")
    live.add_argument("--fps", metavar="N", type=_rate, help="a camera's rate")
    live.add_argument("--input-format", metavar="NAME", help="a camera's pixel or codec format, as mjpeg")

    running = run.add_argument_group("running")
    running.add_argument(
        "--segment",
        metavar="T",
        type=_duration,
        dest="segment_s",
        help="go on in a new video file every 30s, 10m, 1h (name it with {time})",
    )
    running.add_argument(
        "--stats", metavar="FILE", default=None, help="write counts, drops and latencies as JSON at the end"
    )
    running.add_argument(
        "--stall-timeout",
        metavar="S",
        type=_seconds,
        dest="stall_after_s",
        help="give up when a step does not come back for so long (300 s)",
    )
    running.add_argument("--quiet", action="store_true", default=False, help="no status line and no closing table")

    models = commands.add_parser(
        "models",
        help="list the networks known by name",
        description="List the networks known by name: the bundled ones, ViTPose and detectors of the Hugging Face hub. "
        "Any other ViTPose checkpoint and any checkpoint of AutoModelForObjectDetection can be named as well.",
    )
    models.set_defaults(command=_models)
    bench = _add_bench(commands)
    for command in (run, models, bench):
        command.add_argument("--debug", action="store_true", default=False, help="show the traceback of an error")
    return parser


def _add_bench(commands: argparse._SubParsersAction[_Parser]) -> _Parser:
    bench = commands.add_parser(
        "bench",
        argument_default=_NOT_GIVEN,
        help="measure the speed on this machine",
        description="Measure the speed on a recording, in turn with the loop of the ViTPose documentation and with the "
        "networks alone, and compare the results: where they differ, no speed is told.",
    )
    bench.set_defaults(command=_bench)
    bench.add_argument("source", metavar="SOURCE", nargs="?", default="demo", help="a recording (demo)")
    bench.add_argument("--pose", metavar="NAME", default=DEFAULT_POSE, help=f"ViTPose checkpoint ({DEFAULT_POSE})")
    bench.add_argument("--detector", metavar="NAME", default=DEFAULT_DETECTOR, help=f"detector ({DEFAULT_DETECTOR})")
    bench.add_argument("--device", metavar="NAME", help="auto (default), cpu, cuda, cuda:1, mps, xpu")
    bench.add_argument("--dtype", metavar="NAME", help="auto (default), float32, bfloat16, float16")
    bench.add_argument("--detect-batch", metavar="N", type=_count, help="most frames a detector call")
    bench.add_argument("--pose-batch", metavar="N", type=_count, help="most people a pose call")
    bench.add_argument("--frames", metavar="N", type=_count, help="frames of a run (default: some seconds' worth)")
    bench.add_argument(
        "--reference-frames", metavar="N", type=_count, help="frames that the slow reference goes through in all"
    )
    bench.add_argument("--quick", action="store_true", help="measure shortly and roughly")
    bench.add_argument("--compile", action="store_true", help="on an accelerator: measure compiled networks")
    bench.add_argument("--json", metavar="FILE", default=None, help="write the same as data")
    bench.add_argument("--overwrite", action="store_true", default=False, help="replace an existing FILE")
    return bench


def _bench(arguments: argparse.Namespace) -> int:
    values = {key: value for key, value in vars(arguments).items() if key not in _NOT_MEASURED}
    if arguments.json is not None:
        _check_json(arguments.json, [arguments.source], overwrite=arguments.overwrite)
    from streampose.bench.bench import run_bench
    from streampose.bench.report import table

    _set_up_process()
    report = run_bench(**values)
    if arguments.json is not None:
        _write_json(arguments.json, asdict(report))
    return _print(table(report))


def _run(arguments: argparse.Namespace) -> int:
    given = vars(arguments)
    inputs = [Input(source, name) for name, source in map(parse_input, given.get("source", ()))]
    values: dict[str, Any] = {}
    if arguments.config is not None:
        if inputs:
            raise UsageError("both SOURCE and --config are given: name the sources in one place")
        inputs, values = read_config(arguments.config)
    if not inputs:
        raise UsageError("no SOURCE: give one, such as demo, or --config FILE")
    values |= {key: value for key, value in given.items() if key in _STREAM_FLAGS}
    options = {key: value for key, value in given.items() if key in _LIVE_FLAGS}
    inputs = [replace(one, **options) for one in inputs]
    if not values.get("to"):
        if all(one.to is None for one in inputs):
            values["to"] = ["window"]
        elif nowhere := [one.name for one in inputs if one.to is None]:
            raise UsageError(f"[sources.{nowhere[0]}] names no sink: add to = [...] to it, or a `to` for all sources")
    if arguments.stats is not None:
        _check_json(arguments.stats, [str(one.source) for one in inputs], overwrite=True)
    _set_up_process()
    pipeline = stream(inputs, **values, results_wanted=False)
    with pipeline, _interrupts(pipeline) as interrupted:
        if arguments.stats is not None:
            _check_no_sink(arguments.stats, inputs, values.get("to") or (), pipeline)
        status = _Status(pipeline, shown=not arguments.quiet)
        with nullcontext() if arguments.stats is None else _stats_written(arguments.stats, pipeline):
            try:
                for _ in pipeline.ticks():
                    status.update()
            finally:
                status.end()
    return INTERRUPTED if interrupted() else 0


def _check_no_sink(stats: str, inputs: Sequence[Input], to: Sequence[Any], pipeline: Pipeline) -> None:
    """Refuse a file for the counts to which a sink writes."""
    from streampose.sinks.open import fill_in

    for one, source in zip(inputs, pipeline.sources, strict=True):
        targets = [fill_in(str(target), source.info.source_id) for target in (to if one.to is None else one.to)]
        if os.path.realpath(stats) in map(os.path.realpath, targets):
            raise UsageError(f"{name_of(stats)}: a sink writes there; name another file for the counts")


def _check_json(file: str, sources: Sequence[str], *, overwrite: bool) -> None:
    """Refuse, before the run, a file that cannot be written at its end."""
    path, name = Path(file), name_of(file)
    for source in sources:
        check_file(path, overwrite=overwrite, source_path=source)
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {name}: there is no folder {name_of(path.parent)}")


@contextmanager
def _stats_written(file: str, pipeline: Pipeline) -> Iterator[None]:
    """Write the counts behind the run; that they cannot be written does not hide why the run failed."""
    try:
        yield
    except BaseException:
        try:
            _write_json(file, pipeline.stats())
        except SinkError as error:
            _say(f"streampose: {error}")
        raise
    _write_json(file, pipeline.stats())


def _write_json(file: str, values: dict[str, Any]) -> None:
    try:
        Path(file).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SinkError(f"cannot write {name_of(file)}: {describe(error)}") from error


@contextmanager
def _interrupts(pipeline: Pipeline) -> Iterator[Callable[[], bool]]:
    """Let a first Ctrl-C (or SIGTERM) finish the run cleanly, a second one force it; yields whether there was one."""
    count = 0

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count > 1:
            os._exit(INTERRUPTED)
        pipeline.stop()
        # Not print: a handler may interrupt a write to the same stream, which must not be entered twice.
        with suppress(OSError):
            begin = CLEAR.encode() if os.isatty(2) else b"\n"
            os.write(2, begin + b"streampose: finishing what is under way; Ctrl-C again stops at once\n")

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
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._every_s = TERMINAL_EVERY_S if self._terminal else LOG_EVERY_S
        self._last_s = time.monotonic()

    def update(self) -> None:
        """Say where the run is, if it is time to."""
        now_s = time.monotonic()
        if not self._shown or now_s - self._last_s < self._every_s:
            return
        self._last_s = now_s
        lines = self._lines()
        if not self._terminal:
            _say(" | ".join(lines))
            return
        columns = 80
        with suppress(OSError, ValueError):
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
        # A line that is wrapped would be left behind when the next one is drawn.
        drawn = "\n".join(line[: columns - 1] for line in lines)
        _say(f"{CLEAR}{drawn}" + (f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else "") + "\r", end="")

    def _lines(self) -> list[str]:
        sources = self._pipeline.sources
        if len(sources) == 1 and not sources[0].info.is_live:
            return [self._recorded_line(sources[0])]
        return [*map(_live_line, sources), *self._publishing_lines()]

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
        """Print the table."""
        if not self._shown:
            return
        if self._terminal:
            _say(CLEAR, end="")
        meter = self._pipeline.meter
        if not meter.frames:
            return
        _say(f"frames   {meter.frames} in {meter.elapsed_s:.1f} s, {meter.fps:.1f} fps")
        _say(f"people   {meter.people / max(meter.frames, 1):.1f} a frame ({meter.people} detections)")
        for number, line in enumerate(self._pipeline.summaries()):
            _say(f"{'' if number else 'written':9}{line}")


def _live_line(source: FrameSource) -> str:
    now, stats = source.meter.now(), source.meter.stats()
    line = f"{source.info.source_id} {now['state']}, {now['fps_in']:.1f} fps in, {now['fps_out']:.1f} out"
    line += f", {now['people']} people"
    if stats["dropped"]:
        line += ", dropped " + " ".join(f"{cause} {count}" for cause, count in stats["dropped"].items())
    if stats["latency_ms"]["p50"] is not None:
        line += ", latency {p50:.0f}/{p95:.0f}/{p99:.0f} ms".format(**stats["latency_ms"])
    return line


def _models(_arguments: argparse.Namespace) -> int:
    return _print(models_table())


def _print(text: str) -> int:
    """Write `text` to standard output; returns the exit code."""
    try:
        os.write(1, f"{text}\n".encode())
    except BrokenPipeError:
        pass
    except OSError as error:
        raise SinkError(f"cannot write to standard output: {describe(error)}") from error
    return 0


def _say(text: str, end: str = "\n") -> None:
    # That nobody reads what we say is no reason to end a run.
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, end=end, flush=True)


def _say_traceback(error: BaseException) -> None:
    # Line by line: an @ of the source code is no part of an address on another line.
    for line in "".join(traceback.format_exception(error)).splitlines():
        _say(redact(line))


class _LogToPeople(logging.Handler):
    """The program's log: a line a record on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        begin = CLEAR if sys.stderr is not None and sys.stderr.isatty() else ""
        _say(f"{begin}{redact(self.format(record))}")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    return names or _wrong(f"{text!r}: names, separated by commas, e.g. person,dog")


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    return value if 0 <= value <= 1 else _wrong(f"{text!r}: a number from 0 to 1")


def _duration(text: str) -> float:
    match = re.fullmatch(r"(?P<count>\d+(\.\d+)?)(?P<unit>[smh]?)", text)
    value = float(match["count"]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match["unit"]] if match else 0.0
    return value if value > 0 else _wrong(f"{text!r}: a length of time, as 30s, 10m or 1h")


def _count(text: str) -> int:
    return int(text) if text.isdecimal() and int(text) > 0 else _wrong(f"{text!r}: a whole number from 1 up")


def _count_or_auto(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    return int(text) if text.isdecimal() and int(text) > 0 else _wrong(f"{text!r}: a whole number from 1 up, or auto")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    return value if value > 0 else _wrong(f"{text!r}: seconds, more than 0")


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    return value if 0 < value < 10_000 else _wrong(f"{text!r}: frames a second, more than 0")


def _seconds_or_zero(text: str) -> float:
    return 0.0 if text == "0" else _seconds(text)


def _wrong(message: str) -> NoReturn:
    raise argparse.ArgumentTypeError(message)
