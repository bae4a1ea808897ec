"""Converts a decoded frame to the pipeline's image: BGR, upright, cropped, with correct colours.

Knows nothing about files, streams or clocks.
"""

from __future__ import annotations

import threading
from fractions import Fraction
from typing import Any, NamedTuple, cast

import cv2  # import before av, or windows hang: see sinks/display.py

# isort: split
import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from streampose.errors import SourceError, describe
from streampose.frames import Colours, Image, Shrink
from streampose.sources.orientation import UPRIGHT, Orientations
from streampose.sources.tone_map import ToneMap


class TooLarge(ValueError):
    """The image has too many pixels."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise `TooLarge` if an image has more than `max_pixels` pixels."""
    if width * height > max_pixels:
        size = f"{width} x {height}" if height > 1 else f"{width:,}"
        raise TooLarge(f"{size} pixels exceed `max_pixels` ({max_pixels:,}): raise it if you trust the source")


_UNSPECIFIED = 2
_BT709 = 1
_BT2020 = 9
_RGB = 0
_KNOWN_MATRICES = frozenset([_RGB, _BT709, _UNSPECIFIED, 4, 5, 6, 7, _BT2020])
"""Colour matrices that FFmpeg's converter supports (swscale 9.5), as AVColorSpace numbers (the same as ITU-T H.273).
The converter refuses frames with any other matrix. Some frames name one by mistake, so such frames are treated as if
they named none."""
_HD_WIDTH, _HD_HEIGHT = 1280, 577
"""Video that names no matrix is read as BT.709 if it reaches either size, else as BT.601, as in players (mpv, VLC)."""
_PQ, _HLG = 16, 18
"""HDR transfer functions (ITU-T H.273)."""
_SRGB = 13
_ASPECTS = Fraction(1, 8), Fraction(8)
"""Pixel aspect ratios that are believed. Real ones are between 1/2 and 4. With 100, a still could fill the memory."""


