"""Reads the rules of a configuration file (TOML), which may be that of a run.

[zones]
door = [[0.1, 0.5], [0.4, 0.5], [0.4, 1.0], [0.1, 1.0]]

[rules.waiting]
when = "person inside door for 10 s"
"""

from __future__ import annotations

import os

from streampose.addresses import redact_address
from streampose.errors import UsageError
from streampose.options import options_of
from streampose.people.rule_book import TABLES, RuleBook, hint, rule_book
from streampose.toml_file import read_toml


def read_rules(path: str | os.PathLike[str]) -> RuleBook:
    """Return the rules in a file.

    Raises:
        UsageError: the file cannot be read, is too large or is not valid TOML, a key is unknown, or a zone, a line or a
            rule is invalid. The text names it.
    """
    name = redact_address(os.fspath(path))
    values = read_toml(path)
    of_runs = {"sources", *(option.key for option in options_of("run"))}
    for key in values:
        if key not in TABLES and key not in of_runs:
            raise UsageError(f"{name}: unknown key {redact_address(key[:80])!r}: {hint(key[:80], TABLES)}")
    return rule_book({key: values[key] for key in TABLES if key in values}, name)
