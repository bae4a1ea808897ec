"""A decoded frame to the picture that the pipeline works on: BGR, upright, cropped, in the colours that it means.

Knows no file, no stream and no clock.
"""

from __future__ import annotations

import threading
from fractions import Fraction
from typing import Any, NamedTuple, cast

import cv2  # before av, else windows hang: see sinks/window.py

# isort: split
import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from streampose.errors import SourceError, describe
from streampose.frames import Colours, Image, Shrink
from streampose.sources.tone_map import ToneMap


class TooLarge(ValueError):
    """A picture of too many pixels."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise `TooLarge` for a picture of more than `max_pixels`."""
    if width * height > max_pixels:
        raise TooLarge(f"{width} x {height} pixels are more than max_pixels ({max_pixels:,})")


_UNSPECIFIED = 2
_BT709 = 1
_RGB = 0
_KNOWN_MATRICES = frozenset([_RGB, _BT709, _UNSPECIFIED, 4, 5, 6, 7, 9])
"""FFmpeg's numbers (AVColorSpace, those of ITU-T H.273) of the matrices that its converter knows (swscale 9.5). It
refuses pictures that name another, some of them by mistake; they are read as those that name none."""
_HD_WIDTH, _HD_HEIGHT = 1280, 577
"""From either on, video that names no matrix is read with BT.709, below with BT.601: the rule of players (mpv, VLC)."""
_PQ, _HLG = 16, 18
"""Transfer functions of HDR (ITU-T H.273)."""
_SRGB = 13


