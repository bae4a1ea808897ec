"""From boxes to crops and from heatmaps to keypoints: pure tensor arithmetic on whatever device its inputs are on.

Knows no model, thread or I/O. A box becomes a *region*, the padded part of the frame that the pose network sees; the
same region later carries the network's heatmap cells back into the frame. Corners lie on pixel centres throughout
(Huang et al., "The Devil is in the Details: Unbiased Data Processing for Human Pose Estimation", CVPR 2020): the
centres of the first and last pixel of a crop, and of the first and last cell of a heatmap, are the region's borders.

The formulas are those of `transformers/models/vitpose/image_processing_pil_vitpose.py`, called HF below, against which
the tests measure. Everything is float32 inside, since some devices (mps) have nothing wider.
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
"""How heatmaps are smoothed before a peak is refined: `hf` as transformers does, a Gaussian of sigma 0.8 cells; `paper`
as the original ViTPose does, sigma 2.0 cells."""

_BLUR_RADIUS = 5
"""Cells; both blurs have 11 taps."""
_WINDOW = 2 * (_BLUR_RADIUS + 1) + 1
"""Cells that the blurred 3x3 neighbourhood of a peak depends on, along one axis."""
_SMALLEST_WIDTH = 1e-3
"""Pixels of an unpadded region, so that an empty box still has a scale to divide by."""
_OUTSIDE = -3.0
"""A place in `grid_sample`'s coordinates that is more than a pixel outside any picture, where it reads 0."""

_OPENCV_SIDE = 32767
"""Pixels: OpenCV warps nothing larger."""


def crop_regions(boxes_xyxy: Tensor, *, height: int, width: int, padding: float = 1.25) -> Tensor:
    """Return the part of the frame that the pose network is shown for each box.

    The shorter side grows until the aspect is `width:height`, then both are multiplied by `padding` (HF
    `box_to_center_and_scale`, whose scale is in units of 200 pixels). A box without extent, or with its corners
    swapped, counts as having no width or height: the other side then rules, and a box with neither gets a region of a
    thousandth of a pixel, which shows one colour.

    Args:
        boxes_xyxy: (N, 4) float32, pixels of the frame: left, top, right, bottom. They may leave the frame.
        height, width: pixels of a crop.
        padding: region to box.

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
    """Cut the regions out of a frame, scaled to the pose network's input.

    The warp of HF's `get_warp_matrix` and `scipy_warp_affine`: bilinear, with crop values rounded to whole grey levels,
    and black wherever a sample lies outside the centres of the frame's outermost pixels (no blending into the black).

    Args:
        image: (H, W, 3) uint8.
        regions: (N, 4) float32 from `crop_regions`; N may be 0. On any device; sampling runs on the image's.
        height, width: pixels of a crop, at least 2.
        out: where to write, (N, height, width, 3) uint8 on the image's device; by default a new tensor. A slice of a
            larger batch spares a copy when the people of several frames are joined.

    Returns:
        `out`, its channels in the image's order. On a CPU OpenCV does it, whose float32 now and then (3 values of
        10,000) rounds a half to the other level.

    Raises:
        ValueError: `out` has another shape.
    """
    shape = (len(regions), height, width, 3)
    if out is None:
        out = torch.empty(shape, dtype=torch.uint8, device=image.device)
    elif out.shape != shape:
        raise ValueError(f"crop_people: `out` must be of shape {shape}, not {tuple(out.shape)}")
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
        # Or within a pixel of it: float32 decides. Not so written that NaN would be inside.
        if not (
            min(left, top) >= 1
            and left + region_width <= frame.shape[1] - 2
            and top + region_height <= frame.shape[0] - 2
        ):
            over_the_border.append(index)
    if over_the_border:
        # There OpenCV has blended the frame's outermost pixels with the black around.
        xs, ys = _samples(regions[over_the_border], height, width)
        inside_x, inside_y = _is_inside(xs, frame.shape[1]).numpy(), _is_inside(ys, frame.shape[0]).numpy()
        for index, columns, rows in zip(over_the_border, inside_x, inside_y, strict=True):
            crops[index, ~rows] = 0
            crops[index, :, ~columns] = 0
    return out


def crop_on_device(image: Tensor, regions: Tensor, out: Tensor) -> Tensor:
    """Do what `crop_people` does as tensor operations, for devices that OpenCV cannot reach."""
    height, width = out.shape[1:3]
    xs, ys = _samples(regions, height, width)
    grid_x, grid_y = _to_grid(xs, image.shape[1]), _to_grid(ys, image.shape[0])
    grid = torch.stack([grid_x[:, None, :].expand(-1, height, -1), grid_y[:, :, None].expand(-1, -1, width)], dim=-1)
    planes = image.float().permute(2, 0, 1)[None].expand(len(grid), -1, -1, -1)
    crops = F.grid_sample(planes, grid, padding_mode="zeros", align_corners=False)
    return out.copy_(crops.round_().permute(0, 2, 3, 1))


def _samples(regions: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return where in the frame the columns (N, width) and the rows (N, height) of the crops are read, in pixels."""
    centre_x, centre_y, region_width, region_height = regions.unbind(-1)
    columns, rows = _steps(width, regions.device), _steps(height, regions.device)
    return (
        torch.addcmul(centre_x[:, None], region_width[:, None], columns),
        torch.addcmul(centre_y[:, None], region_height[:, None], rows),
    )


