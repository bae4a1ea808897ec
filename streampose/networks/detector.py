"""The base class of all detectors: images in, boxes of people out. Knows nothing about poses, sources or time."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from streampose.errors import UsageError
from streampose.frames import Boxes, Shrink
from streampose.networks.device import run_errors

PERSON = "person"


class ShrinkableImage(NamedTuple):
    """The parts of a frame that `PersonDetector.detect` uses."""

    pixels: Tensor
    shrink: Shrink | None


class PersonDetector(ABC):
    """A detection network with its preprocessing and postprocessing."""

    def __init__(
        self, name: str, label_of: dict[int, str], *, device: torch.device, max_people: int | None, max_batch: int
    ) -> None:
        """Store the settings that all detectors share.

        Args:
            name: the checkpoint's name, as the user gave it.
            label_of: the classes to detect: the network's class index and the name of each.
            device: the device of the images and the network.
            max_people: maximum boxes per image; None for no limit.
            max_batch: maximum images per network call.
        """
        self.name = name
        self.label_of = label_of
        self.device = device
        self._max_people = max_people
        self._max_batch = max_batch

    def detect(self, images: Sequence[Tensor], shrinks: Sequence[Shrink | None] | None = None) -> list[Boxes]:
        """Find the people in each image.

        Args:
            images: each (H, W, 3) uint8 BGR on the network's device. Images of the same size are batched.
            shrinks: for each image, an optional function that shrinks it faster. It is used on a CPU if it is accurate
                enough for the network's input size.

        Returns:
            For each image, in order: its boxes in pixels of the image, clipped to the image, highest score first.

        Raises:
            ModelError: the network failed, for example because it ran out of memory.
        """
        of_size: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            of_size.setdefault((image.shape[0], image.shape[1]), []).append(index)
        shrinkable = [ShrinkableImage(*both) for both in zip(images, shrinks or [None] * len(images), strict=True)]
        found = [Boxes.none() for _ in images]
        with torch.inference_mode(), run_errors(self.name, self.device, "detect_batch"):
            for (height, width), indices in of_size.items():
                for index, boxes in zip(
                    indices, self._of_size([shrinkable[i] for i in indices], height, width), strict=True
                ):
                    found[index] = boxes
        return found

    def _of_size(self, images: Sequence[ShrinkableImage], height: int, width: int) -> list[Boxes]:
        """Run `detect` on images of the same size."""
        found = [self._of_batch(batch, height, width) for batch in batches(images, self._max_batch)]
        return [boxes for of_batch in found for boxes in of_batch]

    def _of_batch(self, images: Sequence[ShrinkableImage], height: int, width: int) -> list[Boxes]:
        pixels, shrinks = zip(*images, strict=True)
        return self.decode(self.forward(self.prepare(pixels, shrinks)), height, width)

    def compile(self, *, waits: bool) -> None:  # noqa: B027 - transformers' networks run uncompiled
        """Compile the network if the detector supports it; see `streampose.networks.engine.Engine.compile`."""

    def decode(self, outputs: Any, height: int, width: int) -> list[Boxes]:
        """Return the boxes, like `detect`, from the outputs of `forward` for images of `height` x `width` pixels."""
        return [tidied(boxes, height, width)[: self._max_people] for boxes in self._boxes(outputs, height, width)]

    @abstractmethod
    def prepare(self, images: Sequence[Tensor], shrinks: Sequence[Shrink | None] | None = None) -> Any:
        """Return the network's input for images of the same size; the arguments are those of `detect`."""

    @abstractmethod
    def forward(self, inputs: Any) -> Any:
        """Run the network on the result of `prepare` and return its outputs."""

    @abstractmethod
    def _boxes(self, outputs: Any, height: int, width: int) -> list[Boxes]:
        """Return the boxes for `decode`, in any order and not yet clipped."""


def batches(images: Sequence[ShrinkableImage], size: int) -> list[Sequence[ShrinkableImage]]:
    return [images[start : start + size] for start in range(0, len(images), size)]


def choose_classes(name: str, known: dict[int, str], wanted: str | Sequence[str | int] | None) -> dict[int, str]:
    """Select the classes to detect from the `known` classes of detector `name`.

    `wanted` holds class names (case-insensitive) or class indices. None selects the class called person.
    """
    by_name: dict[str, list[int]] = {}
    for number, label in known.items():
        by_name.setdefault(label.lower(), []).append(number)
    if wanted is None:
        if PERSON not in by_name:
            raise UsageError(f"{name} has no class called person: choose `classes` from {', '.join(known.values())}")
        wanted = [PERSON]
    if not wanted:
        raise UsageError(f"no classes given for {name}: choose from {', '.join(known.values())}")
    chosen: dict[int, str] = {}
    for text in [text.strip() for text in wanted.split(",")] if isinstance(wanted, str) else map(str, wanted):
        numbers = by_name.get(text.lower(), [int(text)] if text.isdecimal() and int(text) in known else [])
        if not numbers:
            close = difflib.get_close_matches(text.lower(), by_name, n=3, cutoff=0.6) or list(known.values())
            raise UsageError(f"{name} has no class {text!r}: choose from {', '.join(close)}")
        chosen |= {number: known[number] for number in numbers}
    return chosen


def tidied(boxes: Boxes, height: int, width: int) -> Boxes:
    """Return `boxes` clipped to the image, sorted by descending score, without empty or non-finite boxes."""
    xyxy = np.clip(boxes.xyxy, 0, np.array([width, height, width, height], np.float32))
    extent = xyxy[:, 2:] - xyxy[:, :2]  # NaN is not above 0
    order = np.argsort(-boxes.scores, kind="stable")
    kept = order[((extent > 0).all(axis=1) & np.isfinite(boxes.scores))[order]]
    return Boxes(xyxy, boxes.scores, boxes.class_ids)[kept]
