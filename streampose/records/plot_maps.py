"""Plots of where and when people were in the frame: paths, heat maps and time lines."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from streampose.frames import Image
from streampose.palette import BLUE
from streampose.records.measures import body_name, body_xy, keypoints_of
from streampose.records.plot_style import GREY, PEOPLE, frame_axes, new_figure, plain_axes, time_axis
from streampose.records.poses import RecordedPoses
from streampose.records.series import Float64, entries_of, not_a_person, series
from streampose.records.survey import Survey, Who
from streampose.records.tables import point_values
from streampose.records.thin import COLUMNS, Path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELLS = 320
"""Cells of a heat map along its longer side."""
BLUR = 0.012
"""Standard deviation of the smoothing of a heat map, as a share of the longer side."""
AREA = 0.02
"""Times are given for a square whose side is about this share of the longer side. It is larger than a cell, and smaller
than the smoothing of a point, so that no value exceeds the time that somebody was there."""
_MAP_SIDE = 8.0
"""The longer side of a map, in inches."""
_LINE_STYLES = ("-", (0, (4, 1.5)), (0, (1, 1)))


def plot_paths(
    poses: RecordedPoses,
    found: Survey,
    people: Sequence[Who],
    keypoints: Sequence[str] | None,
    image: Image | None,
    min_score: float,
    left_out: int,
) -> Figure:
    """Return a figure of the paths of people of one source, or of some of their keypoints, in the picture.

    Args:
        poses: the file.
        found: what is in it.
        people: whose paths.
        keypoints: plain names; None for the point that stands for the person.
        image: (H, W, 3) uint8 BGR to draw on.
        min_score: keypoints with a lower score are gaps.
        left_out: how many other people there are, for the title.
    """
    from matplotlib.patheffects import withStroke

    names = poses.skeleton.names
    chosen = [(-1, "")] if keypoints is None else keypoints_of(names, keypoints, ())
    span = found.sources[people[0].source]
    step = max(span.width, span.height) / COLUMNS
    paths = {(who, name): Path(step) for who in people for _, name in chosen}
    for who, rows in series(poses, found, people, min_score):
        for number, name in chosen:
            paths[who, name].add(body_xy(rows, names) if number < 0 else rows.best_xy[:, number])

    figure = _map_figure(span.width, span.height, below=0.25 + 0.18 * (len(paths) // 6))
    axes = figure.subplots()
    frame_axes(axes, span.width, span.height, image)
    for number, ((who, name), path) in enumerate(paths.items()):
        xy = path.points()
        if path.end is None:
            continue
        colour, style = PEOPLE[number % len(PEOPLE)], _LINE_STYLES[number // len(PEOPLE) % len(_LINE_STYLES)]
        words = [] if len(people) == 1 and name else [f"person {who.id}"]
        words += [name.replace("_", " ")] if name else []
        # A white rim separates the line from a picture of any colour.
        axes.plot(xy[:, 0], xy[:, 1], color="white", linewidth=3.2, alpha=0.7, solid_joinstyle="round")
        axes.plot(xy[:, 0], xy[:, 1], color=colour, linestyle=style, linewidth=1.6, label=", ".join(words))
        axes.plot(*xy[0], "o", markersize=6, markerfacecolor="white", markeredgecolor=colour, markeredgewidth=1.6)
        axes.plot(*path.end, "o", markersize=7, color=colour, markeredgecolor="white", markeredgewidth=1)
        if len(people) > 1:
            rim = [withStroke(linewidth=2.5, foreground="white")]
            axes.annotate(
                str(who.id), path.end, (5, 5), textcoords="offset points", color=colour, fontsize=9, path_effects=rim
            )
    axes.plot([], [], "o", color=GREY, markerfacecolor="white", markersize=6, label="start")
    axes.plot([], [], "o", color=GREY, markersize=7, label="end")
    what = body_name(names) if keypoints is None else "keypoints"
    whose = f"person {people[0].id}" if len(people) == 1 else "people"
    more = f"; {left_out} others are left out" if left_out else ""
    figure.suptitle(f"Paths of {whose} ({what}{more})", fontsize=11)
    figure.legend(loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return figure


def plot_heatmap(
    poses: RecordedPoses,
    found: Survey,
    source: str,
    people: Collection[Who] | None,
    keypoints: Sequence[str] | None,
    image: Image | None,
    min_score: float,
) -> Figure:
    """Return a figure of how long people of a source were at each place of the picture.

    Args:
        poses: the file.
        found: what is in it.
        source: the name of the source.
        people: who counts; None: everybody, also people without an identity.
        keypoints: plain names; None for the middle of the lower edge of the box, where people stand.
        image: (H, W, 3) uint8 BGR to draw on.
        min_score: keypoints with a lower score do not count.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm
    from scipy.ndimage import gaussian_filter

    span = found.sources[source]
    longer = max(span.width, span.height)
    cell = longer / CELLS
    counts = np.zeros((int(np.ceil(span.height / cell)), int(np.ceil(span.width / cell))))
    numbers = None if keypoints is None else [n for n, _ in keypoints_of(poses.skeleton.names, keypoints, ())]
    ids = None if people is None else {who.id for who in people}
    for line in found.intact(poses):
        if line["source"] != source or line["pts_s"] is None:
            continue
        persons = [person for person in line["people"] if ids is None or person.get("id") in ids]
        try:
            columns, rows = (_standing(persons) if numbers is None else _seen(persons, numbers, min_score)).T
        except (TypeError, ValueError) as error:
            raise not_a_person(found.name, error) from error
        is_inside = (columns >= 0) & (columns < span.width) & (rows >= 0) & (rows < span.height)
        places = (rows[is_inside] / cell).astype(int), (columns[is_inside] / cell).astype(int)
        np.add.at(counts, places, 1)
    unit, each = ("people", 1.0) if span.is_stills else ("seconds", span.interval_s)
    side_px = _round_number(AREA * longer)
    heat = gaussian_filter(counts * each, BLUR * CELLS, mode="nearest") * (side_px / cell) ** 2

    figure = _map_figure(span.width, span.height, beside=1.2)
    axes = figure.subplots()
    frame_axes(axes, span.width, span.height, image)
    most = float(heat.max()) or 1.0
    # The square root shows both where people stay and where they only pass.
    share = np.sqrt(np.clip(heat / most, 0, 1))
    extent = (-0.5, counts.shape[1] * cell - 0.5, counts.shape[0] * cell - 0.5, -0.5)
    picture = axes.imshow(
        heat,
        extent=extent,
        cmap="viridis",
        norm=PowerNorm(0.5, 0, most),
        alpha=np.clip(share * 4, 0, 1.0 if image is None else 0.85),
        interpolation="bilinear",
    )
    scale = ScalarMappable(picture.norm, picture.cmap)  # without the transparency
    bar = figure.colorbar(scale, ax=axes, fraction=0.05, pad=0.02, aspect=25)
    bar.set_label(f"{unit} per {side_px} x {side_px} px", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    whose = "people" if people is None else ", ".join(f"person {one}" for one in sorted(ids or ()))
    what = "stood (lower edge of the box)" if keypoints is None else "had their " + ", ".join(keypoints)
    figure.suptitle(f"Where {whose} {what}", fontsize=11)
    return figure


def plot_timeline(poses: RecordedPoses, found: Survey, people: Sequence[Who], left_out: int) -> Figure:
    """Return a figure of when people were there, with one row for each.

    Args:
        poses: the file.
        found: what is in it.
        people: who has a row.
        left_out: how many others there are, for the title.
    """
    first_s = min(span.first_s for span in found.sources.values())
    last_s = max(span.last_s for span in found.sources.values())
    column_s = (last_s - first_s) / COLUMNS
    all_spans = {who: _Spans(column_s) for who in people}
    for who, entries in entries_of(poses, found, people):
        for pts_s, person in entries:
            all_spans[who].add(pts_s, is_there=person is not None)

    figure = new_figure(9.0, 1.4 + 0.26 * len(people))
    axes = figure.subplots()
    plain_axes(axes)
    axes.grid(visible=False, axis="y")
    for row, who in enumerate(people):
        interval_s = max(found.sources[who.source].interval_s, column_s)
        bars = [(start, end - start + interval_s) for start, end in all_spans[who].spans]
        axes.broken_barh(bars, (row - 0.32, 0.64), facecolors=BLUE, linewidth=0)
    several = len(found.sources) > 1
    axes.set_yticks(range(len(people)), [f"person {who.id}{f' of {who.source}' * several}" for who in people])
    axes.set_ylim(len(people) - 0.4, -0.6)
    time_axis(axes, first_s, last_s, is_labelled=True)
    total = axes.secondary_yaxis("right")
    total.set_yticks(range(len(people)), [_duration(found, who) for who in people])
    total.tick_params(labelsize=8, length=0)
    total.spines["right"].set_visible(False)
    more = f" ({len(people)} who were there longest; {left_out} others are left out)" if left_out else ""
    figure.suptitle(f"When each person was there{more}", fontsize=11)
    return figure


def _map_figure(width: int, height: int, *, beside: float = 0.0, below: float = 0.0) -> Figure:
    """Return a figure for a frame of a size in pixels, with room in inches for what is beside and below it."""
    scale = _MAP_SIDE / max(width, height)
    return new_figure(max(width * scale, 5.0) + 0.7 + beside, max(height * scale, 2.0) + 0.75 + below)


def _round_number(value: float) -> int:
    """Return the nearest of 1, 2, 5, 10, 20, 50 and so on, in proportion."""
    choices: list[int] = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]
    return min(choices, key=lambda choice: abs(math.log(choice / value)))


