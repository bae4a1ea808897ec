"""Where somebody's box is when only their keypoints are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streampose.frames import Float32
from streampose.people.similarity import LEAST_SURE, SURE_SCORE

Bools = npt.NDArray[np.bool_]

LEAST_MARGIN = 0.05
"""Minimum margin of a box around its keypoints, in diagonals of their extent. Detectors cut off hands and feet, and
without a margin they would stay cut off."""


def carry_boxes(
    found_xyxy: Float32, found_xy: Float32, found_scores: Float32, xy: Float32, scores: Float32
) -> tuple[Float32, Bools]:
    """Return a box around each pose that has the same margins as the detected box.

    Each side keeps its distance to the extent of the keypoints that are sure in both poses, scaled with the diagonal of
    that extent, and at least `LEAST_MARGIN` of it. So a box neither shrinks when an ankle is hidden nor drifts.

    Args:
        found_xyxy: (N, 4) float32 detected boxes, pixels of the frame.
        found_xy, found_scores: (N, K, 2) and (N, K) float32, the keypoints found in them.
        xy, scores: the same for the poses that need a box.

    Returns:
        (N, 4) float32, and (N,) whether there were enough keypoints (`LEAST_SURE`); otherwise the box is undefined.
    """
    is_sure = both_sure(found_scores, scores)
    is_carried = is_sure.sum(axis=1) >= max(1, min(LEAST_SURE, xy.shape[1]))
    found_low, found_high = _extents(found_xy, is_sure)
    low, high = _extents(xy, is_sure)
    found_diagonal = np.maximum(np.hypot(*(found_high - found_low).T), 1e-3)
    scale = np.clip(np.hypot(*(high - low).T) / found_diagonal, 0.5, 2)[:, None]
    least = LEAST_MARGIN * found_diagonal[:, None]
    boxes: Float32 = np.concatenate(
        [
            low - np.maximum(found_low - found_xyxy[:, :2], least) * scale,
            high + np.maximum(found_xyxy[:, 2:] - found_high, least) * scale,
        ],
        axis=1,
    ).astype(np.float32)
    return boxes, is_carried


def moved(old_xy: Float32, old_scores: Float32, xy: Float32, scores: Float32) -> Float32:
    """Return how far each person moved: (N, 2), the medians over the keypoints that are sure in both poses, or 0."""
    return medians(xy - old_xy, both_sure(old_scores, scores))


def medians(steps: Float32, chosen: Bools) -> Float32:
    """Return for each person the medians (N, 2), of x and of y, over the chosen ones of the steps (N, K, 2), or 0."""
    # `np.nanmedian` takes twenty times as long for a few people.
    count = chosen.sum(axis=1)
    in_order = np.sort(np.where(chosen[..., None], steps, np.inf), axis=1)
    person = np.arange(len(steps))
    middle = (in_order[person, (count - 1) // 2] + in_order[person, count // 2 * (count > 0)]) / 2
    found: Float32 = np.where(count[:, None] > 0, middle, 0).astype(np.float32)
    return found


def both_sure(first: Float32, second: Float32) -> Bools:
    """Return where both of two arrays of keypoint scores are at least `SURE_SCORE`."""
    is_sure: Bools = (first >= SURE_SCORE) & (second >= SURE_SCORE)
    return is_sure


def _extents(xy: Float32, is_sure: Bools) -> tuple[Float32, Float32]:
    """Return the corners (N, 2) of the boxes around the sure ones of the keypoints (N, K, 2); where there are none, of
    any finite size.
    """
    chosen = is_sure[..., None]
    low = np.where(chosen, xy, np.float32(1e6)).min(axis=1)
    high = np.where(chosen, xy, np.float32(-1e6)).max(axis=1)
    return low, high