class Crop(NamedTuple):
    """What a container hides at the edges of the stored picture, in pixels."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


NO_CROP = Crop()


class FrameConverter:
    """Decoded frames of one source to pictures; used from one thread."""

    def __init__(self, text: str, max_pixels: int, crop: Crop = NO_CROP) -> None:
        """Convert nothing yet.

        Args:
            text: names the source in messages.
            max_pixels: a frame of more is refused.
            crop: what is cut off, before the picture is turned.
        """
        self._text = text
        self._max_pixels = max_pixels
        self._crop = crop
        # One for all frames: `VideoFrame.to_ndarray(format=...)` makes a new one each time, which takes longer than
        # decoding the frame.
        self._reformatter = VideoReformatter()
        self._tone_maps: dict[int, ToneMap] = {}

    def to_bgr(self, frame: VideoFrame) -> Image:
        """Return a frame as (H, W, 3) uint8 BGR, contiguous: cropped, turned as its display matrix says, HDR as SDR.
        A matrix that the frame does not name is set in it. Raises `SourceError`.
        """
        try:
            check_size(frame.width, frame.height, self._max_pixels)
        except ValueError as error:
            raise SourceError(f"{self._text}: {describe(error)}") from error
        _name_matrix(frame)
        try:
            bgr = self._in_sdr(frame)
        except av.FFmpegError as error:
            what = f"holds frames ({frame.format.name}) that cannot be converted to BGR: {ffmpeg_reason(error)}"
            raise SourceError(f"{self._text} {what}") from error
        upright: npt.NDArray[Any] = self._cropped(bgr)
        orientation = _orientation(frame)
        if orientation.is_transposed:
            upright = cv2.transpose(upright)
        if orientation.flip is not None:
            upright = cv2.flip(upright, orientation.flip)
        return np.ascontiguousarray(upright, np.uint8)

    def shrinking(self, frame: VideoFrame) -> Shrink | None:
        """Return what shrinks a frame that `to_bgr` has seen, from its own pixels; None if they are RGB, HDR, cropped
        or not upright.

        Before the conversion to BGR there are half as many of them: 1280x720 to 398x224 takes 0.9 ms, and 2.5 by
        OpenCV.
        """
        is_as_shown = self._crop == NO_CROP and _orientation(frame) == _UPRIGHT and not _is_hdr(frame)
        return None if frame.format.is_rgb or not is_as_shown else _Shrinking(frame)

    def _in_sdr(self, frame: VideoFrame) -> npt.NDArray[Any]:
        transfer = int(frame.color_trc)
        if not _is_hdr(frame):
            return self._reformatter.reformat(frame, format="bgr24").to_ndarray()
        if transfer not in self._tone_maps:
            self._tone_maps[transfer] = ToneMap(is_hlg=transfer == _HLG)
        return self._tone_maps[transfer].to_bgr(self._reformatter.reformat(frame, format=ToneMap.FORMAT))

    def _cropped(self, picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
        height, width = picture.shape[:2]
        top, bottom, left, right = self._crop
        if top + bottom >= height or left + right >= width:
            return picture
        return picture[top : height - bottom, left : width - right]


class _Shrinking:
    """A frame that can be shrunk, from any thread."""

    def __init__(self, frame: VideoFrame) -> None:
        self._frame = frame

    def __call__(self, height: int, width: int) -> Image:
        reformat = _of_thread.reformatter.reformat
        return cast(Image, reformat(self._frame, width, height, "bgr24", interpolation=_AREA, threads=1).to_ndarray())


def colours_of(frame: VideoFrame) -> Colours:
    """Return what the pixels of the picture that `FrameConverter` makes of a frame mean."""
    if _is_hdr(frame):
        return Colours(primaries=_BT709, transfer=_SRGB)
    return Colours(primaries=int(frame.color_primaries), transfer=int(frame.color_trc))


def _is_hdr(frame: VideoFrame) -> bool:
    return int(frame.color_trc) in (_PQ, _HLG)


def _name_matrix(frame: VideoFrame) -> None:
    """Set the matrix of a frame that names none, or one that cannot be right, by the usual rule."""
    if frame.format.is_rgb:
        return
    if frame.colorspace in (_UNSPECIFIED, _RGB) or frame.colorspace not in _KNOWN_MATRICES:
        is_hd = frame.width >= _HD_WIDTH or frame.height >= _HD_HEIGHT
        frame.colorspace = _BT709 if is_hd else _UNSPECIFIED  # which is BT.601 to the converter


_AREA = Interpolation.AREA | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND
"""With the flags that keep the colour of a pixel to itself."""


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.reformatter = VideoReformatter()  # with its tables for the sizes that it was last given


_of_thread = _OfThread()


class _Orientation(NamedTuple):
    """How a stored picture becomes upright: rows and columns change places first, if they do."""

    is_transposed: bool
    flip: int | None
    """As `cv2.flip` names it: 1 left to right, 0 upside down, -1 both."""


_UPRIGHT = _Orientation(False, None)


def _orientation(frame: VideoFrame) -> _Orientation:
    # Not `VideoFrame.rotation`, which cannot tell a mirror image from half a turn. A stored point (x, y) is shown at
    # (a x + c y, b x + d y), see libavutil/display.h; other angles go to the nearest quarter.
    try:
        # Not `frame.side_data`: the frame would hold what holds it, and its pixels stay until the garbage collector
        # comes, hundreds of frames later (PyAV 18.1, whose stubs do not know the constructor).
        matrix = SideDataContainer(frame)[SideDataType.DISPLAYMATRIX]  # type: ignore[call-arg]
    except KeyError:
        return _UPRIGHT
    a, b, _, c, d = np.frombuffer(memoryview(matrix), np.int32, 5).tolist()
    is_transposed = abs(b) + abs(c) > abs(a) + abs(d)
    across, down = (c, b) if is_transposed else (a, d)
    flip = {(True, False): 1, (False, True): 0, (True, True): -1}.get((across < 0, down < 0))
    return _Orientation(is_transposed, flip)


def pixel_aspect(frame: VideoFrame, stored: Fraction | None) -> Fraction:
    """Return the width of a pixel over its height in the picture that `FrameConverter` makes of a frame, whose stream
    says `stored`.
    """
    aspect = stored or Fraction(1)
    return 1 / aspect if _orientation(frame).is_transposed else aspect


def ffmpeg_reason(error: av.FFmpegError) -> str:
    """Return FFmpeg's own words, without the number and the file name around them."""
    return error.strerror or type(error).__name__
