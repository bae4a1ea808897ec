"""Prints how much the keypoints in poses files tremble, and how far they are from the truth where joints move.

streampose run assets/crossing.mp4 --to crossing.jsonl
streampose smooth crossing.jsonl --to smooth.jsonl
python -m tools.evaluate_smoothing assets/crossing_truth.json crossing.jsonl smooth.jsonl
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streampose.frames import NO_TRACK, Float32, Int64
from streampose.people.overlap import best_pairs, box_overlaps
from streampose.records.lines import read_lines
from tools.tracking import Truth, true_frames

SAME_IOU = 0.5
"""Minimum IoU of a box and a true box of the same person."""
LEAST_SCORE = 0.3
"""Keypoints with a lower score are not judged; nor are those that are hidden in truth."""
RESTS, MOVES = 2.0, 40.0
"""A joint rests below the first, and moves above the second of these true speeds, in pixels per second."""


class Posed(NamedTuple):
    """The N people of a frame."""

    pts_s: float
    ids: Int64
    """(N,) `NO_TRACK` for those without an identity, who are not judged."""
    boxes_xyxy: Float32
    """(N, 4) pixels."""
    scores: Float32
    """(N, K)"""
    xy: Float32
    """(N, K, 2) pixels: the keypoints to judge."""


@dataclass(frozen=True, slots=True)
class Smoothness:
    """Mean and median of each."""

    tremble_px: tuple[float, float]
    """How far a joint that rests moves from one frame to the next."""
    moving_error_px: tuple[float, float]
    """How far a joint that moves is from the true one."""
    lag_s: tuple[float, float]
    """How late a joint is that moves: its error along its path, divided by its speed."""


def read_posed(path: str | os.PathLike[str], key: str) -> list[Posed]:
    """Return the frames of a poses file with the keypoints under `key`, which are `keypoints` or `smoothed`."""
    frames = []
    for line in read_lines(path)[1]:
        persons = [person for person in line["people"] if person["id"] is not None]
        count = len(persons)
        frames.append(
            Posed(
                line["pts_s"],
                np.array([person["id"] for person in persons], np.int64),
                np.array([person["box_xyxy"] for person in persons], np.float32).reshape(count, 4),
                np.array([[score for *_, score in person["keypoints"]] for person in persons], np.float32),
                np.array([[xy[:2] for xy in person[key]] for person in persons], np.float32),
            )
        )
    return frames


def smoothness(frames: Sequence[Posed], truth: Truth) -> Smoothness:
    """Judge the frames by the true ones."""
    tremble: list[float] = []
    errors: list[float] = []
    lags: list[float] = []
    before: dict[tuple[int, int], tuple[float, Any, Float32]] = {}
    for frame, true in zip(frames, truth, strict=True):
        true_boxes = np.array([person["box_xyxy"] for person in true["people"]], np.float32).reshape(-1, 4)
        now = {}
        for row, column in best_pairs(box_overlaps(true_boxes, frame.boxes_xyxy), SAME_IOU):
            if frame.ids[column] == NO_TRACK:
                continue
            who = true["people"][row]["id"], int(frame.ids[column])
            points, xy = np.array(true["people"][row]["keypoints"]), frame.xy[column]
            now[who] = frame.pts_s, points, xy
            if who not in before:
                continue
            last_s, last_points, last_xy = before[who]
            velocity = (points - last_points)[:, :2] / (frame.pts_s - last_s)
            speed = np.hypot(*velocity.T)
            is_judged = (points[:, 2] == 2) & (last_points[:, 2] == 2) & (frame.scores[column] > LEAST_SCORE)
            rests, moves = is_judged & (speed < RESTS), is_judged & (speed > MOVES)
            error = xy - points[:, :2]
            tremble += np.hypot(*(xy - last_xy)[rests].T).tolist()
            errors += np.hypot(*error[moves].T).tolist()
            lags += (-(error * velocity).sum(axis=-1)[moves] / speed[moves] ** 2).tolist()
        before = now

    def both(values: list[float]) -> tuple[float, float]:
        return float(np.mean(values)), float(np.median(values))

    return Smoothness(both(tremble), both(errors), both(lags))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", help="the true people, as assets/crossing_truth.json")
    parser.add_argument("poses", nargs="+", help="poses files with identities")
    arguments = parser.parse_args()
    truth = true_frames(arguments.truth)
    print(f"{'mean / median':40} {'tremble, px':>14} {'moving error, px':>17} {'lag, ms':>14}")
    for path in arguments.poses:
        for key in ("keypoints", "smoothed"):
            of = smoothness(read_posed(path, key), truth)
            tremble, error = ("{:.2f} / {:.2f}".format(*values) for values in (of.tremble_px, of.moving_error_px))
            lag = "{:.1f} / {:.1f}".format(*(1e3 * value for value in of.lag_s))
            print(f"{Path(path).name + ' ' + key:40} {tremble:>14} {error:>17} {lag:>14}")


if __name__ == "__main__":
    main()
