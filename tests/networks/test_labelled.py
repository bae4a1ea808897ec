"""The whole chain on labelled pictures, against the Hugging Face processor with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
import torch

from streampose.bench.labelled import LabelledImages, detected_boxes, estimated_people
from streampose.bench.reference import ReferenceLoop
from streampose.frames import Boxes
from streampose.networks.checkpoints import resolve
from streampose.networks.detectors import load_detector
from streampose.networks.device import pick_dtype
from streampose.networks.known import DEFAULT_DETECTOR, DEFAULT_POSE
from streampose.networks.pose import DEFAULT_BLUR, PoseEstimator
from streampose.records.evaluate_coco import CocoFigures, judge_coco

CPU = torch.device("cpu")
MAY_LOSE = 0.01
"""AP under the reference that would still pass; 30 people make one worth several points."""
HALF_MAY_LOSE = 0.003
"""AP of bfloat16 under float32's that would still pass."""


def in_half(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test of bfloat16 as long where the processor has no units for it: there nobody uses it, and it is slow."""
    return pytest.mark.long(test) if pick_dtype("auto", CPU) == torch.float32 else test


@pytest.fixture(scope="module")
def labelled(labelled_data: Path) -> LabelledImages:
    return LabelledImages(labelled_data / "labelled/annotations.json", labelled_data / "labelled/images")


@pytest.fixture(scope="module")
def detected(labelled: LabelledImages) -> dict[int, Boxes]:
    """The boxes that the bundled detector finds at full precision."""
    return boxes_of(labelled, torch.float32)


@pytest.fixture(scope="module")
def single_ap(labelled: LabelledImages) -> float:
    """The average precision at full precision on the true boxes."""
    figures = precision(labelled, estimator(DEFAULT_BLUR), labelled.given_boxes())
    print(f"true boxes: AP {figures.ap:.3f}, AP50 {figures.ap50:.3f}")
    return figures.ap


def boxes_of(labelled: LabelledImages, dtype: torch.dtype) -> dict[int, Boxes]:
    detector = load_detector(DEFAULT_DETECTOR, device=CPU, dtype=dtype, threshold=0.1)
    return detected_boxes(labelled, detector, CPU, 8)[0]


def precision(labelled: LabelledImages, pose: PoseEstimator, boxes: dict[int, Boxes]) -> CocoFigures:
    people, _ = estimated_people(labelled, boxes, pose, 8)
    return judge_coco(labelled.truth, people, pose.skeleton.names, pose.name)


def estimator(blur: str, dtype: torch.dtype = torch.float32) -> PoseEstimator:
    return PoseEstimator(DEFAULT_POSE, device=CPU, dtype=dtype, blur=blur)


def test_keypoints_are_the_reference_chains(labelled: LabelledImages) -> None:
    reference = ReferenceLoop(resolve(DEFAULT_DETECTOR), resolve(DEFAULT_POSE), device=CPU, threshold=0.1, labels=[0])
    boxes = labelled.given_boxes()
    found, _ = estimated_people(labelled, boxes, estimator("hf"), 8)
    people = 0
    for image_id, image in labelled:
        wanted = reference.estimate(np.ascontiguousarray(image[..., ::-1]), boxes[image_id].xyxy)
        assert np.abs(found[image_id].keypoints_xy - wanted[..., :2]).max() <= 0.1, "pixels"
        assert np.abs(found[image_id].keypoint_scores - wanted[..., 2]).max() <= 1e-3
        people += len(wanted)
    assert people >= 30


def test_average_precision_is_not_under_the_reference_chains(
    labelled: LabelledImages, single_ap: float, detected: dict[int, Boxes]
) -> None:
    assert single_ap >= 0.36 - MAY_LOSE
    figures = precision(labelled, estimator(DEFAULT_BLUR), detected)
    print(f"detected boxes: AP {figures.ap:.3f}, AP50 {figures.ap50:.3f}")
    assert figures.ap >= 0.30 - MAY_LOSE


@in_half
def test_bfloat16_loses_no_precision(labelled: LabelledImages, single_ap: float) -> None:
    """Seen: AP 0.371 in bfloat16, 0.369 in float32. The boxes are the true ones: with detected ones AP moves by 0.02
    when the pictures are shifted by some pixels, in either format (a mean over 12 shifts is 0.006 higher in bfloat16).
    """
    half = precision(labelled, estimator(DEFAULT_BLUR, torch.bfloat16), labelled.given_boxes())
    assert half.ap >= single_ap - HALF_MAY_LOSE


@in_half
def test_boxes_in_bfloat16_are_those_in_float32(labelled: LabelledImages, detected: dict[int, Boxes]) -> None:
    half = boxes_of(labelled, torch.bfloat16)
    overlaps = []
    for image_id, boxes in detected.items():
        sure = boxes[boxes.scores > 0.25]
        if len(sure):
            overlaps.extend(sv.box_iou_batch(sure.xyxy, half[image_id].xyxy).max(axis=1))
    print(f"{len(overlaps)} boxes, IoU with their nearest {np.percentile(overlaps, [1, 5, 50])}")
    assert len(overlaps) > 15
    assert np.median(overlaps) > 0.98
    assert np.percentile(overlaps, 5) > 0.9
