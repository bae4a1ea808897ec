"""Motions of people as TRC, MOT and C3D, read back as Pose2Sim, OpenSim and ezc3d do."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ezc3d
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

import streampose
from streampose.errors import SinkError
from streampose.people.angles import AngleMeter
from streampose.people.names import COCO_NAMES
from streampose.records import mocap, motions
from streampose.records.convert import convert
from streampose.records.mocap import at_rate, fill_in, marker_names
from streampose.sinks.open import open_sink
from tests.cli.helpers import run
from tests.people.scene import SKELETON
from tests.records.made import RUN, poses_file, results

Float64 = npt.NDArray[np.float64]
HEIGHT = 240
FILE_OF = {1: "poses", 2: "poses_person2", 3: "poses_person3"}
"""Person 1 is in most frames."""


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(motions, "BLOCK_ROWS", 4)
    monkeypatch.setattr(motions, "BUFFERED_ROWS", 7)
    return poses_file(tmp_path / "poses.jsonl")


def expected(path: Path, person: int) -> tuple[list[int], list[float], Float64]:
    """Return frames, times and keypoints (N, K, 2) of a person from their first to their last frame."""
    rows = []
    for line in streampose.read_poses(path).lines():
        xy = np.full((len(line["people"][0]["keypoints"]) if line["people"] else 17, 2), np.nan)
        found = [one for one in line["people"] if one["id"] == person]
        for one in found:
            scores = np.array(one["keypoints"], float)[:, 2]
            xy = np.where(scores[:, None] >= 0.3, np.array(one["smoothed"], float), np.nan)
        rows.append((line["frame"], line["pts_s"], xy, bool(found)))
    there = [number for number, row in enumerate(rows) if row[3]]
    rows = rows[there[0] : there[-1] + 1]
    return [row[0] for row in rows], [row[1] for row in rows], np.array([row[2] for row in rows])


def read_trc(path: Path) -> tuple[dict[str, str], list[str], pd.DataFrame]:
    """Read a TRC file as Pose2Sim does: names in the fourth line, a table from the fifth one on."""
    lines = path.read_text().split("\n")
    assert lines[0] == f"PathFileType\t4\t(X/Y/Z)\t{path.name}"
    head = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=True))
    names = [name for name in lines[3].split("\t")[2::3] if name.strip()]
    return head, names, pd.read_csv(path, sep="\t", skiprows=4)


def read_mot(path: Path) -> tuple[dict[str, str], pd.DataFrame]:
    lines = path.read_text().split("\n")
    end = lines.index("endheader")
    head = dict(line.split("=") for line in lines[1:end])
    return head, pd.read_csv(path, sep="\t", skiprows=end + 1)


@pytest.mark.parametrize("person", FILE_OF)
def test_trc_holds_the_keypoints(recorded: Path, person: int) -> None:
    done = convert(recorded, recorded.with_name("poses.trc"))
    assert "poses.trc and 2 more files: 23 frames" in done.summary
    frames, times, xy = expected(recorded, person)
    head, names, table = read_trc(recorded.with_name(f"{FILE_OF[person]}.trc"))
    assert head["DataRate"] == head["CameraRate"] == head["OrigDataRate"] == "25"
    assert (head["NumFrames"], head["OrigNumFrames"]) == (str(len(frames)), str(len(frames)))
    assert (head["NumMarkers"], head["Units"], head["OrigDataStartFrame"]) == ("17", "px", str(frames[0]))
    assert names == list(marker_names(SKELETON.names))
    assert table.iloc[:, 0].tolist() == frames
    assert table.iloc[:, 1].tolist() == times
    assert list(table)[2:] == [f"{axis}{number}" for number in range(1, 18) for axis in "XYZ"]
    points = table.iloc[:, 2:].to_numpy(float).reshape(-1, 17, 3)
    np.testing.assert_allclose(points[..., 0], xy[..., 0], atol=0.0051)
    np.testing.assert_allclose(points[..., 1], HEIGHT - 1 - xy[..., 1], atol=0.0051)
    np.testing.assert_array_equal(points[..., 2], xy[..., 0] * 0)
    assert 0.2 < np.isnan(points).mean() < 0.8, "some are missing, some are not"


@pytest.mark.parametrize("suffix", [".mot", ".sto"])
@pytest.mark.parametrize("person", FILE_OF)
def test_mot_holds_the_angles(recorded: Path, person: int, suffix: str) -> None:
    convert(recorded, recorded.with_name(f"poses{suffix}"))
    _, times, xy = expected(recorded, person)
    head, table = read_mot(recorded.with_name(f"{FILE_OF[person]}{suffix}"))
    meter = AngleMeter(SKELETON.names)
    degrees = meter.measure_points(xy, None).degrees
    has_any = np.isfinite(degrees).any(axis=1)
    used = [number for number in range(len(meter.names)) if np.isfinite(degrees[:, number]).any()]
    assert list(table) == ["time", *(meter.names[number] for number in used)]
    rows, columns = str(has_any.sum()), str(1 + len(used))
    assert head == {"version": "1", "nRows": rows, "nColumns": columns, "inDegrees": "yes"}
    assert table["time"].tolist() == [time_s for time_s, there in zip(times, has_any, strict=True) if there]
    found, given = table.iloc[:, 1:].to_numpy(float), degrees[has_any][:, used]
    assert np.isfinite(found).all(), "OpenSim reads no further than the first nan"
    is_known = np.isfinite(given)
    assert 0.2 < is_known.mean() < 0.8
    np.testing.assert_allclose(found[is_known], given[is_known], atol=0.00006)
    angles = streampose.read_poses(recorded).to_dataframe("angles")
    as_table = angles[angles["id"] == person].set_index("pts_s")["left_knee"]
    known = table.set_index("time")["left_knee"][is_known[:, list(table).index("left_knee") - 1]]
    assert len(known) >= 2
    np.testing.assert_allclose(known, as_table[known.index], atol=0.006)


def test_missing_angles_are_interpolated_the_short_way_round() -> None:
    times = np.array([0.0, 1, 2, 4, 5, 6, 7])
    degrees = np.array([np.nan, 170.0, np.nan, np.nan, -170.0, 180.0, np.nan])
    assert fill_in(degrees, times)
    np.testing.assert_allclose(degrees, [170, 170, 175, -175, -170, 180, 180])
    assert not fill_in(np.full(3, np.nan), np.arange(3.0))


@pytest.mark.parametrize("person", FILE_OF)
def test_c3d_holds_the_keypoints(recorded: Path, person: int) -> None:
    convert(recorded, recorded.with_name("poses.c3d"))
    frames, times, xy = expected(recorded, person)
    c3d = ezc3d.c3d(str(recorded.with_name(f"{FILE_OF[person]}.c3d")))
    parameters = c3d["parameters"]["POINT"]
    assert parameters["LABELS"]["value"] == list(marker_names(SKELETON.names))
    assert parameters["RATE"]["value"] == [25]
    assert parameters["UNITS"]["value"] == ["px"]
    assert (c3d["header"]["points"]["first_frame"], c3d["header"]["points"]["last_frame"]) == (frames[0], frames[-1])
    assert c3d["parameters"]["STREAMPOSE"]["START_S"]["value"] == pytest.approx([times[0]])
    assert c3d["parameters"]["STREAMPOSE"]["PERSON"]["value"] == [person]
    points = c3d["data"]["points"].transpose(2, 1, 0)
    np.testing.assert_allclose(points[..., 0], xy[..., 0], atol=1e-4)
    np.testing.assert_allclose(points[..., 1], HEIGHT - 1 - xy[..., 1], atol=1e-4)
    np.testing.assert_array_equal(points[..., 2], xy[..., 0] * 0)
    residuals = c3d["data"]["meta_points"]["residuals"][0].T
    np.testing.assert_array_equal(residuals, np.where(np.isnan(xy[..., 0]), -1, 0))


def test_long_c3d_files_have_parts(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mocap, "MOST_FRAMES", 9)
    convert(recorded, recorded.with_name("poses.c3d"))
    for person, stem in FILE_OF.items():
        files = [f"{stem}.c3d", f"{stem}_part2.c3d", f"{stem}_part3.c3d"]
        parts = [ezc3d.c3d(str(recorded.with_name(name))) for name in files[: 3 if person < 3 else 2]]
        _, times, xy = expected(recorded, person)
        joined = np.concatenate([part["data"]["points"].transpose(2, 1, 0) for part in parts])
        np.testing.assert_allclose(joined[..., 0], xy[..., 0], atol=1e-4)
        starts = [part["parameters"]["STREAMPOSE"]["START_S"]["value"][0] for part in parts]
        assert starts == pytest.approx(times[::9][: len(parts)])
    names = {path.name for path in recorded.parent.glob("*.c3d")}
    assert run(["convert", "poses.jsonl", "poses.c3d"], recorded.parent)[0] == 2
    monkeypatch.undo()
    assert run(["convert", "poses.jsonl", "poses.c3d", "--overwrite"], recorded.parent)[0] == 0
    assert {path.name for path in recorded.parent.glob("*.c3d")} == {f"{stem}.c3d" for stem in FILE_OF.values()}
    assert len(names) == 8


def lines_of(steps_s: Sequence[float], people: Callable[[int], list[int]]) -> list[dict[str, Any]]:
    """Return lines of frames with these intervals; x of every keypoint is the time in milliseconds."""
    made = []
    for frame, time_s in enumerate(np.cumsum([0.0, *steps_s]).tolist()):
        persons = [
            {"id": one, "box_xyxy": [0, 0, 9, 9], "box_score": 1.0, "keypoints": [[1000 * time_s, 5.0, 0.9]] * 17}
            for one in people(frame)
        ]
        line = {"source": "a", "frame": frame, "pts_s": time_s, "width": 9, "height": 9, "people": persons}
        made.append(line)
    return made


def save(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    head = {"format": 2, "source": "a", "skeleton": {"names": list(COCO_NAMES), "edges": [], "flip_pairs": []}}
    path.write_text("".join(json.dumps(line) + "\n" for line in [head, *lines]))
    return path


def test_a_variable_frame_rate(tmp_path: Path) -> None:
    # 30 fps in whole milliseconds, with a pause of a second in the middle.
    steps = [0.033, 0.033, 0.034] * 20 + [1.0] + [0.033, 0.034, 0.033] * 20
    path = save(tmp_path / "a.jsonl", lines_of(steps, lambda _: [1]))
    convert(path, tmp_path / "a.trc")
    head, _, table = read_trc(tmp_path / "a.trc")
    assert head["DataRate"] == "30"
    np.testing.assert_allclose(table.iloc[:, 1], np.cumsum([0, *steps]))
    np.testing.assert_allclose(table["X1"], 1000 * table.iloc[:, 1], atol=0.006)
    convert(path, tmp_path / "a.c3d")
    c3d = ezc3d.c3d(str(tmp_path / "a.c3d"))
    found = c3d["data"]["points"][0, 0]
    wanted = 1000 * np.arange(len(found)) / 30
    assert len(found) == 151
    is_pause = (wanted > 2017) & (wanted < 2983)
    np.testing.assert_array_equal(np.isnan(found), is_pause)
    assert np.abs(found - wanted)[~is_pause].max() < 1


def test_a_pause_longer_than_a_c3d_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mocap, "MOST_FRAMES", 9)
    path = save(tmp_path / "a.jsonl", lines_of([0.04] * 4 + [1.0] + [0.04] * 4, lambda _: [1]))
    convert(path, tmp_path / "a.c3d")
    found = []
    for name in ("a.c3d", "a_part2.c3d"):
        c3d = ezc3d.c3d(str(tmp_path / name))
        xs = c3d["data"]["points"][0, 0]
        assert len(xs) <= 9
        times = c3d["parameters"]["STREAMPOSE"]["START_S"]["value"][0] + np.arange(len(xs)) / 25
        np.testing.assert_allclose(xs[~np.isnan(xs)], 1000 * times[~np.isnan(xs)], atol=0.01)
        found += times[~np.isnan(xs)].tolist()
    np.testing.assert_allclose(found, [0.04 * n for n in range(5)] + [1.16 + 0.04 * n for n in range(5)])
    assert len(list(tmp_path.glob("*.c3d"))) == 2, "parts without any point are left out"


@pytest.mark.parametrize("step_s", [-0.08, 0.0])
def test_times_that_do_not_rise(step_s: float) -> None:
    times = np.cumsum([0.0, *[0.04] * 9, step_s, *[0.04] * 9])
    blocks = ((times[i : i + 2], times[i : i + 2]) for i in range(0, 20, 2))
    found = np.concatenate(list(at_rate(blocks, 25)))
    np.testing.assert_allclose(found, 0.04 * np.arange(len(found)), atol=0.0201)
    assert len(found) == round(times[-1] * 25) + 1


def test_resampling_takes_the_nearest() -> None:
    rng = np.random.default_rng(3)
    times = 5 + np.cumsum(rng.uniform(0.01, 0.09, 200))
    values = rng.normal(size=(200, 2))
    blocks = ((times[i : i + 7], values[i : i + 7]) for i in range(0, 200, 7))
    found = np.concatenate(list(at_rate(blocks, 20)))
    assert len(found) == round((times[-1] - times[0]) * 20) + 1
    for value, wanted in zip(found, times[0] + np.arange(len(found)) / 20, strict=True):
        nearest = np.abs(times - wanted).argmin()
        is_near = abs(times[nearest] - wanted) <= 0.501 / 20
        np.testing.assert_array_equal(value, values[nearest] if is_near else np.nan)
    assert np.isnan(found).any()
    assert [len(one) for one in at_rate(iter([(times[:1], values[:1])]), 20)] == [1]


def test_somebody_who_is_away_has_empty_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motions, "BLOCK_ROWS", 5)
    monkeypatch.setattr(motions, "BUFFERED_ROWS", 6)
    lines = lines_of([0.04] * 79, lambda frame: [1, 7] if frame in (11, 12, 60) else [1])
    convert(save(tmp_path / "a.jsonl", lines), tmp_path / "a.trc")
    head, _, table = read_trc(tmp_path / "a_person7.trc")
    assert (head["NumFrames"], head["OrigDataStartFrame"]) == ("50", "11")
    assert table.iloc[:, 0].tolist() == list(range(11, 61))
    np.testing.assert_allclose(table.iloc[:, 1], np.arange(11, 61) * 0.04)
    assert table.dropna().iloc[:, 0].tolist() == [11, 12, 60]
    _, _, table = read_trc(tmp_path / "a.trc")
    assert not table.isna().any(axis=None)
    np.testing.assert_allclose(table["X9"], np.arange(80) * 40)


@pytest.mark.parametrize("suffix", [".trc", ".mot", ".c3d"])
def test_no_identities_and_several_sources(tmp_path: Path, suffix: str) -> None:
    path = poses_file(tmp_path / "poses.jsonl", is_tracked=False)
    code, _, err = run(["convert", "poses.jsonl", f"out{suffix}"], tmp_path)
    assert (code, err.count("\n")) == (1, 1)
    assert f"cannot write out{suffix}: nobody in the poses has an identity" in err
    assert not path.with_name(f"out{suffix}").exists()
    sink = open_sink(tmp_path / f"live{suffix}")
    sink.open(RUN)
    for result in results(4, is_tracked=False):
        sink.write(result)
    with pytest.raises(SinkError, match="identity"):
        sink.close()
    assert sink.summary() is None
    lines = lines_of([0.04] * 9, lambda _: [1])
    lines[5]["source"] = "b"
    with pytest.raises(SinkError, match=r"several sources \(a, b\); keep the lines of one source"):
        convert(save(path, lines), tmp_path / f"some{suffix}")
    assert not list(tmp_path.glob(f"some*{suffix}"))


@pytest.mark.parametrize("suffix", [".trc", ".mot", ".c3d"])
def test_files_of_other_people_are_replaced_with_overwrite_only(recorded: Path, suffix: str) -> None:
    folder = recorded.parent
    (folder / f"poses_person9{suffix}").write_text("old")
    (folder / f"poses_personal{suffix}").write_text("mine")
    code, _, err = run(["convert", "poses.jsonl", f"poses{suffix}"], folder)
    assert code == 2
    assert f"poses_person9{suffix} exists: choose another name, or replace it with --overwrite" in err
    assert not (folder / f"poses{suffix}").exists()
    assert run(["convert", "poses.jsonl", f"poses{suffix}", "--overwrite"], folder)[0] == 0
    names = {f"{stem}{suffix}" for stem in FILE_OF.values()} | {f"poses_personal{suffix}"}
    assert {path.name for path in folder.glob(f"*{suffix}")} == names
    assert (folder / f"poses_personal{suffix}").read_text() == "mine"


def test_a_skeleton_without_angles_has_no_mot(recorded: Path) -> None:
    text = recorded.read_text().splitlines()
    head = json.loads(text[0])
    head["skeleton"]["names"] = [f"point {number}" for number in range(17)]
    recorded.write_text("\n".join([json.dumps(head), *text[1:]]) + "\n")
    with pytest.raises(SinkError, match=r"a\.mot: this skeleton has no angles"):
        convert(recorded, recorded.with_name("a.mot"))


def test_names_of_markers() -> None:
    names = ("Nose", "L_Knee", "RBigToe", "left_shoulder", "mid_hip", "right ear")
    assert marker_names(names) == ("Nose", "LKnee", "RBigToe", "LShoulder", "MidHip", "REar")
    assert marker_names(("a_b", "aB", "c")) == ("a_b", "aB", "c")
