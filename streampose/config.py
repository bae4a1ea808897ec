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
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from streampose.errors import UsageError, describe, redact, redact_address
from streampose.inputs import Input

_IS_OF_KIND: dict[str, Callable[[Any], bool]] = {
    "a text": lambda value: isinstance(value, str),
    "a list of texts": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    "true or false": lambda value: isinstance(value, bool),
    "a whole number": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "a whole number or auto": lambda value: value == "auto" or (isinstance(value, int) and not isinstance(value, bool)),
    "a number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}
_RUN_KEYS = {
    "to": "a list of texts",
    "overwrite": "true or false",
    "pose": "a text",
    "detector": "a text",
    "classes": "a list of texts",
    "dataset_index": "a whole number",
    "allow_pickle": "true or false",
    "device": "a text",
    "dtype": "a text",
    "box_threshold": "a number",
    "max_people": "a whole number",
    "detect_every": "a whole number or auto",
    "flip_test": "true or false",
    "blur": "a text",
    "detect_batch": "a whole number",
    "pose_batch": "a whole number",
    "keypoint_threshold": "a number",
    "style": "a text",
    "boxes": "true or false",
    "labels": "true or false",
    "segment_s": "a number",
    "stall_after_s": "a number",
}
"""The arguments of `streampose.stream`."""
_SOURCE_KEYS = {
    "source": "a text",
    "to": "a list of texts",
    "give_up_after_s": "a number",
    "freshness_s": "a number",
    "rtsp_transport": "a text",
    "size": "a text",
    "fps": "a number",
    "input_format": "a text",
}
"""Those of `Input`; its name is the table's."""


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
        key = f"sources.{source_id}"
        if not isinstance(table, dict):
            raise UsageError(f"{name}: {key} is no table: write [{key}] with source = ...")
        _check(name, f"{key}.", table, _SOURCE_KEYS)
        if "source" not in table:
            raise UsageError(f"{name}: [{key}] names no source: add source = ...")
        inputs.append(Input(name=source_id, **table))
    return inputs, values


def _check(name: str, prefix: str, values: Mapping[str, Any], known: Mapping[str, str]) -> None:
    for key, value in values.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise UsageError(f"{name}: unknown key {prefix}{key}: {hint}")
        if not _IS_OF_KIND[known[key]](value):
            raise UsageError(f"{name}: {prefix}{key} is {known[key]}, not {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return repr(redact_address(value)) if isinstance(value, str) else redact(repr(value))
