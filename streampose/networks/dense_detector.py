"""The bundled detector type: a ViTPose network whose output maps encode the positions of people."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from streampose.errors import ModelError
from streampose.frames import Boxes, Float32, Shrink
from streampose.networks.checkpoints import Checkpoint
from streampose.networks.detector import PERSON, PersonDetector, ShrinkableImage, batches, choose_classes
from streampose.networks.layout import CONFIG, PREPROCESSOR
from streampose.networks.vitpose import load_dense_map_network
from streampose.networks.workers import each, part_sizes

DEFAULT_THRESHOLD = 0.25
"""Minimum score of a box."""
_SHRINK_TO = range(32, 1025)
_SHRINK_BY = 1.25, 16
"""Target sizes, and range of shrink factors, for which `Captured.shrink` is as accurate as OpenCV. The range is limited
because swscale uses fixed-point arithmetic.
"""


class DenseMapDetector(PersonDetector):
    """The bundled detector type: a ViTPose network with five output maps.

    For every cell, the maps give the likelihood that it is the centre of a person's box, and the distances to the four
    sides of the box. The model card has the full description.
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
        label_of = choose_classes(checkpoint.name, {0: PERSON}, classes)
        super().__init__(checkpoint.name, label_of, device=device, max_people=max_people, max_batch=max_batch)
        self._network = load_dense_map_network(checkpoint, device, dtype)
        if self._network.map_count != 5:
            raise ModelError(
                f"{checkpoint.name}: a person detector needs 5 output maps, this network has {self._network.map_count}"
            )
        self._threshold = threshold
        self._patch_count = checkpoint.whole_number(CONFIG, "streampose_tokens", 364, range(1, 65537))
        self._fill = checkpoint.whole_number(PREPROCESSOR, "pad_value", 124, range(256))

    def prepare(self, images: Sequence[Tensor], shrinks: Sequence[Shrink | None] | None = None) -> Tensor:
        """Return the images resized and padded to the network's input size, (N, H, W, 3) uint8 BGR."""
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

    def _of_size(self, images: Sequence[ShrinkableImage], height: int, width: int) -> list[Boxes]:
        if self.device.type != "cpu":
            return super()._of_size(images, height, width)
        # Each worker runs all steps of its part, so that no worker waits while images are resized.
        parts = batches(images, min(self._max_batch, part_sizes(len(images))[0]))
        found = each(lambda batch: self._of_batch(batch, height, width), parts)
        return [boxes for of_batch in found for boxes in of_batch]

    def compile(self, *, waits: bool) -> None:
        """Compile the network; see `streampose.networks.engine.Engine.compile`."""
        self._network.engine.compile(waits=waits)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the maps (N, 5, h, w) float32."""
        maps: Tensor = self._network(inputs).float()
        return maps

    def _boxes(self, outputs: Tensor, height: int, width: int) -> list[Boxes]:
        fitted_height, fitted_width = self._fitted(height, width)
        to_image = np.array([width / fitted_width, height / fitted_height] * 2, np.float32)
        borders = np.array([width, height] * 2, np.float32)
        cell = self._network.patch_size[0] / self._network.scale
        found = []
        for xyxy, scores in decode_dense_maps(outputs.cpu(), cell, self._threshold):
            clipped = np.clip(xyxy * to_image, 0, borders)
            kept = suppress_overlaps(clipped, scores)
            found.append(Boxes(clipped[kept], scores[kept], np.zeros(int(kept.sum()), np.int64)))
        return found

    def _fitted(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width, in pixels, of the resized image within the network's input."""
        rows, columns = choose_grid(height, width, self._patch_count)
        patch_height, patch_width = self._network.patch_size
        input_height, input_width = rows * patch_height, columns * patch_width
        scale = min(input_height / height, input_width / width)
        return (
            max(1, min(round(height * scale), input_height)),
            max(1, min(round(width * scale), input_width)),
        )


def choose_grid(height: int, width: int, patch_count: int) -> tuple[int, int]:
    """Return the rows and columns of a grid with about `patch_count` patches and the image's aspect ratio.

    Rows and columns are each at least 4.
    """
    scale = (patch_count / (height * width)) ** 0.5
    return max(4, round(height * scale)), max(4, round(width * scale))


def resize_image(image: Tensor, height: int, width: int) -> Tensor:
    """Resize an image like `cv2.resize`: with INTER_AREA to shrink and with INTER_LINEAR to enlarge.

    Args:
        image: (H, W, C) uint8 on any device. On a CPU, OpenCV does the work. On other devices, values differ from
            OpenCV's by at most 1.
        height, width: size of the result. Either both are smaller than the image's, or neither is.

    Returns:
        (height, width, C) uint8 on the same device.
    """
    shrinks = height < image.shape[0] or width < image.shape[1]
    if image.device.type == "cpu":
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return torch.from_numpy(cv2.resize(image.numpy(), (width, height), interpolation=method))
    return resize_on_device(image, height, width, shrinks)


def resize_on_device(image: Tensor, height: int, width: int, shrinks: bool) -> Tensor:
    """Implement `resize_image` with tensor operations, for devices that OpenCV does not support."""
    if shrinks:
        by_rows = _area_matrix(image.shape[0], height, image.device) @ image.float().flatten(1)
        resized = _area_matrix(image.shape[1], width, image.device) @ by_rows.view(height, *image.shape[1:])
    else:
        planes = image.permute(2, 0, 1)[None].float()
        resized = F.interpolate(planes, (height, width), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    return (resized + 0.5).to(torch.uint8)  # rounds halves up, like OpenCV's integer arithmetic


@lru_cache(maxsize=32)
def _area_matrix(size: int, new_size: int, device: torch.device) -> Tensor:
    """Return the matrix (new_size, size) that averages `size` pixels over `new_size` equal intervals."""
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
        cell: size of a cell in pixels of the network's input.
        threshold: a box is kept if its score is above this value.

    Returns:
        For each of the N inputs: boxes (M, 4) float32 in pixels of the input, and scores (M,) float32. Duplicates are
        not yet removed. Each score is the maximum of its 3x3 neighbourhood.
    """
    scores = maps[:, 0].sigmoid()
    # `F.max_pool2d` takes four times as long on a CPU.
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
    """Return a mask (M,) of the boxes that survive non-maximum suppression with an IoU threshold of 0.6."""
    import supervision as sv

    return sv.box_non_max_suppression(np.column_stack([xyxy, scores]), iou_threshold=0.6)
