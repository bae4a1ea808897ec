"""Poses as OpenPose writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streampose
from streampose.people.names import COCO_NAMES
from streampose.records.openpose import OpenPoseWriter
from streampose.sinks.open import open_sink
from tests.cli.helpers import run
from tests.records.made import RUN, poses_file, results

# Written down from https://github.com/CMU-Perceptual-Computing-Lab/openpose/blob/master/doc/02_output.md
# fmt: off
BODY_25 = (
    "Nose", "Neck", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist", "MidHip", "RHip", "RKnee",
    "RAnkle", "LHip", "LKnee", "LAnkle", "REye", "LEye", "REar", "LEar", "LBigToe", "LSmallToe", "LHeel", "RBigToe",
    "RSmallToe", "RHeel",
)
COCO = (
    "Nose", "LEye", "REye", "LEar", "REar", "LShoulder", "RShoulder", "LElbow", "RElbow", "LWrist", "RWrist", "LHip",
    "RHip", "LKnee", "RKnee", "LAnkle", "RAnkle",
)
# fmt: on


def written(path: Path, names: Sequence[str], keypoints: Sequence[Sequence[float | None]]) -> dict[str, Any]:
    """Write somebody with such keypoints; return them as OpenPose has them."""
    line = {"source": "a", "frame": 12, "people": [{"id": None, "keypoints": keypoints}]}
    with OpenPoseWriter(path, overwrite=True) as writer:
        writer.begin({"skeleton": {"names": list(names)}})
        writer.write(line)
    content = json.loads((path / f"{path.stem}_000000000012_keypoints.json").read_text())
    (person,) = content["people"]
    found: dict[str, Any] = person
    return found


def test_bodies_are_in_the_order_of_body_25(tmp_path: Path) -> None:
    path = poses_file(tmp_path / "poses.jsonl")
    code, _, err = run(["convert", "poses.jsonl", "walk.openpose"], tmp_path)
    assert code == 0
    assert "walk.openpose: 23 frames" in err
    lines = list(streampose.read_poses(path).lines())
    files = sorted((tmp_path / "walk.openpose").iterdir())
    assert [file.name for file in files] == [f"walk_{number:012d}_keypoints.json" for number in range(23)]
    for line, file in zip(lines, files, strict=True):
        content = json.loads(file.read_text())
        assert content["version"] == 1.3
        assert len(content["people"]) == len(line["people"])
        for person, found in zip(line["people"], content["people"], strict=True):
            assert found["person_id"] == [person["id"] or -1]
            for key in ("face", "hand_left", "hand_right"):
                assert found[f"{key}_keypoints_2d"] == found[f"{key}_keypoints_3d"] == []
            body = dict(zip(BODY_25, np.array(found["pose_keypoints_2d"]).reshape(25, 3).tolist(), strict=True))
            given = dict(zip(COCO, person["keypoints"], strict=True))
            for name, point in given.items():
                assert body[name] == ([0, 0, 0] if point[0] is None else point)
            for middle, pair in {"Neck": ("LShoulder", "RShoulder"), "MidHip": ("LHip", "RHip")}.items():
                one, other = (np.array(given[name]) for name in pair)
                assert body[middle][:2] == pytest.approx((one + other)[:2] / 2, abs=1e-3)
                assert body[middle][2] == min(one[2], other[2])
            assert all(body[f"{side}{part}"] == [0, 0, 0] for side in "LR" for part in ("BigToe", "SmallToe", "Heel"))


def test_feet_hands_and_face_of_whole_bodies(tmp_path: Path) -> None:
    # The names of COCO-WholeBody as MMPose writes them, in its order.
    feet = [f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel")]
    fingers = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
    hands = [
        name
        for side in ("left", "right")
        for name in (f"{side}_hand_root", *(f"{side}_{one}{joint}" for one in fingers for joint in range(1, 5)))
    ]
    names = [*COCO_NAMES, *feet, *(f"face-{number}" for number in range(68)), *hands]
    assert len(names) == 133
    person = written(tmp_path / "a.openpose", names, [[number, 1, 0.5] for number in range(133)])
    xs = {part: np.array(person[f"{part}_keypoints_2d"]).reshape(-1, 3)[:, 0] for part in ("pose", "face")}
    assert xs["pose"][19:].tolist() == list(range(17, 23))
    assert xs["face"].tolist() == [*range(23, 91), 0, 0]
    for part, start in (("hand_left", 91), ("hand_right", 112)):
        assert person[f"{part}_keypoints_2d"][::3] == list(range(start, start + 21))


def test_other_spellings_and_other_skeletons(tmp_path: Path) -> None:
    own_neck = written(tmp_path / "a.openpose", [*COCO, "Neck"], [[n, 2, 0.5] for n in range(18)])
    assert own_neck["pose_keypoints_2d"][3:6] == [17, 2, 0.5]
    assert own_neck["pose_keypoints_2d"][24:27] == [11.5, 2, 0.5]
    half = written(tmp_path / "a.openpose", COCO, [[n if n != 5 else None, 2, 0.5] for n in range(17)])
    assert half["pose_keypoints_2d"][3:6] == [0, 0, 0]
    assert half["person_id"] == [-1]
    animal = written(tmp_path / "a.openpose", ["nose", "tail", "paw"], [[1, 2, 0.5], [3, None, 0.1], [5, 6, 0.7]])
    assert animal["pose_keypoints_2d"] == [1, 2, 0.5, 0, 0, 0, 5, 6, 0.7]


def test_frames_of_another_run_are_replaced_with_overwrite_only(tmp_path: Path) -> None:
    poses_file(tmp_path / "poses.jsonl", 3)
    folder = tmp_path / "walk.openpose"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "walk_000000000099_keypoints.json").write_text("{}")
    code, _, err = run(["convert", "poses.jsonl", "walk.openpose"], tmp_path)
    assert code == 2
    assert "walk.openpose already has frames: choose another folder, or replace them with --overwrite" in err
    assert run(["convert", "poses.jsonl", "walk.openpose/", "--overwrite"], tmp_path)[0] == 0
    frames = [f"walk_{number:012d}_keypoints.json" for number in range(3)]
    assert sorted(file.name for file in folder.iterdir()) == ["notes.txt", *frames]
    (tmp_path / "file.openpose").write_text("mine")
    code, _, err = run(["convert", "poses.jsonl", "file.openpose", "--overwrite"], tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "file.openpose is a file, not a folder" in err


def test_a_run_writes_the_folder_with_and_without_a_slash(tmp_path: Path) -> None:
    for name in ("a.openpose", "b.openpose/"):
        with open_sink(f"{tmp_path}/{name}") as sink:
            sink.open(RUN)
            for result in results(2):
                sink.write(result)
    assert sorted(file.name for file in (tmp_path / "b.openpose").iterdir()) == [
        "b_000000000000_keypoints.json",
        "b_000000000001_keypoints.json",
    ]
    assert len(list((tmp_path / "a.openpose").iterdir())) == 2
