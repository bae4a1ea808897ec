"""The table of all options: name, valid values, default and help text of each.

The command line, the configuration file, the help and the checks of the Python API read this table. It knows nothing
about the effect of an option.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from streampose.addresses import redact, redact_address
from streampose.errors import UsageError
from streampose.kinds import (
    COUNT,
    COUNT_OR_AUTO,
    DURATION,
    DURATION_OR_0,
    FACTOR,
    FILE,
    INDEX,
    NAMES,
    RATE,
    SHARE,
    SINKS,
    SIZE,
    SWITCH,
    TEXT,
    WHOM,
    Kind,
    one_of,
)
from streampose.networks.known import DEFAULT_DETECTOR, DEFAULT_POSE
from streampose.people import REMEMBER_S

DEFAULT_KEYPOINT_THRESHOLD = 0.3


@dataclass(frozen=True, slots=True)
class Option:
    """One option of the program."""

    name: str
    """Name of a parameter of `streampose.stream` or `streampose.bench.bench.run_bench`, or of a field of `Input`."""
    kind: Kind
    default: Any
    help: str
    group: str = ""
    of_source: bool = False
    """Whether each source has its own value, which is then a field of `Input`."""
    commands: tuple[str, ...] = ("run",)
    own_key: str | None = None

    @property
    def key(self) -> str:
        """The name in a TOML file: the parameter's name without its unit."""
        return self.own_key or self.name.removesuffix("_s")

    @property
    def flag(self) -> str:
        """The name on the command line. A switch that is on by default is turned off there."""
        is_on = self.kind is SWITCH and self.default is True
        return ("--no-" if is_on else "--") + self.key.replace("_", "-")

    def parse(self, value: Any, name: str) -> Any:
        """Return the value as the program uses it.

        Raises:
            UsageError: the value is invalid. The text begins with `name`.
        """
        try:
            return self.kind.parse(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise UsageError(f"{name}: {_shown(value)} is not {self.kind.called}") from error


_BOTH = ("run", "bench")
_OF_PARTS = ("run", "convert", "smooth")
"""Commands that can read a part of a recording, or of recorded poses."""
_NETWORKS = "networks"
_PEOPLE = "people and keypoints"
_DRAWING = "drawing"
_READING = "files and streams"
_LIVE = "live sources"
_RUNNING = "running"

OPTIONS = (
    Option(
        "to",
        SINKS,
        (),
        "where results go; repeatable: a video file (.mp4, .mkv, .mov), keypoints as JSON Lines (.jsonl, or - for "
        "standard output), as a table (.csv, .parquet) or for COCO (.results.json, .coco.json), a folder of stills "
        "(drawn/), a still (.jpg, .png), a live stream (rtmp://, rtsp://), window, or null for no output (default: "
        "window); {source} stands for the name of the source, {time} for the start of a segment",
    ),
    Option("overwrite", SWITCH, False, "replace existing files", commands=(*_BOTH, "convert", "smooth")),
    Option(
        "pose",
        TEXT,
        DEFAULT_POSE,
        "ViTPose checkpoint: a bundled name, a Hugging Face hub id, or a folder in hub layout; see streampose models",
        _NETWORKS,
        commands=_BOTH,
    ),
    Option("detector", TEXT, DEFAULT_DETECTOR, "detector checkpoint, named in the same way", _NETWORKS, commands=_BOTH),
    Option("classes", NAMES, None, "detector classes to find, by name or number (default: person)", _NETWORKS),
    Option("dataset_index", INDEX, None, "expert of a mixture-of-experts (plus) checkpoint (default: 0)", _NETWORKS),
    Option(
        "device", TEXT, "auto", "where the networks run: auto, cpu, cuda, cuda:1, mps or xpu", _NETWORKS, commands=_BOTH
    ),
    Option(
        "dtype",
        TEXT,
        "auto",
        "number format of the networks: auto, float32, bfloat16 or float16",
        _NETWORKS,
        commands=_BOTH,
    ),
    Option(
        "compile",
        SWITCH,
        False,
        "compile the networks in the background (accelerators only); the result is cached for the next run",
        _NETWORKS,
        commands=_BOTH,
    ),
    Option(
        "warm_up",
        SWITCH,
        False,
        "like --compile, but the first batch of each size waits until it is compiled",
        _NETWORKS,
    ),
    Option(
        "allow_pickle", SWITCH, False, "allow pickled weights (pytorch_model.bin); such files can run code", _NETWORKS
    ),
    Option(
        "box_threshold",
        SHARE,
        None,
        "drop boxes with a lower score (default: 0.25 for the bundled detector, 0.3 for others)",
        _PEOPLE,
    ),
    Option(
        "detect_every",
        COUNT_OR_AUTO,
        1,
        "run the detector only on every Nth frame and follow people in between by their keypoints; auto: as often as "
        "the frame rate allows",
        _PEOPLE,
    ),
    Option("max_people", COUNT, None, "maximum people per frame; the best boxes are kept", _PEOPLE),
    Option(
        "flip_test",
        SWITCH,
        False,
        "average with the mirrored crops: slightly better keypoints, but the pose network takes twice as long",
        _PEOPLE,
    ),
    Option(
        "blur",
        one_of("hf", "paper"),
        None,
        "heatmap smoothing, as in transformers (hf) or in the original ViTPose (default: paper)",
        _PEOPLE,
    ),
    Option("track", SWITCH, True, "do not give people identities", _PEOPLE),
    Option(
        "remember_s",
        DURATION,
        REMEMBER_S,
        "recognize people by their looks if they return within T",
        _PEOPLE,
    ),
    Option(
        "only",
        WHOM,
        None,
        "keep one person and leave out the others: largest, centre (chosen when first seen), or an identity",
        _PEOPLE,
    ),
    Option(
        "smooth",
        one_of("off", "drawn", "data"),
        "drawn",
        "smooth keypoints over time: as drawn only, or in the data as well",
        _PEOPLE,
    ),
    Option("detect_batch", COUNT, None, "maximum frames per detector call", _PEOPLE, commands=_BOTH),
    Option("pose_batch", COUNT, None, "maximum people per pose call", _PEOPLE, commands=_BOTH),
    Option("style", one_of("lines", "weighted"), "lines", "drawing style of the skeletons", _DRAWING),
    Option("boxes", SWITCH, False, "draw the box of each person", _DRAWING),
    Option("labels", SWITCH, False, "draw the identity (or class) and box score of each person", _DRAWING),
    Option("ellipses", SWITCH, False, "draw where each keypoint lies with a probability of 0.9", _DRAWING),
    Option("colour_by", one_of("side", "person"), "side", "colour skeletons by body side or by person", _DRAWING),
    Option(
        "keypoint_threshold",
        SHARE,
        DEFAULT_KEYPOINT_THRESHOLD,
        "draw only keypoints with at least this score; data contain all keypoints",
        _DRAWING,
    ),
    Option(
        "mirror",
        SWITCH,
        None,
        "show the window mirrored, or not (default: mirrored for a camera of this machine)",
        _DRAWING,
    ),
    Option("fullscreen", SWITCH, False, "show the window on the full screen", _DRAWING),
    Option(
        "stream",
        INDEX,
        None,
        "video stream to read, counted from 0 (default: the best one)",
        _READING,
        of_source=True,
    ),
    Option(
        "max_height",
        COUNT,
        None,
        "if there are several video streams or HLS variants, read the best one of at most N lines",
        _READING,
        of_source=True,
    ),
    Option("max_pixels", COUNT, 200_000_000, "refuse frames and stills with more pixels", _READING, of_source=True),
    Option(
        "start_s",
        DURATION_OR_0,
        None,
        "start a recording at this time (default: at its beginning)",
        _READING,
        of_source=True,
        commands=_OF_PARTS,
    ),
    Option(
        "end_s",
        DURATION,
        None,
        "end a recording before this time, or a live source T after its first frame (default: at its end)",
        _READING,
        of_source=True,
        commands=_OF_PARTS,
    ),
    Option(
        "every", COUNT, 1, "keep only every Nth frame, from the first on", _READING, of_source=True, commands=_OF_PARTS
    ),
    Option(
        "give_up_after_s",
        DURATION_OR_0,
        None,
        "give up on a source that is unavailable for T (default: never, but a single source fails at once if it is "
        "unavailable at the start)",
        _LIVE,
        of_source=True,
    ),
    Option(
        "freshness_s", DURATION, 0.5, "drop frames that arrive more than T late (default: 0.5s)", _LIVE, of_source=True
    ),
    Option("rtsp_transport", one_of("tcp", "udp"), "tcp", "RTSP transport", _LIVE, of_source=True),
    Option("size", SIZE, None, "frame size of a camera", _LIVE, of_source=True),
    Option("fps", RATE, None, "frame rate of a camera", _LIVE, of_source=True),
    Option("input_format", TEXT, None, "pixel or codec format of a camera, such as mjpeg", _LIVE, of_source=True),
    Option("segment_s", DURATION, None, "start a new video file every T; use {time} in its name", _RUNNING),
    Option(
        "speed",
        FACTOR,
        1.0,
        "play video files and the window F times as fast, such as 0.25 for slow motion; files have no sound, and data "
        "keep the times of the source",
        _RUNNING,
    ),
    Option("stats", FILE, None, "write counts, drops and latencies to FILE as JSON when the run ends", _RUNNING),
    Option(
        "stall_after_s",
        DURATION,
        300.0,
        "abort if a step makes no progress for T (default: 300s)",
        _RUNNING,
        own_key="stall_timeout",
    ),
    Option("quiet", SWITCH, False, "print neither the status line nor the final summary", _RUNNING),
    Option("frames", COUNT, None, "frames per run (default: enough for a few seconds)", commands=("bench",)),
    Option("reference_frames", COUNT, None, "total number of frames for the slow reference loop", commands=("bench",)),
    Option("quick", SWITCH, False, "run a shorter, less precise measurement", commands=("bench",)),
    Option("json", FILE, None, "also write the results to FILE as JSON", commands=("bench",)),
)

_BY_NAME = {option.name: option for option in OPTIONS}


def options_of(command: str) -> list[Option]:
    """Return the options of a command, in the order of its help."""
    return [option for option in OPTIONS if command in option.commands]


def check(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the values of the parameters `names` as the program uses them.

    Args:
        values: the values of all parameters, by name. None is valid for an option whose default is None.
        names: the parameters that are options.

    Raises:
        UsageError: a value is invalid. The text names the parameter.
    """
    checked = {}
    for name in names:
        option, value = _BY_NAME[name], values[name]
        is_default = value is None and option.default is None
        checked[name] = None if is_default else option.parse(value, f"`{name}`")
    return checked


def with_flags(text: str) -> str:
    """Return an error text with each parameter in backticks replaced by its flag."""

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
