"""Angles in the picture: an arc from where they are 0 to the segment, at the keypoints that are drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streampose.drawing.annotator import Annotator
from streampose.errors import UsageError
from streampose.frames import Boxes, Image, People
from streampose.people.angles import AngleMeter
from tests.drawing.test_annotator import COCO
from tests.people.test_angles import points

SCALE = 4.0
GREY = np.full((800, 480, 3), 128, np.uint8)


def person(**moved: tuple[float, float]) -> People:
    """Somebody who stands upright, but for some keypoints, four times as large."""
    xy = (points(**moved) * SCALE).astype(np.float32)
    boxes = Boxes(np.array([[100, 30, 300, 750]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    return People.of(boxes, xy, np.full((1, 17), 0.9, np.float32))


def added(people: People, *angles: str, **settings: float) -> np.ndarray:
    """Where the picture has more with the angles than without them, (H, W)."""
    plain = Annotator(COCO, **settings)
    return np.asarray((plain.but(angles=angles).annotate(GREY, people) != plain.annotate(GREY, people)).any(axis=2))


def test_the_arc_goes_from_the_straight_leg_to_the_shank() -> None:
    people = person(left_ankle=(110, 130))
    places = np.argwhere(added(people, "left_knee"))[:, ::-1] - np.array([60, 130]) * SCALE
    assert len(places)
    assert places.min() > -12, "right of the knee and below it, where the prolonged thigh and the shank are"
    assert np.hypot(*places.T).max() < 90
    drawn = Annotator(COCO, angles=["left_knee"]).annotate(GREY, people)
    # 12 line widths of 2 pixels: half-way between both directions, on the arc.
    x, y = (np.array([60, 130]) * SCALE + 24 * np.sqrt(0.5)).astype(int)
    assert drawn[y - 2 : y + 3, x - 2 : x + 3].min(axis=2).max() > 200, "white"


def test_only_what_is_asked_for_and_can_be_seen() -> None:
    people = person(left_ankle=(110, 130), right_wrist=(10, 60))
    knee, both = added(people, "left_knee"), added(people, "knee", "elbow")
    assert both[knee].all()
    assert both[300:, :].sum() > knee.sum(), "the other knee"
    assert both[180:300, :200].any(), "the bent elbow"
    assert not knee[:300].any()
    scores = people.keypoint_scores.copy()
    scores[0, 15] = 0.29
    assert not added(replace(people, keypoint_scores=scores), "left_knee").any(), "the ankle is unsure"
    assert added(replace(people, keypoint_scores=scores), "left_knee", min_score=0.2).any()
    lost = people.keypoints_xy.copy()
    lost[0, 11] = np.nan
    assert not added(replace(people, keypoints_xy=lost), "left_knee").any()


def test_smoothed_keypoints_are_measured_where_they_are_drawn() -> None:
    raw, smooth = person(left_ankle=(110, 130)), person()
    both = replace(raw, smooth_xy=smooth.keypoints_xy)

    def drawn(people: People) -> Image:
        return Annotator(COCO, angles=["left_knee"]).annotate(GREY, people)

    assert np.array_equal(drawn(both), drawn(smooth))
    assert not np.array_equal(drawn(both), drawn(raw))


@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
def test_every_angle_of_everybody_can_be_drawn(scale: float) -> None:
    people = person()
    people = replace(people, keypoints_xy=people.keypoints_xy * np.float32(scale))
    names = AngleMeter(COCO.names).names
    assert Annotator(COCO, angles=names).annotate(GREY, people).shape == GREY.shape


def test_an_unknown_angle_names_the_right_ones() -> None:
    with pytest.raises(UsageError, match="unknown angle 'wing': this skeleton has left_knee, "):
        Annotator(COCO, angles=["wing"])
