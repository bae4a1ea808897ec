"""Zones and lines in the picture: polygons and lines by name, how far points are inside, and what crosses a line.

Coordinates are pixels of the frame, or shares of its size. Knows nothing of people.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.errors import UsageError

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MOST_POINTS = 200
"""Maximum corners of a zone."""
MOST_PIXELS = 1_000_000
"""Coordinates are at most this far from the corner of the picture."""
ON_EDGE_PX = 1e-6
"""Points this near to the edge of a zone are inside."""


@dataclass(frozen=True)
class Shape:
    """A zone or a line, as written."""

    name: str
    points: tuple[tuple[float, float], ...]
    """The corners of the zone, or the two ends of the line."""
    is_share: bool
    """Whether the coordinates are shares of the frame size, not pixels: all of them are from 0 to 1."""

    def pixels(self, width: int, height: int) -> Float64:
        """Return the points (P, 2) in pixels of a frame of this size."""
        points = np.array(self.points, np.float64)
        return points * (width, height) if self.is_share else points

    def is_in(self, width: int, height: int) -> bool:
        """Return whether some of it may be in a frame of this size."""
        low, high = self.pixels(width, height).min(axis=0), self.pixels(width, height).max(axis=0)
        return bool((low < (width, height)).all() and (high >= 0).all())


PICTURE = Shape("picture", ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)), is_share=True)
"""The zone that is always there: the whole picture."""


class Polygon:
    """A polygon of straight edges that do not cross."""

    def __init__(self, corners: Float64) -> None:
        """Prepare a polygon with corners (P, 2)."""
        self._starts = corners
        self._steps = np.roll(corners, -1, axis=0) - corners
        self._squares = np.maximum(np.square(self._steps).sum(axis=-1), 1e-12)
        self._end_ys = np.roll(corners[:, 1], -1)
        rises = self._steps[:, 1]
        self._slopes = self._steps[:, 0] / np.where(rises == 0, 1.0, rises)

    def depths(self, points: Float64) -> Float64:
        """Return how far points (..., 2) are from the edge (...): above 0 inside, below 0 outside; NaN for NaN.

        A point on the edge is inside.
        """
        from_starts = points[..., None, :] - self._starts
        along = (from_starts * self._steps).sum(axis=-1) / self._squares
        nearest = from_starts - np.clip(along, 0, 1)[..., None] * self._steps
        distances = np.sqrt(np.square(nearest).sum(axis=-1).min(axis=-1))
        y = points[..., 1, None]
        spans = (self._starts[:, 1] > y) != (self._end_ys > y)
        is_left = from_starts[..., 0] < self._slopes * from_starts[..., 1]
        is_inside = np.count_nonzero(spans & is_left, axis=-1) % 2 == 1
        depths: Float64 = np.where(is_inside | (distances <= ON_EDGE_PX), distances, -distances)
        return depths


@lru_cache(maxsize=1024)
def polygon_of(zone: Shape, width: int, height: int) -> Polygon:
    """Return a zone as a polygon of a frame of this size."""
    return Polygon(zone.pixels(width, height))


def crosses(start: Float64, end: Float64, line: Float64) -> bool:
    """Return whether the way from `start` to `end` (2,) goes through a line (2, 2) between its ends."""
    (a, b), way = line, end - start
    along = b - a
    turn = way[0] * along[1] - way[1] * along[0]
    if turn == 0:
        return False
    to_line = a - start
    of_way = (to_line[0] * along[1] - to_line[1] * along[0]) / turn
    of_line = (to_line[0] * way[1] - to_line[1] * way[0]) / turn
    return bool(0 <= of_way <= 1 and 0 <= of_line <= 1)


def zone_of(name: str, value: Any, where: str) -> Shape:
    """Return the zone that a list of points describes. Raises `UsageError`, beginning with `where`."""
    points = _points(value, where, "at least 3 points, such as [[0.1, 0.5], [0.4, 0.5], [0.4, 1.0]]")
    if len(points) > 1 and points[0] == points[-1]:
        points = points[:-1]
    if len(points) < 3:
        raise UsageError(f"{where}: a zone needs at least 3 different points")
    corners = np.array(points)
    if len(set(points)) < len(points) or _crosses_itself(corners):
        raise UsageError(f"{where}: the zone touches or crosses itself: list its points in order around it")
    x, y = corners.T
    if abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) <= 1e-9 * max(1.0, float(np.ptp(corners))):
        raise UsageError(f"{where}: the zone has no area: its points lie on one line")
    return _shape(name, points)


def line_of(name: str, value: Any, where: str) -> Shape:
    """Return the line that two points describe. Raises `UsageError`, beginning with `where`."""
    points = _points(value, where, "two points, such as [[0.0, 0.5], [1.0, 0.5]]")
    if len(points) != 2 or points[0] == points[1]:
        raise UsageError(f"{where}: a line has two different points, such as [[0.0, 0.5], [1.0, 0.5]]")
    return _shape(name, points)


def _shape(name: str, points: list[tuple[float, float]]) -> Shape:
    return Shape(name, tuple(points), is_share=all(0 <= value <= 1 for point in points for value in point))


def _points(value: Any, where: str, form: str) -> list[tuple[float, float]]:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{where}: give {form}")
    if len(value) > MOST_POINTS:
        raise UsageError(f"{where}: {len(value)} points are too many: at most {MOST_POINTS} are allowed")
    points = []
    for number, point in enumerate(value, start=1):
        if not isinstance(point, list | tuple) or len(point) != 2 or not all(map(_is_coordinate, point)):
            raise UsageError(f"{where}: point {number} is not a pair of numbers [x, y]; give {form}")
        points.append((float(point[0]), float(point[1])))
    return points


def _is_coordinate(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (isinstance(value, int) or math.isfinite(value)) and abs(value) <= MOST_PIXELS


def _crosses_itself(corners: Float64) -> bool:
    """Return whether two edges of a polygon that are not neighbours have a point in common."""
    count = len(corners)
    starts, ends = corners, np.roll(corners, -1, axis=0)
    sides_of_starts = _sides(starts[:, None], ends[:, None], starts[None])
    sides_of_ends = _sides(starts[:, None], ends[:, None], ends[None])
    apart = sides_of_starts * sides_of_ends
    one, other = np.triu_indices(count, 2)
    is_neighbour = (one == 0) & (other == count - 1)
    one, other = one[~is_neighbour], other[~is_neighbour]
    may_meet = (apart[one, other] <= 0) & (apart[other, one] <= 0)
    low, high = np.minimum(starts, ends), np.maximum(starts, ends)
    boxes_meet = ((low[one] <= high[other]) & (low[other] <= high[one])).all(axis=-1)
    return bool((may_meet & boxes_meet).any())


def _sides(starts: Float64, ends: Float64, points: Float64) -> Float64:
    """Return on which side of lines points are: -1, 0 or 1."""
    steps, offsets = ends - starts, points - starts
    sides: Float64 = np.sign(steps[..., 0] * offsets[..., 1] - steps[..., 1] * offsets[..., 0])
    return sides
