"""A decoded frame to the picture that the pipeline works on: BGR, upright, with its colours as its tags say.

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
from streampose.frames import Image, Shrink


class TooLarge(ValueError):
    """A picture of too many pixels."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise `TooLarge` for a picture of more than `max_pixels`."""
    if width * height > max_pixels:
        raise TooLarge(f"{width} x {height} pixels are more than max_pixels ({max_pixels:,})")


_UNSPECIFIED_MATRIX = 2
_KNOWN_MATRICES = frozenset([0, 1, _UNSPECIFIED_MATRIX, 4, 5, 6, 7, 9])
"""FFmpeg's numbers (AVColorSpace) of the matrices that its converter knows (swscale 9.5). It refuses pictures that name
another, some of them by mistake; they are read as those that name none, with BT.601."""


def upright_bgr(frame: VideoFrame, to_bgr: VideoReformatter, text: str, max_pixels: int) -> Image:
    """Return a decoded frame of the source `text` as BGR, contiguous, turned as its display matrix says.

    `to_bgr` is one for all frames: `VideoFrame.to_ndarray(format=...)` makes a new one each time, which takes longer
    than decoding the frame. Raises `SourceError`.
    """
    try:
        check_size(frame.width, frame.height, max_pixels)
    except ValueError as error:
        raise SourceError(f"{text}: {describe(error)}") from error
    if frame.colorspace not in _KNOWN_MATRICES:
        frame.colorspace = _UNSPECIFIED_MATRIX
    try:
        bgr = to_bgr.reformat(frame, format="bgr24").to_ndarray()
    except av.FFmpegError as error:
        what = f"holds pictures ({frame.format.name}) that cannot be converted to BGR: {ffmpeg_reason(error)}"
        raise SourceError(f"{text} {what}") from error
    upright: npt.NDArray[Any] = bgr
    orientation = _orientation(frame)
    if orientation.is_transposed:
        upright = cv2.transpose(upright)
    if orientation.flip is not None:
        upright = cv2.flip(upright, orientation.flip)
    return np.ascontiguousarray(upright, np.uint8)


def shrinking(frame: VideoFrame) -> Shrink | None:
    """Return what shrinks a frame that `upright_bgr` has seen, from its own pixels; None if they are not upright, or
    RGB.

    Before the conversion to BGR there are half as many of them: 1280x720 to 398x224 takes 0.9 ms, and 2.5 by OpenCV.
    """
    if frame.format.is_rgb or _orientation(frame) != _UPRIGHT:
        return None

    def shrink(height: int, width: int) -> Image:
        shrunk = _of_thread.reformatter.reformat(frame, width, height, "bgr24", interpolation=_AREA, threads=1)
        return cast(Image, shrunk.to_ndarray())

    return shrink


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
    """Return the width of a pixel over its height in the picture that `upright_bgr` makes of `frame`, whose stream says
    `stored`.
    """
    aspect = stored or Fraction(1)
    return 1 / aspect if _orientation(frame).is_transposed else aspect


def ffmpeg_reason(error: av.FFmpegError) -> str:
    """Return FFmpeg's own words, without the number and the file name around them."""
    return error.strerror or type(error).__name__