def _to_grid(pixels: Tensor, size: int) -> Tensor:
    """Return places along an axis of `size` pixels in the coordinates of `grid_sample`."""
    return torch.where(_is_inside(pixels, size), pixels * (2 / size) + (1 / size - 1), _OUTSIDE)


def _is_inside(pixels: Tensor, size: int) -> Tensor:
    """Return which places lie between the centres of the first and the last of `size` pixels; NaN does not."""
    return (pixels >= 0) & (pixels <= size - 1)


@lru_cache(maxsize=32)
def _steps(count: int, device: torch.device) -> Tensor:
    """Return `count` even steps from one border of a region to the other, as parts of its extent from its centre."""
    return (torch.arange(count, dtype=torch.float32) / (count - 1) - 0.5).to(device)


def decode_heatmaps(heatmaps: Tensor, blur: Blur) -> tuple[Tensor, Tensor]:
    """Find the peak of every heatmap to a fraction of a cell.

    The highest cell, then one Newton step on the logarithm of the blurred heatmap (DARK: Zhang et al.,
    "Distribution-Aware Coordinate Representation for Human Pose Estimation", CVPR 2020, in the form of Huang et al.).
    Steps and constants are HF's, with one exception: a heatmap that is nowhere positive decodes to (-1, -1) as it is,
    where HF refines from cells that belong to other heatmaps.

    Args:
        heatmaps: (N, K, h, w) of any floating dtype; N may be 0.
        blur: `hf`: sigma 0.8 and the border cell repeated (scipy's `reflect`), as HF's `kernel_size=11`; `paper`: sigma
            2.0 and mirrored about the border cell, which is the `cv2.GaussianBlur(heatmap, (11, 11), 0)` of the
            original ViTPose and mmpose (`post_dark_udp` with `modulate_kernel=11`).

    Returns:
        (N, K, 2) float32 x and y in heatmap cells, 0 the centre of the first; (N, K) float32 heights of the unblurred
        peaks. The first of equal peaks wins.
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
    # Products and sums instead of `@`: a matrix product may run in TF32 or bfloat16, by the user's global settings.
    blurred_rows = (weights_y[..., :, :, None] * patch[..., None, :, :]).sum(-2)
    blurred = (blurred_rows[..., :, None, :] * weights_x[..., None, :, :]).sum(-1)
    step = _newton_step(blurred.clamp(0.001, 50).log())
    found = torch.stack([peak_x, peak_y], dim=-1) + step
    return torch.where(scores[..., None] > 0, found, -1.0), scores


@lru_cache(maxsize=32)
def _blur_tables(size: int, blur: Blur, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return, along one axis of `size` cells and for a peak in each, the cells (size, window) around it and their
    weights (size, 3, window) in the blurred values before, at and after it, of which one beyond the border is the
    border's.
    """
    window = min(_WINDOW, size)
    peaks = torch.arange(size)
    cells = (peaks - _BLUR_RADIUS - 1).clamp(0, size - window)[:, None] + torch.arange(window)
    blurred = (peaks[:, None] + torch.tensor([-1, 0, 1])).clamp(0, size - 1)
    weights = _blur_matrix(size, blur)[blurred[:, :, None], cells[:, None, :]]
    return cells.to(device), weights.to(device)


def _blur_matrix(size: int, blur: Blur) -> Tensor:
    """Return the blur along one axis as a matrix (size, size), blurred cell by cell, what is beyond the border folded
    in.
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
    """Return the step (..., 2), x and y in cells, from the middle of 3x3 values (..., 3, 3) to the top of the parabola
    through them; 0 where there is none.
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
    """Carry points from heatmap cells into the frame (HF `transform_preds`).

    Args:
        xy: (N, K, 2) float32, cells.
        regions: (N, 4) float32 from `crop_regions`, on the same device.
        height, width: cells of a heatmap, at least 2.

    Returns:
        (N, K, 2) float32, pixels of the frame.
    """
    centre, extent = regions[:, None, :2], regions[:, None, 2:]
    cells = torch.stack([extent[..., 0] / (width - 1), extent[..., 1] / (height - 1)], dim=-1)
    return xy * cells + (centre - 0.5 * extent)


def flip_back(heatmaps: Tensor, flip_pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Return the heatmaps of mirrored crops as those of the crops themselves, for averaging over both.

    Args:
        heatmaps: (N, K, h, w), predicted from crops flipped left to right.
        flip_pairs: (left, right) keypoints that trade places in a mirror; each keypoint in one pair at most.

    Returns:
        (N, K, h, w), a new tensor of the same dtype on the same device; as `flip_back` of transformers' VitPose.
    """
    order = list(range(heatmaps.shape[1]))
    for left, right in flip_pairs:
        order[left], order[right] = right, left
    return heatmaps[:, order].flip(-1)
