"""Who fell, and who only squats, bends, crouches, sits down or does push-ups: a stick figure over time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streampose.networks.pose import COCO_NAMES
from streampose.people.events import Event
from streampose.people.rule_book import rule_book
from streampose.people.rules import Watch
from tests.people.stick import (
    BENT,
    CROUCH,
    LYING,
    SITTING_ON_FLOOR,
    SQUAT,
    STANDING,
    Motion,
    path,
    person,
)

ON_THE_BACK = replace(SITTING_ON_FLOOR, trunk=-90, arm=-90)
FALL = path((0, STANDING), (2, STANDING), (2.8, LYING))


def events(
    motion: Motion, *, until_s: float = 10.0, fps: float = 25.0, when: str = "fell", noise_px: float = 0.0
) -> list[Event]:
    book = rule_book({"rules": {"fall": {"when": when}}}, "rules.toml")
    watch = Watch(book, "cam", COCO_NAMES)
    rng = np.random.default_rng(1)
    told = []
    for index in range(round(until_s * fps)):
        people = person(motion(index / fps))
        people.keypoints_xy[:] += rng.normal(0, noise_px or 1e-9, people.keypoints_xy.shape)
        told += watch.update(people, index / fps, index, width=900, height=480)
    return told


@pytest.mark.parametrize("fps", [5, 10, 25, 30, 60])
@pytest.mark.parametrize("noise_px", [0.0, 6.0])
def test_a_fall_is_told_once(fps: int, noise_px: float) -> None:
    (fall,) = events(FALL, fps=fps, noise_px=noise_px)
    assert (fall.kind, fall.rule, fall.person) == ("start", "fall", 1)
    assert 2.3 <= fall.since_s <= 3.0
    assert fall.time_s == pytest.approx(fall.since_s + 3, abs=0.5 / fps + 1e-6 if fps < 25 else 0.03)


def test_the_frame_of_a_fall_is_exact() -> None:
    # The trunk turns by 90 degrees from 2.0 to 2.8 s: 60 degrees, 30 from the horizontal, are reached at 2.533 s.
    (fall,) = events(FALL)
    assert (fall.since_s, fall.frame) == (64 / 25, 64 + 75)
    assert fall.values["trunk_steepness"] == pytest.approx(0, abs=1)


@pytest.mark.parametrize("side", [1, -1])
def test_to_the_left_and_to_the_right(side: int) -> None:
    lying = LYING if side > 0 else replace(LYING, shank=-90, thigh=-90, trunk=-90, arm=-90, x=500)
    standing = replace(STANDING, x=lying.x)
    assert [one.kind for one in events(path((0, standing), (2, standing), (2.6, lying)))] == ["start"]


@pytest.mark.parametrize(
    "motion",
    [
        path((0, STANDING), (2, STANDING), (2.8, SQUAT)),
        path((0, STANDING), (1, STANDING), (1.5, SQUAT), (6, SQUAT), (6.5, STANDING)),
        path((0, STANDING), (2, STANDING), (2.5, BENT)),
        path((0, STANDING), (2, STANDING), (2.7, CROUCH)),
        path((0, STANDING), (2, STANDING), (3, SITTING_ON_FLOOR)),
        path((0, LYING), (1, LYING)),
        path((0, SITTING_ON_FLOOR), (3, SITTING_ON_FLOOR), (4, ON_THE_BACK)),
        path((0, STANDING), (1, STANDING), (2.5, CROUCH), (5, CROUCH), (7, LYING)),
        path((0, STANDING), (1, STANDING), (1.8, LYING), (2.8, LYING), (3.8, STANDING)),
    ],
    ids=["squat", "up again", "bend", "crouch", "sits", "lies", "lies back", "lies down slowly", "burpee"],
)
@pytest.mark.parametrize("noise_px", [0.0, 6.0])
def test_what_is_no_fall(motion: Motion, noise_px: float) -> None:
    assert events(motion, noise_px=noise_px) == []


def test_push_ups_from_a_lying_start() -> None:
    up = replace(LYING, shank=72, thigh=72, trunk=72, arm=180)
    points = [(k, up if k % 2 else LYING) for k in range(10)]
    assert events(path(*points)) == []
    lying = events(path(*points), when="trunk within 30 degrees of horizontal for 3 s")
    assert [one.kind for one in lying] == ["start"], "the elementary rule cannot tell"


def test_a_fall_and_getting_up() -> None:
    motion = path((0, STANDING), (2, STANDING), (2.6, LYING), (8, LYING), (9, STANDING))
    start, end = events(motion, until_s=12)
    assert (start.kind, end.kind, start.number, end.number) == ("start", "end", 1, 1)
    assert 8.0 <= end.until_s <= 8.5
    assert end.time_s == pytest.approx(end.until_s + 1)


def test_one_side_of_the_body_is_enough() -> None:
    book = rule_book({"rules": {"fall": {"when": "fell"}}}, "rules.toml")
    watch = Watch(book, "cam", COCO_NAMES)
    told = []
    for index in range(200):
        people = person(FALL(index / 25))
        people.keypoint_scores[:, [k for k, name in enumerate(COCO_NAMES) if name.startswith("right")]] = 0.1
        told += watch.update(people, index / 25, index, width=900, height=480)
    assert [one.kind for one in told] == ["start"]
    watch = Watch(book, "cam", COCO_NAMES)
    for index in range(200):
        people = person(FALL(index / 25))
        people.keypoint_scores[:] = 0.1
        assert watch.update(people, index / 25, index, width=900, height=480) == []
