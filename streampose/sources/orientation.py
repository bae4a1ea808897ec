"""Which way a decoded frame must be turned to be upright. Knows nothing about pixels."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2  # noqa: F401 - import before av, or windows hang: see sinks/display.py

# isort: split
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame


class Orientation(NamedTuple):
    """How to turn a stored frame upright: transpose first, then flip."""

    is_transposed: bool
    flip: int | None
    """The code for `cv2.flip`: 1 left to right, 0 upside down, -1 both, None for no flip."""


UPRIGHT = Orientation(False, None)


class Orientations:
    """Determines the orientation of each frame of one source. Give it the frames in order."""

    def __init__(self) -> None:
        self._latest = UPRIGHT

    def of(self, frame: VideoFrame) -> Orientation:
        """Return the orientation of the next frame.

        In H.264 and H.265 an orientation holds until the next keyframe, but FFmpeg attaches it to one frame only.
        """
        stored = _stored(frame)
        if stored is not None or frame.key_frame:
            self._latest = stored or UPRIGHT
        return self._latest


def _stored(frame: VideoFrame) -> Orientation | None:
    # `VideoFrame.rotation` cannot tell a mirror image from a 180-degree rotation, so read the display matrix. It shows
    # a stored point (x, y) at (a x + c y, b x + d y), see libavutil/display.h. Other angles are rounded to the nearest
    # quarter turn.
    try:
        # `frame.side_data` would create a reference cycle and keep the pixels until the garbage collector runs,
        # hundreds of frames later. The stubs of PyAV 18.1 lack this constructor.
        matrix = SideDataContainer(frame)[SideDataType.DISPLAYMATRIX]  # type: ignore[call-arg]
    except KeyError:
        return None
    a, b, _, c, d = np.frombuffer(memoryview(matrix), np.int32, 5).tolist()
    is_transposed = abs(b) + abs(c) > abs(a) + abs(d)
    across, down = (c, b) if is_transposed else (a, d)
    flip = {(True, False): 1, (False, True): 0, (True, True): -1}.get((across < 0, down < 0))
    return Orientation(is_transposed, flip)


def _unknown(kind: type[SideDataType], number: Any) -> SideDataType:
    member = object.__new__(kind)
    member._name_, member._value_ = f"UNKNOWN_{number}", number
    return member


# PyAV (18.1) refuses all side data of a frame if it does not know one kind of it, such as EXIF in Motion JPEG or the
# view number in stereoscopic HEVC.
SideDataType._missing_ = classmethod(_unknown)  # type: ignore[assignment,method-assign]
