"""What a window shows of a source, without a window."""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

from streampose.drawing.annotator import Annotator
from streampose.frames import NO_TRACK, Frame, People, Result
from streampose.people.only import Only
from streampose.sinks.controls import Controls
from streampose.sinks.view import View
from streampose.sinks.window import Cells
from tests.people.scene import BLUE, GREEN, HEIGHT, RED, SKELETON, WIDTH, Body, paint, people_of
from tests.sinks.helpers import run_info

LEFT, RIGHT = Body(100, RED, height=300), Body(500, GREEN)
INSIDE = Body(110, BLUE, top=200, height=100)
"""A small person before the large one on the left."""


def result_of(*bodies: Body, ids: list[int] | None = None, aspect: Fraction = Fraction(1)) -> Result:
    tracks = np.array(list(range(1, len(bodies) + 1)) if ids is None else ids, np.int64)
    people = replace(people_of(bodies), track_ids=tracks)
    frame = Frame("clip", 0, 0.0, time.monotonic(), paint(bodies), pixel_aspect=aspect)
    return Result(frame, people, SKELETON)


def view_of(result: Result, *, mirror: bool | None = None, is_camera: bool = False) -> tuple[View, Annotator, Only]:
    view, annotator, only = View(mirror=mirror), Annotator(SKELETON), Only(None)
    view.take(Controls(annotator, only))
    view.begin(replace(run_info(is_live=is_camera).source, is_camera=is_camera))
    view.put(result)
    view.picture()
    return view, annotator, only


@pytest.mark.parametrize(
    ("mirror", "is_camera", "expected"),
    [(None, False, False), (None, True, True), (True, False, True), (False, True, False)],
)
def test_a_camera_of_this_machine_is_mirrored(mirror: bool | None, is_camera: bool, expected: bool) -> None:
    result = result_of(LEFT)
    view, annotator, _ = view_of(result, mirror=mirror, is_camera=is_camera)
    image, people = result.frame.image, result.people
    if expected:
        image, people = np.asarray(cv2.flip(image, 1), np.uint8), people.mirrored(WIDTH)
    assert np.array_equal(view.picture(), annotator.annotate(image, people))
    assert view.mirror() == ("not mirrored" if expected else "mirrored")
    assert (view.picture()[:, : WIDTH // 2] == RED).all(2).any() == expected


def test_mirrored_twice_is_the_same() -> None:
    people = result_of(LEFT, RIGHT).people
    people = replace(people, smooth_xy=people.keypoints_xy + 3)
    once = people.mirrored(WIDTH)
    assert (once.boxes_xyxy[:, 0] < once.boxes_xyxy[:, 2]).all()
    np.testing.assert_allclose(once.keypoints_xy[..., 0], WIDTH - 1 - people.keypoints_xy[..., 0])
    again = once.mirrored(WIDTH)
    assert again.smooth_xy is not None
    assert people.smooth_xy is not None
    np.testing.assert_allclose(again.boxes_xyxy, people.boxes_xyxy, atol=1e-3)
    np.testing.assert_allclose(again.smooth_xy, people.smooth_xy, atol=1e-3)


def test_keys_change_the_drawing_here_only() -> None:
    result = result_of(LEFT)
    view, annotator, _ = view_of(result)
    assert view.move_threshold(1) == "keypoint threshold 0.35"
    assert view.change_style() == "style: weighted"
    assert view.toggle_labels() == "labels"
    changed = annotator.but(min_score=0.35, style="weighted", labels=True)
    assert np.array_equal(view.picture(), changed.annotate(result.frame.image, result.people))
    assert not np.array_equal(view.picture(), annotator.annotate(result.frame.image, result.people))
    assert [view.move_threshold(-1) for _ in range(9)][-1] == "keypoint threshold 0.00"
    assert [view.change_style(), view.toggle_labels()] == ["style: lines", "no labels"]


def test_what_is_drawn_already_is_shown_unless_the_user_wants_it_otherwise() -> None:
    result = result_of(LEFT)
    drawn = np.full_like(result.frame.image, 7)
    view, annotator, _ = view_of(result.with_drawn(drawn))
    assert np.array_equal(view.picture(), drawn)
    view.move_threshold(1)
    expected = annotator.but(min_score=0.35).annotate(result.frame.image, result.people)
    assert np.array_equal(view.picture(), expected)


def test_without_an_annotator_it_is_the_drawn_picture() -> None:
    view = View(mirror=True)
    assert view.needs_drawn
    result = result_of(LEFT, RIGHT)
    view.put(result.with_drawn(np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)))
    assert result.drawn is None
    assert np.array_equal(view.picture()[:, ::-1].ravel(), np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8))
    assert [view.change_style(), view.toggle_labels(), view.move_threshold(1), view.click(100, 200)] == [""] * 4


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(2), Fraction(1, 2)])
def test_a_click_keeps_the_person_there_and_a_second_one_everybody(mirror: bool, aspect: Fraction) -> None:
    result = result_of(LEFT, RIGHT, INSIDE, aspect=aspect)
    view, annotator, only = view_of(result, mirror=mirror)
    height, width = view.picture().shape[:2]

    def click(x: float, y: float) -> str:
        """Click on a point of the frame."""
        return view.click((WIDTH - 1 - x if mirror else x) * width / WIDTH, y * height / HEIGHT)

    assert click(320, 20) == ""
    assert only.whom is None, "nobody is there"
    assert click(110, 250) == "only #3"
    assert only.whom == 3, "the smaller of two people"
    shown = result.people[np.array([2])]
    image = result.frame.image
    if mirror:
        image, shown = np.asarray(cv2.flip(image, 1), np.uint8), shown.mirrored(WIDTH)
    expected = annotator.annotate(image, shown)
    if aspect == 1:
        assert np.array_equal(view.picture(), expected), "also on the frame that was there already"
    view.put(only(result))
    assert len(only(result).people) == 1
    if aspect == 1:
        assert np.array_equal(view.picture(), expected)
    assert click(320, 20) == "everybody"
    view.put(only(result))
    assert len(view.result.people if view.result else ()) == 3
    assert click(500, 200) == "only #2"


