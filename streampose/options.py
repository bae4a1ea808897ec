"""Every option once: its name, what its value may be, its default and its help.

The command line, the TOML file, the help and the checks of the Python API read this table. Knows nothing of what an
option does.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from streampose.addresses import redact, redact_address
from streampose.errors import UsageError
from streampose.networks.known import DEFAULT_DETECTOR, DEFAULT_POSE
from streampose.people import REMEMBER_S

DEFAULT_KEYPOINT_THRESHOLD = 0.3


@dataclass(frozen=True, slots=True)
class Kind:
    """What the value of an option may be."""

    called: str
    """In words: "a number from 0 to 1"."""
    parse: Callable[[Any], Any]
    """Takes a word of the command line, a value of a TOML file or one of Python to the value that the program uses;
    raises ValueError or TypeError for one that cannot be right."""
    metavar: str | None = None
    """Stands for the value in the help; None for a switch, which has none on the command line."""


def _number(value: Any, *, least: float = 0.0, most: float = sys.maxsize, above: float | None = None) -> float:
    if isinstance(value, bool) or not isinstance(value, str | Real):
        raise TypeError
    number = float(value)
    if not (least <= number <= most) or (above is not None and number <= above):
        raise ValueError
    return number


def _whole(value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, str | Integral):
        raise TypeError
    number = int(value)
    if not least <= number <= sys.maxsize:
        raise ValueError
    return number


def _count_or_auto(value: Any) -> int | str:
    return "auto" if value == "auto" else _whole(value, 1)


_DURATION = re.compile(r"(?P<count>[0-9]+(\.[0-9]+)?)(?P<unit>[smh]?)")
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600}


def _duration(value: Any) -> float:
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None:
            raise ValueError
        value = float(match["count"]) * _UNIT_S[match["unit"]]
    return _number(value)


def _duration_above_0(value: Any) -> float:
    return _number(_duration(value), above=0.0)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    if not value:
        raise ValueError
    return value


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        raise TypeError
    texts = [_text(item) for item in value]
    if not texts:
        raise ValueError
    return texts


def _names(value: Any) -> list[str | int]:
    items = value.split(",") if isinstance(value, str) else list(value)
    names = [item.strip() if isinstance(item, str) else _whole(item, 0) for item in items]
    names = [name for name in names if name != ""]
    if not names:
        raise ValueError
    return names


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _size(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch("[1-9][0-9]{0,4}x[1-9][0-9]{0,4}", value):
        raise ValueError
    return value


def _one_of(*words: str) -> Kind:
    def parse(value: Any) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return Kind(" or ".join(words), parse, f"{{{','.join(words)}}}")


TEXT = Kind("a text", _text, "NAME")
FILE = Kind("a file", _text, "FILE")
SINKS = Kind("a list of texts", _texts, "SINK")
NAMES = Kind("names, as a list or separated by commas", _names, "NAME,...")
SWITCH = Kind("true or false", _switch)
SHARE = Kind("a number from 0 to 1", lambda value: _number(value, most=1.0), "P")
COUNT = Kind("a whole number from 1 up", lambda value: _whole(value, 1), "N")
INDEX = Kind("a whole number from 0 up", lambda value: _whole(value, 0), "N")
COUNT_OR_AUTO = Kind("a whole number from 1 up, or auto", _count_or_auto, "N")
DURATION = Kind("a length of time above 0: seconds, or as 30s, 10m, 1h", _duration_above_0, "T")
DURATION_OR_0 = Kind("a length of time: seconds, or as 30s, 10m, 1h", _duration, "T")
RATE = Kind("frames per second, above 0", lambda value: _number(value, above=0.0, most=10_000.0), "N")
SIZE = Kind("width and height, as 1280x720", _size, "WxH")


@dataclass(frozen=True, slots=True)
class Option:
    """One option of the program."""

    name: str
    """The parameter of `streampose.stream` or `streampose.bench.bench.run_bench`, or the field of `Input`."""
    kind: Kind
    default: Any
    help: str
    group: str = ""
    of_source: bool = False
    """Whether each source has its own: a field of `Input`."""
    commands: tuple[str, ...] = ("run",)
    own_key: str | None = None

    @property
    def key(self) -> str:
        """The name in a TOML file: the parameter's, without its unit."""
        return self.own_key or self.name.removesuffix("_s")

    @property
    def flag(self) -> str:
        """The name on the command line. A switch that is on by default is turned off there."""
        is_on = self.kind is SWITCH and self.default is True
        return ("--no-" if is_on else "--") + self.key.replace("_", "-")

    def parse(self, value: Any, name: str) -> Any:
        """Return the value as the program uses it.

        Raises:
            UsageError: it cannot be right; says so of `name`.
        """
        try:
            return self.kind.parse(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise UsageError(f"{name}: {_shown(value)} is not {self.kind.called}") from error


_BOTH = ("run", "bench")
_NETWORKS = "networks (a bundled name, a hub id, or a folder in hub layout; see: models)"
_PEOPLE = "people and keypoints"
_PICTURE = "picture"
_READING = "files and streams"
_LIVE = "live sources"
_RUNNING = "running"

OPTIONS = (
    Option(
        "to",
        SINKS,
        (),
        "where results go; repeatable: a video file (.mp4, .mkv, .mov), keypoints as JSON Lines (.jsonl, - for "
        "standard output), a folder for stills (drawn/), a still (.jpg, .png), rtmp:// or rtsp:// to publish, window, "
        "null (default: window); {source} stands for the source's name, {time} for the start of a segment",
    ),
    Option("overwrite", SWITCH, False, "replace existing files", commands=_BOTH),
    Option("pose", TEXT, DEFAULT_POSE, "ViTPose checkpoint", _NETWORKS, commands=_BOTH),
    Option("detector", TEXT, DEFAULT_DETECTOR, "detector checkpoint", _NETWORKS, commands=_BOTH),
    Option("classes", NAMES, None, "classes of the detector to find (default: person)", _NETWORKS),
    Option("dataset_index", INDEX, None, "expert of a mixture-of-experts (plus) checkpoint (default: 0)", _NETWORKS),
    Option("device", TEXT, "auto", "auto, cpu, cuda, cuda:1, mps or xpu", _NETWORKS, commands=_BOTH),
    Option("dtype", TEXT, "auto", "auto, float32, bfloat16 or float16", _NETWORKS, commands=_BOTH),
    Option(
        "compile",
        SWITCH,
        False,
        "on an accelerator: compile the networks while the run goes on; kept for the next run",
        _NETWORKS,
        commands=_BOTH,
    ),
    Option("warm_up", SWITCH, False, "compile, and wait for it before each first batch", _NETWORKS),
    Option("allow_pickle", SWITCH, False, "load weights that are not safetensors; such files can run code", _NETWORKS),
    Option("box_threshold", SHARE, None, "drop boxes with a lower score (default: the detector's)", _PEOPLE),
    Option(
        "detect_every",
        COUNT_OR_AUTO,
        1,
        "run the detector on every Nth frame and follow people between from their keypoints; auto: as often as the "
        "frame rate leaves time",
        _PEOPLE,
    ),
    Option("max_people", COUNT, None, "maximum people per frame, best first", _PEOPLE),
    Option("track", SWITCH, True, "do not give people identities", _PEOPLE),
    Option(
        "remember_s", DURATION, REMEMBER_S, "recognize people who return within T by their looks and sizes", _PEOPLE
    ),
    Option("flip_test", SWITCH, False, "average with the mirrored crops: slightly better, half the speed", _PEOPLE),
    Option("blur", _one_of("hf", "paper"), None, "Gaussian before the sub-pixel step (default: paper)", _PEOPLE),
    Option("detect_batch", COUNT, None, "maximum frames per detector call", _PEOPLE, commands=_BOTH),
    Option("pose_batch", COUNT, None, "maximum people per pose call", _PEOPLE, commands=_BOTH),
    Option("style", _one_of("lines", "weighted"), "lines", "how skeletons are drawn", _PICTURE),
    Option("boxes", SWITCH, False, "draw the boxes", _PICTURE),
    Option("labels", SWITCH, False, "draw a label at each box: identity, or class, and score", _PICTURE),
    Option("colour_by", _one_of("side", "person"), "side", "what the colours of skeletons distinguish", _PICTURE),
    Option(
        "keypoint_threshold",
        SHARE,
        DEFAULT_KEYPOINT_THRESHOLD,
        "draw keypoints from this score up; data always has all",
        _PICTURE,
    ),
    Option(
        "stream",
        INDEX,
        None,
        "video stream to read, counted from 0 (default: the best)",
        _READING,
        of_source=True,
    ),
    Option(
        "max_height",
        COUNT,
        None,
        "of several video streams or HLS variants, read the best of at most N lines",
        _READING,
        of_source=True,
    ),
    Option("max_pixels", COUNT, 200_000_000, "refuse frames and stills of more pixels", _READING, of_source=True),
    Option(
        "give_up_after_s",
        DURATION_OR_0,
        None,
        "give up a source that stays away for T (default: never; a single source fails at once if it is not there at "
        "the start)",
        _LIVE,
        of_source=True,
    ),
    Option("freshness_s", DURATION, 0.5, "drop frames older than T", _LIVE, of_source=True),
    Option("rtsp_transport", _one_of("tcp", "udp"), "tcp", "transport of RTSP", _LIVE, of_source=True),
    Option("size", SIZE, None, "frame size of a camera", _LIVE, of_source=True),
    Option("fps", RATE, None, "frame rate of a camera", _LIVE, of_source=True),
    Option("input_format", TEXT, None, "pixel or codec format of a camera, as mjpeg", _LIVE, of_source=True),
    Option("segment_s", DURATION, None, "start a new video file every T; name it with {time}", _RUNNING),
    Option("stats", FILE, None, "write counts, drops and latencies as JSON at the end", _RUNNING),
    Option(
        "stall_after_s", DURATION, 300.0, "abort if a step makes no progress for T", _RUNNING, own_key="stall_timeout"
    ),
    Option("quiet", SWITCH, False, "print no status line and no closing table", _RUNNING),
    Option("frames", COUNT, None, "frames per run (default: a few seconds' worth)", commands=("bench",)),
    Option("reference_frames", COUNT, None, "frames that the slow reference processes in all", commands=("bench",)),
    Option("quick", SWITCH, False, "measure briefly and roughly", commands=("bench",)),
    Option("json", FILE, None, "also write the results as JSON", commands=("bench",)),
)

_BY_NAME = {option.name: option for option in OPTIONS}


def options_of(command: str) -> list[Option]:
    """Return the options of a command, in the order of its help."""
    return [option for option in OPTIONS if command in option.commands]


def check(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the values of parameters as the program uses them.

    Args:
        values: by name of the parameter; None stands for a default that is None.
        names: which of them are options.

    Raises:
        UsageError: one cannot be right; names the parameter.
    """
    checked = {}
    for name in names:
        option, value = _BY_NAME[name], values[name]
        is_default = value is None and option.default is None
        checked[name] = None if is_default else option.parse(value, f"`{name}`")
    return checked


def with_flags(text: str) -> str:
    """Return an error's text in which parameters, which stand in backticks, are named as flags."""

    def flag(match: re.Match[str]) -> str:
        option = _BY_NAME.get(match[1])
        return match[0] if option is None else option.flag

    return re.sub(r"`(\w+)`", flag, text)


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return repr(redact_address(value)) if isinstance(value, str) else redact(repr(value))
