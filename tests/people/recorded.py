"""The poses that the bundled networks find on the crossing clip, with the true identities, and how smooth they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from streampose.frames import NO_TRACK, Boxes, Float32, People
from streampose.networks.checkpoints import assets_folder
from streampose.people.both_ways import Timed
from streampose.people.overlap import best_pairs, box_overlaps

POSES = Path(__file__).parent / "data/crossing_poses.npz"
LEAST_SCORE = 0.3
RESTS, MOVES = 2.0, 40.0
"""Below and above these true speeds, in pixels per second."""


@cache
def truth() -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = json.loads((assets_folder() / "crossing_truth.json").read_text("utf-8"))["frames"]
    return frames


@cache
def crossing() -> list[Timed]:
    data = np.load(POSES)
    frames = []
    for index, true in enumerate(truth()):
        rows = data["frame"] == index
        boxes = Boxes(
            (data["boxes"][rows] / 10).astype(np.float32),
            (data["box_scores"][rows] / 1e4).astype(np.float32),
            np.zeros(rows.sum(), np.int64),
        )
        scores = (data["scores"][rows] / 1e4).astype(np.float32)
        people = People.of(boxes, (data["xy"][rows] / 10).astype(np.float32), scores)
        ids = np.full(len(people), NO_TRACK)
        true_boxes = np.array([person["box_xyxy"] for person in true["people"]], np.float32).reshape(-1, 4)
        for row, column in best_pairs(box_overlaps(true_boxes, boxes.xyxy), 0.5):
            ids[column] = true["people"][row]["id"] + 1
        frames.append(Timed(true["pts_s"], replace(people, track_ids=ids)))
    return frames


@dataclass(frozen=True)
class Smoothness:
    """Means, in pixels."""

    tremble: float
    """How far a joint that rests in truth moves from frame to frame."""
    moving_error: float
    """How far a joint that moves is from the true one."""


def smoothness(frames: Sequence[Timed], smoothed: Sequence[Float32]) -> Smoothness:
    tremble: list[float] = []
    error: list[float] = []
    before: dict[int, tuple[float, Any, Float32]] = {}
    for (pts_s, people), true, all_xy in zip(frames, truth(), smoothed, strict=True):
        points_of = {person["id"] + 1: np.array(person["keypoints"]) for person in true["people"]}
        now = {}
        for number, scores, xy in zip(people.track_ids.tolist(), people.keypoint_scores, all_xy, strict=True):
            if number == NO_TRACK:
                continue
            now[number] = pts_s, points_of[number], xy
            if number not in before:
                continue
            last_s, last_points, last_xy = before[number]
            points = points_of[number]
            speeds = np.hypot(*(points - last_points)[:, :2].T) / (pts_s - last_s)
            is_seen = (points[:, 2] == 2) & (last_points[:, 2] == 2) & (scores > LEAST_SCORE)
            tremble += np.hypot(*(xy - last_xy).T)[is_seen & (speeds < RESTS)].tolist()
            error += np.hypot(*(xy - points[:, :2]).T)[is_seen & (speeds > MOVES)].tolist()
        before = now
    assert len(tremble) > 300
    assert len(error) > 5000
    return Smoothness(float(np.mean(tremble)), float(np.mean(error)))
