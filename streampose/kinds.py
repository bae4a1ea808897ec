"""The types of options' values: what is valid, and what it becomes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of an option's value."""

    called: str
    """The valid values in words, for messages: "a number from 0 to 1"."""
    parse: Callable[[Any], Any]
    """Converts a value from the command line, a TOML file or Python to the value that the program uses. Raises
    ValueError, TypeError or OverflowError for an invalid value."""
    metavar: str | None = None
    """The placeholder of the value in the help; None for a switch, which takes no value on the command line."""


def _number(value: Any, *, least: float = 0.0, most: float = sys.maxsize, above: float | None = None) -> float:
    if isinstance(value, bool) or not isinstance(value, str | Real):
        raise TypeError
    number = float(value)
    if not (least <= number <= most) or (above is not None and number <= above):
        raise ValueError
    return number


def _whole(value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, str | Integral):
        raise TypeError
    number = int(value)
    if not least <= number <= sys.maxsize:
        raise ValueError
    return number


def _count_or_auto(value: Any) -> int | str:
    return "auto" if value == "auto" else _whole(value, 1)


def _whom(value: Any) -> str | int:
    return value if value in ("largest", "centre") else _whole(value, 1)


def _identities(value: Any) -> list[int]:
    items = value.split(",") if isinstance(value, str) else [value] if isinstance(value, Integral) else list(value)
    identities = [_whole(item, 1) for item in items if item != ""]
    if not identities:
        raise ValueError
    return identities


_COUNT = r"[0-9]+(?:\.[0-9]+)?"
_DURATION = re.compile(f"(?:({_COUNT})h)?(?:({_COUNT})m)?(?:({_COUNT})s?)?")
"""Hours, minutes and seconds."""


def _duration(value: Any) -> float:
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None or not value:
            raise ValueError
        hours, minutes, seconds = (float(count or 0) for count in match.groups())
        value = hours * 3600 + minutes * 60 + seconds
    return _number(value)


def _duration_above_0(value: Any) -> float:
    return _number(_duration(value), above=0.0)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    if not value:
        raise ValueError
    return value


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        raise TypeError
    texts = [_text(item) for item in value]
    if not texts:
        raise ValueError
    return texts


def _names(value: Any) -> list[str | int]:
    items = value.split(",") if isinstance(value, str) else list(value)
    names = [item.strip() if isinstance(item, str) else _whole(item, 0) for item in items]
    names = [name for name in names if name != ""]
    if not names:
        raise ValueError
    return names


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _size(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch("[1-9][0-9]{0,4}x[1-9][0-9]{0,4}", value):
        raise ValueError
    return value


def one_of(*words: str) -> Kind:
    def parse(value: Any) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return Kind(" or ".join(words), parse, f"{{{','.join(words)}}}")


TEXT = Kind("a text of at least one character", _text, "NAME")
ADDRESS = Kind("an address", _text, "ADDRESS")
FILE = Kind("a file name", _text, "FILE")
CHECKPOINTS = Kind("a list of checkpoints", _texts, "NAME")
SINKS = Kind("a list of sinks, such as ['out.mp4']", _texts, "SINK")
NAMES = Kind("a list of names, or names separated by commas", _names, "NAME,...")
SWITCH = Kind("true or false", _switch)
SHARE = Kind("a number from 0 to 1", lambda value: _number(value, most=1.0), "P")
COUNT = Kind("a whole number from 1 up", lambda value: _whole(value, 1), "N")
INDEX = Kind("a whole number from 0 up", lambda value: _whole(value, 0), "N")
COUNT_OR_AUTO = Kind("a whole number from 1 up, or auto", _count_or_auto, "N")
WHOM = Kind("largest, centre or an identity from 1 up", _whom, "WHOM")
IDENTITIES = Kind("an identity from 1 up, or several separated by commas", _identities, "N,...")
DURATION = Kind("a duration above 0: seconds, or for example 30s, 1m20s or 1h", _duration_above_0, "T")
DURATION_OR_0 = Kind("a duration: seconds, or for example 30s, 1m20s or 1h", _duration, "T")
RATE = Kind("a number of frames per second above 0", lambda value: _number(value, above=0.0, most=10_000.0), "N")
FACTOR = Kind("a factor from 0.01 to 100", lambda value: _number(value, least=0.01, most=100.0), "F")
SIZE = Kind("a size such as 1280x720", _size, "WxH")
