"""What the text of a rule means: its conditions, as values. Knows no text and no skeleton."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streampose.people.zones import Shape

Compare = Literal[">", ">=", "<", "<=", "="]


@dataclass(frozen=True)
class Points:
    """What a condition is about: the person, keypoints, or angles."""

    name: str
    """As written, its words joined by underscores; `person` for the person as a whole."""
    is_all: bool = False
    """Whether all of them must fulfil the condition (`both wrists`), not only one (`wrist`)."""


PERSON = Points("person")


@dataclass(frozen=True)
class Inside:
    """Points are inside a zone, or outside."""

    points: Points
    zone: Shape
    is_outside: bool


@dataclass(frozen=True)
class Above:
    """Points are higher in the picture than others, or lower."""

    points: Points
    others: Points
    is_below: bool


@dataclass(frozen=True)
class Crosses:
    """A point goes through a line."""

    points: Points
    line: Shape
    towards: tuple[float, float] | None
    """The direction in the picture, with y down; None for both."""


@dataclass(frozen=True)
class Speed:
    """A point moves faster or slower than a limit."""

    points: Points
    compare: Compare
    limit: float
    in_heights: bool
    """Whether the limit is in heights of the person per second, not in pixels per second."""


@dataclass(frozen=True)
class Within:
    """A part of the body is near to the horizontal or vertical."""

    part: Points
    degrees: float
    is_horizontal: bool


@dataclass(frozen=True)
class Angle:
    """The angle of a joint is larger or smaller than a limit."""

    joint: Points
    compare: Compare
    degrees: float


@dataclass(frozen=True)
class Count:
    """So many people are in a zone; None is the whole picture."""

    zone: Shape | None
    compare: Compare
    number: int


@dataclass(frozen=True)
class Fell:
    """Somebody lies who stood just before."""


Spec = Inside | Above | Crosses | Speed | Within | Angle | Count | Fell


@dataclass(frozen=True)
class When:
    """The meaning of a text."""

    specs: tuple[Spec, ...]
    """All must hold at once, for the same person."""
    for_s: float
    """How long they must hold."""