def test_digits_choose_an_identity_that_is_there() -> None:
    result = result_of(LEFT, RIGHT, ids=[2, 5])
    view, _, only = view_of(result)
    assert view.choose(0) == ""
    assert view.choose(3) == "#3 is not in the picture"
    assert only.whom is None
    assert view.choose(5) == "only #5"
    assert only(result).people.track_ids.tolist() == [5]
    assert view.choose(2) == "only #2"
    assert view.choose(2) == "everybody"
    assert only.whom is None


def test_a_click_frees_a_person_that_an_option_chose() -> None:
    view, _, _ = view_of(result_of(LEFT))
    only = Only("largest")
    view.take(Controls(Annotator(SKELETON), only))
    assert view.click(0, 0) == "everybody"
    assert only.whom is None


def test_people_without_identities_cannot_be_kept() -> None:
    view, _, only = view_of(result_of(LEFT, ids=[NO_TRACK]))
    assert view.click(100, 250) == "nobody can be kept: people have no identities"
    assert only.whom is None


def test_the_pace() -> None:
    view, _, _ = view_of(result_of(LEFT), is_camera=True)
    assert view.pace() == ""
    for _ in range(5):
        time.sleep(0.05)
        view.put(result_of(LEFT))
    rate, latency = view.pace().split("  ")
    assert 5 < float(rate.removesuffix(" fps")) <= 20
    assert 0 <= float(latency.removesuffix(" ms")) < 50
    view.begin(run_info().source)
    assert view.pace() == rate, "a recording has no latency"


def test_cells_find_the_person_under_a_click() -> None:
    cells = Cells(3)
    views = []
    for number in range(3):
        view, _, only = view_of(result_of(LEFT, RIGHT))
        views.append((view, only))
        cells.add(view, f"cam{number}")
    picture = cells.picture(shows_pace=False)
    # A frame of 640 x 480 in a cell of 640 x 400 is 533 x 400, with borders of 53 and 54 pixels.
    assert picture.shape == (800, 1280, 3)
    assert (picture[0, :50] == 0).all()
    assert cells.view_at(900, 600) is None
    hit = cells.view_at(640 + 53 + round(500 / 1.2), round(200 / 1.2))
    assert hit is not None
    view, x, y = hit
    assert view is views[1][0]
    assert (x, y) == pytest.approx((500, 200), abs=1.5)
    assert view.click(x, y) == "only #2"
    assert [only.whom for _, only in views] == [None, 2, None]


def test_people_of_none() -> None:
    view, _, only = view_of(Result(result_of(LEFT).frame, People.none(17), SKELETON))
    assert view.click(5, 5) == ""
    assert only.whom is None


def test_only_what_has_changed_is_drawn_again() -> None:
    def cells_of(*views: View) -> Cells:
        cells = Cells(len(views))
        for number, view in enumerate(views):
            cells.add(view, f"cam{number}")
        return cells

    (one, annotator, _), (two, _, _) = view_of(result_of(LEFT)), view_of(result_of(RIGHT))
    cells = cells_of(one, two)
    cells.picture(shows_pace=False)
    shown = one.picture(), two.picture()
    for change in (
        lambda: one.put(result_of(INSIDE)),
        one.mirror,
        one.change_style,
        lambda: one.click(WIDTH - 1 - 110, 250),
        one.free,
        lambda: one.take(Controls(annotator.but(labels=True), Only(None))),
    ):
        change()
        assert one.picture() is not shown[0]
        assert one.picture() is one.picture()
        assert two.picture() is shown[1]
        assert np.array_equal(cells.picture(shows_pace=False), cells_of(one, two).picture(shows_pace=False))
        shown = one.picture(), two.picture()
    assert np.array_equal(cells.picture(shows_pace=True), cells_of(one, two).picture(shows_pace=True))
