"""Recorded poses in other formats, read back with those formats' own readers."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet
from pycocotools.coco import COCO

import streampose
from streampose.errors import SinkError, UsageError
from streampose.people.angles import AngleMeter
from streampose.records import motions, table_files
from streampose.records.convert import convert
from streampose.records.tables import person_names
from streampose.sinks.open import open_sink
from tests.cli.helpers import run
from tests.people.scene import SKELETON
from tests.records.made import RUN, poses_file, results

NAMES = (
    "poses.csv",
    "poses.parquet",
    "poses.results.json",
    "poses.coco.json",
    "poses.angles.csv",
    "poses.openpose",
    "poses.trc",
    "poses.mot",
    "poses.c3d",
)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    return poses_file(tmp_path / "poses.jsonl")


def people_in(path: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(line, person) for line in streampose.read_poses(path).lines() for person in line["people"]]


def read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path)


def read_parquet(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path)


@pytest.mark.parametrize(("name", "read"), [("poses.csv", read_csv), ("poses.parquet", read_parquet)])
def test_tables_hold_what_the_poses_file_holds(
    recorded: Path, name: str, read: Callable[[Path], pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_files, "GROUP_FRAMES", 7)
    monkeypatch.setattr(table_files, "BLOCK_FRAMES", 3)
    path = recorded.with_name(name)
    done = convert(recorded, path)
    assert (done.frames, done.damage) == (23, None)
    assert name in done.summary
    table = read(path)
    assert list(table) == person_names(SKELETON.names)
    expected = streampose.read_poses(recorded).to_dataframe("people")
    assert table["source"].tolist() == expected["source"].tolist() == ["cam,1"] * len(expected)
    for column in expected:
        if column in ("source", "class"):
            continue
        given = pd.to_numeric(expected[column]).to_numpy(float)
        # Parquet has single precision, but for times.
        np.testing.assert_allclose(table[column].to_numpy(float), given, rtol=1e-6 if name.endswith("t") else 0)
    assert table["pts_s"].tolist() == expected["pts_s"].tolist()
    assert [path.name for path in recorded.parent.iterdir() if "parts" in path.name] == []


@pytest.mark.parametrize(("name", "read"), [("poses.angles.csv", read_csv), ("poses.angles.parquet", read_parquet)])
def test_tables_of_angles(recorded: Path, name: str, read: Callable[[Path], pd.DataFrame]) -> None:
    convert(recorded, recorded.with_name(name))
    table = read(recorded.with_name(name))
    expected = streampose.read_poses(recorded).to_dataframe("angles")
    assert list(table) == list(expected)
    assert {"source", "frame", "pts_s", "id", "left_knee", "left_knee_sd", "trunk_lean"} <= set(table)
    for column in expected:
        if column not in ("source", "class"):
            given = pd.to_numeric(expected[column]).to_numpy(float)
            np.testing.assert_allclose(table[column].to_numpy(float), given, rtol=1e-6)
    frames = {frame.index: frame.people for frame in streampose.read_poses(recorded)}
    row = table[table["frame"] == 4].iloc[2]
    angles = AngleMeter(SKELETON.names).measure(frames[4])
    number = angles.names.index("right_elbow")
    assert row["right_elbow"] == pytest.approx(angles.degrees[2, number], abs=0.02)
    assert row["right_elbow_sd"] == pytest.approx(angles.deviations[2, number], abs=0.02)


def test_parquet_has_row_groups_and_a_killed_run_leaves_the_complete_ones(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_files, "GROUP_FRAMES", 5)
    monkeypatch.setattr(table_files, "BLOCK_FRAMES", 5)
    path = recorded.with_name("poses.parquet")
    poses = streampose.read_poses(recorded)
    writer = table_files.ParquetWriter(path)
    writer.begin(poses.header)
    for line in poses.lines():
        writer.write(line)
    # As a killed run leaves it: four groups of five frames.
    left = pd.read_parquet(writer.folder)
    expected = poses.to_dataframe("people")
    assert left["frame"].tolist() == expected[expected["frame"] < 20]["frame"].tolist()
    with pytest.raises(SinkError, match=r"poses\.parquet\.parts is left of a run that was killed"):
        table_files.ParquetWriter(path.with_name("poses.parquet")).begin(poses.header)
    writer.close()
    assert parquet.ParquetFile(path).num_row_groups == 5
    assert len(pd.read_parquet(path)) == len(expected)
    assert not writer.folder.exists()


def test_coco_results_are_read_by_pycocotools(recorded: Path) -> None:
    convert(recorded, recorded.with_name("poses.coco.json"))
    convert(recorded, recorded.with_name("poses.results.json"))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(recorded.with_name("poses.coco.json")))
        found = truth.loadRes(str(recorded.with_name("poses.results.json")))
    persons = people_in(recorded)
    assert len(truth.anns) == len(found.anns) == len(persons)
    assert len(truth.imgs) == 23
    assert truth.cats[1]["keypoints"] == list(SKELETON.names)
    assert truth.cats[1]["skeleton"] == [[a + 1, b + 1] for a, b in SKELETON.edges]
    for (line, person), labelled, result in zip(persons, truth.anns.values(), found.anns.values(), strict=True):
        image = truth.imgs[labelled["image_id"]]
        assert image["frame"] == line["frame"] == result["image_id"]
        assert (image["width"], image["height"], image["pts_s"]) == (320, 240, line["pts_s"])
        left, top, right, bottom = person["box_xyxy"]
        assert labelled["bbox"] == pytest.approx([left, top, right - left, bottom - top], abs=0.006)
        flat = np.array(result["keypoints"]).reshape(-1, 3)
        for point, seen, (x, y, score) in zip(
            flat, np.array(labelled["keypoints"]).reshape(-1, 3), person["keypoints"], strict=True
        ):
            assert point.tolist() == [x or 0, y or 0, score]
            is_visible = x is not None and score >= 0.3
            assert seen.tolist() == ([x, y, 2] if is_visible else [0, 0, 0])
        assert result["score"] == pytest.approx(np.mean(flat[:, 2]), abs=1e-5)
        assert labelled["num_keypoints"] == sum(v == 2 for v in labelled["keypoints"][2::3])
        assert labelled.get("track_id") == person["id"]


def test_coco_results_are_complete_after_every_frame(recorded: Path) -> None:
    from streampose.records.coco import CocoResultsWriter

    poses = streampose.read_poses(recorded)
    path = recorded.with_name("poses.results.json")
    with CocoResultsWriter(path) as writer:
        writer.begin(poses.header)
        count = 0
        assert json.loads(path.read_text()) == []
        for line in poses.lines():
            writer.write(line)
            count += len(line["people"])
            assert len(json.loads(path.read_text())) == count


def content_of(path: Path) -> dict[str, bytes]:
    """Return all that a conversion wrote: a file and those beside it, or a folder."""
    files = path.iterdir() if path.is_dir() else path.parent.glob(f"{path.stem}*{path.suffix}")
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize("name", NAMES)
def test_a_run_writes_the_same_as_a_conversion(recorded: Path, name: str) -> None:
    convert(recorded, recorded.with_name(name))
    live = recorded.parent / "live" / name
    with open_sink(live) as sink:
        assert not sink.needs_drawn
        assert sink.summary() is None
        sink.open(RUN)
        assert not live.exists(), "a run without frames leaves nothing"
        for result in results(23):
            sink.write(result)
    assert name in str(sink.summary())
    assert "23 frames" in str(sink.summary())
    if name.endswith(".parquet"):
        assert parquet.read_table(live).equals(parquet.read_table(recorded.with_name(name)))
    else:
        assert content_of(live) == content_of(recorded.with_name(name))


@pytest.mark.parametrize("name", NAMES)
def test_damaged_and_empty_files(recorded: Path, name: str) -> None:
    lines = recorded.read_bytes().splitlines(keepends=True)
    recorded.write_bytes(b"".join([*lines[:12], b"oops\n", *lines[12:]]))
    code, out, err = run(["convert", "poses.jsonl", name], recorded.parent)
    assert code == 2
    assert out == ""
    assert "11 frames" in err
    assert "poses.jsonl is damaged at line 13" in err
    assert "what precedes it was converted" in err
    assert recorded.with_name(name).stat().st_size > 0
    recorded.write_bytes(lines[0] + lines[1][:-5])  # a run that was killed within its first line
    code, out, err = run(["convert", "poses.jsonl", name, "--overwrite"], recorded.parent)
    assert code == 0, err
    assert "0 frames" in err


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"bad": 1}, "line 13: not a frame ('source' is missing)"),
        ([1, 2], "line 13: not a frame (it is no object)"),
        ({"pts_s": "x"}, "line 13: not a frame ('pts_s' is 'x')"),
        ({"people": None}, "line 13: not a frame ('people' is None)"),
        ({"people": [{"id": 1}]}, "line 13: not a frame (somebody has no box or no keypoints)"),
        ({"keypoints": [[1, 2, 0.5]] * 5}, "line 13: not a frame (somebody does not have 17 values in 'keypoints')"),
        ({"smoothed": [[1, 2]] * 3}, "line 13: not a frame (somebody does not have 17 values in 'smoothed')"),
        ({"box_xyxy": [1, 2, 3]}, "line 13: not a frame (somebody does not have 4 values in 'box_xyxy')"),
    ],
)
def test_lines_that_are_no_frames(recorded: Path, name: str, damage: Any, message: str) -> None:
    lines = recorded.read_bytes().splitlines()
    line = json.loads(lines[12])
    if isinstance(damage, list) or "bad" in damage:
        line = damage
    elif damage.keys() & {"pts_s", "people"}:
        line |= damage
    else:
        line["people"][0] |= damage
    recorded.write_bytes(b"\n".join([*lines[:12], json.dumps(line).encode(), *lines[13:], b""]))
    with pytest.raises(UsageError) as caught:
        raise convert(recorded, recorded.with_name(name)).damage or AssertionError
    assert f"poses.jsonl is damaged at {message}" in str(caught.value)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("poses.csv", "poses.openpose")])
def test_a_person_that_is_none(recorded: Path, name: str) -> None:
    lines = recorded.read_bytes().splitlines()
    line = json.loads(lines[12])
    line["people"][0]["keypoints"][2] = ["left", "right", "high"]
    recorded.write_bytes(b"\n".join([*lines[:12], json.dumps(line).encode(), *lines[13:], b""]))
    code, _, err = run(["convert", "poses.jsonl", name], recorded.parent)
    assert code == 2
    assert "poses.jsonl is damaged: a person is not what a run writes" in err


@pytest.mark.parametrize("name", [name for name in NAMES if name != "poses.openpose"])
def test_a_file_without_an_intact_frame_replaces_nothing(recorded: Path, name: str) -> None:
    recorded.with_name(name).write_text("kept")
    recorded.write_bytes(recorded.read_bytes().splitlines(keepends=True)[0] + b"[1, 2]\n")
    code, _, err = run(["convert", "poses.jsonl", name, "--overwrite"], recorded.parent)
    assert code == 2
    assert "poses.jsonl is damaged at line 2" in err
    assert recorded.with_name(name).read_text() == "kept"


def test_what_is_refused(recorded: Path, tmp_path: Path) -> None:
    for words, message in (
        (["poses.jsonl", "poses.xyz"], "unknown output 'poses.xyz': give a table"),
        (["none.jsonl", "poses.csv"], "cannot read none.jsonl"),
        (["poses.csv", "other.csv"], "poses.csv is not a poses file"),
        (["poses.jsonl", "poses.csv"], "poses.csv exists: choose another file, or replace it with --overwrite"),
        (["poses.jsonl"], "OUT"),
    ):
        (tmp_path / "poses.csv").write_text("mine")
        code, _, err = run(["convert", *words], tmp_path)
        assert code == 2
        assert message in err
        assert len(err.strip().splitlines()) == 1
        assert (tmp_path / "poses.csv").read_text() == "mine"
    assert run(["convert", "poses.jsonl", "poses.csv", "--overwrite"], tmp_path)[0] == 0
    assert (tmp_path / "poses.csv").read_text().startswith("source,frame,pts_s,id,")
    with pytest.raises(UsageError, match="is the source itself"):
        convert(recorded.rename(tmp_path / "same.csv"), tmp_path / "same.csv", overwrite=True)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith(".c3d")])
def test_long_files_take_little_memory(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "GROUP_FRAMES", 50)
    monkeypatch.setattr(table_files, "BLOCK_FRAMES", 25)
    monkeypatch.setattr(motions, "BUFFERED_ROWS", 100)
    monkeypatch.setattr(motions, "BLOCK_ROWS", 50)
    once = poses_file(tmp_path / "poses.jsonl", 60).read_bytes().splitlines(keepends=True)
    long = tmp_path / "long.jsonl"
    peaks = []
    for times in (2, 12):
        long.write_bytes(once[0] + b"".join(once[1:]) * times)
        tracemalloc.start()
        convert(long, tmp_path / name, overwrite=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 1e6


def test_importing_the_program_needs_no_pandas() -> None:
    extras = {"ezc3d", "pandas", "pyarrow"}
    script = f"import sys, streampose, streampose.sinks.open; sys.exit(bool({extras} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