class Crop(NamedTuple):
    """Pixels that the container crops from each edge of the stored frame."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


NO_CROP = Crop()


class FrameConverter:
    """Converts the decoded frames of one source to images. Use it from one thread."""

    def __init__(self, text: str, max_pixels: int, crop: Crop = NO_CROP) -> None:
        """Store the settings.

        Args:
            text: names the source in messages.
            max_pixels: refuse frames with more pixels.
            crop: pixels to cut off before the image is rotated.
        """
        self._text = text
        self._max_pixels = max_pixels
        self._crop = crop
        # Shared by all frames: `VideoFrame.to_ndarray(format=...)` creates a new reformatter per call, which takes
        # longer than decoding the frame.
        self._reformatter = VideoReformatter()
        self._tone_maps: dict[int, ToneMap] = {}
        self._orientations = Orientations()
        self._orientation = UPRIGHT

    def to_bgr(self, frame: VideoFrame) -> Image:
        """Return a frame as a contiguous (H, W, 3) uint8 BGR image.

        The image is cropped and rotated by the frame's display matrix; HDR is converted to SDR. If the frame names no
        colour matrix, this sets one in the frame. Raises `SourceError`.
        """
        try:
            check_size(frame.width, frame.height, self._max_pixels)
        except ValueError as error:
            raise SourceError(f"{self._text}: {describe(error)}") from error
        _name_matrix(frame)
        try:
            bgr = self._in_sdr(frame)
        except av.FFmpegError as error:
            what = f"has frames ({frame.format.name}) that cannot be converted to BGR: {ffmpeg_reason(error)}"
            raise SourceError(f"{self._text} {what}") from error
        upright: npt.NDArray[Any] = self._cropped(bgr)
        self._orientation = self._orientations.of(frame)
        if self._orientation.is_transposed:
            upright = cv2.transpose(upright)
        if self._orientation.flip is not None:
            upright = cv2.flip(upright, self._orientation.flip)
        return np.ascontiguousarray(upright, np.uint8)

    def shrinking(self, frame: VideoFrame) -> Shrink | None:
        """Return a function that shrinks the latest frame of `to_bgr` directly from its decoded pixels.

        Return None if the frame is RGB, HDR, cropped or not upright. Decoded pixels hold half as much data as BGR:
        shrinking 1280x720 to 398x224 takes 0.9 ms, compared with 2.5 ms in OpenCV.
        """
        is_as_shown = self._crop == NO_CROP and self._orientation == UPRIGHT and not _is_hdr(frame)
        return None if frame.format.is_rgb or not is_as_shown else _Shrinking(frame)

    def pixel_aspect(self, stored: Fraction | None) -> Fraction:
        """Return the pixel aspect ratio (width over height) of the latest image of `to_bgr`.

        `stored` is the ratio that the stream declares. One outside `_ASPECTS` is a mistake and counts as 1.
        """
        aspect = stored if stored and _ASPECTS[0] <= stored <= _ASPECTS[1] else Fraction(1)
        return 1 / aspect if self._orientation.is_transposed else aspect

    def _in_sdr(self, frame: VideoFrame) -> npt.NDArray[Any]:
        transfer = int(frame.color_trc)
        if not _is_hdr(frame):
            return self._reformatter.reformat(frame, format="bgr24").to_ndarray()
        if transfer not in self._tone_maps:
            self._tone_maps[transfer] = ToneMap(is_hlg=transfer == _HLG)
        return self._tone_maps[transfer].to_bgr(self._reformatter.reformat(frame, format=ToneMap.FORMAT))

    def _cropped(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        height, width = image.shape[:2]
        top, bottom, left, right = self._crop
        if top + bottom >= height or left + right >= width:
            return image
        return image[top : height - bottom, left : width - right]


class _Shrinking:
    """Shrinks one frame; callable from any thread."""

    def __init__(self, frame: VideoFrame) -> None:
        self._frame = frame

    def __call__(self, height: int, width: int) -> Image:
        reformat = _of_thread.reformatter.reformat
        return cast(Image, reformat(self._frame, width, height, "bgr24", interpolation=_AREA, threads=1).to_ndarray())


def hdr_to_bgr(rgb: npt.NDArray[np.uint16], transfer: int) -> Image | None:
    """Return an HDR picture, (H, W, 3) RGB of 16 bits, as SDR BGR; None if `transfer` (ITU-T H.273) is not HDR."""
    if transfer not in (_PQ, _HLG):
        return None
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(rgb[..., :3]), format="rgb48le")
    nonlinear = VideoReformatter().reformat(frame, format=ToneMap.FORMAT)
    return np.asarray(ToneMap(is_hlg=transfer == _HLG).to_bgr(nonlinear), np.uint8)


def colours_of(frame: VideoFrame) -> Colours:
    """Return the colour primaries and transfer function of the image that `FrameConverter` makes from a frame."""
    if _is_hdr(frame):
        return Colours(primaries=_BT709, transfer=_SRGB)
    return Colours(primaries=int(frame.color_primaries), transfer=int(frame.color_trc))


def _is_hdr(frame: VideoFrame) -> bool:
    return int(frame.color_trc) in (_PQ, _HLG)


def _name_matrix(frame: VideoFrame) -> None:
    """Set the colour matrix if the frame names none or an invalid one: HDR has BT.2020; else the size decides."""
    if frame.format.is_rgb:
        return
    if frame.colorspace in (_UNSPECIFIED, _RGB) or frame.colorspace not in _KNOWN_MATRICES:
        is_hd = frame.width >= _HD_WIDTH or frame.height >= _HD_HEIGHT
        by_size = _BT709 if is_hd else _UNSPECIFIED  # the converter treats it as BT.601
        frame.colorspace = _BT2020 if _is_hdr(frame) else by_size


_AREA = Interpolation.AREA | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND
"""The extra flags keep colour from bleeding into neighbouring pixels."""


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.reformatter = VideoReformatter()  # caches its tables for the last sizes


_of_thread = _OfThread()


def ffmpeg_reason(error: av.FFmpegError) -> str:
    """Return FFmpeg's error text without the error number and file name."""
    return error.strerror or type(error).__name__
