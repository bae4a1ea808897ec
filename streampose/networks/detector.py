"""Pictures to boxes of people, with the bundled detector or any that transformers loads.

Knows how each sort of detector wants its input and what its output means; nothing of poses, sources or time.
"""

from __future__ import annotations

import difflib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from numbers import Real
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from streampose.errors import ModelError, UsageError
from streampose.frames import Boxes, Float32, Shrink
from streampose.networks.checkpoints import (
    CONFIG,
    PREPROCESSOR,
    Checkpoint,
    check_range,
    load_image_processor,
    load_network,
    resolve,
)
from streampose.networks.device import run_errors
from streampose.networks.vitpose import load_dense_map_network
from streampose.networks.workers import all_cores, each, part_sizes

_PERSON = "person"
_DENSE_THRESHOLD = 0.25
_HUB_THRESHOLD = 0.3

_SHRINK_TO = range(32, 1025)
_SHRINK_BY = 1.25, 16
"""To what size, and by how much, `Frame.shrink` is as exact as OpenCV; swscale's numbers are fixed-point ones."""


class _Picture(NamedTuple):
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
        pictures = [_Picture(*both) for both in zip(images, shrinks or [None] * len(images), strict=True)]
        found = [Boxes.none() for _ in images]
        with torch.inference_mode(), run_errors(self.name, self.device, "--detect-batch"):
            for (height, width), indices in of_size.items():
                for index, boxes in zip(
                    indices, self._of_size([pictures[i] for i in indices], height, width), strict=True
                ):
                    found[index] = boxes
        return found

    def _of_size(self, pictures: Sequence[_Picture], height: int, width: int) -> list[Boxes]:
        """Do what `detect` does for images of one size."""
        found = [self._of_batch(batch, height, width) for batch in _batches(pictures, self._max_batch)]
        return [boxes for of_batch in found for boxes in of_batch]

    def _of_batch(self, pictures: Sequence[_Picture], height: int, width: int) -> list[Boxes]:
        images, shrinks = zip(*pictures, strict=True)
        return self.decode(self.forward(self.prepare(images, shrinks)), height, width)

    def compile(self, *, waits: bool) -> None:  # noqa: B027 - transformers' own networks run as they are
        """Have the network compiled, where it can be; see `streampose.networks.engine.Engine.compile`."""

    def decode(self, outputs: Any, height: int, width: int) -> list[Boxes]:
        """Return the boxes, as `detect` does, that `forward` has found in images of `height` x `width` pixels."""
        return [_tidied(boxes, height, width)[: self._max_people] for boxes in self._boxes(outputs, height, width)]

    @abstractmethod
    def prepare(self, images: Sequence[Tensor], shrinks: Sequence[Shrink | None] | None = None) -> Any:
        """Return images of one size, as `detect` takes them, as the network wants them."""

    @abstractmethod
    def forward(self, inputs: Any) -> Any:
        """Return what the network makes of what `prepare` has made."""

    @abstractmethod
    def _boxes(self, outputs: Any, height: int, width: int) -> list[Boxes]:
        """Return what `decode` does, in any order and not yet clipped."""


def load_detector(
    name: str | os.PathLike[str],
    *,
    device: torch.device,
    dtype: torch.dtype,
    threshold: float | None = None,
    classes: str | Sequence[str | int] | None = None,
    max_people: int | None = None,
    max_batch: int = 8,
    allow_pickle: bool = False,
) -> PersonDetector:
    """Load a detector.

    Args:
        name: a bundled name, a folder in hub layout or a hub id; see `streampose.networks.checkpoints.resolve`.
        device, dtype: where and in which number format the network runs.
        threshold: least score of a box, 0..1; None takes 0.25 for the bundled detector and 0.3 for others.
        classes: names or numbers of the classes to find, also as one text with commas between them; None finds the
            class called person.
        max_people: most boxes an image, the best ones; None for all.
        max_batch: most images that go through the network together.
        allow_pickle: take weights that are no safetensors, where there are no others.

    Raises:
        UsageError: the network does not know a class; a threshold, `max_people` or `max_batch` that cannot be.
        ModelError: the checkpoint cannot be found or loaded, or is no detector.
    """
    if threshold is not None and not (isinstance(threshold, Real) and 0 <= threshold <= 1):
        raise UsageError(f"no box threshold {threshold!r}: a number from 0 to 1")
    if max_people is not None and not (isinstance(max_people, int) and max_people >= 1):
        raise UsageError(f"no limit of {max_people!r} people: a whole number from 1, or none")
    if not (isinstance(max_batch, int) and max_batch >= 1):
        raise UsageError(f"no batches of {max_batch!r} frames: a whole number from 1")
    from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES

    checkpoint = resolve(name, allow_pickle=allow_pickle)
    kind: type[DenseMapDetector] | type[HubDetector]
    if checkpoint.config.get("streampose_task") == "person-detection":
        kind, usual_threshold = DenseMapDetector, _DENSE_THRESHOLD
    elif checkpoint.model_type == "vitpose":
        raise ModelError(f"{checkpoint.name} is a pose network, not a detector: take it as --pose")
    elif checkpoint.model_type not in MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES:
        raise ModelError(
            f"{checkpoint.name} is of type {checkpoint.model_type}, for which transformers has no object detector"
        )
    else:
        kind, usual_threshold = HubDetector, _HUB_THRESHOLD
    return kind(
        checkpoint,
        device=device,
        dtype=dtype,
        threshold=usual_threshold if threshold is None else threshold,
        classes=classes,
        max_people=max_people,
        max_batch=max_batch,
    )


