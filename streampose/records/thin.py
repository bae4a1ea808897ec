"""Curves and paths of any length, kept to the points that a plot can show.

A curve keeps, for each of `COLUMNS` columns of pixels, its first, lowest, highest and last point: a line through them
colours the same pixels as a line through all points (M4: Jugel, Jerzak, Hackenbroich and Markl, "M4: A
Visualization-Oriented Time Series Data Aggregation", PVLDB 7(10), 2014). Gaps are kept.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Thinner = Callable[[Float64, Float64, "Columns"], tuple[Float64, Float64]]

COLUMNS = 2000
"""More than the pixel columns of a plot."""
MOST_ROWS = 4 * COLUMNS
"""A shorter curve is kept as it is."""
PATH_POINTS = 20_000
"""Maximum number of points of a path."""


class Columns:
    """The pixel columns of a time axis."""

    def __init__(self, first_s: float, last_s: float) -> None:
        self._first_s = first_s
        self._per_s = COLUMNS / (last_s - first_s) if last_s > first_s else 0.0

    def of(self, times_s: Float64) -> npt.NDArray[np.int64]:
        """Return the columns (n,) of times (n,)."""
        return np.minimum((times_s - self._first_s) * self._per_s, COLUMNS - 1).astype(np.int64)


class Curve:
    """C values over time, of which not more than the plot can show are kept. Add them in the order of time."""

    def __init__(self, columns: Columns, thinner: Thinner) -> None:
        """Start without values. `thinner` is `m4` for one value, and `envelope` for a lower and an upper one."""
        self._columns = columns
        self._thinner = thinner
        self._kept: list[tuple[Float64, Float64]] = []
        self._count = 0
        self._is_thinned = False

    def add(self, times_s: Float64, values: Float64) -> None:
        """Add values (n, C) at times (n,). A row with NaN is a gap."""
        self._kept.append((times_s, values))
        self._count += len(times_s)
        if self._count > 2 * MOST_ROWS:
            self._thin()

    def points(self) -> tuple[Float64, Float64]:
        """Return times (m,) and values (m, C) for a line, with NaN in the gaps."""
        if not self._kept:
            return np.zeros(0), np.zeros((0, 1))
        if self._count > MOST_ROWS or self._is_thinned:
            self._thin()
        times_s, values = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
        return times_s, values

    def _thin(self) -> None:
        times_s, values = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
        self._kept = [self._thinner(times_s, values, self._columns)]
        self._count = len(self._kept[0][0])
        self._is_thinned = True


def m4(times_s: Float64, values: Float64, columns: Columns) -> tuple[Float64, Float64]:
    """Return the first, lowest, highest and last rows of values (n, 1) in each column, and the gaps between columns."""
    rows, starts, numbers = _by_column(times_s, values, columns)
    if not len(rows):
        return times_s[:0], values[:0]
    height = values[rows, 0]
    order = np.lexsort((height, numbers))  # the columns stay where they are
    ends = np.append(starts[1:], len(rows))
    kept = np.unique(np.concatenate([starts, ends - 1, order[starts], order[ends - 1]]))
    return _with_gaps(times_s, values, rows, rows[kept], np.flatnonzero(np.isin(kept, starts)))


def envelope(times_s: Float64, values: Float64, columns: Columns) -> tuple[Float64, Float64]:
    """Return a row for each column: the lowest first value and the highest second value of values (n, 2)."""
    rows, starts, _ = _by_column(times_s, values, columns)
    if not len(rows):
        return times_s[:0], values[:0]
    edges = values.copy()
    edges[rows[starts], 0] = np.minimum.reduceat(values[rows, 0], starts)
    edges[rows[starts], 1] = np.maximum.reduceat(values[rows, 1], starts)
    return _with_gaps(times_s, edges, rows, rows[starts], np.arange(len(starts)))


def _by_column(
    times_s: Float64, values: Float64, columns: Columns
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the numbers of the known rows, where among them a column begins, and the column of each."""
    rows = np.flatnonzero(np.isfinite(values).all(axis=1))
    numbers = columns.of(times_s[rows])
    return rows, np.flatnonzero(np.diff(numbers, prepend=-1)), numbers


def _with_gaps(
    times_s: Float64,
    values: Float64,
    rows: npt.NDArray[np.int64],
    kept: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
) -> tuple[Float64, Float64]:
    """Return the rows `kept`, with a row of NaN before each column that a gap precedes, and at the end if one follows.

    Args:
        times_s: (n,).
        values: (n, C).
        rows: the known rows.
        kept: some of them.
        starts: where in `kept` a column begins.
    """
    before = rows[np.searchsorted(rows, kept[starts]) - 1]
    is_torn = (kept[starts] - before > 1) & (np.arange(len(starts)) > 0)
    places = starts[is_torn]
    gap_times_s = times_s[kept[places] - 1]
    if rows[-1] < len(times_s) - 1:
        places, gap_times_s = np.append(places, len(kept)), np.append(gap_times_s, times_s[-1])
    return np.insert(times_s[kept], places, gap_times_s), np.insert(values[kept], places, np.nan, axis=0)


class Path:
    """A path in the picture. Points closer than a step to the one before are left out; the step is doubled whenever
    there are more than `PATH_POINTS` points.
    """

    def __init__(self, step: float) -> None:
        """Start without points. `step` is in pixels of the frame."""
        self._step = step
        self._points: list[tuple[float, float]] = []
        self._last = (np.nan, np.nan)
        self._is_torn = False
        self.end: tuple[float, float] | None = None
        """The latest point."""

    def add(self, points: Float64) -> None:
        """Add points (n, 2). NaN is a gap."""
        for x, y in points.tolist():
            self._add(x, y)
            self.end = (x, y) if x == x and y == y else self.end
            if len(self._points) > PATH_POINTS:
                self._step *= 2
                points_before, self._points, self._last = self._points, [], (np.nan, np.nan)
                for one in points_before:
                    self._add(*one)

    def points(self) -> Float64:
        """Return the points (m, 2), with NaN in the gaps."""
        return np.array(self._points, np.float64).reshape(-1, 2)

    def _add(self, x: float, y: float) -> None:
        if x != x or y != y:
            self._is_torn = bool(self._points)
            return
        near_x, near_y = self._last
        if abs(x - near_x) < self._step and abs(y - near_y) < self._step:
            self._is_torn = False  # a gap that ends where it began cannot be seen
            return
        if self._is_torn:
            self._points.append((np.nan, np.nan))
        self._points.append((x, y))
        self._last, self._is_torn = (x, y), False
