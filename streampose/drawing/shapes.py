"""Sizes of lines, and outlines blended into an image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from streampose.drawing.colours import sv_color
from streampose.frames import Float32, Image, Int64

_Bool = npt.NDArray[np.bool_]
_Float64 = npt.NDArray[np.float64]

_ANGLES = np.linspace(0, 2 * np.pi, 32, endpoint=False)
CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
"""The unit circle as a polygon, (32, 2). 32 corners are enough for the sizes of points and limbs."""

SUBPIXEL_BITS = 4
"""Binary digits after the point of the coordinates that OpenCV draws at."""


def is_near(xy: Float32, drawn: Image) -> _Bool:
    """Return a mask (N, K) of the points at most one image size outside the image.

    The limit avoids overflows of OpenCV's integer coordinates.
    """
    size = np.array(drawn.shape[1::-1])
    return np.asarray((np.abs(xy - size / 2) <= 1.5 * size).all(axis=2))


def clipped(boxes_xyxy: Float32, drawn: Image) -> Float32:
    """Return the boxes (N, 4) made finite and clipped to the image. A box outside the image becomes empty."""
    height, width = drawn.shape[:2]
    return np.clip(np.nan_to_num(boxes_xyxy), 0, np.array([width - 1, height - 1] * 2, np.float32))


def line_width(drawn: Image) -> int:
    """Return the line width in pixels: 1/270 of the image's shorter side (1080p: 4, 720p: 3), at least 2."""
    shorter_side: int = min(drawn.shape[:2])
    return max(2, round(shorter_side / 270))


def person_line_widths(boxes_xyxy: Float32, drawn: Image) -> Int64:
    """Return each person's line width (N,) in pixels.

    It is 1/50 of the box's longer side, but at most the image's line width and at least 1.
    """
    sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).max(axis=1)
    widths: Int64 = np.clip(np.rint(sides / 50), 1, line_width(drawn)).astype(np.int64)
    return widths


def limb_outlines(ends: _Float64, half_widths: Int64) -> _Float64:
    """Return outlines (M, 32, 2) of ellipses. The long axis of each ellipse joins the two points in `ends` (M, 2, 2).

    `cv2.ellipse2Poly` is not used: it rounds the axes to pixels and the angle to degrees, so limbs would miss their
    joints.
    """
    middle, half = ends.mean(axis=1), (ends[:, 1] - ends[:, 0]) / 2
    length = np.maximum(np.hypot(half[:, 0], half[:, 1]), 1e-3)  # avoids a division by zero if both ends coincide
    across = half[:, ::-1] * np.array([-1, 1]) * (half_widths / length)[:, None]
    outlines: _Float64 = middle[:, None] + CIRCLE[:, :1] * half[:, None] + CIRCLE[:, 1:] * across[:, None]
    return outlines


def spread_outlines(centers: _Float64, covariances: _Float64, share: float) -> _Float64:
    """Return outlines (M, 32, 2) of the ellipses around `centers` (M, 2) that hold a share of a normal distribution.

    Args:
        covariances: (M, 2, 2), squared pixels.
        share: in 0..1. In two dimensions, `1 - exp(-d^2 / 2)` of the distribution is within a Mahalanobis distance d.
    """
    values, axes = np.linalg.eigh(covariances)
    radii = np.sqrt(np.maximum(values, 0) * (-2 * np.log(1 - share)))
    outlines: _Float64 = centers[:, None] + CIRCLE @ (radii[..., None] * np.swapaxes(axes, 1, 2))
    return outlines


def blend(drawn: Image, outlines: _Float64, colors: Sequence[str], opacities: Float32) -> None:
    """Blend the filled convex `outlines` (M, P, 2), in pixels, in order. Only each bounding rectangle is processed."""
    soft_edge_px = 2
    height, width = drawn.shape[:2]
    low = np.maximum(np.floor(outlines.min(axis=1)) - soft_edge_px, 0).astype(int)
    high = np.minimum(np.ceil(outlines.max(axis=1)) + soft_edge_px + 1, (width, height)).astype(int)
    corners = np.rint((outlines - low[:, None]) * 2**SUBPIXEL_BITS).astype(np.int32)
    bgr = {color: sv_color(color).as_bgr() for color in set(colors)}
    for (left, top), (right, bottom), polygon, color, opacity in zip(
        low.tolist(), high.tolist(), corners, colors, opacities.tolist(), strict=True
    ):
        if left >= right or top >= bottom:
            continue
        below = drawn[top:bottom, left:right]
        filled = below.copy()
        cv2.fillConvexPoly(filled, polygon, bgr[color], cv2.LINE_AA, SUBPIXEL_BITS)
        cv2.addWeighted(filled, opacity, below, 1 - opacity, 0, dst=below)
