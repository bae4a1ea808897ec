"""Derives from each heatmap how uncertain its keypoint is: a covariance in pixels of the frame.

Knows nothing about models, threads or I/O. Two things decide: the spread of the heatmap around the keypoint, which
gives the ellipse its shape, and a *calibration*, which scales it. The calibration belongs to a checkpoint. It is fitted
by `tools/evaluate_uncertainty.py` to errors against known keypoints, and it increases the covariance where the network
is likely to have found another person's joint or the opposite side: if much of the heatmap lies far from its peak, or
if the whole pose has low scores. All arithmetic is in float32 on the device of the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

NEAR = 5.0
"""Cells. Whatever lies farther from the keypoint along an axis is stray."""
LEAST_VARIANCE = 0.02
"""Squared cells, along each axis: about the precision of the decoding. It keeps every covariance positive definite."""

Curve = tuple[tuple[float, float], ...]
"""Points (position, value) of a function that is linear between them and constant outside; positions increase."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Scales the covariances of one checkpoint. The factor is the exponential of the sum of three values."""

    stray: Curve
    """By the share, 0..1, of the squared heatmap that is stray."""
    pose_score: Curve
    """By the mean score of the pose; each score is clipped to 0..1."""
    keypoints: tuple[float, ...]
    """One value for each of the K keypoints."""


def spread(heatmaps: Tensor, cells_xy: Tensor) -> tuple[Tensor, Tensor]:
    """Measure how far the heatmaps spread around their keypoints.

    The covariance is twice the second moment of the squared heatmap about the keypoint. For a Gaussian heatmap, this is
    the Gaussian's own covariance, because squaring halves it. Squares give less weight to the faint haze of a heatmap
    than to a second peak.

    Args:
        heatmaps: (N, K, h, w) of any floating dtype; negative values count as 0.
        cells_xy: (N, K, 2) float32, cells, from `streampose.networks.geometry.decode_heatmaps`.

    Returns:
        (N, K, 3) float32: variance of x, variance of y and covariance of both, in squared cells. (N, K) float32: share,
        0..1, of the squared heatmap that is more than `NEAR` cells from the keypoint along an axis. Both are NaN for a
        heatmap without positive values.
    """
    squares = heatmaps.detach().float().clamp(min=0).square_()
    height, width = squares.shape[-2:]
    dx = _numbers(width, squares.device) - cells_xy[..., 0, None]
    dy = _numbers(height, squares.device) - cells_xy[..., 1, None]
    near_x, near_y = (dx.abs() <= NEAR).float(), (dy.abs() <= NEAR).float()
    # Products and sums instead of `@`: the user's global settings can make a matrix product run in TF32 or bfloat16.
    # Sums over rows take a third less time than sums over columns.
    columns, rows = squares.sum(-2), squares.sum(-1)
    mass = rows.sum(-1)
    variance_x = (columns * dx.square()).sum(-1)
    variance_y = (rows * dy.square()).sum(-1)
    covariance = ((squares * dy[..., :, None]).sum(-2) * dx).sum(-1)
    near = ((squares * near_y[..., :, None]).sum(-2) * near_x).sum(-1)
    moments = 2 * torch.stack([variance_x, variance_y, covariance], dim=-1) / mass[..., None]
    return moments, (1 - near / mass).clamp(0, 1)


def covariances(heatmaps: Tensor, cells_xy: Tensor, scores: Tensor, calibration: Calibration | None) -> Tensor:
    """Return the covariance of every keypoint.

    No covariance is larger than that of a point that may be anywhere in the crop (compared by trace). A heatmap that
    has no positive values, or values that are not finite, gets this largest covariance.

    Args:
        heatmaps: (N, K, h, w) of any floating dtype; N may be 0.
        cells_xy, scores: (N, K, 2) and (N, K) float32, from `streampose.networks.geometry.decode_heatmaps`.
        calibration: of the checkpoint; None multiplies by 1.

    Returns:
        (N, K, 3) float32, positive definite, in squared cells: variance of x, variance of y, covariance of both.
    """
    moments, stray = spread(heatmaps, cells_xy)
    height, width = heatmaps.shape[-2:]
    found = moments + _table((LEAST_VARIANCE, LEAST_VARIANCE, 0.0), moments.device)
    if calibration is not None:
        found = found * log_factors(stray, scores, calibration).exp()[..., None]
    largest = ((width - 1) ** 2 / 12 + LEAST_VARIANCE, (height - 1) ** 2 / 12 + LEAST_VARIANCE, 0.0)
    found = found * (sum(largest) / (found[..., :1] + found[..., 1:2])).clamp(max=1)
    return torch.where(found.isfinite().all(-1, keepdim=True), found, _table(largest, moments.device))


def log_factors(stray: Tensor, scores: Tensor, calibration: Calibration) -> Tensor:
    """Return the logarithms (N, K) float32 of the calibration's factors; `stray` and `scores` are (N, K) float32."""
    device = stray.device
    pose_scores = scores.nan_to_num(nan=0.0).clamp(0, 1).mean(-1, keepdim=True)
    return (
        _along(calibration.stray, stray)
        + _along(calibration.pose_score, pose_scores)
        + _table(calibration.keypoints, device)
    )


def to_frame_covariances(covariances: Tensor, regions: Tensor, *, height: int, width: int) -> Tensor:
    """Map covariances from heatmap cells to the frame, as `streampose.networks.geometry.to_frame` maps points.

    Args:
        covariances: (N, K, 3) float32, squared cells.
        regions: (N, 4) float32 from `streampose.networks.geometry.crop_regions`, on the same device.
        height, width: size of a heatmap in cells, at least 2.

    Returns:
        (N, K, 3) float32, squared pixels of the frame.
    """
    per_x, per_y = regions[:, 2] / (width - 1), regions[:, 3] / (height - 1)
    return covariances * torch.stack([per_x * per_x, per_y * per_y, per_x * per_y], dim=-1)[:, None]


def _along(curve: Curve, positions: Tensor) -> Tensor:
    """Return the values of a curve at some positions."""
    starts, lengths, slopes = _pieces(curve, positions.device)
    along = torch.minimum((positions[..., None] - starts).clamp(min=0), lengths)
    return (along * slopes).sum(-1) + curve[0][1]


@lru_cache(maxsize=32)
def _pieces(curve: Curve, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return position, length and slope of each piece of a curve."""
    at, values = torch.tensor(curve, dtype=torch.float32).unbind(-1)
    lengths = at.diff()
    return at[:-1].to(device), lengths.to(device), (values.diff() / lengths).to(device)


@lru_cache(maxsize=32)
def _table(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).to(device)


@lru_cache(maxsize=32)
def _numbers(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, dtype=torch.float32).to(device)
