"""Reads a TOML file that may be wrong in any way. Knows nothing about its keys."""

from __future__ import annotations

import os
import tomllib
from typing import Any

from streampose.addresses import redact_address
from streampose.errors import UsageError, describe

MOST_BYTES = 256_000
"""Maximum size of a file. Larger ones take seconds to read."""
MOST_DOTS = 500
"""Maximum dots in a line: the numbers of the largest zone have 400. The memory that tomllib needs for a dotted key
grows with the square of its length, up to gigabytes."""


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the values in a file.

    Raises:
        UsageError: the file cannot be read, is too large, or is not valid TOML.
    """
    name = redact_address(os.fspath(path))
    try:
        # Path would shorten an address given by mistake to rtmp:/host, and tracebacks would then show its password.
        with open(path, "rb") as file:  # noqa: PTH123
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig")  # some editors write a byte order mark
    except (OSError, ValueError) as error:  # a name may hold a null character
        raise UsageError(f"cannot read {name}: {describe(error)}") from error
    if len(content) > MOST_BYTES:
        raise UsageError(
            f"{name} is too large: at most {MOST_BYTES // 1000} kB are allowed; draw zones with fewer points"
        )
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > MOST_DOTS:
            raise UsageError(f"{name}: line {number} has more than {MOST_DOTS} dots: begin a line for each zone")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise UsageError(f"{name} is not a valid TOML file: it is nested too deeply") from error
    except ValueError as error:  # also of numbers with thousands of digits
        raise UsageError(f"{name} is not a valid TOML file: {describe(error)}") from error
