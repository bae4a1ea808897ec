"""The people of one frame, as the conditions of rules see them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from streampose.errors import UsageError
from streampose.frames import Float32, People
from streampose.people.zones import Float64

_ENDS_OF_TRUNK = ("left_shoulder", "left_hip", "right_shoulder", "right_hip")


class Trunk(NamedTuple):
    """The trunks of N people: from the middle of the hips to the middle of the shoulders. NaN if unknown."""

    steep_degrees: Float64
    """(N,) angle between the trunk and the horizontal, 0 to 90."""
    middle_y: Float64
    """(N,) pixels, downwards: of its middle."""
    lengths: Float64
    """(N,) pixels."""


class Scene:
    """The people of one frame, as conditions see them: N people, K keypoints."""

    def __init__(self, people: People, pts_s: float, width: int, height: int, min_score: float) -> None:
        """Look at people. Keypoints with a score below `min_score` count as missing."""
        self.people = people
        self.pts_s, self.width, self.height = pts_s, width, height
        self._min_score = min_score
        self._trunk: Trunk | None = None

    @cached_property
    def xy(self) -> Float64:
        """(N, K, 2) pixels, smoothed if there are smoothed ones; NaN if missing."""
        people = self.people
        xy = (people.keypoints_xy if people.smooth_xy is None else people.smooth_xy).astype(np.float64)
        xy[~(people.keypoint_scores >= self._min_score)] = np.nan
        return xy

    def trunk(self, rows: tuple[int, ...]) -> Trunk:
        """Return the trunks, from the numbers of left shoulder, left hip, right shoulder and right hip."""
        if self._trunk is None:
            self._trunk = _trunk_of(self.xy[:, rows])
        return self._trunk

    @cached_property
    def feet(self) -> Float64:
        """(N, 2) where people stand: the middle of the lower edge of their boxes, inside the frame."""
        boxes = self.people.boxes_xyxy.astype(np.float64)
        feet = np.stack([(boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3]], axis=-1)
        return np.clip(feet, 0, (self.width - 1, self.height - 1))

    @cached_property
    def sizes(self) -> Float64:
        """(N,) pixels: the longer sides of the boxes."""
        boxes: Float32 = self.people.boxes_xyxy
        sizes: Float64 = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=-1, initial=0), 1.0).astype(np.float64)
        return sizes

    @cached_property
    def middles(self) -> Float64:
        """(N, 2) pixels: the middles of the boxes."""
        boxes = self.people.boxes_xyxy.astype(np.float64)
        middles: Float64 = (boxes[:, :2] + boxes[:, 2:]) / 2
        return middles


def steepness(degrees: Float64) -> Float64:
    """Return the angles between directions and the horizontal, 0 to 90 degrees."""
    turned = np.abs(degrees)
    steep: Float64 = np.minimum(turned, 180 - turned)
    return steep


def trunk_rows(names: Sequence[str]) -> tuple[int, ...]:
    """Return the numbers of shoulder and hip of the left side, then of the right. Raises `UsageError`."""
    missing = [name for name in _ENDS_OF_TRUNK if name not in names]
    if missing:
        raise UsageError(f"this skeleton has no {missing[0]}, which the trunk needs")
    return tuple(list(names).index(name) for name in _ENDS_OF_TRUNK)


def _trunk_of(ends: Float64) -> Trunk:
    """Return the trunks between ends (N, 4, 2). If only one side of somebody is seen, it stands for both."""
    sides = ends.reshape(len(ends), 2, 4)  # shoulder and hip of each side
    is_missing = np.asarray(np.isnan(sides).any(axis=-1))
    if is_missing.any():
        sides = np.where(is_missing[..., None], sides[:, ::-1], sides)
    middle = (sides[:, 0] + sides[:, 1]) / 2
    across, up = middle[:, 0] - middle[:, 2], middle[:, 3] - middle[:, 1]
    lengths = np.hypot(across, up)
    steep = np.degrees(np.arctan2(np.abs(up), np.abs(across)))
    return Trunk(np.where(lengths > 0, steep, np.nan), (middle[:, 1] + middle[:, 3]) / 2, lengths)
