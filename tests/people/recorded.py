"""The poses that the bundled networks find on the crossing clip, with the true identities, and how smooth they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from streampose.frames import NO_TRACK, Boxes, Float32, People
from streampose.networks.checkpoints import assets_folder
from streampose.people.both_ways import Timed
from streampose.records.evaluate_smoothness import Posed, Smoothness
from streampose.records.evaluate_smoothness import smoothness as judged
from streampose.records.truth import Truth, read_truth

FPS = 25
POSES = Path(__file__).parent / "data/crossing_poses.npz"


@cache
def truth() -> Truth:
    return read_truth(assets_folder() / "crossing_truth.json")


def recorded_people(frame_count: int) -> list[People]:
    """Return what the bundled networks find in each frame, without identities."""
    data = np.load(POSES)
    people = []
    for index in range(frame_count):
        rows = data["frame"] == index
        boxes = Boxes(
            (data["boxes"][rows] / 10).astype(np.float32),
            (data["box_scores"][rows] / 1e4).astype(np.float32),
            np.zeros(rows.sum(), np.int64),
        )
        scores = (data["scores"][rows] / 1e4).astype(np.float32)
        people.append(People.of(boxes, (data["xy"][rows] / 10).astype(np.float32), scores))
    return people


@cache
def crossing() -> list[Timed]:
    frames = []
    for index, people in enumerate(recorded_people(len(truth().frames))):
        true = truth().frames[index]
        ids = np.full(len(people), NO_TRACK)
        for row, column in true.pairs(people.boxes_xyxy):
            ids[column] = true.ids[row] + 1
        frames.append(Timed(index / FPS, replace(people, track_ids=ids)))
    return frames


def smoothness(smoothed: Sequence[Float32]) -> Smoothness:
    """Judge smoothed keypoints of the clip."""
    return judged(
        (Posed(pts_s, people.track_ids, people.boxes_xyxy, people.keypoint_scores, xy), truth().frames[index])
        for index, ((pts_s, people), xy) in enumerate(zip(crossing(), smoothed, strict=True))
    )
