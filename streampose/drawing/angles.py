"""Angles of people: an arc at the joint, and its number of degrees."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from streampose.drawing.colours import RIM, sv_color
from streampose.drawing.shapes import SUBPIXEL_BITS
from streampose.frames import Image, Int64, People
from streampose.people.angles import AngleMeter

_Bool = npt.NDArray[np.bool_]
_Float64 = npt.NDArray[np.float64]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE = (255, 255, 255)
SEGMENT_SHARE = 0.4
"""Radius of an arc, as a share of the segment's length in the picture."""
MOST_WIDTHS = 12
"""Maximum radius of an arc, in line widths of the person."""
_STEPS = np.linspace(0, 1, 25)


def draw_angles(drawn: Image, people: People, visible: _Bool, line_widths: Int64, meter: AngleMeter) -> None:
    """Draw the angles whose keypoints are all `visible` (N, K).

    The arc goes from the direction in which the angle is 0, marked by a straight line, to the segment that is measured.
    """
    corners = meter.corners(people.keypoints_xy.astype(np.float64))
    degrees = meter.measure(people).degrees
    is_shown = np.isfinite(degrees) & np.isfinite(corners.places).all(axis=2)
    is_shown &= (visible[:, None] | ~meter.uses).all(axis=2)
    person, angle = np.nonzero(is_shown)
    widths = line_widths[person]
    places, ends = corners.places[person, angle], corners.ends[person, angle]
    radii = np.minimum(SEGMENT_SHARE * np.hypot(*(ends - places).T), MOST_WIDTHS * widths)
    start, end = corners.from_radians[person, angle], corners.to_radians[person, angle]
    turns = start[:, None] + (end - start)[:, None] * _STEPS
    # The corner itself comes first: the straight line goes from it to the beginning of the arc.
    outlines = np.concatenate([places[:, None], places[:, None] + radii[:, None, None] * _towards(turns)], axis=1)
    for rim in (True, False):
        for outline, width in zip(outlines, widths.tolist(), strict=True):
            color = sv_color(RIM).as_bgr() if rim else _WHITE
            points = np.rint(outline * 2**SUBPIXEL_BITS).astype(np.int32)
            thickness = max(1, width // 2) + 2 * rim
            cv2.polylines(drawn, [points], False, color, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
    middles = _towards((start + end) / 2)
    _write(drawn, [round(value) for value in degrees[person, angle].tolist()], places, radii, middles)


def _towards(radians: _Float64) -> _Float64:
    """Return unit vectors (..., 2) in the picture, whose y is downwards."""
    return np.stack([np.cos(radians), -np.sin(radians)], axis=-1)


def _write(drawn: Image, numbers: Sequence[int], places: _Float64, radii: _Float64, towards: _Float64) -> None:
    """Write numbers of degrees just outside of arcs around `places` (M, 2), in the directions `towards` (M, 2)."""
    height, width = drawn.shape[:2]
    scale = max(0.45, min(height, width) / 1200)
    for number, place, radius, direction in zip(numbers, places, radii.tolist(), towards, strict=True):
        text = str(number)
        (text_width, text_height), _ = cv2.getTextSize(text, _FONT, scale, 1)
        # OpenCV's font has no degree sign.
        ring = max(2, round(text_height / 5))
        half = np.array([text_width / 2 + 2 * ring, text_height / 2])
        middle = place + direction * (radius + 3 + half @ np.abs(direction))
        inside = np.clip(middle - half, 2, np.maximum((width, height) - 2 * half, 2))
        left, top = np.rint(inside).astype(int).tolist()
        ring_at = left + text_width + 2 * ring, top + ring
        for color, more in ((sv_color(RIM).as_bgr(), 3), (_WHITE, 0)):
            thickness = max(1, round(1.2 * scale)) + more
            cv2.putText(drawn, text, (left, top + text_height), _FONT, scale, color, thickness, cv2.LINE_AA)
            cv2.circle(drawn, ring_at, ring, color, 1 + more // 2, cv2.LINE_AA)
