"""Picks the frames of a part of a recording by their times. Knows neither files nor pictures."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, inf

from streampose.errors import UsageError
from streampose.frames import Part

TOLERANCE_S = 1e-6
"""A frame that is less than this before a time counts as at that time, because programs print times with six
decimals."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which frame of a source."""

    index: int
    pts_s: float


def part_of(start_s: float | None = None, end_s: float | None = None, every: int = 1) -> Part:
    """Return the part between two times in seconds; None means the beginning, or the end.

    Raises:
        UsageError: the part is empty.
    """
    part = Part(start_s or 0.0, inf if end_s is None else end_s, every)
    if part.end_s <= part.start_s:
        raise UsageError(f"`end_s` ({part.end_s:g} s) must be after `start_s` ({part.start_s:g} s)")
    return part


class Picker:
    """Says which frames of one source are in a part. Ask about the frames in their order."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._inside = 0
        """Frames so far between start and end."""

    def is_over(self, pts_s: float) -> bool:
        """Return whether the part ends at or before this time."""
        return pts_s >= self._part.end_s - TOLERANCE_S

    def wants(self, pts_s: float) -> bool:
        """Return whether the next frame, if it is at `pts_s`, is in the part. Does not count it."""
        return self._is_inside(pts_s) and self._inside % self._part.every == 0

    def takes(self, pts_s: float) -> bool:
        """Count the next frame, which is at `pts_s`, and return whether it is in the part. Call it once per frame."""
        wants = self.wants(pts_s)
        self._inside += self._is_inside(pts_s)
        return wants

    def _is_inside(self, pts_s: float) -> bool:
        return pts_s >= self._part.start_s - TOLERANCE_S and not self.is_over(pts_s)


def picked_count(part: Part, count: int | None, first_s: float, rate: Fraction | None) -> int | None:
    """Estimate how many frames are in a part.

    Args:
        part: the part.
        count: number of frames from the first one in the part to the end of the recording; None if unknown.
        first_s: time of that frame.
        rate: frames per second of the recording; None if unknown.
    """
    if part.end_s < inf and rate:
        until_end = max(1, ceil((part.end_s - first_s - TOLERANCE_S) * rate))
        count = until_end if count is None else min(count, until_end)
    return None if count is None else ceil(count / part.every)


def starts_behind(part: Part, what: str, last_s: float) -> UsageError:
    """Return the error for a part behind the last frame of the recording `what`, which is at `last_s`."""
    return UsageError(f"the last frame of {what} is at {last_s:.6g} s: `start_s` ({part.start_s:g} s) is later")


def nothing_in(part: Part, what: str, next_s: float) -> UsageError:
    """Return the error for a part of the recording `what` without a frame; the next frame is at `next_s`."""
    return UsageError(
        f"{what} has no frame from {part.start_s:g} to {part.end_s:g} s (the next one is at {next_s:.6g} s): "
        "change `start_s` or `end_s`"
    )
