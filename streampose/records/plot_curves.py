"""Plots curves over time: a row of panels for each joint, a column for each person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from streampose.records.measures import Channel, Measured, Measuring
from streampose.records.plot_style import GREY, LEFT, NO_SIDE, RIGHT, new_figure, plain_axes, time_axis
from streampose.records.poses import RecordedPoses
from streampose.records.series import Float64, series
from streampose.records.survey import Survey, Who
from streampose.records.thin import Columns, Curve, envelope, m4

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAND = 1.645
"""Standard deviations on either side that hold 90 % of a normal distribution."""
OPAQUE_POINTS = 1000
"""A curve with more points is drawn finer and paler."""
_COLOUR_OF = {"left": LEFT, "right": RIGHT, "": NO_SIDE}
_MIN_SPAN_OF = {"°": 20.0, "px": 20.0, "px/s": 20.0}
"""The least height of a panel, so that noise does not look like a motion."""


class Lines:
    """One channel of one person: raw, smoothed, and the band around the better one of them."""

    def __init__(self, channel: Channel, columns: Columns) -> None:
        self.channel = channel
        self._raw, self._smooth = Curve(columns, m4), Curve(columns, m4)
        self._bands = {"raw": Curve(columns, envelope), "smooth": Curve(columns, envelope)}
        self._latest = np.nan

    def add(self, times_s: Float64, raw: Float64, smooth: Float64, deviations: Float64) -> None:
        """Add values and standard deviations (n,)."""
        if np.isfinite(self.channel.turns_at):
            best = np.where(np.isnan(smooth), raw, smooth)
            jumps = np.flatnonzero(np.abs(np.diff(best, prepend=self._latest)) > self.channel.turns_at)
            self._latest = best[-1] if len(best) else self._latest
            times_s = np.insert(times_s, jumps, times_s[jumps])
            raw, smooth, deviations = (np.insert(values, jumps, np.nan) for values in (raw, smooth, deviations))
        for values, curve, band in ((raw, self._raw, "raw"), (smooth, self._smooth, "smooth")):
            curve.add(times_s, values[:, None])
            edges = values[:, None] + BAND * deviations[:, None] * (-1, 1)
            self._bands[band].add(times_s, np.clip(edges, *self.channel.limits))

    def draw(self, axes: Axes) -> tuple[list[float], set[str]]:
        """Draw what is known. Return its lowest and highest value, if there is any, and what was drawn."""
        colour = _COLOUR_OF[self.channel.side]
        drawn, heights = set(), []
        has_smooth = bool(np.isfinite(self._smooth.points()[1]).any())
        times_s, edges = self._bands["smooth" if has_smooth else "raw"].points()
        if np.isfinite(edges).any():
            axes.fill_between(times_s, edges[:, 0], edges[:, 1], color=colour, alpha=0.18, linewidth=0)
            drawn.add("band")
        for name, curve in (("raw", self._raw), ("smooth", self._smooth)):
            times_s, values = curve.points()
            if not np.isfinite(values).any():
                continue
            is_main = name == "smooth" or not has_smooth
            width, alpha = (1.6, 1.0) if is_main else (0.7, 0.55)
            # Long curves fill areas, through which the others must be seen.
            share = min(1.0, (OPAQUE_POINTS / len(times_s)) ** 0.5)
            width, alpha = width * share, alpha * max(share, 0.5)
            axes.plot(times_s, values[:, 0], color=colour, linewidth=width, alpha=alpha, solid_joinstyle="round")
            alone = _is_alone(values[:, 0])
            axes.plot(times_s[alone], values[alone, 0], ".", color=colour, markersize=1.5 * width, alpha=alpha)
            heights += [float(np.nanmin(values)), float(np.nanmax(values))]
            drawn |= {name, f"side {self.channel.side}"}
        return heights, drawn


def plot_curves(
    poses: RecordedPoses, found: Survey, people: Sequence[Who], measuring: Measuring, title: str, min_score: float
) -> Figure:
    """Return a figure of the curves of some people.

    Args:
        poses: the file.
        found: what is in it.
        people: whose curves.
        measuring: what the curves show.
        title: of the figure.
        min_score: keypoints with a lower score are gaps.
    """
    first_s = min(found.people[who].first_s for who in people)
    last_s = max(found.people[who].last_s for who in people)
    columns = Columns(first_s, last_s)
    lines = {who: [Lines(channel, columns) for channel in measuring.channels] for who in people}
    measures = {who: measuring.start() for who in people}
    for who, rows in series(poses, found, people, min_score):
        _add(measures[who](rows), lines[who])
    for who in people:
        _add(measures[who](None), lines[who])

    panels = list(dict.fromkeys(channel.panel for channel in measuring.channels))
    figure = new_figure(max(8.0, 2.0 + 4.0 * len(people)), 1.3 + 1.75 * len(panels))
    grid = figure.subplots(len(panels), len(people), sharex=True, sharey="row", squeeze=False)
    drawn: set[str] = set()
    for row, panel in enumerate(panels):
        heights: list[float] = []
        for column, who in enumerate(people):
            axes = grid[row, column]
            plain_axes(axes)
            for one in lines[who]:
                if one.channel.panel == panel:
                    its_heights, its_drawn = one.draw(axes)
                    heights += its_heights
                    drawn |= its_drawn
            time_axis(
                axes, first_s, last_s, most_ticks=9 if len(people) == 1 else 5, is_labelled=row == len(panels) - 1
            )
            if row == 0 and len(people) > 1:
                axes.set_title(name_in(found, who), fontsize=9)
        _height_axis(grid[row, 0], next(one for one in measuring.channels if one.panel == panel), heights)
    names = f" of {name_in(found, people[0])}" if len(people) == 1 else ""
    figure.suptitle(f"{title}{names}", fontsize=11)
    keys = _legend(drawn)
    if keys:
        figure.legend(handles=keys, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.align_ylabels()
    return figure


def name_in(found: Survey, who: Who) -> str:
    """Return the name of a person for a plot."""
    return f"person {who.id}" if len(found.sources) == 1 else f"person {who.id} of {who.source}"


def _add(measured: Measured, lines: Sequence[Lines]) -> None:
    for number, one in enumerate(lines):
        if len(measured.times_s):
            one.add(measured.times_s, *(values[:, number] for values in measured[1:]))


def _height_axis(axes: Axes, channel: Channel, heights: Sequence[float]) -> None:
    """Fit the axis to the curves. The band may be far wider, and is cut off."""
    axes.set_ylabel(f"{channel.panel} ({channel.unit})", fontsize=9)
    if not heights:
        axes.text(0.5, 0.5, "not seen", transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=9)
        axes.set_yticks([])
        return
    low, high = min(heights), max(heights)
    margin = max(0.08 * (high - low), (_MIN_SPAN_OF[channel.unit] - (high - low)) / 2)
    low, high = low - margin, high + margin
    if channel.unit == "px/s":
        low = 0.0
    axes.set_ylim((high, low) if channel.is_downwards else (low, high))


class _Key(NamedTuple):
    name: str
    text: str
    colour: str
    width: float


_KEYS = (
    _Key("side left", "left", LEFT, 1.6),
    _Key("side right", "right", RIGHT, 1.6),
    _Key("raw", "as found", GREY, 0.7),
    _Key("smooth", "smoothed", GREY, 1.6),
)


def _legend(drawn: set[str]) -> list[Artist]:
    """Return the entries of the legend. Raw and smoothed curves have entries only if both were drawn."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    shown = drawn if {"raw", "smooth"} <= drawn else drawn - {"raw", "smooth"}
    keys: list[Artist] = [
        Line2D([], [], color=key.colour, linewidth=key.width, label=key.text) for key in _KEYS if key.name in shown
    ]
    if "band" in drawn:
        keys.append(Patch(color=GREY, alpha=0.25, linewidth=0, label="holds the true value with 90 % probability"))
    return keys


def _is_alone(values: Float64) -> npt.NDArray[np.bool_]:
    """Return which values (n,) have no neighbour, so that no line goes through them."""
    around = np.pad(np.isfinite(values), 1)
    return np.asarray(around[1:-1] & ~around[:-2] & ~around[2:])