class DenseMapDetector(PersonDetector):
    """The bundled sort of detector: a ViTPose network whose five maps say, for every cell, how likely it is the centre
    of a person's box and how far away the box's sides are. Its model card describes it in full.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: torch.device,
        dtype: torch.dtype,
        threshold: float,
        classes: str | Sequence[str | int] | None,
        max_people: int | None,
        max_batch: int,
    ) -> None:
        """Load the network of `checkpoint`; the other arguments are those of `load_detector`."""
        label_of = _choose_classes(checkpoint.name, {0: _PERSON}, classes)
        super().__init__(checkpoint.name, label_of, device=device, max_people=max_people, max_batch=max_batch)
        self._network = load_dense_map_network(checkpoint, device, dtype)
        if self._network.map_count != 5:
            raise ModelError(f"{checkpoint.name}: a person detector has 5 maps, this network {self._network.map_count}")
        self._threshold = threshold
        self._patch_count = checkpoint.whole_number(CONFIG, "streampose_tokens", 364, range(1, 65537))
        self._fill = checkpoint.whole_number(PREPROCESSOR, "pad_value", 124, range(256))

    def prepare(self, images: Sequence[Tensor], shrinks: Sequence[Shrink | None] | None = None) -> Tensor:
        """Return the images fitted into the network's input, (N, H, W, 3) uint8 BGR."""
        height, width = images[0].shape[:2]
        rows, columns = choose_grid(height, width, self._patch_count)
        fitted_height, fitted_width = self._fitted(height, width)
        patch_height, patch_width = self._network.patch_size
        size = (len(images), rows * patch_height, columns * patch_width, 3)
        canvas = torch.full(size, self._fill, dtype=torch.uint8, device=self.device)
        can_shrink = (
            self.device.type == "cpu"
            and fitted_height in _SHRINK_TO
            and fitted_width in _SHRINK_TO
            and _SHRINK_BY[0] <= height / fitted_height <= _SHRINK_BY[1]
        )
        for image, shrink, place in zip(images, shrinks or [None] * len(images), canvas, strict=True):
            if can_shrink and shrink is not None:
                fitted = torch.from_numpy(shrink(fitted_height, fitted_width))
            else:
                fitted = resize_image(image, fitted_height, fitted_width)
            place[:fitted_height, :fitted_width] = fitted
        return canvas

    def _of_size(self, pictures: Sequence[_Picture], height: int, width: int) -> list[Boxes]:
        if self.device.type != "cpu":
            return super()._of_size(pictures, height, width)
        # The whole way on the workers, so that none of them waits while pictures are shrunk.
        batches = _batches(pictures, min(self._max_batch, part_sizes(len(pictures))[0]))
        found = each(lambda batch: self._of_batch(batch, height, width), batches)
        return [boxes for of_batch in found for boxes in of_batch]

    def compile(self, *, waits: bool) -> None:
        """Have the network compiled; see `streampose.networks.engine.Engine.compile`."""
        self._network.engine.compile(waits=waits)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the maps (N, 5, h, w) float32."""
        maps: Tensor = self._network(inputs).float()
        return maps

    def _boxes(self, outputs: Tensor, height: int, width: int) -> list[Boxes]:
        fitted_height, fitted_width = self._fitted(height, width)
        to_picture = np.array([width / fitted_width, height / fitted_height] * 2, np.float32)
        borders = np.array([width, height] * 2, np.float32)
        cell = self._network.patch_size[0] / self._network.scale
        found = []
        for xyxy, scores in decode_dense_maps(outputs.cpu(), cell, self._threshold):
            clipped = np.clip(xyxy * to_picture, 0, borders)
            kept = suppress_overlaps(clipped, scores)
            found.append(Boxes(clipped[kept], scores[kept], np.zeros(int(kept.sum()), np.int64)))
        return found

    def _fitted(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of a picture within the network's input, in pixels."""
        rows, columns = choose_grid(height, width, self._patch_count)
        patch_height, patch_width = self._network.patch_size
        input_height, input_width = rows * patch_height, columns * patch_width
        scale = min(input_height / height, input_width / width)
        return (
            max(1, min(round(height * scale), input_height)),
            max(1, min(round(width * scale), input_width)),
        )


