"""The loop of the ViTPose documentation, which `streampose bench` uses as its reference.

It processes one frame at a time with transformers' processors and networks in float32 and with supervision's drawing,
as described in https://huggingface.co/docs/transformers/model_doc/vitpose. Of our code, it uses only the resolution of
checkpoint names. The documentation's calls do not cover frames without people, the bundled detector and experts; for
these, the minimum necessary code is added.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import supervision as sv
import torch
import torch.nn.functional as F

from streampose.frames import Float32, Image
from streampose.networks.checkpoints import Checkpoint
from streampose.networks.hub import quiet
from streampose.networks.layout import PREPROCESSOR
from streampose.networks.loading import load_image_processor, load_network, loading


class ReferenceLoop:
    """Runs a detector, a pose network and drawing, one after the other, on every frame."""

    def __init__(
        self,
        detector: Checkpoint,
        pose: Checkpoint,
        *,
        device: torch.device,
        threshold: float,
        labels: Iterable[int],
    ) -> None:
        """Load both networks in float32.

        Args:
            detector, pose: results of `streampose.networks.checkpoints.resolve`.
            device: device of both networks.
            threshold: minimum score of a box, 0..1.
            labels: indices of the detector's classes that count as people.

        Raises:
            ModelError: transformers cannot load a network or its image processor.
        """
        import transformers

        processors: Any = transformers.AutoImageProcessor
        is_bundled = detector.config.get("streampose_task") == "person-detection"
        self._detect = (_BundledDetector if is_bundled else _HubDetector)(detector, device, threshold, labels)
        self._device = device
        with quiet(), loading(pose, PREPROCESSOR):
            self._processor = processors.from_pretrained(pose.folder, local_files_only=True)
        self._model = load_network(pose, transformers.VitPoseForPoseEstimation, torch.float32).to(device)
        self._has_experts = self._model.config.backbone_config.num_experts > 1
        self._keypoint_count = int(self._model.config.num_labels)
        self._edges = sv.EdgeAnnotator(color=sv.Color.GREEN, thickness=1)
        self._vertices = sv.VertexAnnotator(color=sv.Color.RED, radius=2)

    def detect(self, image: Image) -> Float32:
        """Return the boxes (N, 4) float32 of the people in `image`, (H, W, 3) uint8 RGB.

        A box is left, top, right, bottom in pixels of the image.
        """
        return self._detect(image)

    def estimate(self, image: Image, boxes_xyxy: Float32) -> Float32:
        """Return the keypoints (N, K, 3) float32, with x, y and score, for the boxes (N, 4) of `image`.

        `image` is (H, W, 3) uint8 RGB. Decoding uses the processor's defaults: a blur with a kernel size of 11.
        """
        if not len(boxes_xyxy):  # the processor does not accept an empty list
            return np.zeros((0, self._keypoint_count, 3), np.float32)
        boxes = boxes_xyxy.copy()
        boxes[:, 2] = boxes[:, 2] - boxes[:, 0]
        boxes[:, 3] = boxes[:, 3] - boxes[:, 1]
        inputs = self._processor(image, boxes=[boxes], return_tensors="pt").to(self._device)
        if self._has_experts:
            inputs["dataset_index"] = torch.zeros(len(boxes), dtype=torch.int64, device=self._device)
        with torch.no_grad():
            outputs = self._model(**inputs)
        poses = self._processor.post_process_pose_estimation(outputs, boxes=[boxes])[0]
        xy = torch.stack([pose["keypoints"] for pose in poses]).cpu().numpy()
        scores = torch.stack([pose["scores"] for pose in poses]).cpu().numpy()
        return np.concatenate([xy, scores[..., None]], axis=-1).astype(np.float32)

    def draw(self, image: Image, people: Float32) -> Image:
        """Return a copy of `image`, (H, W, 3) uint8, with the keypoints (N, K, 3) drawn on it."""
        key_points = sv.KeyPoints(xy=people[..., :2], keypoint_confidence=people[..., 2])
        annotated = self._edges.annotate(scene=image.copy(), key_points=key_points)
        drawn: Image = self._vertices.annotate(scene=annotated, key_points=key_points)
        return drawn

    def run(self, image: Image) -> tuple[Float32, Float32]:
        """Run all steps on a frame, (H, W, 3) uint8 BGR as decoded from a video; return its boxes and keypoints."""
        rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
        boxes = self.detect(rgb)
        people = self.estimate(rgb, boxes)
        self.draw(rgb, people)
        return boxes, people


class _HubDetector:
    """The documentation's first stage, with any detector that `AutoModelForObjectDetection` can load."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, threshold: float, labels: Iterable[int]) -> None:
        from transformers import AutoModelForObjectDetection

        self._processor = load_image_processor(checkpoint)
        self._model = load_network(checkpoint, AutoModelForObjectDetection, torch.float32).to(device)
        self._device = device
        self._threshold = threshold
        self._labels = torch.tensor(list(labels), device=device)

    def __call__(self, image: Image) -> Float32:
        inputs = self._processor(images=image, input_data_format="channels_last", return_tensors="pt").to(self._device)
        with torch.no_grad():
            outputs = self._model(**inputs)
        sizes = torch.tensor([image.shape[:2]])
        results = self._processor.post_process_object_detection(outputs, target_sizes=sizes, threshold=self._threshold)
        chosen = results[0]["boxes"][torch.isin(results[0]["labels"], self._labels)]
        boxes: Float32 = chosen.cpu().numpy()
        return boxes


