"""Where the faces of people are, with a wide margin.

Pure logic: draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streampose.frames import People
from streampose.people import State
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
MOST_SIDE = 0.6
"""Maximum radius of a head, as a share of the box's shorter side: a face that fills its box is covered."""
MOST_SPREAD = 1.5
"""Head keypoints that are farther apart than this times the maximum radius are not on one head, so they are unsure."""
TOP_OF_BOX = 0.4
"""Share of the height of an upright box that is its top."""
UPRIGHT = 1.2
"""An upright box is at least this many times as high as it is wide. Any other box counts as face completely."""

SAME_IOU = 0.3
"""Minimum IoU of two places of one face in frames in succession."""
HOLD_S = 0.5
"""How long a lost face stays covered, in seconds. Detectors miss people in single frames."""


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
        """Return rectangles (M, 4) in pixels that cover the faces; at least one for each person.

        If the head's keypoints are unsure, all of them count whatever their scores, and so does the top of the box.
        """
        xy = people.keypoints_xy.astype(np.float64)
        boxes = np.nan_to_num(people.boxes_xyxy.astype(np.float64))
        is_head = np.isfinite(xy).all(axis=2) & self._is_head
        is_sure = np.isfinite(xy).all(axis=2) & (people.keypoint_scores >= SURE)
        spreads = _spreads(np.where((is_sure & is_head)[..., None], xy, np.nan))
        sides = boxes[:, 2:] - boxes[:, :2]
        most = MOST_SIDE * sides.min(axis=1, initial=np.inf)
        is_unsure = ((is_sure & is_head).sum(axis=1) < LEAST_SURE) | (spreads > MOST_SPREAD * most)
        scales = np.maximum(self._body_scales(xy, sides, is_sure), np.where(is_unsure, 0, spreads / _BETWEEN_EARS))
        radii = np.minimum(_HEAD_RADIUS * scales, most)

        heads = (is_sure & is_head)[~is_unsure, :, None]
        low = np.where(heads, xy[~is_unsure], np.inf).min(axis=1, initial=np.inf)
        high = np.where(heads, xy[~is_unsure], -np.inf).max(axis=1, initial=-np.inf)
        halves = np.maximum(radii[~is_unsure, None], (high - low) / 2 + radii[~is_unsure, None] / 2)
        person, point = np.nonzero(is_head & is_unsure[:, None])
        return np.concatenate(
            [
                _squares((low + high) / 2, halves),
                _squares(xy[person, point], radii[person, None]),
                _tops(boxes[is_unsure]),
            ]
        )

    def _body_scales(self, xy: Float64, sides: Float64, is_sure: Bools) -> Float64:
        """Return pixels per cm (N,) of each person by everything but the head: the largest of several estimates."""
        estimates = [sides.max(axis=1, initial=0) / _HEIGHT]
        if len(self._shoulders) == 2:
            estimates.append(_distances(xy, is_sure, self._shoulders) / _BETWEEN_SHOULDERS)
            if len(self._hips) == 2:
                torsos = zip(self._shoulders, self._hips, strict=True)
                estimates += [_distances(xy, is_sure, torso) / _TORSO for torso in torsos]
        return np.asarray(np.max(estimates, axis=0))


def _squares(middles: Float64, halves: Float64) -> Float64:
    """Return rectangles (N, 4) around points (N, 2)."""
    return np.concatenate([middles - halves, middles + halves], axis=1)


def _spreads(xy: Float64) -> Float64:
    """Return the largest distance (N,) between the points of each person; 0 with less than two. NaN is no point."""
    apart = np.hypot(*np.moveaxis(xy[:, :, None] - xy[:, None], -1, 0))
    return np.asarray(np.nan_to_num(apart).max(axis=(1, 2), initial=0))


def _distances(xy: Float64, is_sure: Bools, pair: Sequence[int]) -> Float64:
    """Return the distance (N,) between two keypoints; 0 if one of them is not sure."""
    first, second = pair
    apart = np.hypot(*(xy[:, first] - xy[:, second]).T)
    return np.where(is_sure[:, first] & is_sure[:, second], apart, 0.0)


def _tops(boxes: Float64) -> Float64:
    """Return the tops of boxes (N, 4), a little wider; of boxes that are not upright, everything."""
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

    def state(self) -> State:
        """Return everything that the next frames depend on."""
        return {"places": self._places, "seen_s": self._seen_s}

    def restore(self, state: State) -> None:
        """Continue as the memory whose `state` it was."""
        self._places, self._seen_s = state["places"], state["seen_s"]

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
