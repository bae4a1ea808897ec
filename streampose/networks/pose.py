"""Estimates poses from boxes with any ViTPose checkpoint. People of all frames share batches of limited size.

Knows the keypoints and the input size of a checkpoint. Knows nothing about detection or time.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import numpy as np
import torch

from streampose.errors import ModelError, UsageError
from streampose.frames import Boxes, Float32, Poses, Skeleton
from streampose.networks.checkpoints import Checkpoint, resolve
from streampose.networks.device import fetch, read_here, run_errors
from streampose.networks.geometry import Blur, crop_people, crop_regions, decode_heatmaps, flip_back, to_frame
from streampose.networks.layout import CONFIG, PREPROCESSOR
from streampose.networks.pending import Pending
from streampose.networks.uncertainty import Calibration, Curve, covariances, to_frame_covariances
from streampose.networks.vitpose import load_dense_map_network
from streampose.networks.workers import begin, part_sizes
from streampose.people.names import COCO_NAMES as COCO_NAMES
from streampose.people.names import plain_names, side_pairs

DEFAULT_BLUR: Blur = "paper"

# fmt: off
COCO_EDGES = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
    (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)
# fmt: on
"""The 19 edges of COCO's annotations, as in the `edges` of the published ViTPose checkpoints, 0-based."""


