"""The whole chain on labelled pictures, against the Hugging Face processor with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
import torch

from streampose.frames import Boxes
from streampose.networks.checkpoints import assets_folder
from streampose.networks.device import pick_dtype
from streampose.networks.known import DEFAULT_POSE
from streampose.networks.pose import DEFAULT_BLUR, PoseEstimator
from tools.evaluate import Labelled, hf_reference, ours

CPU = torch.device("cpu")
MAY_LOSE = 0.01
"""AP under the reference that would still pass; 30 people make one worth several points."""
HALF_MAY_LOSE = 0.003
"""AP of bfloat16 under float32's that would still pass."""


def in_half(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test of bfloat16 as long where the processor has no units for it: there nobody uses it, and it is slow."""
    return pytest.mark.long(test) if pick_dtype("auto", CPU) == torch.float32 else test


@pytest.fixture(scope="module")
def labelled(labelled_data: Path) -> Labelled:
    return Labelled(labelled_data / "labelled")


@pytest.fixture(scope="module")
def detected(labelled: Labelled) -> dict[int, Boxes]:
    """The boxes that the bundled detector finds at full precision."""
    return labelled.detected_boxes(CPU, torch.float32)


@pytest.fixture(scope="module")
def single_ap(labelled: Labelled) -> float:
    """The average precision at full precision on the true boxes."""
    ap, ap50 = labelled.average_precision(ours(estimator(DEFAULT_BLUR), CPU), labelled.true_boxes())
    print(f"true boxes: AP {ap:.3f}, AP50 {ap50:.3f}")
    return ap


def estimator(blur: str, dtype: torch.dtype = torch.float32) -> PoseEstimator:
    return PoseEstimator(DEFAULT_POSE, device=CPU, dtype=dtype, blur=blur)


def test_keypoints_are_the_reference_chains(labelled: Labelled) -> None:
    reference, same = hf_reference(assets_folder() / "models" / DEFAULT_POSE), ours(estimator("hf"), CPU)
    people = 0
    for image_id, boxes in labelled.true_boxes().items():
        keypoints, scores = same(labelled.images[image_id], boxes)
        wanted_keypoints, wanted_scores = reference(labelled.images[image_id], boxes)
        assert np.abs(keypoints - wanted_keypoints).max() <= 0.1, "pixels"
        assert np.abs(scores - wanted_scores).max() <= 1e-3
        people += len(boxes)
    assert people >= 30


def test_average_precision_is_not_under_the_reference_chains(
    labelled: Labelled, single_ap: float, detected: dict[int, Boxes]
) -> None:
    assert single_ap >= 0.36 - MAY_LOSE
    ap, ap50 = labelled.average_precision(ours(estimator(DEFAULT_BLUR), CPU), detected)
    print(f"detected boxes: AP {ap:.3f}, AP50 {ap50:.3f}")
    assert ap >= 0.30 - MAY_LOSE


@in_half
def test_bfloat16_loses_no_precision(labelled: Labelled, single_ap: float) -> None:
    """Seen: AP 0.371 in bfloat16, 0.369 in float32. The boxes are the true ones: with detected ones AP moves by 0.02
    when the pictures are shifted by some pixels, in either format (a mean over 12 shifts is 0.006 higher in bfloat16).
    """
    half = ours(estimator(DEFAULT_BLUR, torch.bfloat16), CPU)
    assert labelled.average_precision(half, labelled.true_boxes())[0] >= single_ap - HALF_MAY_LOSE


@in_half
def test_boxes_in_bfloat16_are_those_in_float32(labelled: Labelled, detected: dict[int, Boxes]) -> None:
    half = labelled.detected_boxes(CPU, torch.bfloat16)
    overlaps = []
    for image_id, boxes in detected.items():
        sure = boxes[boxes.scores > 0.25]
        if len(sure):
            overlaps.extend(sv.box_iou_batch(sure.xyxy, half[image_id].xyxy).max(axis=1))
    print(f"{len(overlaps)} boxes, IoU with their nearest {np.percentile(overlaps, [1, 5, 50])}")
    assert len(overlaps) > 15
    assert np.median(overlaps) > 0.98
    assert np.percentile(overlaps, 5) > 0.9