def _standing(persons: Sequence[dict[str, Any]]) -> Float64:
    """Return the middles (n, 2) of the lower edges of boxes."""
    boxes = np.array([person["box_xyxy"] for person in persons], np.float64).reshape(-1, 4)
    # The edge of a box may be that of the frame.
    return np.stack([(boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3] - 1], axis=1)


def _seen(persons: Sequence[dict[str, Any]], numbers: Sequence[int], min_score: float) -> Float64:
    """Return the places (n, 2) of some keypoints."""
    if not persons:
        return np.zeros((0, 2))
    points = point_values([({}, person) for person in persons], len(persons[0]["keypoints"]))[:, numbers]
    xy = np.where(np.isnan(points[..., 3:5]), points[..., :2], points[..., 3:5])
    return np.asarray(xy[points[..., 2] >= min_score])


class _Spans:
    """When a person was there. Gaps shorter than a column of pixels are closed."""

    def __init__(self, column_s: float) -> None:
        self._column_s = column_s
        self._is_open = False
        self.spans: list[tuple[float, float]] = []
        """Beginnings and ends."""

    def add(self, pts_s: float, *, is_there: bool) -> None:
        """Add a time."""
        if is_there:
            if self.spans and (self._is_open or pts_s - self.spans[-1][1] <= self._column_s):
                self.spans[-1] = (self.spans[-1][0], pts_s)
            else:
                self.spans.append((pts_s, pts_s))
        self._is_open = is_there


def _duration(found: Survey, who: Who) -> str:
    """Return for how long a person was there."""
    span, frames = found.sources[who.source], found.people[who].frames
    if span.is_stills:
        return f"{frames} stills"
    seconds = frames * span.interval_s
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