class PoseEstimator:
    """A pose network with its preprocessing and postprocessing."""

    def __init__(
        self,
        name: str | os.PathLike[str],
        *,
        device: torch.device,
        dtype: torch.dtype,
        blur: str = DEFAULT_BLUR,
        dataset_index: int | None = None,
        flip_test: bool = False,
        max_batch: int = 32,
        allow_pickle: bool = False,
    ) -> None:
        """Load the network.

        Args:
            name: a bundled name, a folder in hub layout or a hub id; see `streampose.networks.checkpoints.resolve`.
            device, dtype: device and number format of the network. Keypoints are always decoded in float32.
            blur: the blur of heatmaps before a peak is refined; see `streampose.networks.geometry.Blur`.
            dataset_index: the expert of a mixture-of-experts checkpoint; None selects the first.
            flip_test: average the heatmaps with those of the mirrored crops.
            max_batch: maximum crops per network call.
            allow_pickle: accept pickled weights if the checkpoint has no safetensors.

        Raises:
            UsageError: the blur, the dataset index or `max_batch` is invalid, or a flip test is requested for a network
                without left and right pairs of keypoints.
            ModelError: the checkpoint cannot be found or loaded, or is not a pose network.
        """
        if blur not in get_args(Blur):
            raise UsageError(f"unknown blur {blur!r}: choose one of {', '.join(get_args(Blur))}")
        if not (isinstance(max_batch, int) and max_batch >= 1):
            raise UsageError(f"invalid pose batch size {max_batch!r}: expected an integer of at least 1")
        checkpoint = resolve(name, allow_pickle=allow_pickle)
        self.name = checkpoint.name
        if task := checkpoint.config.get("streampose_task"):
            raise ModelError(f"{self.name} is a network for {task}, not for poses: pass it as `detector`")
        self._network = load_dense_map_network(checkpoint, device, dtype, dataset_index=dataset_index)
        self.device = device
        self._size = _input_size(checkpoint, self._network.patch_size, self._network.trained_grid)
        self.skeleton = skeleton_of(checkpoint, self._network.map_count)
        if flip_test and not self.skeleton.flip_pairs:
            raise UsageError(f"{self.name} does not define left and right keypoints: do not use `flip_test`")
        self.calibration = calibration_of(checkpoint, self._network.map_count)
        """Scales the covariances; None if the checkpoint has no calibration."""
        self._flip_test = flip_test
        self.blur: Blur = "hf" if blur == "hf" else "paper"
        self._max_batch = max_batch

    def compile(self, *, waits: bool) -> None:
        """Compile the network; see `streampose.networks.engine.Engine.compile`."""
        self._network.engine.compile(waits=waits)

    @property
    def keypoint_count(self) -> int:
        """K, the number of keypoints per person."""
        return len(self.skeleton.names)

    def estimate(self, images: Sequence[torch.Tensor], boxes: Sequence[Boxes]) -> list[Poses]:
        """Find the keypoints of the people in each image.

        Args:
            images: each (H, W, 3) uint8 BGR on the network's device; sizes may differ.
            boxes: the people of each image, in pixels of the image.

        Returns:
            The poses of each image, in the order of the boxes. If a heatmap is not finite, position and covariance of
            its keypoint are NaN and the score is 0.

        Raises:
            ModelError: the network failed, for example because it ran out of memory.
        """
        return self.begin(images, boxes).result()

    def begin(self, images: Sequence[torch.Tensor], boxes: Sequence[Boxes]) -> Pending[list[Poses]]:
        """Start `estimate` and return a handle; `result()` waits and returns the result of `estimate`.

        The calling thread can start more work before it waits. That work is queued behind this call, so that neither
        the device nor the workers have to wait for the thread.

        Raises:
            ModelError: the network failed. `result()` can raise it as well.
        """
        counts = [len(some) for some in boxes]
        with torch.inference_mode(), run_errors(self.name, self.device, "pose_batch"):
            if self.device.type == "cpu":
                # Each worker runs all steps of its part, so that no worker waits while crops are cut or heatmaps
                # decoded.
                limit = min(self._max_batch, part_sizes(max(1, sum(counts)))[0])
                batches = [*_batches(counts, limit)]
                parts: Sequence[Pending[Float32]] = begin(
                    lambda batch: self._of_batch(images, boxes, batch).numpy(), batches
                )
            else:
                parts = [fetch(self._of_batch(images, boxes, batch)) for batch in _batches(counts, self._max_batch)]
        return _Estimate(self, parts, counts)

    def _of_batch(
        self, images: Sequence[torch.Tensor], boxes: Sequence[Boxes], batch: Sequence[tuple[int, int, int]]
    ) -> torch.Tensor:
        """Return (M, K, 6) for the people in `batch`, a list of (image, first person, last person + 1)."""
        crops, regions = self.prepare(
            [images[image] for image, _, _ in batch], [boxes[image][first:stop] for image, first, stop in batch]
        )
        return self.decode(self.forward(crops), regions)

    def prepare(self, images: Sequence[torch.Tensor], boxes: Sequence[Boxes]) -> tuple[torch.Tensor, torch.Tensor]:
        """Cut out the people for the network; the arguments are those of `estimate`.

        Returns:
            Crops (M, height, width, 3) uint8 BGR and their regions (M, 4) float32 (see `crop_regions`), both on the
            network's device. People are in the order of the images and boxes.
        """
        height, width = self._size
        xyxy = np.concatenate([some.xyxy for some in boxes])
        regions = crop_regions(torch.from_numpy(xyxy).to(self.device), height=height, width=width)
        crops = torch.empty((len(regions), height, width, 3), dtype=torch.uint8, device=self.device)
        start = 0
        for image, some in zip(images, boxes, strict=True):
            own = slice(start, start + len(some))
            crop_people(read_here(image), regions[own], height=height, width=width, out=crops[own])
            start = own.stop
        return crops, regions

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Return the heatmaps (M, K, h, w) float32 of `crops` (M, height, width, 3) uint8 BGR, M > 0."""
        heatmaps: torch.Tensor = self._network(crops).float()
        if self._flip_test:
            mirrored = self._network(crops.flip(2)).float()
            heatmaps = (heatmaps + flip_back(mirrored, self.skeleton.flip_pairs)) / 2
        return heatmaps

    def decode(self, heatmaps: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
        """Return (M, K, 6) float32 on the network's device.

        The six values are x and y in pixels of the frame, the score, and the variance of x, the variance of y and the
        covariance of both in squared pixels. Non-finite values are not replaced yet; see `estimate`.
        """
        cells, scores = decode_heatmaps(heatmaps, self.blur)
        height, width = heatmaps.shape[-2:]
        keypoints = to_frame(cells, regions, height=height, width=width)
        uncertainty = covariances(heatmaps, cells, scores, self.calibration)
        uncertainty = to_frame_covariances(uncertainty, regions, height=height, width=width)
        return torch.cat([keypoints, scores[..., None], uncertainty], dim=-1)


class _Estimate:
    """A pose estimation in progress, split into batches of people."""

    def __init__(self, estimator: PoseEstimator, batches: Sequence[Pending[Float32]], counts: Sequence[int]) -> None:
        self._estimator = estimator
        self._batches = batches
        self._counts = counts
        """Number of people in each image."""

    def result(self) -> list[Poses]:
        """Wait and return the result of `PoseEstimator.estimate`."""
        with run_errors(self._estimator.name, self._estimator.device, "pose_batch"):
            found = [_defined(batch.result()) for batch in self._batches]
        people = np.concatenate([np.zeros((0, self._estimator.keypoint_count, 6), np.float32), *found])
        of_images = np.split(people, np.cumsum(self._counts)[:-1]) if self._counts else []
        return [poses_of(of) for of in of_images]


def poses_of(people: Float32) -> Poses:
    """Convert the result (N, K, 6) of `PoseEstimator.decode` to poses."""
    matrices = people[..., [3, 5, 5, 4]].reshape(*people.shape[:-1], 2, 2)
    return Poses(np.ascontiguousarray(people[..., :2]), np.ascontiguousarray(people[..., 2]), matrices)


def _defined(people: Float32) -> Float32:
    """Replace non-finite keypoints in `people` (M, K, 6) by NaN with a score of 0, in place, and return it."""
    people[~np.isfinite(people).all(axis=-1)] = np.nan, np.nan, 0, np.nan, np.nan, np.nan
    return people


def _batches(counts: Sequence[int], limit: int) -> Iterator[list[tuple[int, int, int]]]:
    """Split the people of several images, in order, into batches of at most `limit` people.

    `counts` is the number of people in each image. A batch is a list of (image, first person, last person + 1).
    """
    batch: list[tuple[int, int, int]] = []
    room = limit
    for image, count in enumerate(counts):
        first = 0
        while first < count:
            stop = min(first + room, count)
            batch.append((image, first, stop))
            room -= stop - first
            first = stop
            if room == 0:
                yield batch
                batch, room = [], limit
    if batch:
        yield batch


def _input_size(checkpoint: Checkpoint, patch: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width of a crop in pixels; the default is the network's training size."""

    def parse(size: Any) -> tuple[int, int] | None:
        height, width = size["height"], size["width"]
        for edge, step in zip((height, width), patch, strict=True):
            if type(edge) is not int or edge <= 0 or edge % step:
                raise ValueError
        return height, width

    what = f"`height` and `width` in multiples of the {patch[0]}x{patch[1]} patch size"
    return checkpoint.entry(PREPROCESSOR, "size", None, parse, what) or (patch[0] * grid[0], patch[1] * grid[1])


