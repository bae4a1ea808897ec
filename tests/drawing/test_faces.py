"""Faces are gone before anything is drawn or kept, also those of people who are left out."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from streampose.drawing.faces import CELLS, FaceBlur, pixelated
from streampose.errors import AnnotateError
from streampose.frames import Frame, People, Result
from streampose.people.only import Only
from streampose.records.lines import frame_line
from tests.drawing.test_annotator import noise
from tests.people.scene import HEIGHT, SKELETON, WIDTH, Body, people_of


def result_of(people: People, index: int = 0) -> Result:
    frame = Frame("clip", index, index / 25, time.monotonic(), noise(HEIGHT, WIDTH))
    return Result(frame, people, SKELETON)


def test_a_mosaic_of_few_cells_and_nothing_else() -> None:
    image = noise(200, 300)
    hidden = pixelated(image, np.array([[50.2, 40.1, 149.3, 138.9]], np.float32))
    inside = np.zeros((200, 300), bool)
    inside[40:140, 50:151] = True
    assert np.array_equal(hidden[~inside], image[~inside])
    colours = np.unique(hidden[40:140, 50:151].reshape(-1, 3), axis=0)
    assert len(colours) == CELLS**2
    assert np.abs(colours.astype(int) - 127).max() < 30, "each is the mean of hundreds of pixels"


def test_a_small_face_does_not_show_the_large_one_behind_it() -> None:
    image = noise(200, 200)
    hidden = pixelated(image, np.array([[80, 80, 120, 120], [0, 0, 199, 199]], np.float32))
    assert len(np.unique(hidden.reshape(-1, 3), axis=0)) <= CELLS**2


@pytest.mark.parametrize(
    "place", [[-50, -50, 20, 20], [290, 190, 400, 300], [400, 400, 500, 500], [5, 5, 5.2, 5.2], [9, 9, 2, 2]]
)
def test_faces_at_and_beyond_the_edge(place: list[float]) -> None:
    image = noise(200, 300)
    assert pixelated(image, np.array([place], np.float32)).shape == image.shape


def test_people_who_are_left_out_have_their_faces_hidden() -> None:
    people = replace(people_of([Body(100), Body(400)]), track_ids=np.array([1, 2]))
    blur, only = FaceBlur(SKELETON), Only(1)
    before = result_of(people)
    after = only(blur(before))
    assert after.people.track_ids.tolist() == [1]
    for x in (100, 400):
        face = np.s_[105:125, x - 5 : x + 5]
        assert not np.array_equal(after.frame.image[face], before.frame.image[face])
        assert len(np.unique(after.frame.image[face].reshape(-1, 3), axis=0)) < 10
    assert frame_line(after)["faces"] == np.round(blur(before).frame.faces_xyxy.astype(float), 2).tolist()


def test_recorded_faces_are_hidden_again_without_the_people() -> None:
    people = replace(people_of([Body(100), Body(400)]), track_ids=np.array([1, 2]))
    first = FaceBlur(SKELETON)(result_of(people))
    known = result_of(people[:1])
    known = replace(known, frame=replace(known.frame, faces_xyxy=first.frame.faces_xyxy))
    assert np.array_equal(FaceBlur(SKELETON)(known).frame.image, first.frame.image)


def test_a_failure_is_one_known_error() -> None:
    people = people_of([Body(100)])
    with pytest.raises(AnnotateError, match="cannot blur the faces of 1 people"):
        FaceBlur(SKELETON)(result_of(replace(people, keypoint_scores=people.keypoint_scores[:, :3])))
