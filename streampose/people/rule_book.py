"""The rules of a configuration file, checked: zones, lines, and rules with their times. See docs/rules.md."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from streampose.errors import UsageError
from streampose.kinds import DURATION, DURATION_OR_0, SHARE, Kind
from streampose.people.rule_specs import Count, Crosses, When
from streampose.people.rule_text import RESERVED, read_when
from streampose.people.timing import Times
from streampose.people.zones import PICTURE, Shape, line_of, zone_of

TABLES = ("zones", "lines", "rules")
"""The tables of a configuration file that are about rules."""
MOST_NAMED = 100
"""Maximum number of zones, of lines and of rules."""
MARGIN = 0.05
"""How far beyond an edge somebody must be to have left a zone or crossed a line, in sizes of the person."""

_NAME = re.compile(r"[^\W\d][\w-]{0,63}")
_TIMES: dict[str, Kind] = {"cool_down": DURATION_OR_0, "ends_after": DURATION_OR_0, "hold": DURATION}
_KEYS = ("when", *_TIMES, "margin", "sources")


@dataclass(frozen=True)
class Rule:
    """A rule: when it tells an event."""

    name: str
    when: When
    times: Times
    margin: float
    """See `MARGIN`."""
    sources: tuple[str, ...] | None
    """The sources that it is for; None for all."""

    @property
    def is_about_all(self) -> bool:
        """Whether it is about everybody, not about each person."""
        return isinstance(self.when.specs[0], Count)

    @property
    def is_moment(self) -> bool:
        """Whether its events are over in the frame in which they start."""
        return any(isinstance(spec, Crosses) for spec in self.when.specs)


@dataclass(frozen=True)
class RuleBook:
    """All rules of a configuration file."""

    rules: tuple[Rule, ...]
    shapes: tuple[Shape, ...]
    """All zones and lines."""
    where: str
    """Name of the file; precedes the messages of errors."""


def rule_book(tables: Mapping[str, Any], where: str) -> RuleBook:
    """Return the rules of a configuration file.

    Args:
        tables: its tables `zones`, `lines` and `rules`.
        where: its name, for the messages.

    Raises:
        UsageError: a zone, a line or a rule is invalid. The message names it.
    """
    zones = _shapes(tables, "zones", zone_of, where)
    lines = _shapes(tables, "lines", line_of, where)
    if PICTURE.name in zones:
        raise UsageError(f"{where}: zones.{PICTURE.name}: this name means the whole picture; choose another one")
    rules = _table(tables, "rules", where)
    if not rules:
        raise UsageError(f'{where}: no rules: add a table [rules.NAME] and, below it, when = "..."')
    read = tuple(_rule(name, value, zones, lines, where) for name, value in rules.items())
    return RuleBook(read, (*zones.values(), *lines.values()), where)


def _table(tables: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    table = tables.get(key, {})
    if not isinstance(table, dict):
        raise UsageError(f"{where}: {key} is not a table: write [{key}]")
    if len(table) > MOST_NAMED:
        raise UsageError(f"{where}: {len(table)} {key} are too many: at most {MOST_NAMED} are allowed")
    for name in table:
        if not _NAME.fullmatch(name) or (key != "rules" and name.lower() in RESERVED):
            raise UsageError(
                f"{where}: {key}: {name[:80]!r} cannot be a name: begin with a letter, use letters, digits, - "
                "and _, and no word of the rules"
            )
    return table


def _shapes(
    tables: Mapping[str, Any], key: str, read: Callable[[str, Any, str], Shape], where: str
) -> dict[str, Shape]:
    table = _table(tables, key, where)
    return {name: read(name, value, f"{where}: {key}.{name}") for name, value in table.items()}


def _rule(name: str, value: Any, zones: Mapping[str, Shape], lines: Mapping[str, Shape], where: str) -> Rule:
    at = f"{where}: rules.{name}"
    if not isinstance(value, dict):
        raise UsageError(f'{at} is not a table: write [rules.{name}] and, below it, when = "..."')
    for key in value:
        if key not in _KEYS:
            raise UsageError(f"{at}: unknown key {key[:80]!r}: {hint(key[:80], _KEYS)}")
    text = value.get("when")
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f'{at}: add when = "...", such as "both wrists above head for 1 s"')
    when = read_when(text, zones, lines, f"{at}.when")
    given = {f"{key}_s": _parsed(value[key], kind, f"{at}.{key}") for key, kind in _TIMES.items() if key in value}
    margin = _parsed(value["margin"], SHARE, f"{at}.margin") if "margin" in value else MARGIN
    return Rule(name, when, Times(when.for_s, **given), margin, _sources(value.get("sources"), f"{at}.sources"))


def _parsed(value: Any, kind: Kind, where: str) -> Any:
    try:
        return kind.parse(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"{where}: {value!r:.80} is not {kind.called}") from error


def _sources(value: Any, where: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
        raise UsageError(f'{where}: give a list of names of sources, such as ["cam1", "cam2"]')
    return tuple(value)


def hint(word: str, known: Collection[str]) -> str:
    """Return what may have been meant, for a message."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known keys are {', '.join(known)}"
