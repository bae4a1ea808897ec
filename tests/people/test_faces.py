"""Where faces are: covered whole, at every size and turn, and for a moment longer than they are found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streampose.frames import NO_TRACK, Boxes, People, Skeleton
from streampose.people.faces import HOLD_S, FaceFinder, FaceMemory
from tests.people.scene import SKELETON, Body, people_of

HEAD_CM, HEIGHT_CM = 23.0, 170.0


def covers(places: np.ndarray, rectangle: tuple[float, float, float, float]) -> bool:
    left, top, right, bottom = rectangle
    x, y = np.meshgrid(np.linspace(left, right, 9), np.linspace(top, bottom, 9))
    inside = (places[:, None, None, :2] <= np.stack([x, y], axis=-1)) & (
        np.stack([x, y], axis=-1) <= places[:, None, None, 2:]
    )
    return bool(inside.all(axis=-1).any(axis=0).all())


def head_of(body: Body) -> tuple[float, float, float, float]:
    """From the top of the head to the chin, and a bit wider than from ear to ear."""
    half = 0.05 * body.height
    return body.x - half, body.top, body.x + half, body.top + HEAD_CM / HEIGHT_CM * body.height


@pytest.mark.parametrize("height", [30.0, 200.0, 900.0])
@pytest.mark.parametrize("score", [0.05, 0.35, 0.9])
def test_the_whole_head_is_covered_whatever_the_scores(height: float, score: float) -> None:
    body = Body(300, height=height, pose_score=score)
    places = FaceFinder(SKELETON.names).find(people_of([body]))
    assert covers(places, head_of(body))
    low, high = places[:, :2].min(axis=0), places[:, 2:].max(axis=0)
    assert high[1] - low[1] < (0.35 if score > 0.3 else 0.65) * height, "and not the whole person"


def test_a_face_near_the_camera_is_covered() -> None:
    """Head and shoulders only: the box says nothing about the size of the person."""
    people = people_of([Body(300, height=1700)])
    people = replace(people, boxes_xyxy=np.array([[100, 90, 520, 560]], np.float32))
    scores = people.keypoint_scores.copy()
    scores[:, 7:] = 0.01
    assert covers(FaceFinder(SKELETON.names).find(replace(people, keypoint_scores=scores)), (215, 100, 385, 330))


def test_somebody_whose_head_is_unsure_has_the_top_of_the_box_hidden() -> None:
    people = people_of([Body(300)])
    scores = people.keypoint_scores.copy()
    scores[:, :5] = 0.1
    astray = people.keypoints_xy.copy()
    astray[:, :5] = 20, 20
    places = FaceFinder(SKELETON.names).find(replace(people, keypoint_scores=scores, keypoints_xy=astray))
    left, top, right, _ = people.boxes_xyxy[0].tolist()
    assert covers(places, (left, top, right, top + 70))
    assert covers(places, (19, 19, 21, 21)), "where the head may be, too"
    lying = replace(people, keypoint_scores=scores, boxes_xyxy=np.array([[100, 200, 300, 280]], np.float32))
    assert covers(FaceFinder(SKELETON.names).find(lying), (100, 200, 300, 280))


def test_head_keypoints_far_apart_are_unsure() -> None:
    people = people_of([Body(300)])
    xy = people.keypoints_xy.copy()
    xy[:, 4] = 500, 250
    places = FaceFinder(SKELETON.names).find(replace(people, keypoints_xy=xy))
    assert covers(places, head_of(Body(300)))
    assert covers(places, (495, 245, 505, 255))
    assert (places[:, 2] - places[:, 0]).max() < 120, "and not everything in between"


@pytest.mark.parametrize("names", [("a", "b"), ("Forearm", "L_Earlobe"), ("left_wrist", "right_wrist")])
def test_a_skeleton_without_a_head_has_the_top_of_its_box_hidden(names: tuple[str, str]) -> None:
    boxes = Boxes(np.array([[10, 10, 50, 110]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    people = People.of(boxes, np.full((1, 2, 2), 60, np.float32), np.ones((1, 2), np.float32))
    places = FaceFinder(Skeleton(names, (), ()).names).find(people)
    assert len(places) == 1
    assert covers(places, (10, 10, 50, 49))


def test_nobody_and_nothing() -> None:
    finder = FaceFinder(SKELETON.names)
    assert finder.find(People.none(17)).shape == (0, 4)
    people = people_of([Body(300)])
    lost = replace(
        people,
        keypoints_xy=np.full((1, 17, 2), np.nan, np.float32),
        keypoint_scores=np.zeros((1, 17), np.float32),
        track_ids=np.array([NO_TRACK]),
    )
    assert covers(finder.find(lost), head_of(Body(300)))
    assert np.isfinite(finder.find(replace(lost, boxes_xyxy=np.full((1, 4), np.nan, np.float32)))).all()


def test_a_face_stays_hidden_for_a_moment_where_it_was() -> None:
    memory, finder = FaceMemory(), FaceFinder(SKELETON.names)
    both, left = finder.find(people_of([Body(100), Body(400)])), finder.find(people_of([Body(103)]))
    assert len(memory.update(both, 0.0)) == 2
    held = memory.update(left, 0.04)
    np.testing.assert_array_equal(held, [*left, both[1]])
    np.testing.assert_array_equal(memory.update(left, HOLD_S), [*left, both[1]])
    np.testing.assert_array_equal(memory.update(left, HOLD_S + 0.01), left)
    assert len(memory.update(left[:0], 2 * HOLD_S)) == 1
    assert len(memory.update(left[:0], 3 * HOLD_S)) == 0


def test_stills_have_nothing_to_do_with_each_other() -> None:
    memory, finder = FaceMemory(0.0), FaceFinder(SKELETON.names)
    places = finder.find(people_of([Body(100)]))
    assert len(memory.update(places, 0.0)) == 1
    assert len(memory.update(places[:0], 0.04)) == 0
