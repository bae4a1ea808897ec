"""Who is in a poses file and when, found by reading it once. Knows nothing about what is done with it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from streampose.errors import UsageError, describe
from streampose.records.poses import RecordedPoses
from streampose.sinks.target import name_of

MOST_NAMED = 20
"""Maximum number of people that an error names."""


class Who(NamedTuple):
    """A person of a file. An identity belongs to its source."""

    source: str
    id: int


@dataclass(slots=True)
class Presence:
    """When a person was there."""

    first_s: float
    last_s: float
    frames: int = 1


@dataclass(slots=True)
class Span:
    """The frames of a source."""

    first_s: float
    last_s: float
    width: int
    """In pixels, of the largest frame."""
    height: int
    is_stills: bool
    frames: int = 1

    @property
    def interval_s(self) -> float:
        """The mean time from frame to frame."""
        return (self.last_s - self.first_s) / (self.frames - 1) if self.frames > 1 else 0.0


@dataclass(slots=True)
class Survey:
    """What a poses file holds. Frames without a time do not count."""

    name: str
    """Of the file, for messages."""
    people: dict[Who, Presence] = field(default_factory=dict)
    """Everybody who has an identity, in the order of appearance."""
    sources: dict[str, Span] = field(default_factory=dict)
    has_people: bool = False
    """Whether there is anybody, with an identity or without."""
    lines: int = 0
    """Number of intact frames."""
    damage: UsageError | None = None
    """Why the rest of the file could not be read; None if all of it was."""

    def intact(self, poses: RecordedPoses) -> Iterator[dict[str, Any]]:
        """Iterate over the intact frames."""
        return islice(poses.lines(), self.lines)

    def longest(self, sources: Collection[str]) -> list[Who]:
        """Return the people of some sources, those who are in most frames first."""
        return sorted((who for who in self.people if who.source in sources), key=lambda who: -self.people[who].frames)

    def of(self, ids: Sequence[int], sources: Collection[str]) -> list[Who]:
        """Return the people with these identities, in their order; an empty list if nobody has an identity.

        Raises `UsageError` if there are others, but no such person.
        """
        there = sorted(who for who in self.people if who.source in sources)
        found = [who for one in ids for who in there if who.id == one]
        for one in ids:
            if there and all(who.id != one for who in there):
                named = [str(number) for number in sorted({who.id for who in there})]
                more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
                raise UsageError(f"no person {one} in {self.name}: there are {', '.join(named[:MOST_NAMED])}{more}")
        return list(dict.fromkeys(found))


def survey(poses: RecordedPoses) -> Survey:
    """Read a poses file up to its end, or to the first damaged line."""
    found = Survey(name_of(poses.path))
    try:
        for line in poses.lines():
            try:
                _look_at(line, found, len(poses.skeleton.names))
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise UsageError(
                    f"{found.name} is damaged at line {found.lines + 2}: not a frame ({describe(error)})"
                ) from error
            found.lines += 1
    except UsageError as error:
        found.damage = error
    return found


def _look_at(line: dict[str, Any], found: Survey, keypoint_count: int) -> None:
    """Add a frame. Raises `LookupError`, `TypeError`, `ValueError` and `AttributeError` if it is none."""
    people, pts_s, source = line["people"], line["pts_s"], line["source"]
    if any(len(person["keypoints"]) != keypoint_count or len(person["box_xyxy"]) != 4 for person in people):
        raise ValueError(f"people have a box and {keypoint_count} keypoints")
    if pts_s is None:
        return
    span = found.sources.get(source)
    if span is None:
        found.sources[source] = Span(pts_s, pts_s, line["width"], line["height"], "file" in line)
    else:
        span.first_s, span.last_s = min(span.first_s, pts_s), max(span.last_s, pts_s)
        span.width, span.height = max(span.width, line["width"]), max(span.height, line["height"])
        span.frames += 1
    for person in people:
        found.has_people = True
        identity = person.get("id")
        if identity is None:
            continue
        who = Who(source, identity)
        there = found.people.get(who)
        if there is None:
            found.people[who] = Presence(pts_s, pts_s)
        else:
            there.first_s, there.last_s = min(there.first_s, pts_s), max(there.last_s, pts_s)
            there.frames += 1
