"""Writes the statistics or results of a command to a JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streampose.errors import SinkError, UsageError, describe
from streampose.sinks.target import check_file, name_of


def check_json(file: str, sources: Sequence[str], *, overwrite: bool) -> None:
    """Check before a run that the file can be written at its end. Raises `UsageError` and `SinkError`."""
    path, name = Path(file), name_of(file)
    for source in sources:
        check_file(path, overwrite=overwrite, source_path=source)
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {name}: the folder {name_of(path.parent)} does not exist")


def write_json(file: str, values: dict[str, Any]) -> None:
    """Write `values` to the file. Raises `SinkError`."""
    try:
        Path(file).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SinkError(f"cannot write {name_of(file)}: {describe(error)}") from error
