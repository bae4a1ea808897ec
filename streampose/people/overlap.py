"""How much boxes overlap, and which boxes of two frames or networks belong together by their overlap."""

from __future__ import annotations

import numpy as np

from streampose.frames import Float32


def box_areas(xyxy: Float32) -> Float32:
    """Return the areas (N,) of boxes (N, 4), in square pixels; 0 for a box whose corners are swapped."""
    areas: Float32 = np.maximum(xyxy[:, 2:] - xyxy[:, :2], 0).prod(axis=-1)
    return areas


def box_overlaps(first_xyxy: Float32, second_xyxy: Float32) -> Float32:
    """Return the IoU (intersection over union) of each of N boxes with each of M: (N, M), in 0..1."""
    low = np.maximum(first_xyxy[:, None, :2], second_xyxy[None, :, :2])
    high = np.minimum(first_xyxy[:, None, 2:], second_xyxy[None, :, 2:])
    common = np.maximum(high - low, 0).prod(axis=-1)
    together = box_areas(first_xyxy)[:, None] + box_areas(second_xyxy)[None] - common
    share: Float32 = common / np.maximum(together, 1e-6)
    return share


def best_pairs(overlaps: Float32, least: float) -> list[tuple[int, int]]:
    """Pair rows and columns of `overlaps` (N, M), highest overlap first, each at most once, down to `least`."""
    left = overlaps.copy()
    pairs: list[tuple[int, int]] = []
    while left.size:
        row, column = np.unravel_index(int(left.argmax()), left.shape)
        if left[row, column] < least:
            break
        pairs.append((int(row), int(column)))
        left[row], left[:, column] = -np.inf, -np.inf
    return pairs


def covered_shares(xyxy: Float32, others_xyxy: Float32) -> Float32:
    """Return the share (N,) of each box (N, 4) that one other box covers at most; 0..1.

    Args:
        xyxy: (N, 4).
        others_xyxy: (M, 4) boxes that can cover as well, besides the boxes themselves.
    """
    if not len(xyxy):
        return np.zeros(0, np.float32)
    covering = np.concatenate([xyxy, others_xyxy])
    low = np.maximum(xyxy[:, None, :2], covering[None, :, :2])
    high = np.minimum(xyxy[:, None, 2:], covering[None, :, 2:])
    common = np.maximum(high - low, 0).prod(axis=-1)
    np.fill_diagonal(common, 0)
    shares: Float32 = (common / np.maximum(box_areas(xyxy)[:, None], 1.0)).max(axis=1)
    return shares
