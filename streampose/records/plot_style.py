"""What all plots look like: sizes, colours, axes, and their files. Uses no global state of matplotlib."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streampose.errors import UsageError
from streampose.palette import BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILLION
from streampose.sinks.target import check_file, create, failed, make_folder, name_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEFT, RIGHT, NO_SIDE = BLUE, VERMILLION, GREEN
PEOPLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY_BLUE)
GREY = "#606060"
GRID = "#d9d9d9"
DPI = 150
"""Dots per inch of PNG files."""
UNDERSTOOD = ".png or .svg"
_MINUTE_S, _HOUR_S = 60, 3600
_MIN_TICKS_FROM_S, _HOUR_TICKS_FROM_S = 120, 2 * _HOUR_S
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_MOST_TICKS = 9


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def plain_axes(axes: Axes) -> None:
    """Give axes a light grid and no frame on the top and the right."""
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def time_axis(axes: Axes, first_s: float, last_s: float, *, most_ticks: int = _MOST_TICKS, is_labelled: bool) -> None:
    """Make the x axis one of time: in seconds, in minutes and seconds, or in hours and minutes."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    length_s = last_s - first_s
    margin_s = max(length_s, 0.1) * 0.01
    axes.set_xlim(first_s - margin_s, last_s + margin_s)
    unit = "s"
    if length_s >= _MIN_TICKS_FROM_S:
        step_s = next((step for step in _STEPS_S if length_s / step <= most_ticks), _STEPS_S[-1])
        axes.xaxis.set_major_locator(MultipleLocator(step_s))
        has_hours = length_s >= _HOUR_TICKS_FROM_S
        unit = "h:min" if has_hours else "min:s"
        axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: _clock(t, _HOUR_S if has_hours else _MINUTE_S)))
    if is_labelled:
        axes.set_xlabel(f"time ({unit})", fontsize=9)


def _clock(time_s: float, unit_s: int) -> str:
    whole, rest = divmod(round(abs(time_s)), unit_s)
    return f"{'-' if time_s < 0 else ''}{whole}:{rest * 60 // unit_s:02d}"


def frame_axes(axes: Axes, width: int, height: int, image: np.ndarray | None) -> None:
    """Make the axes those of a frame in pixels, y downwards, with the frame in pale colours behind the data.

    Args:
        axes: the axes.
        width: of the frame, in pixels.
        height: of the frame, in pixels.
        image: (H, W, 3) uint8 BGR, of the same shape but perhaps another size; None for no picture.
    """
    if image is not None:
        pale = 255 - (255 - image[..., ::-1].astype(np.float32)) * 0.65
        axes.imshow(pale.astype(np.uint8), extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="antialiased")
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.set_xlabel("x (px)", fontsize=9)
    axes.set_ylabel("y (px)", fontsize=9)
    axes.tick_params(labelsize=8)


def check_plot_file(path: Path, *, overwrite: bool, source_paths: Sequence[str]) -> None:
    """Check before the work that a plot can be written. Raises `UsageError` and `SinkError`."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"unknown output {name_of(path)!r}: name a {UNDERSTOOD} file")
    for source_path in source_paths:
        check_file(path, overwrite=overwrite, source_path=source_path)


def save_plot(figure: Figure, path: Path, *, overwrite: bool) -> int:
    """Write a figure as its file's ending says, and return the size in bytes. Raises `SinkError`."""
    ending = path.suffix.lower().removeprefix(".")
    drawn = io.BytesIO()
    # Without its date, the same data give the same file.
    figure.savefig(drawn, format=ending, dpi=DPI, metadata={"Date": None} if ending == "svg" else None)
    make_folder(path.parent, name_of(path))
    descriptor = create(path, overwrite=overwrite)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(drawn.getbuffer())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise failed(name_of(path), error) from error
    return len(drawn.getbuffer())
