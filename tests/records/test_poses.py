"""Recorded poses, read as arrays and as tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import streampose
from streampose.errors import UsageError
from streampose.frames import NO_TRACK
from streampose.records import poses as poses_module
from streampose.records.tables import POINT_KEYS, person_names
from tests.people.scene import SKELETON
from tests.records.made import poses_file, results


@pytest.mark.parametrize("is_tracked", [True, False])
def test_frames_are_what_was_written(tmp_path: Path, is_tracked: bool) -> None:
    poses = streampose.read_poses(poses_file(tmp_path / "poses.jsonl", is_tracked=is_tracked))
    assert poses.source == "clip.mp4"
    assert poses.skeleton == SKELETON
    assert "clip.mp4" in repr(poses)
    frames = list(poses)
    assert len(frames) == len(list(poses)) == 23, "it can be read again"
    for frame, result in zip(frames, results(23, is_tracked=is_tracked), strict=True):
        assert (frame.source_id, frame.index, frame.pts_s) == ("cam,1", result.frame.index, result.frame.pts_s)
        assert (frame.width, frame.height) == (320, 240)
        found, made = frame.people, result.people
        assert found.track_ids.tolist() == made.track_ids.tolist()
        np.testing.assert_allclose(found.boxes_xyxy, made.boxes_xyxy, atol=0.006)
        np.testing.assert_allclose(found.keypoints_xy, made.keypoints_xy, atol=0.006)
        np.testing.assert_allclose(found.keypoint_scores, made.keypoint_scores, atol=6e-5)
        assert (found.smooth_xy is None) == ((not is_tracked and len(found) > 0) or len(found) == 0)
        if len(found):
            assert found.keypoint_covariances is not None
            assert made.keypoint_covariances is not None
            np.testing.assert_allclose(found.keypoint_covariances, made.keypoint_covariances, atol=6e-4)
    assert frames[3].people.label_of == {0: "person"}
    if not is_tracked:
        assert (frames[4].people.track_ids == NO_TRACK).all()


def test_the_table_of_keypoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = poses_file(tmp_path / "poses.jsonl")
    table = streampose.read_poses(path).to_dataframe()
    lines = list(streampose.read_poses(path).lines())
    expected = [
        (line["frame"], person["id"], name, *point)
        for line in lines
        for person in line["people"]
        for name, point in zip(SKELETON.names, person["keypoints"], strict=True)
    ]
    assert len(table) == len(expected)
    wanted = pd.DataFrame(expected, columns=["frame", "id", "keypoint", "x", "y", "score"])
    pd.testing.assert_frame_equal(table[list(wanted)], wanted, check_dtype=False)
    for blocked in (1, 7):
        monkeypatch.setattr(poses_module, "BLOCK_FRAMES", blocked)
        pd.testing.assert_frame_equal(streampose.read_poses(path).to_dataframe(), table, check_dtype=False)
    arrow = streampose.read_poses(path).to_arrow()
    assert arrow.column_names == list(table)
    assert arrow.num_rows == len(table)


def test_the_table_of_people(tmp_path: Path) -> None:
    poses = streampose.read_poses(poses_file(tmp_path / "poses.jsonl"))
    table = poses.to_dataframe("people")
    assert list(table) == person_names(SKELETON.names)
    persons = [(line, person) for line in poses.lines() for person in line["people"]]
    assert len(table) == len(persons)
    for (_, row), (line, person) in zip(table.iterrows(), persons, strict=True):
        assert (row["source"], row["frame"], row["pts_s"]) == (line["source"], line["frame"], line["pts_s"])
        assert [row["box_x1"], row["box_y1"], row["box_x2"], row["box_y2"]] == person["box_xyxy"]
        got = [row[f"right_wrist_{key}"] for key in POINT_KEYS]
        number = SKELETON.names.index("right_wrist")
        assert got == [*person["keypoints"][number], *person["smoothed"][number], *person["covariances"][number]]
        assert np.isnan(row["left_ear_x"]) == (person["keypoints"][3][0] is None)


def test_rows_that_there_are_not(tmp_path: Path) -> None:
    poses = streampose.read_poses(poses_file(tmp_path / "poses.jsonl"))
    with pytest.raises(UsageError, match="unknown rows 'frames': choose one of keypoints, people, angles"):
        poses.to_dataframe("frames")  # type: ignore[arg-type]


def test_a_file_without_people_gives_empty_tables(tmp_path: Path) -> None:
    poses = streampose.read_poses(poses_file(tmp_path / "poses.jsonl", most_people=0))
    assert len(list(poses)) == 23
    assert len(poses.to_dataframe()) == len(poses.to_dataframe("people")) == 0
    assert list(poses.to_dataframe("people")) == person_names(SKELETON.names)


def test_format_1_is_read(tmp_path: Path) -> None:
    path = poses_file(tmp_path / "poses.jsonl", is_tracked=False)
    head, *lines = path.read_text().splitlines()
    old = [json.loads(line) for line in lines]
    for line in old:
        for person in line["people"]:
            del person["covariances"]
            person["id"] = None
    path.write_text("\n".join([json.dumps(json.loads(head) | {"format": 1}), *map(json.dumps, old)]) + "\n")
    poses = streampose.read_poses(path)
    assert [frame.people.keypoint_covariances is None for frame in poses][1:5] == [True] * 4
    assert poses.to_dataframe()["xx"].isna().all()


def test_what_precedes_a_damaged_line_is_read(tmp_path: Path) -> None:
    path = poses_file(tmp_path / "poses.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:12], b'{"source": oops\n', *lines[12:]]))
    frames = iter(streampose.read_poses(path))
    assert [next(frames).index for _ in range(11)] == list(range(11))
    with pytest.raises(UsageError, match=r"poses\.jsonl is damaged at line 13"):
        next(frames)
    blocks = streampose.read_poses(path).blocks()
    assert len(next(blocks)) == 11
    with pytest.raises(UsageError, match="damaged at line 13"):
        next(blocks)


def test_without_pandas_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poses = streampose.read_poses(poses_file(tmp_path / "poses.jsonl"))
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(UsageError, match=r"pandas is not installed: pip install 'streampose\[data\]'"):
        poses.to_dataframe()


def test_somebody_without_smoothed_keypoints_keeps_the_raw_ones(tmp_path: Path) -> None:
    poses = streampose.read_poses(poses_file(tmp_path / "poses.jsonl"))
    line = next(line for line in poses.lines() if len(line["people"]) > 1)
    del line["people"][0]["smoothed"]
    line["people"][1]["smoothed"][0] = [None, None]
    people = poses.frame_of(line).people
    assert people.smooth_xy is not None
    np.testing.assert_array_equal(people.smooth_xy[0], people.keypoints_xy[0])
    assert np.isnan(people.smooth_xy[1, 0]).all()
    np.testing.assert_array_equal(people.smooth_xy[1, 1:], np.float32(line["people"][1]["smoothed"][1:]))
