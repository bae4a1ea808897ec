"""A stick figure that moves over time: its joints from lengths of limbs and angles, seen from the side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from streampose.frames import Boxes, People
from streampose.networks.pose import COCO_NAMES

HEIGHT_PX = 300.0
FLOOR_Y = 450.0
# Lengths of segments in body heights, from Winter, Biomechanics and Motor Control of Human Movement.
SHANK, THIGH, TRUNK, NECK, HEAD, UPPER_ARM, FOREARM = 0.246, 0.245, 0.288, 0.05, 0.07, 0.186, 0.146
HALF_WIDTH = 0.03
"""Of hips and shoulders: seen nearly from the side."""


@dataclass(frozen=True)
class Stance:
    """Angles of the segments in degrees from the vertical, to the right (clockwise); 0 is upright."""

    shank: float = 0.0
    thigh: float = 0.0
    trunk: float = 0.0
    arm: float = 180.0
    """180 hangs down."""
    x: float = 300.0
    """Of the ankles, in pixels."""
    ankle_y: float = FLOOR_Y


STANDING = Stance()
LYING = Stance(shank=90, thigh=90, trunk=90, arm=90, ankle_y=FLOOR_Y - 15)
SQUAT = Stance(shank=35, thigh=-80, trunk=30, arm=90)
BENT = Stance(trunk=95, arm=170)
CROUCH = Stance(shank=40, thigh=-85, trunk=65, arm=170)
"""Somebody who ties a shoe."""
SITTING_ON_FLOOR = Stance(shank=-90, thigh=-90, trunk=0, arm=170, ankle_y=FLOOR_Y - 15)


def between(first: Stance, second: Stance, share: float) -> Stance:
    """Return the stance on the way between two, 0 to 1."""
    share = min(max(share, 0.0), 1.0)
    values = {
        name: getattr(first, name) + share * (getattr(second, name) - getattr(first, name))
        for name in ("shank", "thigh", "trunk", "arm", "x", "ankle_y")
    }
    return replace(first, **values)


def joints(stance: Stance) -> dict[str, tuple[float, float]]:
    """Return the COCO keypoints in pixels."""

    def step(start: np.ndarray, degrees: float, length: float) -> np.ndarray:
        angle = np.radians(degrees)
        return start + HEIGHT_PX * length * np.array([np.sin(angle), -np.cos(angle)])

    ankle = np.array([stance.x, stance.ankle_y])
    knee = step(ankle, stance.shank, SHANK)
    hip = step(knee, stance.thigh, THIGH)
    shoulder = step(hip, stance.trunk, TRUNK)
    eye = step(shoulder, stance.trunk, NECK + HEAD)
    elbow = step(shoulder, stance.arm, UPPER_ARM)
    wrist = step(elbow, stance.arm, FOREARM)
    middles = {"ankle": ankle, "knee": knee, "hip": hip, "shoulder": shoulder, "eye": eye, "ear": eye, "elbow": elbow}
    middles["wrist"] = wrist
    found = {"nose": tuple(eye + (0, 0.01 * HEIGHT_PX))}
    for name, middle in middles.items():
        for side, sign in (("left", 1), ("right", -1)):
            found[f"{side}_{name}"] = tuple(middle + (sign * HALF_WIDTH * HEIGHT_PX, 0))
    return found


def person(stance: Stance, identity: int = 1, score: float = 0.9) -> People:
    """Return a person with this stance, in a box around their keypoints."""
    at = joints(stance)
    xy = np.array([[at[name] for name in COCO_NAMES]], np.float32)
    margin = 0.06 * HEIGHT_PX
    box = np.concatenate([xy[0].min(axis=0) - margin, xy[0].max(axis=0) + margin])[None].astype(np.float32)
    boxes = Boxes(box, np.array([0.9], np.float32), np.zeros(1, np.int64))
    people = People.of(boxes, xy, np.full((1, len(COCO_NAMES)), score, np.float32))
    return replace(people, track_ids=np.array([identity], np.int64))


Motion = Callable[[float], Stance]


def path(*points: tuple[float, Stance]) -> Motion:
    """Return a motion through stances at times in seconds."""

    def stance_at(t: float) -> Stance:
        for (start_s, first), (end_s, second) in pairwise(points):
            if t < end_s:
                return between(first, second, (t - start_s) / (end_s - start_s))
        return points[-1][1]

    return stance_at