def _batches(pictures: Sequence[_Picture], size: int) -> list[Sequence[_Picture]]:
    return [pictures[start : start + size] for start in range(0, len(pictures), size)]


def choose_grid(height: int, width: int, patch_count: int) -> tuple[int, int]:
    """Return rows and columns of about `patch_count` patches, at least 4 each, in the shape of a picture."""
    scale = (patch_count / (height * width)) ** 0.5
    return max(4, round(height * scale)), max(4, round(width * scale))


def resize_image(image: Tensor, height: int, width: int) -> Tensor:
    """Resize a picture as `cv2.resize` does with INTER_AREA when it shrinks and INTER_LINEAR when it grows.

    Args:
        image: (H, W, C) uint8 on any device; on a CPU OpenCV itself does it, elsewhere the values are within 1 of its.
        height, width: of the result; both smaller than the picture's, or neither.

    Returns:
        (height, width, C) uint8 on the same device.
    """
    shrinks = height < image.shape[0] or width < image.shape[1]
    if image.device.type == "cpu":
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return torch.from_numpy(cv2.resize(image.numpy(), (width, height), interpolation=method))
    return resize_on_device(image, height, width, shrinks)


def resize_on_device(image: Tensor, height: int, width: int, shrinks: bool) -> Tensor:
    """Do what `resize_image` does as tensor operations, for devices that OpenCV cannot reach."""
    if shrinks:
        by_rows = _area_matrix(image.shape[0], height, image.device) @ image.float().flatten(1)
        resized = _area_matrix(image.shape[1], width, image.device) @ by_rows.view(height, *image.shape[1:])
    else:
        planes = image.permute(2, 0, 1)[None].float()
        resized = F.interpolate(planes, (height, width), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    return (resized + 0.5).to(torch.uint8)  # halves up, as OpenCV's integer arithmetic


@lru_cache(maxsize=32)
def _area_matrix(size: int, new_size: int, device: torch.device) -> Tensor:
    """Return the matrix (new_size, size) that averages `size` pixels over `new_size` intervals of equal length."""
    step = size / new_size
    starts = torch.arange(new_size, dtype=torch.float64)[:, None] * step
    pixels = torch.arange(size, dtype=torch.float64)
    overlaps = torch.minimum(starts + step, pixels + 1) - torch.maximum(starts, pixels)
    return (overlaps.clamp(min=0) / step).float().to(device)


def decode_dense_maps(maps: Tensor, cell: float, threshold: float) -> list[tuple[Float32, Float32]]:
    """Find the boxes in the maps of a `DenseMapDetector`.

    Args:
        maps: (N, 5, h, w) float32: a logit, then the natural logarithms of the distances from the cell's centre to the
            left, top, right and bottom side of the box, in cells.
        cell: pixels of the network's input to a cell.
        threshold: least score; a box needs a higher one.

    Returns:
        For each of the N: boxes (M, 4) float32 in pixels of the input and their scores (M,) float32, not yet freed of
        double ones. A score is the largest of its 3x3 neighbourhood.
    """
    scores = maps[:, 0].sigmoid()
    # Not `F.max_pool2d`, which takes four times as long on a CPU.
    bordered = F.pad(scores, (1, 1, 1, 1), value=-torch.inf)
    highest_across = torch.maximum(torch.maximum(bordered[..., :-2], bordered[..., 1:-1]), bordered[..., 2:])
    highest = torch.maximum(torch.maximum(highest_across[:, :-2], highest_across[:, 1:-1]), highest_across[:, 2:])
    is_peak = (scores == highest) & (scores > threshold)
    found = []
    for of_image, heights, peaks in zip(maps, scores, is_peak, strict=True):
        rows, columns = torch.nonzero(peaks, as_tuple=True)
        left, top, right, bottom = (of_image[1:, rows, columns].clamp(-4, 6).exp() * cell).unbind()
        x, y = (columns + 0.5) * cell, (rows + 0.5) * cell
        boxes = torch.stack([x - left, y - top, x + right, y + bottom], dim=-1)
        whole = boxes.isfinite().all(dim=-1)
        found.append((boxes[whole].numpy(), heights[rows, columns][whole].numpy()))
    return found


def suppress_overlaps(xyxy: Float32, scores: Float32) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which (M,) of the boxes stay when each, best first, removes those overlapping it with an IoU above 0.6."""
    import supervision as sv

    return sv.box_non_max_suppression(np.column_stack([xyxy, scores]), iou_threshold=0.6)


class HubDetector(PersonDetector):
    """Any detector that transformers' `AutoModelForObjectDetection` loads, with its own image processor.

    The processor works on the host. Half precision is by autocast, which leaves to float32 what loses by it.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: torch.device,
        dtype: torch.dtype,
        threshold: float,
        classes: str | Sequence[str | int] | None,
        max_people: int | None,
        max_batch: int,
    ) -> None:
        """Load the network of `checkpoint`; the other arguments are those of `load_detector`."""
        from transformers import AutoModelForObjectDetection

        network = load_network(checkpoint, AutoModelForObjectDetection, torch.float32)
        check_range(checkpoint, dict(network.named_parameters()), dtype)
        known = {int(number): str(label) for number, label in network.config.id2label.items()}
        label_of = _choose_classes(checkpoint.name, known, classes)
        super().__init__(checkpoint.name, label_of, device=device, max_people=max_people, max_batch=max_batch)
        self._network = network.to(device)
        self._processor = load_image_processor(checkpoint)
        self._dtype = dtype
        self._threshold = threshold

    def prepare(self, images: Sequence[Tensor], shrinks: Sequence[Shrink | None] | None = None) -> Any:
        """Return the images as transformers' processor, which shrinks them itself, prepares them, on the network's
        device.
        """
        del shrinks
        pictures = [image.flip(-1).cpu().numpy() for image in images]
        inputs = self._processor(images=pictures, input_data_format="channels_last", return_tensors="pt")
        return inputs.to(self.device)

    def forward(self, inputs: Any) -> Any:
        """Return the network's outputs as transformers has them."""
        with (
            all_cores() if self.device.type == "cpu" else nullcontext(),
            torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype != torch.float32),
        ):
            return self._network(**inputs)

    def _boxes(self, outputs: Any, height: int, width: int) -> list[Boxes]:
        outputs.logits, outputs.pred_boxes = outputs.logits.float().cpu(), outputs.pred_boxes.float().cpu()
        results = self._processor.post_process_object_detection(
            outputs, threshold=self._threshold, target_sizes=[(height, width)] * len(outputs.logits)
        )
        wanted = torch.tensor(list(self.label_of))
        found = []
        for result in results:
            chosen = torch.isin(result["labels"], wanted)
            xyxy, scores, labels = (result[key][chosen].numpy() for key in ("boxes", "scores", "labels"))
            found.append(Boxes(xyxy.astype(np.float32), scores.astype(np.float32), labels.astype(np.int64)))
        return found


def _choose_classes(name: str, known: dict[int, str], wanted: str | Sequence[str | int] | None) -> dict[int, str]:
    """Return the classes of detector `name` to find, of those it knows; by name in any case, or by number."""
    by_name: dict[str, list[int]] = {}
    for number, label in known.items():
        by_name.setdefault(label.lower(), []).append(number)
    if wanted is None:
        if _PERSON not in by_name:
            raise UsageError(f"{name} knows no class called person: choose --classes from {', '.join(known.values())}")
        wanted = [_PERSON]
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


def _tidied(boxes: Boxes, height: int, width: int) -> Boxes:
    """Return `boxes` clipped to the picture and best first, without empty and undefined ones."""
    xyxy = np.clip(boxes.xyxy, 0, np.array([width, height, width, height], np.float32))
    extent = xyxy[:, 2:] - xyxy[:, :2]  # NaN is not above 0
    order = np.argsort(-boxes.scores, kind="stable")
    kept = order[((extent > 0).all(axis=1) & np.isfinite(boxes.scores))[order]]
    return Boxes(xyxy, boxes.scores, boxes.class_ids)[kept]
