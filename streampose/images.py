"""Converts the images and boxes that a caller gives to the arrays that the networks take. Knows no network."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from streampose.errors import UsageError, describe
from streampose.frames import Float32, Image

if TYPE_CHECKING:
    import PIL.Image

_WANTED = "give an array (H, W, 3) uint8, an image of Pillow, or the path of a still"


def is_one_image(value: Any) -> bool:
    """Return whether `value` is a single image rather than a list of images."""
    return isinstance(value, np.ndarray | str | os.PathLike) or _is_pillow(value)


def bgr_of(value: Any, name: str, *, rgb: bool, max_pixels: int) -> Image:
    """Return an image as (H, W, 3) uint8 BGR, contiguous and writeable.

    An array that is so already is not copied. Images of Pillow and stills are turned upright by their EXIF orientation;
    alpha is dropped, grey and palette images become colour images, and 16-bit values are scaled to 8 bits.

    Args:
        value: the image.
        name: names it in messages.
        rgb: whether the channels of an array are red, green, blue. Images of Pillow and stills need no such flag.
        max_pixels: refuse stills with more pixels.

    Raises:
        UsageError: `value` is not an image, or has the wrong type, shape or channel count.
        SourceError: a still cannot be read.
    """
    if isinstance(value, str | os.PathLike):
        from streampose.sources.stills import load_still

        return load_still(Path(value), max_pixels)
    if _is_pillow(value):
        value, rgb = _array_of(value, name), True
    if not isinstance(value, np.ndarray):
        raise UsageError(f"{name}: {type(value).__name__} is not an image: {_WANTED}")
    if value.ndim != 3 or value.shape[2] != 3 or value.dtype != np.uint8 or 0 in value.shape:
        raise UsageError(f"{name}: {value.dtype} {value.shape} is not an image: {_WANTED}")
    if rgb:
        value = value[..., ::-1]
    return np.require(value, requirements=["C", "W"])


def _is_pillow(value: Any) -> bool:
    """Return whether `value` is an image of Pillow, which only a caller who has imported Pillow can have."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def _array_of(image: PIL.Image.Image, name: str) -> npt.NDArray[np.uint8]:
    """Return an image of Pillow as (H, W, 3) uint8 RGB. Raises `UsageError`."""
    import PIL.ImageOps

    try:
        upright = PIL.ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            grey = (np.asarray(upright, np.uint16) >> 8).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        if upright.mode in ("I", "F"):
            raise UsageError(f"{name}: an image of Pillow with mode {upright.mode} has no range: convert it to RGB")
        if upright.mode == "P":
            upright = upright.convert("RGBA")  # Pillow warns about transparency in a palette otherwise
        return np.asarray(upright.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"{name}: the image of Pillow cannot be read: {describe(error)}") from error


def boxes_of(value: Any, name: str, image: Image) -> Float32:
    """Return the boxes that a caller gives for `image` as (N, 4) float32: left, top, right, bottom in pixels.

    Boxes may reach over the border of the image.

    Raises:
        UsageError: the shape is wrong, or a box is not finite, empty or outside the image. The text begins with `name`.
    """
    try:
        with np.errstate(over="ignore"):  # what exceeds the range becomes infinite
            boxes = np.asarray(value, np.float32)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{name}: expected N boxes with 4 numbers each: {describe(error)}") from error
    if boxes.size == 0:
        return np.zeros((0, 4), np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise UsageError(f"{name}: expected boxes in shape (N, 4), not {boxes.shape}")
    left, top, right, bottom = boxes.T
    height, width = image.shape[:2]
    for wrong, reason in (
        (~np.isfinite(boxes).all(axis=1), "is not finite"),
        (~((left < right) & (top < bottom)), "is empty: the order is left, top, right, bottom"),
        (~((left < width) & (top < height) & (right > 0) & (bottom > 0)), f"is outside the image ({width}x{height})"),
    ):
        if wrong.any():
            number = int(np.argmax(wrong))
            shown = ", ".join(f"{edge:g}" for edge in boxes[number])
            raise UsageError(f"{name}: box {number} ({shown}) {reason}")
    return boxes


def boxes_of_each(value: Any, images: Sequence[Image]) -> list[Float32]:
    """Return the boxes of each of several images; `value` is a list with an array for each image. See `boxes_of`."""
    given = list(value) if isinstance(value, Sequence | np.ndarray) else []
    if len(given) != len(images):
        raise UsageError(f"`boxes`: {len(given)} arrays for {len(images)} images: give one array for each image")
    return [
        boxes_of(one, f"`boxes`[{number}]", image)
        for number, (one, image) in enumerate(zip(given, images, strict=True))
    ]
