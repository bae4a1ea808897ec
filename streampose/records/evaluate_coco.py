"""Average precision and recall of keypoints, as pycocotools judges them (https://cocodataset.org/#keypoints-eval)."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streampose.errors import UsageError
from streampose.frames import People
from streampose.people.names import COCO_NAMES, plain_names
from streampose.records.coco_truth import CocoTruth
from streampose.records.tables import needs

_log = logging.getLogger("streampose")


@dataclass(frozen=True, slots=True)
class CocoFigures:
    """Average precision (AP) and recall (AR), 0..1; None if no such person is labelled.

    Without a number, they are means over the thresholds 0.50, 0.55, ... 0.95 of the similarity (OKS).
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_medium: float | None
    """For people of 32^2 to 96^2 square pixels."""
    ap_large: float | None
    """For larger people."""
    ar: float | None
    ar50: float | None
    ar75: float | None
    ar_medium: float | None
    ar_large: float | None


def needs_coco() -> tuple[Any, Any]:
    """Return pycocotools' classes `COCO` and `COCOeval`. Raises `UsageError` if it is not installed."""
    return needs("pycocotools.coco", "evaluate").COCO, needs("pycocotools.cocoeval", "evaluate").COCOeval


def judge_coco(truth: CocoTruth, found: Mapping[int, People], names: Sequence[str], of: str) -> CocoFigures:
    """Judge the people found in some images, over these images.

    The score of a person is their mean keypoint score multiplied by their box score. Keypoints are matched by name.
    Those that the people found do not have, and those for which COCO defines no tolerance, are left out of the truth.

    Args:
        truth: the annotations.
        found: the people by the id of the image, also if there are none.
        names: the names of their keypoints.
        of: whose keypoints they are, for messages.

    Raises:
        UsageError: pycocotools is not installed, or no keypoint is left.
    """
    coco_class, judge_class = needs_coco()
    own, theirs = truth.shared_keypoints(names, of)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        tolerances = dict(zip(COCO_NAMES, judge_class(iouType="keypoints").params.kpt_oks_sigmas, strict=True))
        plain = [plain_names(truth.names)[number] for number in own]
        is_tolerated = np.array([name in tolerances for name in plain])
        if not is_tolerated.all():
            without = [name for name in plain if name not in tolerances]
            if len(without) == len(plain):
                raise UsageError(f"{truth.name} has no keypoint of COCO's, so AP is not defined for it")
            _log.warning("AP leaves out %s: COCO defines no tolerance for it", ", ".join(without))
        own, theirs = own[is_tolerated], theirs[is_tolerated]
        labelled = _labelled(truth, own, coco_class)
        evaluation = judge_class(labelled, _results(truth, found, theirs, labelled, coco_class), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array([tolerances[name] for name in plain if name in tolerances])
        evaluation.params.imgIds = sorted(found)
        evaluation.params.catIds = [truth.category["id"]]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return CocoFigures(*(None if value < 0 else float(value) for value in evaluation.stats))


def _labelled(truth: CocoTruth, own: Any, coco_class: Any) -> Any:
    """Return the annotations with some of the keypoints as pycocotools has them."""
    annotations = []
    for one in truth.annotations:
        if len(own) < len(truth.names):
            kept = np.array(one["keypoints"], np.float64).reshape(-1, 3)[own]
            one = {**one, "keypoints": kept.ravel().tolist(), "num_keypoints": int((kept[:, 2] > 0).sum())}
        annotations.append(dict(one))
    coco = coco_class()
    coco.dataset = {
        "images": list(truth.images.values()),
        "annotations": annotations,
        "categories": [truth.category],
    }
    coco.createIndex()
    return coco


def _results(truth: CocoTruth, found: Mapping[int, People], theirs: Any, labelled: Any, coco_class: Any) -> Any:
    """Return the people found as pycocotools has them."""
    results = []
    for image_id, people in found.items():
        xy, scores = people.keypoints_xy[:, theirs], people.keypoint_scores[:, theirs]
        for points, of_points, box_score in zip(xy, scores, people.box_scores, strict=True):
            results.append(
                {
                    "image_id": image_id,
                    "category_id": truth.category["id"],
                    "keypoints": np.nan_to_num(np.column_stack([points, of_points])).ravel().tolist(),
                    "score": float(of_points.mean() * box_score),
                }
            )
    if results:
        return labelled.loadRes(results)
    none = coco_class()  # loadRes does not accept an empty list
    none.dataset = {**labelled.dataset, "annotations": []}
    none.createIndex()
    return none
