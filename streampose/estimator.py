"""Finds people and their poses in images in memory, without a source, a thread of its own or a file."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt
import torch

from streampose.errors import UsageError
from streampose.frames import Boxes, Float32, Frame, Image, People, Result, Skeleton
from streampose.images import bgr_of, boxes_of, boxes_of_each, is_one_image
from streampose.networks.device import upload
from streampose.networks.pair import LoadedPair

if TYPE_CHECKING:
    import PIL.Image

    OneImage = npt.NDArray[np.uint8] | PIL.Image.Image | str | os.PathLike[str]

GROUP_IMAGES = 64
"""Maximum images whose people share batches of the pose network. Limits the memory on the device."""


class Estimator:
    """A detector and a pose network for images in memory. `streampose.load` makes one.

    with streampose.load() as estimator:
        result = estimator(image)
        print(result.people.keypoints_xy)

    Geometry, batches and results are those of `streampose.stream`. Several threads may call it; the calls run one after
    the other.
    """

    def __init__(self, networks: LoadedPair, *, max_pixels: int) -> None:
        """Take ownership of loaded networks. Stills with more than `max_pixels` pixels are refused."""
        self._networks: LoadedPair | None = networks
        self._max_pixels = max_pixels
        self._in_turn = threading.Lock()
        self.skeleton: Skeleton = networks.pose.skeleton
        """Names and edges of the keypoints."""
        self.models = {"detector": networks.detector.name, "pose": networks.pose.name}
        """The names of the networks."""
        self._where = f"{networks.device}, {str(networks.dtype).removeprefix('torch.')}"

    def __repr__(self) -> str:
        state = self._where if self._networks is not None else "closed"
        return f"Estimator(pose={self.models['pose']!r}, detector={self.models['detector']!r}, {state})"

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a text is one image, though it can be iterated over
        self, images: OneImage, *, boxes: npt.ArrayLike | None = None, rgb: bool = False
    ) -> Result: ...

    @overload
    def __call__(
        self, images: Iterable[OneImage], *, boxes: Sequence[npt.ArrayLike] | None = None, rgb: bool = False
    ) -> list[Result]: ...

    def __call__(self, images: Any, *, boxes: Any = None, rgb: bool = False) -> Result | list[Result]:
        """Find the people in images and their keypoints.

        Args:
            images: one image or several of any sizes. An image is an array (H, W, 3) uint8, an image of Pillow, or the
                path of a still. Images of Pillow and stills are turned upright by their EXIF orientation, and drop
                alpha.
            boxes: the people, (N, 4) in pixels of the upright image: left, top, right, bottom. N may be 0. For several
                images, a list with an array for each. The detector does not run, and the boxes are not clipped. None
                runs the detector.
            rgb: whether the channels of arrays are red, green, blue. By default they are blue, green, red, as in
                OpenCV.

        Returns:
            For one image a `Result`, for several a list of them in the same order. `frame.image` is BGR, and is your
            array itself if that is contiguous BGR. `frame.index` is the position in the list; `frame.pts_s` is NaN.
            Given boxes have a score of 1. Nobody has an identity.

        Raises:
            UsageError: an image or box is invalid, or the estimator is closed.
            SourceError: a still cannot be read.
            ModelError: a network failed, for example because it ran out of memory.
        """
        if is_one_image(images) or not isinstance(images, Iterable):
            image = self._bgr(images, "`images`", rgb)
            given = None if boxes is None else [boxes_of(boxes, "`boxes`", image)]
            return self._results([image], given, [_file_of(images)])[0]
        values = list(images)
        bgr = [self._bgr(value, f"`images`[{number}]", rgb) for number, value in enumerate(values)]
        given = None if boxes is None else boxes_of_each(boxes, bgr)
        return self._results(bgr, given, [*map(_file_of, values)])

    def close(self) -> None:
        """Release the networks and their memory. Safe to call twice."""
        with self._in_turn:
            networks, self._networks = self._networks, None
            if networks is not None and networks.device.type == "cuda":
                del networks
                torch.cuda.empty_cache()  # torch keeps freed memory from other programs otherwise

    def __enter__(self) -> Estimator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _bgr(self, value: Any, name: str, rgb: bool) -> Image:
        return bgr_of(value, name, rgb=rgb, max_pixels=self._max_pixels)

    def _results(
        self, images: Sequence[Image], given: Sequence[Float32] | None, files: Sequence[str | None]
    ) -> list[Result]:
        people: list[People] = []
        with self._in_turn:
            if self._networks is None:
                raise UsageError("the estimator is closed: load another one")
            for start in range(0, len(images), GROUP_IMAGES):
                group = slice(start, start + GROUP_IMAGES)
                people += _people(self._networks, images[group], None if given is None else given[group])
        now_s = time.monotonic()
        return [
            Result(Frame("image", index, float("nan"), now_s, image, file), its, self.skeleton)
            for index, (image, its, file) in enumerate(zip(images, people, files, strict=True))
        ]


def _people(networks: LoadedPair, images: Sequence[Image], given: Sequence[Float32] | None) -> list[People]:
    """Return the people of each image; in the boxes `given` for each, or in those that the detector finds."""
    pixels = [upload(image, networks.device) for image in images]
    label_of = networks.detector.label_of
    if given is None:
        boxes = networks.detector.detect(pixels)
    else:
        class_id = next(iter(label_of))
        boxes = [Boxes(xyxy, np.ones(len(xyxy), np.float32), np.full(len(xyxy), class_id, np.int64)) for xyxy in given]
    poses = networks.pose.estimate(pixels, boxes)
    return [People.of(some, *its, label_of=label_of) for some, its in zip(boxes, poses, strict=True)]


def _file_of(value: Any) -> str | None:
    return os.fspath(value) if isinstance(value, str | os.PathLike) else None
