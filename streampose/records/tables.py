"""Recorded poses as columns of tables: one row per frame and person, or per frame, person and keypoint.

The column names never change; what a file does not know is missing (NaN, or an empty field).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.errors import UsageError
from streampose.people.angles import AngleMeter
from streampose.people.names import plain_names
from streampose.records.lines import matrices

Columns = dict[str, Any]
"""Arrays or lists of one length, by the names of the columns."""

PERSON_KEYS = ("source", "frame", "pts_s", "id", "class", "box_x1", "box_y1", "box_x2", "box_y2", "box_score")
"""The first columns of the table with a row per frame and person,"""
POINT_KEYS = ("x", "y", "score", "smooth_x", "smooth_y", "xx", "xy", "yy")
"""and those of each keypoint, after its name: position in pixels, score, smoothed position, and variance of x,
covariance, and variance of y in square pixels."""


def person_names(names: Sequence[str]) -> list[str]:
    """Return the columns of the table with a row per frame and person, for keypoints with these names."""
    return [*PERSON_KEYS, *(f"{name}_{key}" for name in plain_names(names) for key in POINT_KEYS)]


def person_columns(lines: Sequence[dict[str, Any]], names: Sequence[str]) -> Columns:
    """Return the table with a row per frame and person of some lines of a poses file.

    Missing numbers are NaN; a missing `id` is None.
    """
    rows = _rows(lines)
    boxes = _numbers([person["box_xyxy"] for _, person in rows], 4)
    columns: Columns = _frame_columns(rows)
    columns |= {key: boxes[:, number] for number, key in enumerate(PERSON_KEYS[5:9])}
    columns["box_score"] = _numbers([[person["box_score"]] for _, person in rows], 1)[:, 0]
    points = point_values(rows, len(names))
    for number, name in enumerate(plain_names(names)):
        columns |= {f"{name}_{key}": points[:, number, column] for column, key in enumerate(POINT_KEYS)}
    return columns


def keypoint_columns(lines: Sequence[dict[str, Any]], names: Sequence[str]) -> Columns:
    """Return the table with a row per frame, person and keypoint of some lines of a poses file."""
    rows = _rows(lines)
    count = len(names)
    columns: Columns = {
        key: [value for value in values for _ in range(count)] if isinstance(values, list) else values.repeat(count)
        for key, values in _frame_columns(rows).items()
    }
    columns["keypoint"] = list(plain_names(names)) * len(rows)
    points = point_values(rows, count).reshape(-1, len(POINT_KEYS))
    return columns | {key: points[:, column] for column, key in enumerate(POINT_KEYS)}


def angle_columns(lines: Sequence[dict[str, Any]], names: Sequence[str]) -> Columns:
    """Return the table of angles of some lines of a poses file: a row per frame and person, and for each angle its
    degrees and, with `_sd` after its name, its standard deviation.
    """
    rows = _rows(lines)
    points = point_values(rows, len(names))
    raw, smooth, triples = points[..., :2], points[..., 3:5], points[..., 5:]
    covariances = None if np.isnan(triples).all() else matrices(triples)
    # Whoever has smoothed keypoints is measured by them.
    angles = _meter(tuple(names)).measure_points(np.where(np.isnan(smooth), raw, smooth), covariances)
    columns = _frame_columns(rows)
    for number, name in enumerate(angles.names):
        columns[name] = np.round(angles.degrees[:, number], 2)
        columns[f"{name}_sd"] = np.round(angles.deviations[:, number], 2)
    return columns


@cache
def _meter(names: tuple[str, ...]) -> AngleMeter:
    return AngleMeter(names)


_COLUMNS_OF = {"keypoints": keypoint_columns, "people": person_columns, "angles": angle_columns}


def columns_by(rows: str) -> Callable[[Sequence[dict[str, Any]], Sequence[str]], Columns]:
    """Return the function that makes tables with such rows: `keypoints`, `people` or `angles`. Raises `UsageError`."""
    if rows not in _COLUMNS_OF:
        raise UsageError(f"unknown rows {rows!r}: choose one of {', '.join(_COLUMNS_OF)}")
    return _COLUMNS_OF[rows]


def point_values(rows: Sequence[tuple[dict[str, Any], dict[str, Any]]], count: int) -> npt.NDArray[np.float64]:
    """Return the values (R, K, 8) of `POINT_KEYS` of R people with K keypoints, NaN where missing."""
    values = np.full((len(rows), count, len(POINT_KEYS)), np.nan)
    people = [person for _, person in rows]
    for key, columns in (("keypoints", slice(0, 3)), ("smoothed", slice(3, 5)), ("covariances", slice(5, 8))):
        known = [number for number, person in enumerate(people) if key in person]
        if known:
            values[known, :, columns] = np.array([people[number][key] for number in known], np.float64)
    return values


def needs(module: str, extra: str = "data") -> Any:
    """Import a module of a package that an extra installs. Raises `UsageError` if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UsageError(f"{package} is not installed: pip install 'streampose[{extra}]'") from error


def _rows(lines: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(line, person) for line in lines for person in line["people"]]


def _frame_columns(rows: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Columns:
    return {
        "source": [line["source"] for line, _ in rows],
        "frame": np.array([line["frame"] for line, _ in rows], np.int64),
        "pts_s": np.array([line["pts_s"] for line, _ in rows], np.float64),
        "id": [person.get("id") for _, person in rows],
        "class": [person.get("class", "person") for _, person in rows],
    }


def _numbers(values: list[list[float | None]], width: int) -> npt.NDArray[np.float64]:
    """Return an array (R, width); None becomes NaN."""
    return np.array(values, np.float64).reshape(-1, width)
