"""Measures the accuracy of pose networks on labelled images, and the speed of the networks there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from streampose.bench.labelled import LabelledImages, detected_boxes, estimated_people
from streampose.frames import People
from streampose.networks.checkpoints import resolve
from streampose.networks.detectors import load_detector
from streampose.networks.device import default_batches, pick_device, pick_dtype
from streampose.networks.pose import DEFAULT_BLUR, PoseEstimator
from streampose.records.coco_truth import CocoTruth
from streampose.records.evaluate_coco import CocoFigures, judge_coco, needs_coco
from streampose.records.evaluate_keypoints import KeypointAccuracy, KeypointMeter
from streampose.records.evaluate_table import Rows, coco_rows, keypoint_rows, markdown, row

BoxSource = Literal["given", "detected"]
"""Whose boxes the pose networks get: the annotations', or a detector's."""


@dataclass(frozen=True, slots=True)
class CheckpointReport:
    """The figures of a pose network."""

    pose: str
    keypoints_judged: int
    """Keypoints of a person that both the network and the annotations have."""
    coco: CocoFigures
    keypoints: KeypointAccuracy
    pose_ms_per_person: float | None
    """Wall-clock time of the pose network in batches, with crops and decoding; None without people."""
    images_per_s: float | None
    """Images per second of wall-clock time of all networks that ran, without reading; None without people."""


@dataclass(frozen=True, slots=True)
class AccuracyReport:
    """The figures of several pose networks on the same images and boxes."""

    annotations: str
    folder: str
    images: int
    images_missing: int
    """Images of the annotations that are not in the folder. They are left out."""
    people: int
    """People with labelled keypoints in the images, without crowds."""
    keypoints_in_truth: int
    boxes: BoxSource
    detector: str | None
    """None with given boxes."""
    least_box_score: float | None
    detector_ms_per_image: float | None
    device: str
    dtype: str
    heatmap_blur: str
    flip_test: bool
    checkpoints: list[CheckpointReport]


def keypoint_accuracy(
    truth: CocoTruth, found: Mapping[int, People], names: Sequence[str], of: str, *, boxes: BoxSource
) -> KeypointAccuracy:
    """Return the share of the people found and PCK.

    With given boxes, the people found are those of the truth in the same order. The other arguments are those of
    `judge_coco`.
    """
    own, theirs = truth.shared_keypoints(names, of)
    meter = KeypointMeter()
    for number, people in found.items():
        true = truth.frames[number].with_keypoints(own)
        pairs = [(row, row) for row in range(len(people))] if boxes == "given" else true.pairs(people.boxes_xyxy)
        meter.add(true, people.keypoints_xy[:, theirs], pairs)
    return meter.result()


def run_evaluation(
    annotations: str,
    folder: str,
    *,
    poses: Sequence[str],
    detector: str,
    box_source: BoxSource = "given",
    least_box_score: float = 0.1,
    device: str = "auto",
    dtype: str = "auto",
    heatmap_blur: str | None = None,
    flip_test: bool = False,
    dataset_index: int | None = None,
    detect_batch: int | None = None,
    pose_batch: int | None = None,
    allow_pickle: bool = False,
) -> AccuracyReport:
    """Measure pose networks on labelled images.

    The arguments not listed here are those of `streampose.stream`.

    Args:
        annotations: a file of COCO keypoint annotations.
        folder: the folder of its images.
        poses: the pose networks.
        box_source: whose boxes the pose networks get.
        least_box_score: with detected boxes, drop boxes with a lower score.

    Raises:
        UsageError: a value, the annotations or an image is invalid, or pycocotools is not installed.
        SourceError: an image cannot be read.
        ModelError: a network cannot be loaded or run.
    """
    needs_coco()
    images = LabelledImages(annotations, folder)
    for name in poses:
        resolve(name, allow_pickle=allow_pickle)  # fail before the first is measured, not after
    where = pick_device(device)
    precision = pick_dtype(dtype, where)
    usual = default_batches(where)
    detect_batch, pose_batch = detect_batch or usual[0], pose_batch or usual[1]
    boxes, detector_s = images.given_boxes(), 0.0
    if box_source == "detected":
        loaded = load_detector(
            detector,
            device=where,
            dtype=precision,
            threshold=least_box_score,
            max_batch=detect_batch,
            allow_pickle=allow_pickle,
        )
        boxes, detector_s = detected_boxes(images, loaded, where, detect_batch)
        del loaded
    checkpoints = []
    for name in poses:
        estimator = PoseEstimator(
            name,
            device=where,
            dtype=precision,
            blur=heatmap_blur or DEFAULT_BLUR,
            dataset_index=dataset_index,
            flip_test=flip_test,
            max_batch=pose_batch,
            allow_pickle=allow_pickle,
        )
        names = estimator.skeleton.names
        judged = len(images.truth.shared_keypoints(names, estimator.name)[0])
        people, pose_s = estimated_people(images, boxes, estimator, detect_batch)
        count, elapsed_s = sum(map(len, people.values())), detector_s + pose_s
        checkpoints.append(
            CheckpointReport(
                estimator.name,
                judged,
                judge_coco(images.truth, people, names, estimator.name),
                keypoint_accuracy(images.truth, people, names, estimator.name, boxes=box_source),
                pose_s * 1e3 / count if count else None,
                len(images) / elapsed_s if count else None,
            )
        )
    is_detected = box_source == "detected"
    return AccuracyReport(
        annotations=images.truth.name,
        folder=images.name,
        images=len(images),
        images_missing=images.missing,
        people=images.labelled_people(),
        keypoints_in_truth=len(images.truth.names),
        boxes=box_source,
        detector=detector if is_detected else None,
        least_box_score=least_box_score if is_detected else None,
        detector_ms_per_image=detector_s * 1e3 / len(images) if is_detected else None,
        device=str(where),
        dtype=str(precision).removeprefix("torch."),
        heatmap_blur=heatmap_blur or DEFAULT_BLUR,
        flip_test=flip_test,
        checkpoints=checkpoints,
    )


def accuracy_table(report: AccuracyReport) -> str:
    """Return the report as a line and a table in Markdown, with a column for each pose network."""
    of = report
    boxes = "labelled boxes"
    if of.detector is not None:
        boxes = f"boxes of {of.detector} with a score of at least {of.least_box_score:g}"
    images = f"{of.images} of {of.images + of.images_missing}" if of.images_missing else str(of.images)
    quality = f"blur {of.heatmap_blur}{', flip test' if of.flip_test else ''}"
    rows: Rows = [
        ("keypoints judged", [f"{one.keypoints_judged} of {of.keypoints_in_truth}" for one in of.checkpoints])
    ]
    rows += coco_rows([one.coco for one in of.checkpoints])
    of_keypoints = keypoint_rows([one.keypoints for one in of.checkpoints])
    rows += of_keypoints if of.boxes == "detected" else of_keypoints[1:]  # with given boxes, everybody is found
    rows += [
        row("pose network, ms per person", [one.pose_ms_per_person for one in of.checkpoints], _speed),
        row("detector, ms per image", [of.detector_ms_per_image] * len(of.checkpoints), _speed),
        row("networks, images per s", [one.images_per_s for one in of.checkpoints], _speed),
    ]
    head = f"{images} images of {of.annotations} with {of.people} people, {boxes}; {of.device}, {of.dtype}, {quality}"
    return f"{head}\n\n{markdown([one.pose for one in of.checkpoints], rows)}"


def _speed(value: float) -> str:
    return f"{value:#.3g}" if value < 100 else f"{value:.0f}"
