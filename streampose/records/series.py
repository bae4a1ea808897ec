"""The poses of single persons over time, in blocks, so that files of hours need little memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streampose.errors import UsageError, describe
from streampose.records.poses import RecordedPoses
from streampose.records.survey import Survey, Who
from streampose.records.tables import point_values

Float64 = npt.NDArray[np.float64]

BLOCK_FRAMES = 200
"""Frames that are turned into arrays at once. With more, Python's garbage collection takes most of the time."""
GAP_S = 0.5
GAP_FRAMES = 3
"""Frames of a source that are further apart than both are a gap: the source was lost, or dropped frames."""


class Rows(NamedTuple):
    """A person in n frames. A gap is a row of NaN between two others."""

    times_s: Float64
    """(n,), increasing."""
    boxes: Float64
    """(n, 4) pixels."""
    raw_xy: Float64
    """(n, K, 2) pixels; NaN where a keypoint is missing or its score too low."""
    smooth_xy: Float64
    """(n, K, 2) pixels; NaN also where nothing is smoothed."""
    covariances: Float64
    """(n, K, 3) square pixels: variance of x, covariance, variance of y; NaN where unknown."""

    @property
    def best_xy(self) -> Float64:
        """The smoothed keypoints, and the others of who has none."""
        return np.where(np.isnan(self.smooth_xy), self.raw_xy, self.smooth_xy)


Entry = tuple[float, dict[str, Any] | None]
"""A time, and a person as in the file; None for a gap."""


def series(
    poses: RecordedPoses, found: Survey, people: Collection[Who], min_score: float
) -> Iterator[tuple[Who, Rows]]:
    """Yield the rows of some people, block by block. The rows of a person are in order.

    Args:
        poses: the file.
        found: what is in it.
        people: who is wanted.
        min_score: keypoints with a lower score are NaN.

    Raises:
        UsageError: a person in the file is not what a run writes.
    """
    for who, entries in entries_of(poses, found, people):
        yield who, _rows(entries, len(poses.skeleton.names), min_score, found.name)


def entries_of(poses: RecordedPoses, found: Survey, people: Collection[Who]) -> Iterator[tuple[Who, list[Entry]]]:
    """Yield when and how some people were there, block by block. The entries of a person are in order."""
    wanted: dict[str, dict[int, list[Entry]]] = {}
    for who in people:
        wanted.setdefault(who.source, {})[who.id] = []
    latest_s: dict[str, float] = {}
    ends: dict[Who, bool] = {}  # whether a person's latest row is a gap
    waiting = 0
    for line in found.intact(poses):
        source, pts_s = line["source"], line["pts_s"]
        entries = wanted.get(source)
        # A time that steps back has no place on the axis.
        if entries is None or pts_s is None or pts_s <= latest_s.get(source, -np.inf):
            continue
        before_s, latest_s[source] = latest_s.get(source, pts_s), pts_s
        is_torn = pts_s - before_s > max(GAP_S, GAP_FRAMES * found.sources[source].interval_s)
        there = {person["id"]: person for person in line["people"] if person.get("id") in entries}
        for one, list_ in entries.items():
            who, person = Who(source, one), there.get(one)
            if (person is None or is_torn) and not ends.get(who, True):
                list_.append(((before_s + pts_s) / 2, None))
                ends[who] = True
            if person is not None:
                list_.append((pts_s, person))
                ends[who] = False
        waiting += 1
        if waiting == BLOCK_FRAMES:
            yield from _taken(wanted)
            waiting = 0
    yield from _taken(wanted)


def _taken(wanted: dict[str, dict[int, list[Entry]]]) -> Iterator[tuple[Who, list[Entry]]]:
    """Yield the entries that are waiting, and empty the lists."""
    for source, lists in wanted.items():
        for one, entries in lists.items():
            if entries:
                yield Who(source, one), entries
                entries.clear()


def not_a_person(name: str, error: Exception) -> UsageError:
    """Return the error for a person in the file `name` that is not what a run writes."""
    return UsageError(f"{name} is damaged: a person is not what a run writes ({describe(error)})")


def _rows(entries: list[Entry], keypoint_count: int, min_score: float, name: str) -> Rows:
    known = [number for number, (_, person) in enumerate(entries) if person is not None]
    people: list[dict[str, Any]] = [person for _, person in entries if person is not None]
    boxes = np.full((len(entries), 4), np.nan)
    points = np.full((len(entries), keypoint_count, 8), np.nan)
    try:
        if people:
            boxes[known] = np.array([person["box_xyxy"] for person in people], np.float64)
            points[known] = point_values([({}, person) for person in people], keypoint_count)
    except (TypeError, ValueError) as error:
        raise not_a_person(name, error) from error
    points[..., :5][~(points[..., 2] >= min_score)] = np.nan
    times_s = np.array([pts_s for pts_s, _ in entries], np.float64)
    return Rows(times_s, boxes, points[..., :2], points[..., 3:5], points[..., 5:])
