"""How near keypoints are to the true ones (PCK), and whether their ellipses contain the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streampose.frames import Float32
from streampose.records.truth import Float64, TrueFrame

NEAR = 0.05
"""The maximum distance of a keypoint that counts as correct, as a share of the height of the true box."""
NEAR_OF_HEAD = 0.5
"""The same as a share of the size of the head, for PCKh."""
INSIDE_50, INSIDE_90 = 1.386, 4.605
"""Squared radii, in standard deviations, of ellipses that contain a point with a probability of 50 and of 90 %."""


@dataclass(frozen=True, slots=True)
class KeypointAccuracy:
    """Shares from 0 to 1; None if there is nothing to judge."""

    people: int
    """Number of true people with at least one labelled keypoint."""
    found: float | None
    """Share of them who were found, by an IoU of the boxes of at least 0.5."""
    pck: float | None
    """PCK@0.05: the share of the labelled keypoints of the people found that are within 5 % of the height of the true
    box."""
    pck_visible: float | None
    """The same for the visible keypoints only."""
    pckh: float | None
    """PCKh@0.5: the same as `pck` for a distance of half the size of the head, for people whose head is known."""


class KeypointMeter:
    """Collects the keypoints of frames."""

    def __init__(self, least_visible: int = 0) -> None:
        """Judge only people with at least `least_visible` visible keypoints."""
        self._least_visible = least_visible
        self.people = self.found = 0
        self.labelled = self.labelled_near = 0
        """Labelled keypoints of the people found, and those of them that are near the truth."""
        self.visible = self.visible_near = 0
        self.visible_of_all = 0
        """The visible keypoints also of people who were not found."""
        self.heads = self.heads_near = 0

    def add(self, true: TrueFrame, keypoints_xy: Float32, pairs: Sequence[tuple[int, int]]) -> None:
        """Judge a frame.

        Args:
            true: the N people in truth, with the K keypoints to judge.
            keypoints_xy: (M, K, 2) the keypoints of the people found, in the same order.
            pairs: which true person was found as whom.
        """
        is_labelled, is_visible = true.keypoints[..., 2] > 0, true.keypoints[..., 2] == 2
        counts = true.counts & is_labelled.any(axis=1) & (is_visible.sum(axis=1) >= self._least_visible)
        self.people += int(counts.sum())
        self.visible_of_all += int(is_visible[counts].sum())
        for row, column in pairs:
            if not counts[row]:
                continue
            distances = np.hypot(*(keypoints_xy[column] - true.keypoints[row, :, :2]).T)
            is_near = distances <= NEAR * (true.boxes_xyxy[row, 3] - true.boxes_xyxy[row, 1])
            self.found += 1
            self.labelled += int(is_labelled[row].sum())
            self.labelled_near += int(is_near[is_labelled[row]].sum())
            self.visible += int(is_visible[row].sum())
            self.visible_near += int(is_near[is_visible[row]].sum())
            if np.isfinite(true.head_sizes[row]):
                self.heads += int(is_labelled[row].sum())
                self.heads_near += int((distances <= NEAR_OF_HEAD * true.head_sizes[row])[is_labelled[row]].sum())

    def result(self) -> KeypointAccuracy:
        """Return the accuracy over all frames."""
        return KeypointAccuracy(
            self.people,
            _share(self.found, self.people),
            _share(self.labelled_near, self.labelled),
            _share(self.visible_near, self.visible),
            _share(self.heads_near, self.heads),
        )


@dataclass(frozen=True, slots=True)
class Coverage:
    """How often the ellipses of keypoints contain the true ones."""

    keypoints: int
    inside_50: float
    """Share of the true keypoints inside the ellipse that should contain half of them."""
    inside_90: float


class CoverageMeter:
    """Collects how far true keypoints are from the found ones, in standard deviations."""

    def __init__(self) -> None:
        self._distances: list[Float64] = []

    def add(
        self, true: TrueFrame, keypoints_xy: Float32, covariances: Float32, pairs: Sequence[tuple[int, int]]
    ) -> None:
        """Judge a frame; `covariances` (M, K, 2, 2) are those of `keypoints_xy`. See `KeypointMeter.add`."""
        for row, column in pairs:
            if true.counts[row]:
                away = true.keypoints[row, :, :2] - keypoints_xy[column]
                (xx, xy), (_, yy) = np.moveaxis(covariances[column].astype(np.float64), 0, -1)
                x, y = away.T
                with np.errstate(divide="ignore", invalid="ignore"):
                    squared = (yy * x * x - 2 * xy * x * y + xx * y * y) / (xx * yy - xy * xy)
                self._distances.append(squared[(true.keypoints[row, :, 2] > 0) & np.isfinite(squared)])

    def result(self) -> Coverage | None:
        """Return the coverage over all frames; None if there is no keypoint to judge."""
        distances = np.concatenate([np.zeros(0), *self._distances])
        if not len(distances):
            return None
        inside = (float(np.mean(distances <= squared_radius)) for squared_radius in (INSIDE_50, INSIDE_90))
        return Coverage(len(distances), *inside)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
