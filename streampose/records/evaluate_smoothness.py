"""How much keypoints tremble where joints rest, and how far they are from the truth where joints move."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from streampose.frames import NO_TRACK, Float32, Int64
from streampose.records.truth import Float64, TrueFrame

LEAST_SCORE = 0.3
"""Keypoints with a lower score are not judged; nor are those that are hidden in truth."""
RESTS, MOVES = 2.0, 40.0
"""True speeds in pixels per second: a joint rests below the first and moves above the second."""


class Posed(NamedTuple):
    """The N people of a frame."""

    pts_s: float
    ids: Int64
    """(N,) `NO_TRACK` for those without an identity, who are not judged."""
    boxes_xyxy: Float32
    """(N, 4) pixels."""
    scores: Float32
    """(N, K)"""
    xy: Float32
    """(N, K, 2) pixels: the keypoints to judge."""


class Spread(NamedTuple):
    """Mean and median of some values."""

    mean: float
    median: float


@dataclass(frozen=True, slots=True)
class Smoothness:
    """Each None if no joint rests, or none moves."""

    tremble_px: Spread | None
    """How far a resting joint moves from one frame to the next."""
    moving_error_px: Spread | None
    """How far a moving joint is from the true one."""
    lag_s: Spread | None
    """How late a moving joint is: its error along its path, divided by its speed."""


def smoothness(frames: Iterable[tuple[Posed, TrueFrame | None]]) -> Smoothness:
    """Judge frames by the true ones. A frame whose truth is not known (None) separates those before and after it."""
    tremble: list[float] = []
    errors: list[float] = []
    lags: list[float] = []
    before: dict[tuple[int, int], tuple[float, Float64, Float32]] = {}
    for frame, true in frames:
        now = {}
        for row, column in () if true is None else true.pairs(frame.boxes_xyxy):
            if true is None or NO_TRACK in (frame.ids[column], true.ids[row]):
                continue
            who = int(true.ids[row]), int(frame.ids[column])
            points, xy = true.keypoints[row], frame.xy[column]
            now[who] = frame.pts_s, points, xy
            if who not in before:
                continue
            last_s, last_points, last_xy = before[who]
            velocity = (points - last_points)[:, :2] / (frame.pts_s - last_s)
            speed = np.hypot(*velocity.T)
            is_judged = (points[:, 2] == 2) & (last_points[:, 2] == 2) & (frame.scores[column] > LEAST_SCORE)
            rests, moves = is_judged & (speed < RESTS), is_judged & (speed > MOVES)
            error = xy - points[:, :2]
            tremble += np.hypot(*(xy - last_xy)[rests].T).tolist()
            errors += np.hypot(*error[moves].T).tolist()
            lags += (-(error * velocity).sum(axis=-1)[moves] / speed[moves] ** 2).tolist()
        before = now
    return Smoothness(_spread(tremble), _spread(errors), _spread(lags))


def _spread(values: list[float]) -> Spread | None:
    known = np.array(values)[np.isfinite(values)]
    return Spread(float(np.mean(known)), float(np.median(known))) if len(known) else None
