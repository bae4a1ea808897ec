"""Reads the rules of a configuration file (TOML), which may be that of a run.

[zones]
door = [[0.1, 0.5], [0.4, 0.5], [0.4, 1.0], [0.1, 1.0]]

[rules.waiting]
when = "person inside door for 10 s"
"""

from __future__ import annotations

import os
import tomllib

from streampose.addresses import redact_address
from streampose.errors import UsageError, describe
from streampose.options import options_of
from streampose.people.rule_book import TABLES, RuleBook, hint, rule_book

MOST_BYTES = 256_000
"""Maximum size of a file. Larger ones take seconds to read."""
MOST_DOTS = 500
"""Maximum dots in a line: the numbers of the largest zone have 400. The memory that tomllib needs for a dotted key
grows with the square of its length, up to gigabytes."""


def read_rules(path: str | os.PathLike[str]) -> RuleBook:
    """Return the rules in a file.

    Raises:
        UsageError: the file cannot be read, is too large or is not valid TOML, a key is unknown, or a zone, a line or a
            rule is invalid. The text names it.
    """
    name = redact_address(os.fspath(path))
    try:
        # Path would shorten an address given by mistake to rtmp:/host, and tracebacks would then show its password.
        with open(path, "rb") as file:  # noqa: PTH123
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read {name}: {describe(error)}") from error
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
        values = tomllib.loads(text)
    except RecursionError as error:
        raise UsageError(f"{name} is not a valid TOML file: it is nested too deeply") from error
    except ValueError as error:  # also of numbers with thousands of digits
        raise UsageError(f"{name} is not a valid TOML file: {describe(error)}") from error
    of_runs = {"sources", *(option.key for option in options_of("run"))}
    for key in values:
        if key not in TABLES and key not in of_runs:
            raise UsageError(f"{name}: unknown key {redact_address(key[:80])!r}: {hint(key[:80], TABLES)}")
    return rule_book({key: values[key] for key in TABLES if key in values}, name)
