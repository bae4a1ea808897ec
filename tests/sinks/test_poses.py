"""Keypoints as JSON Lines."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

# isort: split
import numpy as np
import pytest

from streampose import __version__
from streampose.errors import SinkError, UsageError
from streampose.frames import NO_TRACK, People, Result
from streampose.records.lines import read_lines
from streampose.sinks.open import open_sink
from streampose.sinks.sink import Sink
from tests.sinks.helpers import file_size_limit, result, run_info, someone


def lines_of(path: Path) -> list[dict[str, Any]]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text("ascii").splitlines()]


def write_lines(path: Path, *results: Result) -> list[dict[str, Any]]:
    with open_sink(path, overwrite=True) as sink:
        sink.open(run_info())
        for each in results:
            sink.write(each)
    return lines_of(path)


def test_the_lines_say_what_the_format_says(tmp_path: Path) -> None:
    header, first, second = write_lines(tmp_path / "out.jsonl", result(0), result(1, people=People.none(3)))
    assert header == {
        "streampose": __version__,
        "format": 2,
        "source": "clip.mp4",
        "skeleton": {"names": ["nose", "left_eye", "right_eye"], "edges": [[0, 1], [0, 2]], "flip_pairs": [[1, 2]]},
        "models": {"detector": "finder", "pose": "poser"},
    }
    assert first == {
        "source": "clip",
        "frame": 0,
        "pts_s": 0.0,
        "width": 192,
        "height": 120,
        "people": [
            {
                "id": None,
                "box_xyxy": [10.12, 20.5, 60.0, 110.0],
                "box_score": 0.8765,
                "keypoints": [[30.13, 40.0, 0.9123], [31.0, 41.0, 0.5], [-5.5, 300.0, 1.25]],
            }
        ],
    }
    assert second["people"] == []
    assert second["pts_s"] == 0.04


def test_tracks_files_and_classes_are_named(tmp_path: Path) -> None:
    people = someone(2, {0: "person", 1: "dog"})
    people.track_ids[:] = [7, NO_TRACK]
    _, line = write_lines(tmp_path / "out.jsonl", result(0, people=people, file="sub/ö.png"))
    assert line["file"] == "sub/ö.png"
    assert [(person["id"], person["class"]) for person in line["people"]] == [(7, "person"), (None, "dog")]
    _, line = write_lines(tmp_path / "out.jsonl", result(0, people=someone(1, {0: "person"})))
    assert "class" not in line["people"][0]
    assert "file" not in line


def test_covariances_are_xx_xy_yy_in_squared_pixels(tmp_path: Path) -> None:
    matrices = np.tile(np.float32([[4.00049, -0.5], [-0.5, 9.25]]), (1, 3, 1, 1))
    matrices[0, 2] = np.nan
    _, line = write_lines(tmp_path / "out.jsonl", result(0, people=replace(someone(1), keypoint_covariances=matrices)))
    expected = [[4.0, -0.5, 9.25], [4.0, -0.5, 9.25], [None, None, None]]
    assert line["people"][0]["covariances"] == expected
    _, line = write_lines(tmp_path / "out.jsonl", result(0, people=People.none(3)))
    assert line["people"] == []


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    people = someone(2)
    people.keypoints_xy[0, 0] = np.nan, np.inf
    people.keypoint_scores[1, 2] = -np.inf
    people.box_scores[1] = np.nan
    people.boxes_xyxy[0, 3] = np.inf
    _, line = write_lines(tmp_path / "out.jsonl", result(0, people=people))
    first, second = line["people"]
    assert first["keypoints"][0] == [None, None, 0.9123]
    assert first["box_xyxy"] == [10.12, 20.5, 60.0, None]
    assert second["keypoints"][2] == [-5.5, 300.0, None]
    assert second["box_score"] is None


def test_a_full_device_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").symlink_to("/dev/full")
    sink = open_sink(tmp_path / "out.jsonl", overwrite=True)
    sink.open(run_info())
    with pytest.raises(SinkError, match="no space left"):
        sink.write(result(0))
    sink.close()


def test_standard_output_carries_the_lines(capfd: pytest.CaptureFixture[str]) -> None:
    with open_sink("-") as sink:
        sink.open(run_info())
        sink.write(result(0))
        sink.write(result(1))
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line.get("frame") for line in lines] == [None, 0, 1]
    print("still open")
    assert capfd.readouterr().out == "still open\n"


def test_a_closed_standard_output_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # as Python does for `>&-`
    with pytest.raises(SinkError, match="cannot write to standard output: it is closed"):
        open_sink("-")


def write_until_full(sink: Sink, size_bytes: int) -> None:
    with file_size_limit(size_bytes), suppress(SinkError):
        for index in range(100):
            sink.write(result(index))
        pytest.fail("nobody said that the disk is full")


@pytest.mark.parametrize("mode", ["w", "a"])
def test_a_full_disk_behind_standard_output_ends_it_with_a_whole_line(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "poses.jsonl"
    path.write_text("older\n")
    with path.open(mode) as output, open_sink("-") as sink:
        monkeypatch.setattr(sys, "stdout", output)
        output.write("before\n")
        sink.open(run_info())
        write_until_full(sink, 2000)
        print("behind", file=output)
    first, *lines, last = path.read_text().removeprefix("older\n").splitlines()
    assert (first, last) == ("before", "behind")
    assert [json.loads(line).get("frame") for line in lines] == [None, *range(len(lines) - 1)]
    assert len(lines) > 3


def test_only_the_end_of_standard_output_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "poses.jsonl"
    path.write_bytes(b"." * 4000)
    with path.open("r+") as output, open_sink("-") as sink:
        monkeypatch.setattr(sys, "stdout", output)
        sink.open(run_info())
        write_until_full(sink, 2000)
    assert path.read_bytes().endswith(b"." * 2000), "what another has written there"


def test_a_reader_that_leaves_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as output, open_sink("-") as sink:
        monkeypatch.setattr(sys, "stdout", output)
        sink.open(run_info())
        assert sink.write(result(0)) is None
        os.close(reader)
        assert sink.write(result(1)) is False


def test_read_poses_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    lines = write_lines(path, *(result(index) for index in range(3)))
    header, frames = read_lines(path)
    assert [header, *frames] == lines

    path.write_bytes(path.read_bytes()[:-40])
    assert [line["frame"] for line in read_lines(str(path))[1]] == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a poses file"),
        ("hello\n", "not a poses file"),
        ("[1]\n", "not a poses file"),
        ('{"frame": 1}\n', "not a poses file"),
        ('{"streampose": "9", "format": 3}\n', "format 3"),
        ('{"streampose": "0", "format": 1}\n', "its first line has no skeleton"),
        ('{"format": 2, "skeleton": {"names": ["Nose"], "edges": [1]}}\n', "its first line has no skeleton"),
        ('{"format": 1, "skeleton": {"names": ["Nose"], "edges": []}}\n{"frame"\n{}\n', "line 2"),
    ],
)
def test_read_poses_refuses_what_it_does_not_know(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "poses.jsonl").write_text(text)
    with pytest.raises(UsageError, match=message):
        list(read_lines(tmp_path / "poses.jsonl")[1])
    with pytest.raises(UsageError, match="cannot read"):
        read_lines(tmp_path / "none.jsonl")
