"""What every detector does: pictures to boxes of people. Knows nothing of poses, sources or time."""

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


class Picture(NamedTuple):
    """What `PersonDetector.detect` takes of a frame."""

    pixels: Tensor
    shrink: Shrink | None


class PersonDetector(ABC):
    """A detection network with the way into it and out of it."""

    def __init__(
        self, name: str, label_of: dict[int, str], *, device: torch.device, max_people: int | None, max_batch: int
    ) -> None:
        """Keep what every detector needs.

        Args:
            name: as the user named the checkpoint.
            label_of: the classes that are found: the network's number and name of each.
            device: where the images are and the network runs.
            max_people: most boxes an image; None for all.
            max_batch: most images that go through the network together.
        """
        self.name = name
        self.label_of = label_of
        self.device = device
        self._max_people = max_people
        self._max_batch = max_batch

    def detect(self, images: Sequence[Tensor], shrinks: Sequence[Shrink | None] | None = None) -> list[Boxes]:
        """Find the people in each image.

        Args:
            images: each (H, W, 3) uint8 BGR on the network's device; those of one size go through it together.
            shrinks: for each image, what shrinks it in less time; taken on a CPU, where it suits the network.

        Returns:
            For each image, in order: its boxes in its pixels, clipped to it, best first.

        Raises:
            ModelError: the network failed, such as by running out of memory.
        """
        of_size: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            of_size.setdefault((image.shape[0], image.shape[1]), []).append(index)
        pictures = [Picture(*both) for both in zip(images, shrinks or [None] * len(images), strict=True)]
        found = [Boxes.none() for _ in images]
        with torch.inference_mode(), run_errors(self.name, self.device, "detect_batch"):
            for (height, width), indices in of_size.items():
                for index, boxes in zip(
                    indices, self._of_size([pictures[i] for i in indices], height, width), strict=True
                ):
                    found[index] = boxes
        return found

    def _of_size(self, pictures: Sequence[Picture], height: int, width: int) -> list[Boxes]:
        """Do what `detect` does for images of one size."""
        found = [self._of_batch(batch, height, width) for batch in batches(pictures, self._max_batch)]
        return [boxes for of_batch in found for boxes in of_batch]

    def _of_batch(self, pictures: Sequence[Picture], height: int, width: int) -> list[Boxes]:
        images, shrinks = zip(*pictures, strict=True)
        return self.decode(self.forward(self.prepare(images, shrinks)), height, width)

    def compile(self, *, waits: bool) -> None:  # noqa: B027 - transformers' own networks run as they are
        """Have the network compiled, where it can be; see `streampose.networks.engine.Engine.compile`."""

    def decode(self, outputs: Any, height: int, width: int) -> list[Boxes]:
        """Return the boxes, as `detect` does, that `forward` has found in images of `height` x `width` pixels."""
        return [tidied(boxes, height, width)[: self._max_people] for boxes in self._boxes(outputs, height, width)]

    @abstractmethod
    def prepare(self, images: Sequence[Tensor], shrinks: Sequence[Shrink | None] | None = None) -> Any:
        """Return images of one size, as `detect` takes them, as the network wants them."""

    @abstractmethod
    def forward(self, inputs: Any) -> Any:
        """Return what the network makes of what `prepare` has made."""

    @abstractmethod
    def _boxes(self, outputs: Any, height: int, width: int) -> list[Boxes]:
        """Return what `decode` does, in any order and not yet clipped."""


def batches(pictures: Sequence[Picture], size: int) -> list[Sequence[Picture]]:
    return [pictures[start : start + size] for start in range(0, len(pictures), size)]


def choose_classes(name: str, known: dict[int, str], wanted: str | Sequence[str | int] | None) -> dict[int, str]:
    """Return the classes of detector `name` to find, of those it knows; by name in any case, or by number."""
    by_name: dict[str, list[int]] = {}
    for number, label in known.items():
        by_name.setdefault(label.lower(), []).append(number)
    if wanted is None:
        if PERSON not in by_name:
            raise UsageError(f"{name} knows no class called person: choose `classes` from {', '.join(known.values())}")
        wanted = [PERSON]
    if not wanted:
        raise UsageError(f"no classes for {name}: choose from {', '.join(known.values())}")
    chosen: dict[int, str] = {}
    for text in [text.strip() for text in wanted.split(",")] if isinstance(wanted, str) else map(str, wanted):
        numbers = by_name.get(text.lower(), [int(text)] if text.isdecimal() and int(text) in known else [])
        if not numbers:
            close = difflib.get_close_matches(text.lower(), by_name, n=3, cutoff=0.6) or list(known.values())
            raise UsageError(f"{name} knows no class {text!r}; there are {', '.join(close)}")
        chosen |= {number: known[number] for number in numbers}
    return chosen


def tidied(boxes: Boxes, height: int, width: int) -> Boxes:
    """Return `boxes` clipped to the picture and best first, without empty and undefined ones."""
    xyxy = np.clip(boxes.xyxy, 0, np.array([width, height, width, height], np.float32))
    extent = xyxy[:, 2:] - xyxy[:, :2]  # NaN is not above 0
    order = np.argsort(-boxes.scores, kind="stable")
    kept = order[((extent > 0).all(axis=1) & np.isfinite(boxes.scores))[order]]
    return Boxes(xyxy, boxes.scores, boxes.class_ids)[kept]
