"""Labelled images, and what networks find in them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
import torch

from streampose.errors import UsageError
from streampose.frames import Boxes, Image, People
from streampose.networks.detector import PersonDetector
from streampose.networks.device import upload
from streampose.networks.pose import PoseEstimator
from streampose.records.coco_truth import CocoTruth, read_coco
from streampose.sinks.target import name_of
from streampose.sources.source import Reading
from streampose.sources.stills import Stills

_log = logging.getLogger("streampose")
_T = TypeVar("_T")
_SAY_EVERY_S = 20.0


class LabelledImages:
    """Images in a folder with their COCO annotations."""

    def __init__(self, annotations: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
        """Read the annotations.

        Images that are not in the folder are left out, with a warning.

        Raises:
            UsageError: the annotations are invalid, or none of the images is in the folder.
        """
        self.truth: CocoTruth = read_coco(annotations)
        self.name = name_of(folder)
        self._folder = Path(folder)
        if not self._folder.is_dir():
            raise UsageError(f"{self.name} is not a folder: give the folder of the images of {self.truth.name}")
        # A name may have folders that lead to the folder itself, as in val2017/000000000785.jpg.
        file_of = {
            number: PurePosixPath(file).as_posix()
            for file, number in self.truth.number_of_file.items()
            if not PurePosixPath(file).is_absolute() and (self._folder / file).is_file()
        }
        self._numbers = {file_of[number]: number for number in self.truth.images if number in file_of}
        total = len(self.truth.images)
        if not file_of:
            raise UsageError(f"{self.name} has none of the {total} images of {self.truth.name}")
        missing = [one["file_name"] for number, one in self.truth.images.items() if number not in file_of]
        self.missing = len(missing)
        """Number of images that are not in the folder."""
        if missing:
            left_out = f"lacks {len(missing)} of the {total} images of {self.truth.name}; the first is {missing[0]}"
            _log.warning("%s %s: they are left out", self.name, left_out)

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[tuple[int, Image]]:
        """Read the images: the id and (H, W, 3) uint8 BGR of each.

        Raises:
            SourceError: an image cannot be read.
            UsageError: an image has another size than in the annotations.
        """
        files = [self._folder / file for file in self._numbers]
        with Stills(files, self._folder, self.name, "images", Reading()) as stills:
            for frame in stills.frames():
                number = self._numbers[str(frame.file)]
                height, width = frame.image.shape[:2]
                size = self.truth.frames[number].size
                if size not in (None, (width, height)):
                    raise UsageError(
                        f"{frame.file} has {width}x{height} pixels, but {self.truth.name} says {size[0]}x{size[1]}: "
                        "give the images that were annotated"
                    )
                yield number, frame.image

    def labelled_people(self) -> int:
        """Return the number of people with labelled keypoints in the images."""
        frames = (self.truth.frames[number] for number in self._numbers.values())
        return sum(int((true.keypoints[..., 2] > 0).any(axis=1).sum()) for true in frames)

    def given_boxes(self) -> dict[int, Boxes]:
        """Return the labelled boxes of every image, with score 1, in the order of the truth."""
        boxes = {}
        for number in self._numbers.values():
            xyxy = self.truth.frames[number].boxes_xyxy
            boxes[number] = Boxes(xyxy, np.ones(len(xyxy), np.float32), np.zeros(len(xyxy), np.int64))
        return boxes


def detected_boxes(
    images: LabelledImages, detector: PersonDetector, device: torch.device, batch: int
) -> tuple[dict[int, Boxes], float]:
    """Return the detector's boxes of every image, and how long it took, in seconds.

    Args:
        images: the images.
        detector: the detector.
        device: its device.
        batch: images per call.
    """
    found: dict[int, Boxes] = {}
    watch = _Watch(detector.name, len(images))
    for some in _batches(images, batch):
        pixels = [upload(image, device) for _, image in some]
        boxes = watch.time(partial(detector.detect, pixels), len(some))
        found |= zip((number for number, _ in some), boxes, strict=True)
    return found, watch.elapsed_s


def estimated_people(
    images: LabelledImages, boxes: Mapping[int, Boxes], estimator: PoseEstimator, batch: int
) -> tuple[dict[int, People], float]:
    """Return the people of every image, and how long the network took, in seconds.

    Args:
        images: the images.
        boxes: the boxes of the people by the id of the image.
        estimator: the pose network.
        batch: images per call.
    """
    found: dict[int, People] = {}
    watch = _Watch(estimator.name, len(images))
    for some in _batches(images, batch):
        pixels = [upload(image, estimator.device) for _, image in some]
        of_images = [boxes[number] for number, _ in some]
        poses = watch.time(partial(estimator.estimate, pixels, of_images), len(some))
        for (number, _), own, (xy, scores, covariances) in zip(some, of_images, poses, strict=True):
            found[number] = People.of(own, xy, scores, covariances)
    return found, watch.elapsed_s


def _batches(images: LabelledImages, size: int) -> Iterator[list[tuple[int, Image]]]:
    left = iter(images)
    while batch := list(islice(left, size)):
        yield batch


class _Watch:
    """Adds up the time of calls, and reports progress from time to time."""

    def __init__(self, name: str, total: int) -> None:
        self.elapsed_s = 0.0
        self._name, self._total, self._done = name, total, 0
        self._said_at_s = time.monotonic()

    def time(self, call: Callable[[], _T], count: int) -> _T:
        """Return the result of a call for `count` images. The first call is made twice: it is slower."""
        if self._done == 0:
            call()
        began_s = time.perf_counter()
        result = call()
        self.elapsed_s += time.perf_counter() - began_s
        self._done += count
        if time.monotonic() - self._said_at_s > _SAY_EVERY_S:
            self._said_at_s = time.monotonic()
            _log.info("evaluate: %s, %d of %d images", self._name, self._done, self._total)
        return result
