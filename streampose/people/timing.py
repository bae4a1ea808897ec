"""When an event starts, holds and ends, from whether its conditions hold in each frame. Knows no people."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from streampose.people.events import Kind

Truth = bool | None
"""Whether conditions hold in a frame; None if that cannot be seen."""

FLICKER_S = 0.2
"""Before an event starts, conditions may fail for this long without the time starting anew."""
HOLE_S = 1.0
"""Conditions that hold in two frames in succession hold in between, if these are at most this far apart."""
TOLERANCE_S = 1e-6
"""Times are compared with this tolerance, because programs print times with six decimals."""


class Times(NamedTuple):
    """The times of a rule, in seconds."""

    for_s: float = 0.0
    """How long the conditions must hold."""
    ends_after_s: float = 1.0
    """How long they must not hold until the event is over."""
    cool_down_s: float = 0.0
    """How long after an event no other one starts, for the same person."""
    hold_s: float | None = None
    """How often an event that lasts is told again; None for never."""


@dataclass(slots=True)
class Timing:
    """How far an event of one rule and one person is."""

    number: int = 0
    """Of the event that lasts; 0 if none does."""
    since_s: float | None = None
    """First time at which the conditions held; None if they do not hold."""
    held_s: float = -inf
    """Last time."""
    told_s: float = -inf
    """When the event was told last."""
    free_s: float = -inf
    """No event starts before this time."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing changes unless the conditions hold."""
        return self.since_s is None

    def step(self, holds: Truth, pts_s: float, times: Times, *, is_moment: bool) -> tuple[Kind, ...]:
        """Return what to tell about the frame at `pts_s`. After a start, set `number`; after an end, call `rest`.

        Args:
            holds: whether the conditions hold in the frame.
            pts_s: its time.
            times: those of the rule.
            is_moment: whether an event is over in the frame in which it starts.
        """
        if is_moment:
            return self._moment(holds, pts_s, times)
        if holds:
            return self._holding(pts_s, times)
        without_s = pts_s - self.held_s
        if self.number:
            if without_s < times.ends_after_s - TOLERANCE_S:
                return ()
            self.free_s = pts_s + times.cool_down_s
            return ("end",)
        most_s = times.ends_after_s if holds is None else min(times.ends_after_s, FLICKER_S)
        if without_s > most_s + TOLERANCE_S:
            self.since_s = None
        return ()

    def _moment(self, holds: Truth, pts_s: float, times: Times) -> tuple[Kind, ...]:
        if not holds or pts_s < self.free_s - TOLERANCE_S:
            return ()
        self.since_s, self.held_s, self.told_s = pts_s, pts_s, pts_s
        self.free_s = pts_s + times.cool_down_s
        return ("start", "end")

    def _holding(self, pts_s: float, times: Times) -> tuple[Kind, ...]:
        is_hole = pts_s - self.held_s > max(times.ends_after_s, HOLE_S) + TOLERANCE_S
        if self.since_s is None or (is_hole and not self.number):
            self.since_s = pts_s
        self.held_s = pts_s
        if self.number:
            if times.hold_s is None or pts_s - self.told_s < times.hold_s - TOLERANCE_S:
                return ()
            self.told_s = pts_s
            return ("hold",)
        if pts_s - self.since_s < times.for_s - TOLERANCE_S or pts_s < self.free_s - TOLERANCE_S:
            return ()
        self.told_s = pts_s
        return ("start",)

    def rest(self) -> None:
        """Wait for the next event."""
        self.number, self.since_s = 0, None

    def join(self, other: Timing) -> None:
        """Continue as one with `other`, which turned out to be about the same person. At most one of them lasts."""
        if not self.number and (other.number or self.since_s is None):
            self.number, self.since_s, self.told_s = other.number, other.since_s, other.told_s
        self.held_s = max(self.held_s, other.held_s)
        self.free_s = max(self.free_s, other.free_s)
