"""What rules tell: events with a start, an end, a source, a person and values. Knows no rule and no sink."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["start", "hold", "end"]

TIME_DECIMALS = 6
PIXEL_DECIMALS = 2
VALUE_DECIMALS = 3


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a rule tells about a frame."""

    kind: Kind
    """`start`; `end`, when it is over; `hold` in between, if the rule asks for it."""
    rule: str
    """Name of the rule."""
    source: str
    """Name of the source."""
    number: int
    """Number of the event in its source, from 1. Its start, its holds and its end have the same."""
    person: int | None
    """Identity of the person; None for a rule about everybody."""
    time_s: float
    """`Frame.pts_s` of the frame that decided, in seconds."""
    frame: int
    """Its index."""
    since_s: float
    """Time of the first frame in which the conditions held."""
    until_s: float | None = None
    """Of an end: time of the last frame in which they held."""
    values: dict[str, float] = field(default_factory=dict)
    """What was measured: `count`, degrees, speeds, by name. Empty if nothing was measured in this frame."""
    box_xyxy: tuple[float, float, float, float] | None = None
    """Box of the person when last seen, in pixels of the frame; None for a rule about everybody."""


def record_of(event: Event) -> dict[str, Any]:
    """Return an event as JSON values. docs/rules.md lists the keys."""
    record: dict[str, Any] = {
        "event": event.kind,
        "rule": event.rule,
        "source": event.source,
        "number": event.number,
        "person": event.person,
        "time_s": round(event.time_s, TIME_DECIMALS),
        "frame": event.frame,
        "since_s": round(event.since_s, TIME_DECIMALS),
    }
    if event.until_s is not None:
        record["until_s"] = round(event.until_s, TIME_DECIMALS)
    record["values"] = {name: round(value, VALUE_DECIMALS) for name, value in event.values.items()}
    record["box_xyxy"] = None if event.box_xyxy is None else [round(one, PIXEL_DECIMALS) for one in event.box_xyxy]
    return record


def text_of(event: Event) -> str:
    """Return an event as a line for people."""
    who = "" if event.person is None else f"person {event.person}"
    words = [f"{event.time_s:10.3f} s", f"{event.source:<12}", f"{event.kind:<5}", f"{event.rule:<16}", f"{who:<10}"]
    if event.until_s is not None:
        words.append(f"held from {event.since_s:.3f} to {event.until_s:.3f} s")
    else:
        words += [f"{name.replace('_', ' ')} {value:.4g}" for name, value in event.values.items()]
    return "  ".join(words).rstrip()