class _BundledDetector:
    """The steps of the bundled detector's model card, on the transformers network.

    The network's own forward only accepts inputs of the training size, so the steps are written out.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, threshold: float, labels: Iterable[int]) -> None:
        from transformers import VitPoseForPoseEstimation

        del labels  # this detector finds only people
        self._model = load_network(checkpoint, VitPoseForPoseEstimation, torch.float32).to(device)
        self._device = device
        self._threshold = threshold
        self._patch_count = int(checkpoint.config.get("streampose_tokens", 364))
        self._fill = int(checkpoint.preprocessing.get("pad_value", 124))
        self._mean = np.array(checkpoint.preprocessing.get("image_mean", (0.485, 0.456, 0.406)), np.float32)
        self._std = np.array(checkpoint.preprocessing.get("image_std", (0.229, 0.224, 0.225)), np.float32)

    def __call__(self, image: Image) -> Float32:
        height, width = image.shape[:2]
        patch = self._model.config.backbone_config.patch_size[0]
        scale = (self._patch_count / (height * width)) ** 0.5
        rows, columns = max(4, round(height * scale)), max(4, round(width * scale))
        fit = min(rows * patch / height, columns * patch / width)
        fitted_height, fitted_width = min(round(height * fit), rows * patch), min(round(width * fit), columns * patch)
        canvas = np.full((rows * patch, columns * patch, 3), self._fill, np.uint8)
        method = cv2.INTER_AREA if fit < 1 else cv2.INTER_LINEAR
        canvas[:fitted_height, :fitted_width] = cv2.resize(image, (fitted_width, fitted_height), interpolation=method)
        normalised = (canvas.astype(np.float32) / 255 - self._mean) / self._std
        pixels = torch.from_numpy(normalised).permute(2, 0, 1)[None].to(self._device)
        with torch.no_grad():
            maps = self._maps(pixels, rows, columns)[0].cpu().numpy()
        to_image = np.array([width / fitted_width, height / fitted_height] * 2)
        boxes, scores = self._boxes(maps, patch / self._model.config.scale_factor)
        boxes = np.clip(boxes * to_image, 0, np.array([width, height] * 2))
        kept = sv.box_non_max_suppression(np.column_stack([boxes, scores]), iou_threshold=0.6)
        found: Float32 = boxes[kept].astype(np.float32)
        return found

    def _maps(self, pixels: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        backbone = self._model.backbone
        positions = backbone.embeddings.position_embeddings
        side = round((positions.shape[1] - 1) ** 0.5)
        grid = positions[:, 1:].transpose(1, 2).reshape(1, -1, side, side)
        grid = F.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)
        patches = backbone.embeddings.patch_embeddings.projection(pixels).flatten(2).transpose(1, 2)
        tokens = patches + grid.flatten(2).transpose(1, 2) + positions[:, :1]
        for layer in backbone.encoder.layer[: backbone.stage_names.index(backbone.out_features[-1])]:
            tokens = layer(tokens, None)  # no expert index
        tokens = backbone.layernorm(tokens)
        maps: torch.Tensor = self._model.head(tokens.transpose(1, 2).reshape(1, -1, rows, columns).contiguous())
        return maps

    def _boxes(self, maps: Float32, cell: float) -> tuple[Float32, Float32]:
        """Return boxes (N, 4) in pixels of the input and scores (N,) from maps (5, h, w). A cell has `cell` pixels."""
        scores = 1 / (1 + np.exp(-maps[0]))
        is_peak = (scores == cv2.dilate(scores, np.ones((3, 3), np.uint8))) & (scores > self._threshold)
        rows, columns = np.nonzero(is_peak)
        left, top, right, bottom = np.exp(np.clip(maps[1:, rows, columns], -4, 6)) * cell
        x, y = (columns + 0.5) * cell, (rows + 0.5) * cell
        return np.column_stack([x - left, y - top, x + right, y + bottom]), scores[rows, columns]
