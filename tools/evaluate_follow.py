"""Prints the loss in accuracy and the gain in speed from following people between detections.

    python -m tools.evaluate_follow FOLDER/*.m* --rounds 2

The demo clip is compared with its exact keypoints. Other clips are compared with detection on every frame. All rows of
a clip come from one run of this program with interleaved rounds. Compare the ratios: absolute rates depend on the
machine and its other load (CPU time depends least on the load). The criteria for people and joints are those of
`tests/test_demo.py`.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import supervision as sv
import torch

from streampose.frames import Boxes, Captured, People, Shrink
from streampose.networks.checkpoints import assets_folder
from streampose.networks.detector import PersonDetector
from streampose.networks.detectors import load_detector
from streampose.networks.device import pick_device, pick_dtype
from streampose.networks.known import DEFAULT_DETECTOR, DEFAULT_POSE
from streampose.networks.pose import PoseEstimator
from streampose.people.similarity import SURE_SCORE
from streampose.pipeline.parts import Feed
from streampose.pipeline.pipeline import Pipeline
from streampose.records.evaluate_keypoints import KeypointMeter
from streampose.records.truth import Truth, read_truth
from streampose.sources.open import DEMO, open_source
from streampose.sources.source import Source

Every = int | Literal["auto"]
EVERY: tuple[Every, ...] = (1, 2, 3, 5, 10, "auto")
LEAST_VISIBLE_JOINTS = 12
"""Only people with so many visible joints are judged."""


class CountingDetector:
    """A detector that counts the frames on which it ran."""

    def __init__(self, detector: PersonDetector) -> None:
        self._detector = detector
        self.name, self.label_of = detector.name, detector.label_of
        self.looks = 0

    def detect(self, images: Sequence[torch.Tensor], shrinks: Sequence[Shrink | None] | None = None) -> list[Boxes]:
        """Run the detector."""
        self.looks += len(images)
        return self._detector.detect(images, shrinks)


class FirstFrames(Source):
    """The first `most` frames of a source; all frames if `most` is None."""

    def __init__(self, source: Source, most: int | None) -> None:
        super().__init__()
        self._source, self._most = source, most
        self.info = source.info

    def captures(self) -> Iterator[Captured]:
        return itertools.islice(self._source.captures(), self._most)

    def close(self) -> None:
        self._source.close()


@dataclass
class Run:
    """The results for one clip at one detection interval."""

    people: list[People] = field(default_factory=list)
    elapsed_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    looks: int = 0


@dataclass(frozen=True)
class Accuracy:
    """Accuracy against the exact keypoints, as shares from 0 to 1. Only people with 12 or more visible joints count."""

    found: float
    """Share of the people that were found, at IoU 0.5."""
    near: float
    """Share of the found people's visible joints that are within 5 % of the box's height."""
    near_of_all: float
    """The same share for all people, including those not found."""


def demo_truth() -> Truth:
    """Return the demo clip's exact boxes and keypoints."""
    return read_truth(assets_folder() / "demo_truth.json")


def judged(found: Sequence[People], truth: Truth) -> Accuracy:
    """Return the accuracy of the people found in the first frames of the clip."""
    meter = KeypointMeter(LEAST_VISIBLE_JOINTS)
    for index, people in enumerate(found):
        true = truth.frames[index]
        meter.add(true, people.keypoints_xy, true.pairs(people.boxes_xyxy))
    return Accuracy(
        meter.found / meter.people, meter.visible_near / meter.visible, meter.visible_near / meter.visible_of_all
    )


def agreement(found: Sequence[People], reference: Sequence[People]) -> tuple[float, float, float]:
    """Compare people with the reference's.

    Returns:
        The share of the reference's people that were found at IoU 0.5; the median distance of their confident keypoints
        as a fraction of the box's height; and the mean number of additional people per frame.
    """
    count = matched = 0
    distances = []
    for people, wanted in zip(found, reference, strict=True):
        for row in range(len(wanted)):
            count += 1
            best, overlap = _best(wanted.boxes_xyxy[row], people)
            if overlap < 0.5:
                continue
            matched += 1
            is_sure = wanted.keypoint_scores[row] >= SURE_SCORE
            height = wanted.boxes_xyxy[row, 3] - wanted.boxes_xyxy[row, 1]
            distances.append(
                np.hypot(*(people.keypoints_xy[best] - wanted.keypoints_xy[row])[is_sure].T).ravel() / height
            )
    more = sum(map(len, found)) - sum(map(len, reference))
    return matched / max(1, count), float(np.median(np.concatenate(distances))), more / len(found)


def _best(box_xyxy: np.ndarray[Any, np.dtype[Any]], people: People) -> tuple[int, float]:
    """Return the index of the person who overlaps a box most, and the IoU."""
    if not len(people):
        return -1, 0.0
    overlaps = sv.box_iou_batch(box_xyxy[None], people.boxes_xyxy)[0]
    best = int(overlaps.argmax())
    return best, float(overlaps[best])


def follow(
    source: Source, detector: PersonDetector, pose: PoseEstimator, every: Every, most: int | None = None
) -> tuple[list[People], Pipeline, int]:
    """Run a source. Return its people frame by frame, the pipeline, and the number of frames that were detected on."""
    counting = CountingDetector(detector)
    pipeline = Pipeline([Feed(FirstFrames(source, most))], counting, pose, None, detect_every=every)
    return [result.people for result in pipeline], pipeline, counting.looks


def main() -> None:
    """Print one table per clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", help="clips to measure in addition to the demo clip")
    parser.add_argument("--frames", type=int, help="use only the first N frames of each clip")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    dtype = pick_dtype(arguments.dtype, device)
    detector = load_detector(DEFAULT_DETECTOR, device=device, dtype=dtype)
    pose = PoseEstimator(DEFAULT_POSE, device=device, dtype=dtype)
    for clip in (DEMO, *arguments.clips):
        runs = {every: Run() for every in EVERY}
        for _ in range(arguments.rounds):
            for every, run in runs.items():
                began_s = time.process_time()
                run.people, pipeline, run.looks = follow(open_source(clip), detector, pose, every, arguments.frames)
                run.elapsed_s.append(pipeline.meter.elapsed_s)
                run.cpu_s.append(time.process_time() - began_s)
        _print_table(clip, runs, f"{device} {dtype}")


def _print_table(clip: str, runs: dict[Every, Run], where: str) -> None:
    reference = runs[1]
    count = len(reference.people)
    print(f"\n{clip}, {count} frames, {sum(map(len, reference.people)) / count:.1f} people a frame, {where}")
    truth = demo_truth() if clip == DEMO else None
    print("| N | detections a frame | ", end="")
    print(
        "found | joints near | near, of all people's | " if truth else "same people | keypoints apart | more | ", end=""
    )
    print("fps | fps ratio | CPU time |\n|---|---|---|---|---|---|---|---|")
    for every, run in runs.items():
        if truth:
            accuracy = judged(run.people, truth)
            figures = f"{accuracy.found:.3f} | {accuracy.near:.3f} | {accuracy.near_of_all:.3f}"
        else:
            same, apart, more = agreement(run.people, reference.people)
            figures = f"{same:.3f} | {apart:.1%} | {more:+.2f}"
        elapsed_s = min(run.elapsed_s)
        print(
            f"| {every} | {run.looks / count:.2f} | {figures} | {count / elapsed_s:.1f} "
            f"| {min(reference.elapsed_s) / elapsed_s:.2f} | {min(run.cpu_s) / min(reference.cpu_s):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
