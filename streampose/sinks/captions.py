"""Writes text on the picture of a window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2

from streampose.frames import Image

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE, _RED = (255, 255, 255), (0, 0, 230)
_LINE = 1.7
"""Distance of two lines, as a multiple of a capital letter's height."""

Corner = Literal["top left", "bottom left"]


def text_scale(picture: Image) -> float:
    """Return OpenCV's font scale for a picture."""
    shorter_side: int = min(picture.shape[:2])
    return max(0.45, shorter_side / 1000)


def write_line(picture: Image, text: str, corner: Corner, scale: float) -> None:
    """Write one line on a dark ground into a corner of `picture`, (H, W, 3) uint8 BGR, in place."""
    if not text:
        return
    (width, height), _ = cv2.getTextSize(text, _FONT, scale, 1)
    y = 2 * height if corner == "top left" else picture.shape[0] - height
    picture[max(y - 3 * height // 2, 0) : y + height // 2, height // 2 : width + 3 * height // 2] //= 4
    _write(picture, text, (height, y), scale)


def write_table(picture: Image, rows: Sequence[tuple[str, str]]) -> None:
    """Write rows of two columns on a dark ground in the middle of `picture`, (H, W, 3) uint8 BGR, in place."""
    height, width = picture.shape[:2]
    # At scale 1, a capital letter is 21 pixels high and the table about 560 pixels wide.
    scale = min(text_scale(picture), (height - 8) / (21 * _LINE * (len(rows) + 1)), (width - 8) / 620)
    step, left_width, right_width = 21 * _LINE * scale, 210 * scale, 370 * scale
    top, left = round((height - step * (len(rows) + 0.5)) / 2), round((width - left_width - right_width) / 2)
    ground = picture[max(top, 0) : height - max(top, 0), max(left - 10, 0) : width - max(left - 10, 0)]
    ground //= 4
    for number, (key, meaning) in enumerate(rows):
        y = round(top + step * (number + 1))
        _write(picture, key, (left, y), scale)
        _write(picture, meaning, (round(left + left_width), y), scale)


def mark_recording(picture: Image) -> None:
    """Draw a red disc into the top right corner of `picture`, (H, W, 3) uint8 BGR, in place."""
    radius = max(5, min(picture.shape[:2]) // 50)
    cv2.circle(picture, (picture.shape[1] - 2 * radius, 2 * radius), radius, _RED, -1, cv2.LINE_AA)


def _write(picture: Image, text: str, place: tuple[int, int], scale: float) -> None:
    cv2.putText(picture, text, place, _FONT, scale, _WHITE, max(1, round(1.5 * scale)), cv2.LINE_AA)
