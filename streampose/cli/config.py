"""A TOML file to the values of a run: which sources, where their results go, which networks. Opens nothing.

detector = "PekingU/rtdetr_r50vd_coco_o365"            # every flag of `streampose run`, with _ for -
to = ["rtmp://host/live/{source}", "{source}.jsonl"]   # for every source without its own

[sources.door]
source = "rtsp://user:password@10.0.0.7/stream"

[sources.hall]
source = "/dev/video2"
size = "1280x720"
to = ["hall.mkv"]
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from streampose.addresses import redact, redact_address
from streampose.errors import UsageError, describe
from streampose.inputs import Input, check_name

_IS_OF_KIND: dict[str, Callable[[Any], bool]] = {
    "a text": lambda value: isinstance(value, str) and value != "",
    "a list of texts": lambda value: (
        isinstance(value, list) and value != [] and all(isinstance(item, str) and item for item in value)
    ),
    "true or false": lambda value: isinstance(value, bool),
    "a whole number from 0 on": lambda value: _is_number(value, int) and value >= 0,
    "a whole number from 1 on": lambda value: _is_number(value, int) and value >= 1,
    "a whole number from 1 on, or auto": lambda value: value == "auto" or (_is_number(value, int) and value >= 1),
    "a number from 0 to 1": lambda value: _is_number(value) and value <= 1,
    "a number from 0 on": lambda value: _is_number(value),
    "a number above 0": lambda value: _is_number(value) and value > 0,
    "lines or weighted": lambda value: value in ("lines", "weighted"),
    "hf or paper": lambda value: value in ("hf", "paper"),
    "tcp or udp": lambda value: value in ("tcp", "udp"),
    "width and height, as 1280x720": lambda value: (
        isinstance(value, str) and re.fullmatch("[1-9][0-9]*x[1-9][0-9]*", value) is not None
    ),
}
_RUN_KEYS = {
    "to": "a list of texts",
    "overwrite": "true or false",
    "pose": "a text",
    "detector": "a text",
    "classes": "a list of texts",
    "dataset_index": "a whole number from 0 on",
    "allow_pickle": "true or false",
    "device": "a text",
    "dtype": "a text",
    "compile": "true or false",
    "warm_up": "true or false",
    "box_threshold": "a number from 0 to 1",
    "max_people": "a whole number from 1 on",
    "detect_every": "a whole number from 1 on, or auto",
    "flip_test": "true or false",
    "blur": "hf or paper",
    "detect_batch": "a whole number from 1 on",
    "pose_batch": "a whole number from 1 on",
    "keypoint_threshold": "a number from 0 to 1",
    "style": "lines or weighted",
    "boxes": "true or false",
    "labels": "true or false",
    "segment_s": "a number above 0",
    "stall_after_s": "a number above 0",
}
"""The arguments of `streampose.stream`."""
_SOURCE_KEYS = {
    "source": "a text",
    "to": "a list of texts",
    "give_up_after_s": "a number from 0 on",
    "freshness_s": "a number above 0",
    "rtsp_transport": "tcp or udp",
    "size": "width and height, as 1280x720",
    "fps": "a number above 0",
    "input_format": "a text",
}
"""Those of `Input`; its name is the table's."""


def _is_number(value: Any, kind: type = object) -> bool:
    """Whether `value` is a number from 0 on, no infinite one, and of this kind."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and isinstance(value, kind)
    return is_number and 0 <= value <= sys.maxsize


def read_config(path: str | os.PathLike[str]) -> tuple[list[Input], dict[str, Any]]:
    """Return the sources and the other arguments of `streampose.stream` that a file names.

    Raises:
        UsageError: no such file, no TOML, a key that is not known or a value that cannot be right; names the key.
    """
    name = redact_address(os.fspath(path))
    try:
        with Path(path).open("rb") as file:
            values = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name} is no TOML file: {describe(error)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {name}: {describe(error)}") from error
    tables = values.pop("sources", None)
    if not isinstance(tables, dict) or not tables:
        raise UsageError(f"{name}: no sources: add a table [sources.NAME] with source = ...")
    _check(name, "", values, _RUN_KEYS)
    inputs = []
    for source_id, table in tables.items():
        key = f"sources.{redact_address(source_id)}"
        if not isinstance(table, dict):
            raise UsageError(f"{name}: {key} is no table: write [{key}] with source = ...")
        _check(name, f"{key}.", table, _SOURCE_KEYS)
        if "source" not in table:
            raise UsageError(f"{name}: [{key}] names no source: add source = ...")
        try:
            check_name(source_id)
        except UsageError as error:
            raise UsageError(f"{name}: [{key}]: {error}") from error
        inputs.append(Input(name=source_id, **table))
    return inputs, values


def _check(name: str, prefix: str, values: Mapping[str, Any], known: Mapping[str, str]) -> None:
    for key, value in values.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise UsageError(f"{name}: unknown key {prefix}{redact_address(key)}: {hint}")
        if not _IS_OF_KIND[known[key]](value):
            raise UsageError(f"{name}: {prefix}{key} is {known[key]}, not {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return repr(redact_address(value)) if isinstance(value, str) else redact(repr(value))
