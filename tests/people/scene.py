"""People made by hand, painted in one colour each, and the frames in which they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streampose.frames import Boxes, Float32, Image, People, Skeleton
from streampose.networks.pose import COCO_EDGES, COCO_NAMES

WIDTH, HEIGHT = 640, 480
SKELETON = Skeleton(COCO_NAMES, COCO_EDGES, ())
# fmt: off
POINTS = np.array(
    [
        [0, 0.05], [0.02, 0.04], [-0.02, 0.04], [0.04, 0.05], [-0.04, 0.05], [0.12, 0.2], [-0.12, 0.2], [0.15, 0.37],
        [-0.15, 0.37], [0.16, 0.5], [-0.16, 0.5], [0.08, 0.52], [-0.08, 0.52], [0.08, 0.75], [-0.08, 0.75],
        [0.08, 0.95], [-0.08, 0.95],
    ],
    np.float32,
)
# fmt: on
"""Somebody who stands, in heights: x from the middle, y from the top of the box."""
RED, GREEN, BLUE, GREY = (40, 40, 200), (40, 180, 40), (200, 60, 40), (120, 120, 120)


@dataclass(frozen=True)
class Body:
    """Where somebody stands, in pixels, and how well the networks see them."""

    x: float
    colour: tuple[int, int, int] = GREY
    top: float = 100.0
    height: float = 200.0
    box_score: float = 0.9
    pose_score: float = 0.8

    @property
    def xyxy(self) -> Float32:
        half = 0.2 * self.height
        return np.array([self.x - half, self.top, self.x + half, self.top + self.height], np.float32)

    @property
    def xy(self) -> Float32:
        return POINTS * np.float32(self.height) + np.array([self.x, self.top], np.float32)


def paint(bodies: Sequence[Body]) -> Image:
    """Return a frame (480, 640, 3) with the bodies, the last one in front."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for body in bodies:
        left, top, right, bottom = np.clip(body.xyxy, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(int)
        image[top:bottom, left:right] = body.colour
    return image


def people_of(bodies: Sequence[Body]) -> People:
    """Return what networks without a fault find."""
    count = len(bodies)
    boxes = Boxes(
        np.array([body.xyxy for body in bodies], np.float32).reshape(-1, 4),
        np.array([body.box_score for body in bodies], np.float32),
        np.zeros(count, np.int64),
    )
    xy = np.array([body.xy for body in bodies], np.float32).reshape(-1, len(POINTS), 2)
    scores = np.array([np.full(len(POINTS), body.pose_score) for body in bodies], np.float32)
    return People.of(boxes, xy, scores.reshape(-1, len(POINTS)))