def skeleton_of(checkpoint: Checkpoint, count: int) -> Skeleton:
    """Return the skeleton of `count` keypoints that a checkpoint's `config.json` describes.

    Names come from `id2label`. Edges come from `edges`, which only some checkpoints have. Pairs come from `flip_pairs`
    (an extension of this project's checkpoints), or from names that differ only in left and right. 17 keypoints with
    default names are assumed to be COCO's. COCO keypoints without edges get COCO's edges. Other skeletons may have no
    edges.

    Raises:
        ModelError: an edge or pair refers to a keypoint that does not exist.
    """
    labels = checkpoint.channel_names
    names = tuple(labels.get(index, f"LABEL_{index}") for index in range(count))
    if count == len(COCO_NAMES) and all(re.fullmatch(r"LABEL_\d+", name) for name in names):
        names = COCO_NAMES
    edges = _index_pairs(checkpoint, "edges", count)
    if edges is None:
        is_coco = plain_names(names) == COCO_NAMES
        edges = COCO_EDGES if is_coco else ()
    flip_pairs = _index_pairs(checkpoint, "flip_pairs", count)
    return Skeleton(names, edges, side_pairs(names) if flip_pairs is None else flip_pairs)


def calibration_of(checkpoint: Checkpoint, count: int) -> Calibration | None:
    """Return the calibration of `count` keypoints in a checkpoint's `config.json`; None if it has none.

    The entry `keypoint_uncertainty` is an extension of this project's checkpoints. Its keys are the fields of
    `Calibration`.

    Raises:
        ModelError: the entry is invalid.
    """

    def parse(entry: Any) -> Calibration | None:
        keypoints = tuple(map(_finite, entry["keypoints"]))
        if len(keypoints) != count:
            raise ValueError
        return Calibration(_curve(entry["stray"]), _curve(entry["pose_score"]), keypoints)

    what = f"`stray` and `pose_score` with increasing positions, and `keypoints` with {count} numbers"
    return checkpoint.entry(CONFIG, "keypoint_uncertainty", None, parse, what)


def _curve(points: Any) -> Curve:
    curve = tuple((_finite(position), _finite(value)) for position, value in points)
    if len(curve) < 2 or any(first[0] >= second[0] for first, second in itertools.pairwise(curve)):
        raise ValueError
    return curve


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _index_pairs(checkpoint: Checkpoint, key: str, count: int) -> tuple[tuple[int, int], ...] | None:
    def parse(pairs: Any) -> tuple[tuple[int, int], ...] | None:
        return tuple((range(count).index(first), range(count).index(second)) for first, second in pairs)

    return checkpoint.entry(CONFIG, key, None, parse, f"pairs of keypoint indices from 0 to {count - 1}")
