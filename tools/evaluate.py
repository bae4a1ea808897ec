"""Prints COCO keypoint AP on labelled stills, for streampose and for the Hugging Face processor with the same weights.

    python -m tools.evaluate ../shared/data/labelled --dtype float32

The folder contains `annotations.json` (COCO keypoint format) and `images/`. AP is printed for ground-truth boxes and
for detected boxes with a score above 0.1. The score of a pose is its mean keypoint score; with detected boxes, it is
multiplied by the box score.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from transformers import AutoImageProcessor, VitPoseForPoseEstimation

from streampose.frames import Boxes, Float32, Image
from streampose.networks.checkpoints import assets_folder
from streampose.networks.detectors import load_detector
from streampose.networks.device import pick_device, pick_dtype
from streampose.networks.known import DEFAULT_DETECTOR, DEFAULT_POSE
from streampose.networks.pose import PoseEstimator

DETECTED_FROM = 0.1

Estimate = Callable[[Image, Boxes], tuple[Float32, Float32]]


def hf_reference(folder: Path) -> Estimate:
    """Return a function that makes the ViTPose documentation's calls, in float32 on the CPU.

    It takes boxes and returns keypoints (N, 17, 2) and scores (N, 17).
    """
    processor = AutoImageProcessor.from_pretrained(folder)
    model = VitPoseForPoseEstimation.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def estimate(image: Image, boxes: Boxes) -> tuple[Float32, Float32]:
        if not len(boxes):  # the processor does not accept an empty list
            return np.zeros((0, 17, 2), np.float32), np.zeros((0, 17), np.float32)
        xywh = boxes.xyxy.copy()
        xywh[:, 2:] -= xywh[:, :2]
        inputs = processor(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), boxes=[xywh], return_tensors="pt")
        poses = processor.post_process_pose_estimation(model(**inputs), boxes=[xywh])[0]
        return np.stack([pose["keypoints"] for pose in poses]), np.stack([pose["scores"] for pose in poses])

    return estimate


def ours(estimator: PoseEstimator, device: torch.device) -> Estimate:
    """Return a function with the same signature for our estimator."""

    def estimate(image: Image, boxes: Boxes) -> tuple[Float32, Float32]:
        keypoints, scores, _ = estimator.estimate([torch.from_numpy(image).to(device)], [boxes])[0]
        return keypoints, scores

    return estimate


class Labelled:
    """Labelled stills in COCO keypoint format."""

    def __init__(self, folder: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            self.coco = COCO(str(folder / "annotations.json"))
        self.images: dict[int, Image] = {}
        for image_id, record in self.coco.imgs.items():
            image = cv2.imread(str(folder / "images" / record["file_name"]))
            assert image is not None, record["file_name"]
            self.images[image_id] = image

    def true_boxes(self) -> dict[int, Boxes]:
        """Return the labelled boxes of every still, with score 1."""
        boxes = {}
        for image_id in self.images:
            annotations = self.coco.loadAnns(self.coco.getAnnIds(image_id, iscrowd=False))
            xywh = np.array([a["bbox"] for a in annotations], np.float32).reshape(-1, 4)
            xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
            boxes[image_id] = Boxes(xyxy, np.ones(len(xyxy), np.float32), np.zeros(len(xyxy), np.int64))
        return boxes

    def detected_boxes(self, device: torch.device, dtype: torch.dtype) -> dict[int, Boxes]:
        """Return the bundled detector's boxes for every still."""
        detector = load_detector(DEFAULT_DETECTOR, device=device, dtype=dtype, threshold=DETECTED_FROM)
        return {
            image_id: detector.detect([torch.from_numpy(image).to(device)])[0]
            for image_id, image in self.images.items()
        }

    def average_precision(self, estimate: Estimate, boxes: dict[int, Boxes]) -> tuple[float, float]:
        """Return AP over OKS 0.50:0.95 and AP at OKS 0.50, each 0..1."""
        results: list[dict[str, Any]] = []
        for image_id, image in self.images.items():
            keypoints, scores = estimate(image, boxes[image_id])
            for xy, score, box_score in zip(keypoints, scores, boxes[image_id].scores, strict=True):
                triples = np.column_stack([xy, score]).ravel().tolist()
                results.append(
                    {
                        "image_id": image_id,
                        "category_id": 1,
                        "keypoints": triples,
                        "score": float(score.mean() * box_score),
                    }
                )
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(self.coco, self.coco.loadRes(results), "keypoints")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return float(evaluation.stats[0]), float(evaluation.stats[1])


def main() -> None:
    """Print the table of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    dtype = pick_dtype(arguments.dtype, device)
    labelled = Labelled(arguments.folder)
    boxes = {"true boxes": labelled.true_boxes(), "detected boxes": labelled.detected_boxes(device, dtype)}
    chains = {"Hugging Face processor": hf_reference(assets_folder() / "models" / DEFAULT_POSE)}
    for blur in ("hf", "paper"):
        for flip_test in (False, True):
            estimator = PoseEstimator(DEFAULT_POSE, device=device, dtype=dtype, blur=blur, flip_test=flip_test)
            chains[f"streampose, blur {blur}{', flip test' if flip_test else ''}"] = ours(estimator, device)
    print(f"{'AP (AP50)':38}{'true boxes':>16}{'detected boxes':>18}")
    for name, estimate in chains.items():
        figures = [labelled.average_precision(estimate, some) for some in boxes.values()]
        print(f"{name:38}" + "".join(f"{f'{ap:.3f} ({ap50:.3f})':>17}" for ap, ap50 in figures))


if __name__ == "__main__":
    main()
