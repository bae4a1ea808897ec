"""Reads a configuration file (TOML): the sources of a run and its options. Opens no source.

detector = "PekingU/rtdetr_r50vd_coco_o365"            # every option of `streampose run`, with _ for -
to = ["rtmp://host/live/{source}", "{source}.jsonl"]   # for all sources without sinks of their own

[sources.door]
source = "rtsp://user:password@10.0.0.7/stream"
freshness = "2s"                                       # an option of this source

[sources.hall]
source = "/dev/video2"
size = "1280x720"
to = ["hall.mkv"]
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from streampose.addresses import redact_address
from streampose.errors import UsageError
from streampose.inputs import Input, check_name
from streampose.kinds import TEXT
from streampose.options import Option, options_of
from streampose.toml_file import read_toml


def read_config(path: str | os.PathLike[str]) -> tuple[list[Input], dict[str, Any]]:
    """Return the sources in the file, and the other arguments for `streampose.stream`.

    Raises:
        UsageError: the file cannot be read or is not valid TOML, a key is unknown, or a value is invalid. The text
            names the key.
    """
    name = redact_address(os.fspath(path))
    values = read_toml(path)
    tables = values.pop("sources", None)
    if not isinstance(tables, dict) or not tables:
        raise UsageError(f"{name}: no sources: add a table [sources.NAME] and, below it, source = ...")
    shared = _parsed(name, "", values, options_of("run"))
    of_all = {option.name for option in options_of("run") if option.of_source}
    own = [Option("source", TEXT, None, ""), *(option for option in options_of("run") if option.of_source)]
    own.append(next(option for option in options_of("run") if option.name == "to"))
    inputs = []
    for source_id, table in tables.items():
        key = f"sources.{redact_address(source_id)}"
        if not isinstance(table, dict):
            raise UsageError(f"{name}: {key} is not a table: write [{key}] and, below it, source = ...")
        fields = _parsed(name, f"{key}.", table, own)
        if "source" not in fields:
            raise UsageError(f"{name}: [{key}] names no source: add source = ...")
        try:
            check_name(source_id)
        except UsageError as error:
            raise UsageError(f"{name}: [{key}]: {error}") from error
        defaults = {field: value for field, value in shared.items() if field in of_all}
        inputs.append(Input(name=source_id, **defaults | fields))
    return inputs, {key: value for key, value in shared.items() if key not in of_all}


def _parsed(name: str, prefix: str, values: Mapping[str, Any], known: Sequence[Option]) -> dict[str, Any]:
    """Return the values of a table by parameter name."""
    by_key = {option.key: option for option in known}
    parsed = {}
    for key, value in values.items():
        if key not in by_key:
            close = difflib.get_close_matches(key, by_key, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(by_key)}"
            raise UsageError(f"{name}: unknown key {prefix}{redact_address(key)}: {hint}")
        option = by_key[key]
        parsed[option.name] = option.parse(value, f"{name}: {prefix}{key}")
    return parsed
