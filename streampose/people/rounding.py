"""The precision of recorded people. Drawing uses it too, so that a run and its recording give the same picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from streampose.frames import Float32, People

PIXEL_DECIMALS = 2
"""0.01 pixel is finer than the error of any network."""
SCORE_DECIMALS = 4
COVARIANCE_DECIMALS = 3
"""In squared pixels."""


def rounded(values: npt.NDArray[np.floating], decimals: int) -> npt.NDArray[np.float64]:
    """Return values as a poses file holds them, but for those that are not finite, which are `null` there."""
    return np.asarray(np.round(values.astype(np.float64), decimals))


def as_recorded(people: People) -> People:
    """Return people as they are after they were written to a poses file and read again.

    What is not finite becomes NaN. Rounding twice is the same as rounding once.
    """

    def read(values: Float32, decimals: int) -> Float32:
        found = rounded(values, decimals).astype(np.float32)
        found[~np.isfinite(found)] = np.nan
        return found

    covariances, smooth_xy = people.keypoint_covariances, people.smooth_xy
    return replace(
        people,
        boxes_xyxy=read(people.boxes_xyxy, PIXEL_DECIMALS),
        box_scores=read(people.box_scores, SCORE_DECIMALS),
        keypoints_xy=read(people.keypoints_xy, PIXEL_DECIMALS),
        keypoint_scores=read(people.keypoint_scores, SCORE_DECIMALS),
        keypoint_covariances=None if covariances is None else read(covariances, COVARIANCE_DECIMALS),
        smooth_xy=None if smooth_xy is None else read(smooth_xy, PIXEL_DECIMALS),
    )
