"""Frame preparation shared by all video sinks: size, pixel shape and colours of the frames for an encoder.

Knows nothing about containers or streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import cv2  # import before av, or windows hang: see display.py

# isort: split
import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from streampose.frames import UNSAID_COLOURS, Colours, Image

USUAL_RATE = Fraction(25)
"""Frames per second for a source that declares no rate."""

HD_LINES = 720
"""Use BT.709 from this height on, and BT.601 below. The file is tagged accordingly. Players that ignore the tag guess
by the same rule."""


@dataclass(frozen=True)
class _Matrix:
    space: Colorspace
    """The converter's name for the matrix."""
    tag: int
    """The matrix number in H.264 (ITU-T H.273)."""


_BT709 = _Matrix(Colorspace.ITU709, 1)
_BT601 = _Matrix(Colorspace.SMPTE170M, 6)

_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND
"""Without ACCURATE_RND the conversion darkens the image by half a level."""

MAX_SIDE = 16384
"""Maximum width and height in pixels, the limit of x264."""


class Canvas:
    """Converts every image to one size and to H.264's input format: 4:2:0, BT.709 or BT.601 by height, limited range.
    Primaries and transfer are tagged as in the source.

    4:2:0 needs even sizes, so an odd width or height grows by one by repeating the last column or row. An image with
    another size or pixel aspect ratio is fitted in with black borders.
    """

    def __init__(
        self, width: int, height: int, pixel_aspect: Fraction = Fraction(1), colours: Colours = UNSAID_COLOURS
    ) -> None:
        """Store the size of the first image in pixels, its pixel aspect ratio and its colours.

        Raises `ValueError` if x264 does not support the size.
        """
        if max(width, height) > MAX_SIDE:
            raise ValueError(f"{width} x {height} pixels are too large: H.264 allows at most {MAX_SIDE} per side")
        self._width, self._height = width, height
        self._pixel_aspect = pixel_aspect
        self._colours = colours
        self.width, self.height = width + width % 2, height + height % 2
        """Size of the encoder's frames, in pixels."""
        self._matrix = _BT709 if height >= HD_LINES else _BT601
        self._reformatter = VideoReformatter()

    def set_up(self, encoder: VideoCodecContext) -> None:
        """Set the frame format of `encoder`. Call this before the encoder is opened."""
        encoder.width, encoder.height = self.width, self.height
        encoder.pix_fmt = "yuv420p"
        encoder.sample_aspect_ratio = self._pixel_aspect
        encoder.colorspace = self._matrix.tag
        encoder.color_primaries, encoder.color_trc = self._colours

    def frame(self, image: Image, pixel_aspect: Fraction) -> av.VideoFrame:
        """Return the (H, W, 3) uint8 BGR `image` as a frame for the encoder, without a timestamp."""
        if image.shape[:2] != (self._height, self._width) or pixel_aspect != self._pixel_aspect:
            image = letterboxed(image, self._width, self._height, float(pixel_aspect / self._pixel_aspect))
        odd_lines, odd_columns = self._height % 2, self._width % 2
        if odd_lines or odd_columns:
            image = np.pad(image, ((0, odd_lines), (0, odd_columns), (0, 0)), mode="edge")
        return self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24"),
            format="yuv420p",
            dst_colorspace=self._matrix.space,
            dst_color_range=ColorRange.MPEG,
            interpolation=_EXACT,
        )


def frame_rate(fps: float | None) -> Fraction:
    """Return the frame rate to declare to an encoder. Timestamps, not this rate, determine when a frame is shown."""
    return Fraction(fps).limit_denominator(1001) if fps else USUAL_RATE  # NTSC's rates are n/1001


def square_pixels(image: Image, pixel_aspect: Fraction) -> Image:
    """Return the (H, W, 3) uint8 BGR `image` stretched to square pixels.

    It grows in width or height, according to its pixel aspect ratio `pixel_aspect` (width over height).
    """
    if pixel_aspect == 1:
        return image
    height, width = image.shape[:2]
    shown = (round(width * pixel_aspect), height) if pixel_aspect > 1 else (width, round(height / pixel_aspect))
    return np.asarray(cv2.resize(image, shown, interpolation=cv2.INTER_LINEAR), np.uint8)


def letterboxed(image: Image, width: int, height: int, stretch: float = 1.0) -> Image:
    """Return the (H, W, 3) uint8 BGR `image`, widened by `stretch`, then fitted into `width` x `height` pixels with
    black borders.
    """
    wanted_width = image.shape[1] * stretch
    scale = min(width / wanted_width, height / image.shape[0])
    inner_width, inner_height = max(1, round(wanted_width * scale)), max(1, round(image.shape[0] * scale))
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    canvas = np.zeros((height, width, 3), np.uint8)
    cv2.resize(
        image,
        (inner_width, inner_height),
        dst=canvas[top : top + inner_height, left : left + inner_width],
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
    )
    return canvas
