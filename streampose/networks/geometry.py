"""Converts boxes to crops and heatmaps to keypoints, with tensor arithmetic on the device of the inputs.

Knows nothing about models, threads or I/O. A box becomes a *region*: the padded part of the frame that the pose network
sees. The same region later maps heatmap cells back to the frame. Corners lie on pixel centres throughout (Huang et al.,
"The Devil is in the Details: Unbiased Data Processing for Human Pose Estimation", CVPR 2020): the region's borders run
through the centres of the first and last pixel of a crop, and of the first and last cell of a heatmap.

The formulas come from `transformers/models/vitpose/image_processing_pil_vitpose.py`, called HF below. The tests compare
against that file. All arithmetic is in float32, because some devices (mps) support nothing wider.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Blur = Literal["hf", "paper"]
"""The Gaussian blur of a heatmap before its peak is refined: `hf` (sigma 0.8 cells, as in transformers) or `paper`
(sigma 2.0 cells, as in the original ViTPose).
"""

_BLUR_RADIUS = 5
"""Cells. Both blurs have 11 taps."""
_WINDOW = 2 * (_BLUR_RADIUS + 1) + 1
"""Number of cells along one axis that influence the blurred 3x3 neighbourhood of a peak."""
_SMALLEST_WIDTH = 1e-3
"""Minimum width of an unpadded region, in pixels. It avoids a division by zero for an empty box."""
_OUTSIDE = -3.0
"""A `grid_sample` coordinate more than one pixel outside any image; sampling there gives 0."""

_OPENCV_SIDE = 32767
"""Maximum image side that OpenCV can warp, in pixels."""


def crop_regions(boxes_xyxy: Tensor, *, height: int, width: int, padding: float = 1.25) -> Tensor:
    """Return the region of the frame that the pose network sees for each box.

    One side is extended until the aspect ratio is `width:height`. Both sides are then multiplied by `padding` (HF
    `box_to_center_and_scale`, whose scale is in units of 200 pixels). A side that is empty or has its corners swapped
    counts as 0, and the other side determines the region. If both sides count as 0, the region is a thousandth of a
    pixel wide before padding, and the crop shows a single colour.

    Args:
        boxes_xyxy: (N, 4) float32, pixels of the frame: left, top, right, bottom. They may extend beyond the frame.
        height, width: size of a crop in pixels.
        padding: ratio of region size to box size.

    Returns:
        (N, 4) float32 on the boxes' device, pixels of the frame: centre x, centre y, region width, region height.
    """
    left, top, right, bottom = boxes_xyxy.unbind(-1)
    aspect = width / height
    region_width = torch.maximum(right - left, (bottom - top) * aspect).clamp(min=_SMALLEST_WIDTH)
    region_height = region_width / aspect
    centre_x, centre_y = (left + right) * 0.5, (top + bottom) * 0.5
    return torch.stack([centre_x, centre_y, region_width * padding, region_height * padding], dim=-1)


def crop_people(image: Tensor, regions: Tensor, *, height: int, width: int, out: Tensor | None = None) -> Tensor:
    """Cut the regions out of a frame and scale them to the pose network's input size.

    This is the warp of HF's `get_warp_matrix` and `scipy_warp_affine`. Sampling is bilinear, and values are rounded to
    whole grey levels. A sample outside the centres of the frame's outermost pixels is black, without blending.

    Args:
        image: (H, W, 3) uint8.
        regions: (N, 4) float32 from `crop_regions`, on any device; N may be 0. Sampling runs on the image's device.
        height, width: size of a crop in pixels, at least 2.
        out: output tensor, (N, height, width, 3) uint8 on the image's device; by default a new tensor. Passing a slice
            of a larger batch avoids a copy when people of several frames are batched.

    Returns:
        `out`, with channels in the image's order. On a CPU, OpenCV does the work. In about 3 of
        10,000 values, its float32 arithmetic rounds a half to the other grey level.

    Raises:
        ValueError: `out` has the wrong shape.
    """
    shape = (len(regions), height, width, 3)
    if out is None:
        out = torch.empty(shape, dtype=torch.uint8, device=image.device)
    elif out.shape != shape:
        raise ValueError(f"crop_people: `out` must have shape {shape}, not {tuple(out.shape)}")
    if len(regions) == 0:
        return out
    if image.device.type == "cpu" and max(image.shape) <= _OPENCV_SIDE:
        return _crop_by_opencv(image, regions.cpu(), out)
    return crop_on_device(image, regions.to(image.device), out)


def _crop_by_opencv(image: Tensor, regions: Tensor, out: Tensor) -> Tensor:
    height, width = out.shape[1:3]
    frame, crops = image.numpy(), out.numpy()
    over_the_border = []
    for index, (centre_x, centre_y, region_width, region_height) in enumerate(regions.tolist()):
        left, top = centre_x - 0.5 * region_width, centre_y - 0.5 * region_height
        to_frame = np.array([[region_width / (width - 1), 0, left], [0, region_height / (height - 1), top]])
        cv2.warpAffine(
            frame, to_frame, (width, height), dst=crops[index], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        # Regions within a pixel of the border count as well, because float32 rounding decides there. The condition is
        # negated so that NaN counts as outside.
        if not (
            min(left, top) >= 1
            and left + region_width <= frame.shape[1] - 2
            and top + region_height <= frame.shape[0] - 2
        ):
            over_the_border.append(index)
    if over_the_border:
        # OpenCV blends the frame's outermost pixels with the black outside. Set those samples to black.
        xs, ys = _samples(regions[over_the_border], height, width)
        inside_x, inside_y = _is_inside(xs, frame.shape[1]).numpy(), _is_inside(ys, frame.shape[0]).numpy()
        for index, columns, rows in zip(over_the_border, inside_x, inside_y, strict=True):
            crops[index, ~rows] = 0
            crops[index, :, ~columns] = 0
    return out


def crop_on_device(image: Tensor, regions: Tensor, out: Tensor) -> Tensor:
    """Implement `crop_people` with tensor operations, for devices that OpenCV does not support."""
    height, width = out.shape[1:3]
    xs, ys = _samples(regions, height, width)
    grid_x, grid_y = _to_grid(xs, image.shape[1]), _to_grid(ys, image.shape[0])
    grid = torch.stack([grid_x[:, None, :].expand(-1, height, -1), grid_y[:, :, None].expand(-1, -1, width)], dim=-1)
    planes = image.float().permute(2, 0, 1)[None].expand(len(grid), -1, -1, -1)
    crops = F.grid_sample(planes, grid, padding_mode="zeros", align_corners=False)
    return out.copy_(crops.round_().permute(0, 2, 3, 1))


def _samples(regions: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the frame coordinates, in pixels, of the crops' columns (N, width) and rows (N, height)."""
    centre_x, centre_y, region_width, region_height = regions.unbind(-1)
    columns, rows = _steps(width, regions.device), _steps(height, regions.device)
    return (
        torch.addcmul(centre_x[:, None], region_width[:, None], columns),
        torch.addcmul(centre_y[:, None], region_height[:, None], rows),
    )


