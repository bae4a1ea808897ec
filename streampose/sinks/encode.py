"""What all video sinks share: the size, shape and colours of the frames that an encoder is given.

Knows no container and no stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import cv2  # before av, else windows hang: see window.py

# isort: split
import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from streampose.frames import UNSAID_COLOURS, Colours, Image

USUAL_RATE = Fraction(25)
"""Frames a second of a source that does not say."""

HD_LINES = 720
"""From here on BT.709, below BT.601: the file says which, and a player that does not look guesses by this very rule."""


@dataclass(frozen=True)
class _Matrix:
    space: Colorspace
    """As the converter names it."""
    tag: int
    """As H.264 numbers it (ITU-T H.273), of the matrix."""


_BT709 = _Matrix(Colorspace.ITU709, 1)
_BT601 = _Matrix(Colorspace.SMPTE170M, 6)

_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND
"""Without it the conversion darkens the picture by half a level."""

MAX_SIDE = 16384
"""Pixels: x264's limit."""


class Canvas:
    """Brings every picture to one size and to what H.264 takes: 4:2:0, BT.709 or BT.601 by height, limited range.
    Primaries and transfer are tagged as the source's.

    An odd width or height grows by one, the last column or row repeated (4:2:0 has only even ones); a picture of
    another size, or with pixels of another shape, is fitted in with black borders.
    """

    def __init__(
        self, width: int, height: int, pixel_aspect: Fraction = Fraction(1), colours: Colours = UNSAID_COLOURS
    ) -> None:
        """Take the size of the first picture, in pixels, their shape and what their values mean.

        Raises `ValueError` for a size that x264 does not take.
        """
        if max(width, height) > MAX_SIDE:
            raise ValueError(f"{width} x {height} pixels are too many: H.264 takes at most {MAX_SIDE} a side")
        self._width, self._height = width, height
        self._pixel_aspect = pixel_aspect
        self._colours = colours
        self.width, self.height = width + width % 2, height + height % 2
        """What the encoder is given."""
        self._matrix = _BT709 if height >= HD_LINES else _BT601
        self._reformatter = VideoReformatter()

    def set_up(self, encoder: VideoCodecContext) -> None:
        """Tell `encoder`, before it is opened, what its frames will be."""
        encoder.width, encoder.height = self.width, self.height
        encoder.pix_fmt = "yuv420p"
        encoder.sample_aspect_ratio = self._pixel_aspect
        encoder.colorspace = self._matrix.tag
        encoder.color_primaries, encoder.color_trc = self._colours

    def frame(self, picture: Image, pixel_aspect: Fraction) -> av.VideoFrame:
        """Return the (H, W, 3) uint8 BGR `picture` as a frame for the encoder, without a time."""
        if picture.shape[:2] != (self._height, self._width) or pixel_aspect != self._pixel_aspect:
            picture = letterboxed(picture, self._width, self._height, float(pixel_aspect / self._pixel_aspect))
        odd_lines, odd_columns = self._height % 2, self._width % 2
        if odd_lines or odd_columns:
            picture = np.pad(picture, ((0, odd_lines), (0, odd_columns), (0, 0)), mode="edge")
        return self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24"),
            format="yuv420p",
            dst_colorspace=self._matrix.space,
            dst_color_range=ColorRange.MPEG,
            interpolation=_EXACT,
        )


def frame_rate(fps: float | None) -> Fraction:
    """Return the rate to name to an encoder; the timestamps say what is shown when."""
    return Fraction(fps).limit_denominator(1001) if fps else USUAL_RATE  # NTSC's rates are n/1001


def square_pixels(picture: Image, pixel_aspect: Fraction) -> Image:
    """Return the (H, W, 3) uint8 BGR `picture` as it is to be shown where every pixel is square: wider or higher, by
    the shape `pixel_aspect` (width over height) of its own pixels.
    """
    if pixel_aspect == 1:
        return picture
    height, width = picture.shape[:2]
    shown = (round(width * pixel_aspect), height) if pixel_aspect > 1 else (width, round(height / pixel_aspect))
    return np.asarray(cv2.resize(picture, shown, interpolation=cv2.INTER_LINEAR), np.uint8)


def letterboxed(picture: Image, width: int, height: int, stretch: float = 1.0) -> Image:
    """Return the (H, W, 3) uint8 BGR `picture`, made wider by the factor `stretch`, fitted into `width` x `height`
    pixels, with black borders.
    """
    wanted_width = picture.shape[1] * stretch
    scale = min(width / wanted_width, height / picture.shape[0])
    inner_width, inner_height = max(1, round(wanted_width * scale)), max(1, round(picture.shape[0] * scale))
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    canvas = np.zeros((height, width, 3), np.uint8)
    cv2.resize(
        picture,
        (inner_width, inner_height),
        dst=canvas[top : top + inner_height, left : left + inner_width],
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
    )
    return canvas
