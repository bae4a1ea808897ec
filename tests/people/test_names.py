"""Names of keypoints in the spellings of several checkpoints."""

from __future__ import annotations

import pytest

from streampose.networks.checkpoints import resolve
from streampose.networks.known import DEFAULT_POSE
from streampose.networks.pose import COCO_NAMES, skeleton_of
from streampose.people.appearance import LookReader
from streampose.people.names import plain_name, plain_names
from tests.people.scene import SKELETON


@pytest.mark.parametrize("name", ["left_knee", "L_Knee", "LeftKnee", "left knee", "Left-Knee", "knee_left", "l_knee"])
def test_spellings(name: str) -> None:
    assert plain_name(name) == "left_knee"


def test_names_of_the_bundled_network_are_cocos() -> None:
    skeleton = skeleton_of(resolve(DEFAULT_POSE), 17)
    assert plain_names(skeleton.names) == COCO_NAMES
    assert LookReader(skeleton).part_count == LookReader(SKELETON).part_count, "trunk and head are seen"


@pytest.mark.parametrize("names", [("a_left", "left_a"), ("?", "!"), ("L_eye", "left_eye")])
def test_names_that_would_be_mixed_up_stay(names: tuple[str, ...]) -> None:
    assert plain_names(names) == names


def test_other_names() -> None:
    assert plain_names(("Nose", "left_big_toe", "RSmallToe", "keypoint_12")) == (
        "nose",
        "left_big_toe",
        "right_small_toe",
        "keypoint_12",
    )