def _to_grid(pixels: Tensor, size: int) -> Tensor:
    """Convert positions along an axis of `size` pixels to `grid_sample` coordinates."""
    return torch.where(_is_inside(pixels, size), pixels * (2 / size) + (1 / size - 1), _OUTSIDE)


def _is_inside(pixels: Tensor, size: int) -> Tensor:
    """Return a mask of the positions between the centres of the first and last of `size` pixels; False for NaN."""
    return (pixels >= 0) & (pixels <= size - 1)


@lru_cache(maxsize=32)
def _steps(count: int, device: torch.device) -> Tensor:
    """Return `count` evenly spaced offsets from -0.5 to 0.5: positions relative to a region's centre and extent."""
    return (torch.arange(count, dtype=torch.float32) / (count - 1) - 0.5).to(device)


def decode_heatmaps(heatmaps: Tensor, blur: Blur) -> tuple[Tensor, Tensor]:
    """Find the peak of every heatmap with sub-cell accuracy.

    Starting from the highest cell, take one Newton step on the logarithm of the blurred heatmap (DARK: Zhang et al.,
    "Distribution-Aware Coordinate Representation for Human Pose Estimation", CVPR 2020, in the form of Huang et al.).
    Steps and constants are HF's, with one exception: a heatmap without positive values decodes to (-1, -1), without
    refinement. HF would refine it with cells of other heatmaps.

    Args:
        heatmaps: (N, K, h, w) of any floating dtype; N may be 0.
        blur: `hf`: sigma 0.8, with the border cell repeated (scipy's `reflect`), as in HF's `kernel_size=11`. `paper`:
            sigma 2.0, mirrored about the border cell. This is `cv2.GaussianBlur(heatmap, (11, 11), 0)` in the original
            ViTPose and in mmpose (`post_dark_udp` with `modulate_kernel=11`).

    Returns:
        (N, K, 2) float32: x and y in heatmap cells, where 0 is the centre of the first cell. (N, K) float32: heights of
        the unblurred peaks. Of equal peaks, the first is selected.
    """
    heatmaps = heatmaps.detach()
    height, width = heatmaps.shape[-2:]
    cells = heatmaps.flatten(-2)
    peaks, index = cells.max(-1)
    scores = peaks.float()
    peak_x, peak_y = index % width, index // width
    near_columns, weights_of_columns = _blur_tables(width, blur, cells.device)
    near_rows, weights_of_rows = _blur_tables(height, blur, cells.device)
    columns, weights_x = near_columns[peak_x], weights_of_columns[peak_x]
    rows, weights_y = near_rows[peak_y], weights_of_rows[peak_y]
    window = (rows[..., :, None] * width + columns[..., None, :]).flatten(-2)
    patch = cells.gather(-1, window).float().view(*index.shape, rows.shape[-1], columns.shape[-1])
    # Products and sums instead of `@`: the user's global settings can make a matrix product run in TF32 or bfloat16.
    blurred_rows = (weights_y[..., :, :, None] * patch[..., None, :, :]).sum(-2)
    blurred = (blurred_rows[..., :, None, :] * weights_x[..., None, :, :]).sum(-1)
    step = _newton_step(blurred.clamp(0.001, 50).log())
    found = torch.stack([peak_x, peak_y], dim=-1) + step
    return torch.where(scores[..., None] > 0, found, -1.0), scores


