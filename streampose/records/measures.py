"""What curves show of a person: angles, positions and speeds over time, with their uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from streampose.people.angles import AngleMeter
from streampose.people.names import SIDES, meant_by, plain_names
from streampose.records.lines import matrices
from streampose.records.series import Float64, Rows

DEFAULT_ANGLES = ("knee", "hip", "elbow", "shoulder")
DEFAULT_KEYPOINTS = ("wrist", "ankle")
HIPS = ("left_hip", "right_hip")
SPEED_WINDOW_S = 0.2
"""Speeds are means over this time: keypoints tremble from frame to frame."""


class Channel(NamedTuple):
    """One curve."""

    panel: str
    """The title of the panel that it belongs to: "knee"."""
    side: str
    """`left`, `right`, or empty."""
    unit: str
    is_downwards: bool = False
    """Whether values increase downwards in the picture."""
    limits: tuple[float, float] = (-np.inf, np.inf)
    """The lowest and the highest possible value."""

    @property
    def turns_at(self) -> float:
        """The least step of a value that passes from one limit to the other, such as from 180 to -180 degrees."""
        return 180.0 if self.limits == (-180.0, 180.0) else np.inf


class Measured(NamedTuple):
    """C curves of a person in n frames. What is unknown is NaN; a row of NaN is a gap."""

    times_s: Float64
    """(n,)"""
    raw: Float64
    """(n, C), of the keypoints as they were found."""
    smooth: Float64
    """(n, C), of the smoothed keypoints."""
    deviations: Float64
    """(n, C), standard deviations."""


Measure = Callable[[Rows | None], Measured]
"""Measures the next rows of a person. None is their end: it returns what it held back."""


class Measuring(NamedTuple):
    """How curves are made."""

    channels: tuple[Channel, ...]
    start: Callable[[], Measure]
    """Returns a measure for another person."""


def angles_of(names: Sequence[str], wanted: Sequence[str] | None) -> Measuring:
    """Return angles of a skeleton with these keypoints. Raises `UsageError` if a wanted one is unknown."""
    if wanted is None:
        all_names = AngleMeter(names).names
        wanted = [name for name in all_names if _sided(name)[1] in DEFAULT_ANGLES] or all_names
    meter = AngleMeter(names, wanted)
    channels = tuple(
        Channel(panel, side, "°", limits=limits)
        for (side, panel), limits in zip(map(_sided, meter.names), meter.limits, strict=True)
    )

    def measure(rows: Rows | None) -> Measured:
        if rows is None:
            return _nothing(len(channels))
        is_known = np.isfinite(rows.covariances).any(axis=(1, 2))
        covariances = matrices(rows.covariances)
        raw, smooth = (meter.measure_points(xy, covariances) for xy in (rows.raw_xy, rows.smooth_xy))
        deviations = np.where(np.isnan(smooth.degrees), raw.deviations, smooth.deviations)
        deviations[~is_known] = np.nan
        return Measured(rows.times_s, raw.degrees, smooth.degrees, deviations)

    return Measuring(channels, lambda: measure)


def positions_of(names: Sequence[str], wanted: Sequence[str] | None) -> Measuring:
    """Return x and y of keypoints. Raises `UsageError` if a wanted one is unknown."""
    chosen = keypoints_of(names, wanted, DEFAULT_KEYPOINTS)
    numbers = [number for number, _ in chosen]
    sided = [_sided(name) for _, name in chosen]
    channels = tuple(
        Channel(f"{panel}, {axis}", side, "px", is_downwards=axis == "y") for side, panel in sided for axis in "xy"
    )

    def measure(rows: Rows | None) -> Measured:
        if rows is None:
            return _nothing(len(channels))
        count = len(rows.times_s)
        raw, smooth = (xy[:, numbers].reshape(count, -1) for xy in (rows.raw_xy, rows.smooth_xy))
        variances = rows.covariances[:, numbers][..., [0, 2]].reshape(count, -1)
        return Measured(rows.times_s, raw, smooth, np.sqrt(variances))

    return Measuring(channels, lambda: measure)


def speeds_of(names: Sequence[str], wanted: Sequence[str] | None) -> Measuring:
    """Return speeds of keypoints; by default of the body. Raises `UsageError` if a wanted one is unknown."""
    if wanted is None:
        body = Channel(body_name(names), "", "px/s")
        return Measuring((body,), lambda: SpeedMeter(lambda rows: body_xy(rows, names)[:, None]))
    chosen = keypoints_of(names, wanted, ())
    numbers = [number for number, _ in chosen]
    channels = tuple(Channel(panel, side, "px/s") for side, panel in (_sided(name) for _, name in chosen))
    return Measuring(channels, lambda: SpeedMeter(lambda rows: rows.best_xy[:, numbers]))


def keypoints_of(names: Sequence[str], wanted: Sequence[str] | None, default: Sequence[str]) -> list[tuple[int, str]]:
    """Return the numbers and the plain names of wanted keypoints, or else of the default ones, or else of all.

    Raises `UsageError` if a wanted one is unknown.
    """
    plain = plain_names(names)
    if wanted is None:
        meant = [name for name in plain if _sided(name)[1] in default] or list(plain)
    else:
        meant = meant_by(wanted, plain, "keypoint")
    return [(plain.index(name), name) for name in meant]


def body_name(names: Sequence[str]) -> str:
    """Return what stands for the whole person."""
    return "middle of the hips" if set(HIPS) <= set(plain_names(names)) else "middle of the box"


def body_xy(rows: Rows, names: Sequence[str]) -> Float64:
    """Return the point (n, 2) that stands for the whole person, in pixels."""
    plain = plain_names(names)
    if set(HIPS) <= set(plain):
        return np.asarray(rows.best_xy[:, [plain.index(hip) for hip in HIPS]].mean(axis=1))
    return (rows.boxes[:, :2] + rows.boxes[:, 2:]) / 2


class SpeedMeter:
    """Measures the speeds of P points of a person: the distance between the ends of a window around each time, or
    between the neighbours of a time, if they are further apart, divided by the time between them.
    """

    def __init__(self, points_of: Callable[[Rows], Float64]) -> None:
        """Start without rows. `points_of` returns points (n, P, 2) in pixels."""
        self._points_of = points_of
        self._times_s: Float64 = np.zeros(0)
        self._points: Float64 | None = None
        self._next = 0
        """The first of the held rows whose speed is not known yet."""

    def __call__(self, rows: Rows | None) -> Measured:
        """Return the speeds in pixels per second of the rows whose window is complete; see `Measure`."""
        if rows is not None:
            points = self._points_of(rows)
            self._times_s = np.concatenate([self._times_s, rows.times_s])
            self._points = points if self._points is None else np.concatenate([self._points, points])
        if self._points is None:
            return _nothing(1)
        times_s, points = self._times_s, self._points
        begin, end = self._next, len(times_s)
        if rows is not None:
            end = max(begin, int(np.searchsorted(times_s, times_s[-1] - SPEED_WINDOW_S / 2)) - 1)
        speeds = np.stack(
            [_speeds(times_s, points[:, number], begin, end) for number in range(points.shape[1])], axis=1
        )
        found = Measured(times_s[begin:end], speeds, np.full_like(speeds, np.nan), np.full_like(speeds, np.nan))
        first = max(0, int(np.searchsorted(times_s, times_s[min(end, len(times_s) - 1)] - SPEED_WINDOW_S / 2)) - 2)
        self._times_s, self._points, self._next = times_s[first:], points[first:], end - first
        return found


def _speeds(times_s: Float64, points: Float64, begin: int, end: int) -> Float64:
    """Return the speeds of points (n, 2) in the rows from `begin` to `end`. No window reaches over a gap."""
    rows = np.arange(begin, end)
    is_known = np.asarray(np.isfinite(points).all(axis=1))
    gaps = np.flatnonzero(~is_known)
    # The neighbouring gaps of each row, which limit its window.
    place = np.searchsorted(gaps, rows)
    lowest = np.concatenate([[-1], gaps])[place] + 1
    highest = np.append(gaps, len(times_s))[place] - 1
    half_s = SPEED_WINDOW_S / 2 + 1e-9
    start = np.minimum(np.searchsorted(times_s, times_s[rows] - half_s), rows - 1)
    stop = np.maximum(np.searchsorted(times_s, times_s[rows] + half_s, side="right") - 1, rows + 1)
    start, stop = np.maximum(start, lowest), np.minimum(stop, highest)
    is_moving = is_known[rows] & (stop > start)
    speeds = np.full(len(rows), np.nan)
    start, stop = start[is_moving], stop[is_moving]
    speeds[is_moving] = np.hypot(*(points[stop] - points[start]).T) / (times_s[stop] - times_s[start])
    return speeds


def _sided(name: str) -> tuple[str, str]:
    """Return the side of a plain name, and the rest in words."""
    side, _, rest = name.partition("_")
    return (side, rest.replace("_", " ")) if side in SIDES and rest else ("", name.replace("_", " "))


def _nothing(channel_count: int) -> Measured:
    empty = np.zeros((0, channel_count))
    return Measured(np.zeros(0), empty, empty, empty)
