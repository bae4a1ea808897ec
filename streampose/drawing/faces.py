"""Makes faces unrecognizable, before anything else sees the frame."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import cv2
import numpy as np

from streampose.errors import AnnotateError, describe
from streampose.frames import Float32, Image, Result, Skeleton
from streampose.people import State
from streampose.people.faces import HOLD_S, FaceFinder, FaceMemory
from streampose.people.rounding import PIXEL_DECIMALS, as_recorded, rounded

Blur = Literal["faces"]

CELLS = 5
"""Cells along the shorter side of a face's rectangle. A face has about four cells then, too few for eyes and mouth."""


class FaceBlur:
    """A step of the pipeline that replaces the frames of one source by frames without faces. Not thread-safe.

    It comes before all other steps: people who are left out of the drawing have faces too.
    """

    def __init__(self, skeleton: Skeleton, *, stills: bool = False) -> None:
        """Start without faces.

        Args:
            skeleton: the skeleton of every pose.
            stills: whether the frames do not follow each other in time.
        """
        self._finder = FaceFinder(skeleton.names)
        self._memory = FaceMemory(0.0 if stills else HOLD_S)

    def state(self) -> State:
        """Return everything that the next frames depend on."""
        return self._memory.state()

    def restore(self, state: State) -> None:
        """Continue as the step whose `state` it was."""
        self._memory.restore(state)

    def __call__(self, result: Result) -> Result:
        """Return the result on a frame without faces. Raises `AnnotateError`."""
        frame = result.frame
        try:
            places = frame.faces_xyxy  # recorded, maybe with the faces of people who are not
            if places is None:
                # Rounded like everything that is recorded, so that the same pixels are hidden when it is drawn again.
                found = self._memory.update(self._finder.find(as_recorded(result.people)), frame.pts_s)
                places = rounded(found, PIXEL_DECIMALS).astype(np.float32)
            image = pixelated(frame.image, places)
        except Exception as error:
            raise AnnotateError(f"cannot blur the faces of {len(result.people)} people: {describe(error)}") from error
        return replace(result, frame=replace(frame, image=image, faces_xyxy=places))


def pixelated(image: Image, places: Float32) -> Image:
    """Return a copy of `image`, (H, W, 3) uint8 BGR, with a coarse mosaic in rectangles (N, 4), in pixels."""
    hidden: Image = image.copy()
    height, width = image.shape[:2]
    low = np.clip(np.floor(places[:, :2]), 0, (width, height)).astype(int)
    high = np.clip(np.ceil(places[:, 2:]) + 1, 0, (width, height)).astype(int)
    sizes = (high - low).min(axis=1, initial=max(height, width))
    # Small ones first: within a large one, the fine cells of a small one would show more.
    for number in np.argsort(sizes, kind="stable"):
        (left, top), (right, bottom) = low[number].tolist(), high[number].tolist()
        if left >= right or top >= bottom:
            continue
        face = hidden[top:bottom, left:right]
        cell = max(sizes[number], 1) / CELLS
        columns, rows = (max(1, round(side / cell)) for side in (right - left, bottom - top))
        cells = cv2.resize(face, (min(columns, right - left), min(rows, bottom - top)), interpolation=cv2.INTER_AREA)
        cv2.resize(cells, (right - left, bottom - top), dst=face, interpolation=cv2.INTER_NEAREST)
    return hidden