@lru_cache(maxsize=32)
def _blur_tables(size: int, blur: Blur, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the blur tables along one axis of `size` cells, for a peak in each cell.

    Returns:
        The indices (size, window) of the cells around the peak, and their weights (size, 3, window) in the blurred
        values before, at and after the peak. Beyond the border, the blurred value of the border cell is used.
    """
    window = min(_WINDOW, size)
    peaks = torch.arange(size)
    cells = (peaks - _BLUR_RADIUS - 1).clamp(0, size - window)[:, None] + torch.arange(window)
    blurred = (peaks[:, None] + torch.tensor([-1, 0, 1])).clamp(0, size - 1)
    weights = _blur_matrix(size, blur)[blurred[:, :, None], cells[:, None, :]]
    return cells.to(device), weights.to(device)


def _blur_matrix(size: int, blur: Blur) -> Tensor:
    """Return the blur along one axis as a matrix (size, size) from cells to blurred cells.

    Weights beyond the border are added to the cells that the border mode maps them to.
    """
    taps = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1)
    sigma = {"hf": 0.8, "paper": 2.0}[blur]
    weights = torch.softmax(-0.5 * (taps / sigma) ** 2, dim=0)
    cells = torch.arange(size)[:, None] + taps
    if blur == "hf":
        cells = cells.remainder(2 * size)
        cells = torch.minimum(cells, 2 * size - 1 - cells)
    else:
        cells = cells.remainder(max(2 * size - 2, 1))
        cells = torch.minimum(cells, 2 * size - 2 - cells)
    return torch.zeros(size, size).scatter_add_(1, cells, weights.expand(size, -1))


def _newton_step(logs: Tensor) -> Tensor:
    """Return the Newton step (..., 2), x and y in cells, from the centre of 3x3 values (..., 3, 3) to the extremum.

    The extremum is that of the quadratic fit through the values. The step is 0 if it is not finite.
    """
    (up_left, up, _), (left, middle, right), (_, down, down_right) = (row.unbind(-1) for row in logs.unbind(-2))
    epsilon = torch.finfo(torch.float32).eps
    dx, dy = 0.5 * (right - left), 0.5 * (down - up)
    dxx = right - 2 * middle + left + epsilon
    dyy = down - 2 * middle + up + epsilon
    dxy = 0.5 * (down_right - right - down + middle + middle - left - up + up_left)
    determinant = dxx * dyy - dxy * dxy
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=-1) / determinant[..., None]
    return torch.where(step.isfinite(), step, 0.0)


def to_frame(xy: Tensor, regions: Tensor, *, height: int, width: int) -> Tensor:
    """Map points from heatmap cells to the frame (HF `transform_preds`).

    Args:
        xy: (N, K, 2) float32, cells.
        regions: (N, 4) float32 from `crop_regions`, on the same device.
        height, width: size of a heatmap in cells, at least 2.

    Returns:
        (N, K, 2) float32, pixels of the frame.
    """
    centre, extent = regions[:, None, :2], regions[:, None, 2:]
    cells = torch.stack([extent[..., 0] / (width - 1), extent[..., 1] / (height - 1)], dim=-1)
    return xy * cells + (centre - 0.5 * extent)


def flip_back(heatmaps: Tensor, flip_pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Mirror heatmaps of flipped crops back, so that they can be averaged with those of the original crops.

    Args:
        heatmaps: (N, K, h, w), predicted from horizontally flipped crops.
        flip_pairs: (left, right) keypoints that swap in a mirror image; each keypoint is in at most one pair.

    Returns:
        (N, K, h, w), a new tensor with the same dtype and device, equal to the result of `flip_back` in transformers'
        VitPose.
    """
    order = list(range(heatmaps.shape[1]))
    for left, right in flip_pairs:
        order[left], order[right] = right, left
    return heatmaps[:, order].flip(-1)
