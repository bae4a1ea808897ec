"""Where the faces of people are: rather too large than too small.

Pure logic: draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streampose.frames import People
from streampose.people.names import plain_name
from streampose.people.overlap import box_overlaps

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_HEAD_WORDS = frozenset(
    ["nose", "eye", "eyes", "ear", "ears", "head", "face", "forehead", "mouth", "lip", "lips", "chin", "jaw", "cheek"]
)
"""A keypoint with one of these words in its name is on the head."""
SURE = 0.3
"""Minimum score of a head keypoint that is believed."""
LEAST_SURE = 2
"""Minimum number of believed head keypoints. With fewer, the top of the box counts as face as well."""

# Proportions of adults. A head is 23 cm high and 15 cm from ear to ear, and its keypoints are near its middle.
_HEAD_RADIUS = 16.0
_BETWEEN_EARS, _BETWEEN_SHOULDERS, _TORSO, _HEIGHT = 14.0, 36.0, 52.0, 190.0
"""In cm. A head in profile shows less than `_BETWEEN_EARS`, so other lengths count as well: the largest scale wins."""
TOP_OF_BOX = 0.4
"""Share of the height of an upright box that is its top."""
UPRIGHT = 1.2
"""An upright box is at least so many times as high as wide. Of another box, everything counts as face."""

SAME_IOU = 0.3
"""Minimum IoU of two places of one face in frames in succession."""
HOLD_S = 0.5
"""How long a face that is not found any more stays where it was, in seconds. Detectors miss people in single frames."""


class FaceFinder:
    """Finds the faces of people with one skeleton."""

    def __init__(self, keypoint_names: Sequence[str]) -> None:
        """Choose the keypoints by their names, in any usual spelling."""
        words = [set(plain_name(name).split("_")) for name in keypoint_names]
        self._is_head = np.array([bool(some & _HEAD_WORDS) for some in words], np.bool_)

        def of(part: str) -> list[int]:
            return [number for number, some in enumerate(words) if some in ({"left", part}, {"right", part})]

        self._shoulders, self._hips = of("shoulder"), of("hip")

    def find(self, people: People) -> Float64:
        """Return rectangles (M, 4) in pixels that cover the faces; one or two for each person.

        The keypoints count whatever their scores; if they are unsure, the top of the box counts as well.
        """
        xy = people.keypoints_xy.astype(np.float64)
        boxes = people.boxes_xyxy.astype(np.float64)
        is_known = np.isfinite(xy).all(axis=2)
        is_sure = is_known & (people.keypoint_scores >= SURE)
        radii = _HEAD_RADIUS * self._scales(xy, boxes, is_sure)
        sure_heads = is_sure & self._is_head
        is_unsure = sure_heads.sum(axis=1) < LEAST_SURE
        counts = np.where(is_unsure[:, None], is_known & self._is_head, sure_heads)
        has_head = counts.any(axis=1)
        low = np.where(counts[..., None], xy, np.inf).min(axis=1, initial=np.inf)
        high = np.where(counts[..., None], xy, -np.inf).max(axis=1, initial=-np.inf)
        middle = (low[has_head] + high[has_head]) / 2
        half = np.maximum(radii[has_head, None], (high - low)[has_head] / 2 + radii[has_head, None] / 2)
        return np.concatenate([np.concatenate([middle - half, middle + half], axis=1), _tops(boxes[is_unsure])])

    def _scales(self, xy: Float64, boxes: Float64, is_sure: Bools) -> Float64:
        """Return pixels per cm (N,) of each person: the largest of several estimates."""
        sides = boxes[:, 2:] - boxes[:, :2]
        estimates = [np.nan_to_num(sides).max(axis=1, initial=0) / _HEIGHT]
        head = np.where((is_sure & self._is_head)[..., None], xy, np.nan)
        estimates.append(_spread(head) / _BETWEEN_EARS)
        if len(self._shoulders) == 2:
            estimates.append(_distance(xy, is_sure, self._shoulders) / _BETWEEN_SHOULDERS)
            for side, shoulder in enumerate(self._shoulders):
                if len(self._hips) == 2:
                    estimates.append(_distance(xy, is_sure, [shoulder, self._hips[side]]) / _TORSO)
        return np.asarray(np.max(estimates, axis=0))


def _spread(xy: Float64) -> Float64:
    """Return the largest distance (N,) between the points of each person; 0 with less than two. NaN is no point."""
    apart = np.hypot(*np.moveaxis(xy[:, :, None] - xy[:, None], -1, 0))
    return np.asarray(np.nan_to_num(apart).max(axis=(1, 2), initial=0))


def _distance(xy: Float64, is_sure: Bools, pair: Sequence[int]) -> Float64:
    """Return the distance (N,) between two keypoints; 0 if one of them is not sure."""
    first, second = pair
    apart = np.hypot(*(xy[:, first] - xy[:, second]).T)
    return np.where(is_sure[:, first] & is_sure[:, second], apart, 0.0)


def _tops(boxes: Float64) -> Float64:
    """Return the tops of boxes (N, 4), a little wider; of boxes that are not upright, everything."""
    boxes = np.nan_to_num(boxes)
    sides = boxes[:, 2:] - boxes[:, :2]
    margins = 0.05 * sides.max(axis=1, initial=0)[:, None]
    tops = np.concatenate([boxes[:, :2] - margins, boxes[:, 2:] + margins], axis=1)
    is_upright = sides[:, 1] >= UPRIGHT * sides[:, 0]
    tops[is_upright, 3] = (boxes[:, 1] + TOP_OF_BOX * sides[:, 1])[is_upright]
    return tops


class FaceMemory:
    """Remembers for a moment where faces of one source were. Not thread-safe."""

    def __init__(self, hold_s: float = HOLD_S) -> None:
        """Start without faces. Call with 0 for stills, which do not follow each other."""
        self._hold_s = hold_s
        self._places = np.zeros((0, 4))
        self._seen_s = np.zeros(0)

    def update(self, places: Float64, pts_s: float) -> Float64:
        """Return the rectangles (M, 4) of a frame, and behind them those of the last `hold_s` that none of them
        continues.

        Args:
            places: (N, 4) as from `FaceFinder.find`.
            pts_s: the frame's time.
        """
        age_s = pts_s - self._seen_s
        is_lost = (age_s >= 0) & (age_s <= self._hold_s)
        if len(places) and len(self._places):
            overlaps = box_overlaps(self._places.astype(np.float32), places.astype(np.float32))
            is_lost &= overlaps.max(axis=1) < SAME_IOU
        now = np.full(len(places), pts_s)
        self._places = np.concatenate([places, self._places[is_lost]])
        self._seen_s = np.concatenate([now, self._seen_s[is_lost]])
        return self._places if self._hold_s else places
