"""A file for counts or results as JSON, at the end of a command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streampose.errors import SinkError, UsageError, describe
from streampose.sinks.target import check_file, name_of


def check_json(file: str, sources: Sequence[str], *, overwrite: bool) -> None:
    """Refuse, before the run, a file that cannot be written at its end."""
    path, name = Path(file), name_of(file)
    for source in sources:
        check_file(path, overwrite=overwrite, source_path=source)
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {name}: there is no folder {name_of(path.parent)}")


def write_json(file: str, values: dict[str, Any]) -> None:
    """Write `values` to the file. Raises `SinkError`."""
    try:
        Path(file).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SinkError(f"cannot write {name_of(file)}: {describe(error)}") from error
