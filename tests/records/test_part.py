"""Parts of recorded poses: read, converted and smoothed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import streampose
from streampose.errors import SourceError, UsageError
from streampose.frames import Part
from streampose.records.convert import convert
from streampose.records.lines import line_of, read_lines
from streampose.records.smooth import smooth_poses
from tests.cli.helpers import run, the_error
from tests.records.made import poses_file


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    return poses_file(tmp_path / "poses.jsonl", 50)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return list(read_lines(path)[1])


def test_a_part_of_the_poses(recorded: Path) -> None:
    whole = list(streampose.read_poses(recorded).lines())
    part = streampose.read_poses(recorded, start_s=0.4, end_s=1.2, every=3)
    assert list(part.lines()) == whole[10:30:3]
    assert [frame.index for frame in part] == list(range(10, 30, 3))
    table = part.to_dataframe("people")
    assert set(table["frame"]) == {line["frame"] for line in whole[10:30:3] if line["people"]}
    assert list(streampose.read_poses(recorded, end_s=100).lines()) == whole
    with pytest.raises(UsageError, match="`every`: 0 is not a whole number from 1 up"):
        streampose.read_poses(recorded, every=0)


def test_each_source_has_its_part(recorded: Path) -> None:
    head, lines = read_lines(recorded)
    mixed = []
    for line in lines:
        mixed += [line, line | {"source": "other", "pts_s": line["pts_s"] + 1, "frame": line["frame"] + 25}]
    mixed.append(mixed[0] | {"pts_s": None})
    recorded.write_bytes(b"".join(map(line_of, [head, *mixed])))
    part = list(streampose.read_poses(recorded, start_s=1.0, end_s=1.4, every=2).lines())
    for source in ("cam,1", "other"):
        assert [line["frame"] for line in part if line["source"] == source] == [25, 27, 29, 31, 33]
    assert len(part) == 10
    assert len(list(streampose.read_poses(recorded).lines())) == 101


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (Part(start_s=5.0), r"^the last frame of .*poses\.jsonl is at 1\.96 s: `start_s` \(5 s\) is later$"),
        (Part(0.01, 0.02), r"poses\.jsonl has no frame from 0\.01 to 0\.02 s \(the next one is at 0\.04 s\)"),
    ],
)
def test_a_part_without_a_frame_writes_nothing(recorded: Path, part: Part, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        convert(recorded, recorded.with_name("out.csv"), part=part)
    with pytest.raises(UsageError, match=says):
        smooth_poses(recorded, recorded.with_name("out.jsonl"), part=part)
    assert [path.name for path in recorded.parent.iterdir()] == ["poses.jsonl"]


def test_smoothing_a_part_is_a_part_of_the_smoothed(recorded: Path) -> None:
    whole, part = recorded.with_name("whole.jsonl"), recorded.with_name("part.jsonl")
    smooth_poses(recorded, whole)
    done = smooth_poses(recorded, part, part=Part(0.4, 1.2, 3), lines_per_look=7)
    assert lines_of(part) == lines_of(whole)[10:30:3]
    ids = {person["id"] for line in lines_of(part) for person in line["people"]} - {None}
    assert (done.frames, done.people) == (7, len(ids))


def test_damage_behind_the_part_is_told(recorded: Path) -> None:
    lines = recorded.read_bytes().splitlines(keepends=True)
    lines[40] = b"{\n"
    recorded.write_bytes(b"".join(lines))
    done = convert(recorded, recorded.with_name("out.csv"), part=Part(end_s=1.0))
    assert (done.frames, "damaged at line 41" in str(done.damage)) == (25, True)
    with pytest.raises(SourceError, match="the 25 frames before it"):
        smooth_poses(recorded, recorded.with_name("out.jsonl"), part=Part(end_s=1.0))


def test_the_commands_take_a_part(recorded: Path) -> None:
    folder = recorded.parent
    code, _, stderr = run(["convert", "poses.jsonl", "out.csv", "--start", "0m1s", "--every", "5"], folder)
    assert code == 0, stderr
    assert set(pd.read_csv(folder / "out.csv")["frame"]) <= {25, 30, 35, 40, 45}
    assert "5 frames" in stderr
    code, _, stderr = run(["smooth", "poses.jsonl", "--to", "out.jsonl", "--start", "1s", "--end", "1.2"], folder)
    assert code == 0, stderr
    assert [line["frame"] for line in lines_of(folder / "out.jsonl")] == list(range(25, 30))
    for words in (["convert", "poses.jsonl", "b.csv"], ["smooth", "poses.jsonl", "--to", "b.jsonl"]):
        code, _, stderr = run([*words, "--start", "2", "--end", "1s"], folder)
        assert "--end (1 s) must be after --start (2 s)" in the_error(code, stderr, 2)
