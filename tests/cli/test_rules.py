"""`streampose rules`: a falling and a squatting person in a poses file, flags, and one-line errors."""

from __future__ import annotations

import json
import time
from math import cos, sin
from pathlib import Path
from typing import Any

import pytest

from streampose.networks.pose import COCO_NAMES
from streampose.records.lines import line_of
from tests.cli.helpers import run, run_child, the_error
from tests.people.stick import LYING, SQUAT, STANDING, Motion, path, person
from tests.records.walkers import HEADER, walk, write

FPS = 25
RULES = """
[zones]
left = [[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]

[rules.fall]
when = "fell for 3 s"
cool_down = "1m"

[rules.left]
when = "person inside left for 1 s"
"""
FALLS = path((0, STANDING), (2, STANDING), (2.8, LYING))
SQUATS = path((0, STANDING), (2, STANDING), (2.6, SQUAT), (7, SQUAT), (7.6, STANDING))


def persons(people: dict[int, Motion], at_s: float) -> list[dict[str, Any]]:
    found = []
    for identity, motion in people.items():
        made = person(motion(at_s))
        keypoints = [[*map(float, point), 0.9] for point in made.keypoints_xy[0]]
        box = made.boxes_xyxy[0].tolist()
        found.append({"id": identity, "box_xyxy": box, "box_score": 0.9, "keypoints": keypoints})
    return found


def poses_of(file: Path, people: dict[int, Motion]) -> Path:
    frame = {"source": "clip", "width": 1280, "height": 480}
    times = [k / FPS for k in range(10 * FPS)]
    return write(
        file, [{**frame, "frame": k, "pts_s": at_s, "people": persons(people, at_s)} for k, at_s in enumerate(times)]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with poses.jsonl, in which 1 falls and 2 squats, and rules.toml."""
    poses_of(tmp_path / "poses.jsonl", {1: FALLS, 2: SQUATS})
    (tmp_path / "rules.toml").write_text(RULES)
    return tmp_path


def test_a_fall_is_told_once_and_a_squat_is_not(folder: Path) -> None:
    code, stdout, stderr = run_child(["rules", "poses.jsonl", "--config", "rules.toml", "--json"], folder)
    assert code == 0, stderr
    events = [json.loads(line) for line in stdout.splitlines()]
    falls = [one for one in events if one["rule"] == "fall"]
    assert [(one["event"], one["person"], one["frame"]) for one in falls] == [("start", 1, 139), ("end", 1, 249)]
    assert falls[0]["since_s"] == 64 / FPS
    assert falls[0]["source"] == "clip"
    assert falls[0]["box_xyxy"][2] - falls[0]["box_xyxy"][0] > 200
    assert stderr == "tried  poses.jsonl: 250 frames, 3 events (left 2, fall 1)\n"


def test_lines_for_people(folder: Path) -> None:
    code, stdout, _ = run(["rules", "poses.jsonl", "--config", "rules.toml"], folder)
    assert code == 0
    lines = [" ".join(line.split()) for line in stdout.splitlines()]
    (start,) = [line for line in lines if "start fall" in line]
    assert start.startswith("5.560 s clip start fall person 1 trunk steepness 0")
    assert "9.960 s clip end left person 1 held from 0.000 to 9.960 s" in lines


def test_a_part(folder: Path) -> None:
    arguments = ["rules", "poses.jsonl", "--config", "rules.toml", "--start", "3s"]
    code, stdout, stderr = run(arguments, folder)
    assert (code, "fall" in stdout) == (0, False), "lies from the beginning"
    assert "175 frames" in stderr
    code, _, stderr = run([*arguments, "--end", "3.4s", "--every", "2"], folder)
    assert (code, "5 frames, 0 events" in stderr) == (0, True)
    code, _, stderr = run(["rules", "poses.jsonl", "--config", "rules.toml", "--start", "1m"], folder)
    assert "--start (60 s) is later" in the_error(code, stderr, 2)


def test_sources_are_apart(folder: Path) -> None:
    one, other = walk(60, source="door"), walk(60, source="hall")
    write(folder / "poses.jsonl", [line for pair in zip(one, other, strict=True) for line in pair])
    (folder / "rules.toml").write_text(RULES.replace('1 s"', '1 s"\nsources = ["hall"]'))
    code, stdout, _ = run(["rules", "poses.jsonl", "--config", "rules.toml", "--json"], folder)
    events = [json.loads(line) for line in stdout.splitlines()]
    assert (code, [(one["event"], one["source"]) for one in events]) == (0, [("start", "hall"), ("end", "hall")])


def test_the_file_of_a_run(folder: Path) -> None:
    (folder / "rules.toml").write_text('to = ["a.mp4"]\nfreshness = "2s"\n[sources.door]\nsource = "0"\n' + RULES)
    assert run(["rules", "poses.jsonl", "--config", "rules.toml"], folder)[0] == 0


def test_why_nothing_is_told(folder: Path) -> None:
    write(folder / "poses.jsonl", walk(60, {None: range(60)}))
    (folder / "rules.toml").write_text(RULES + 'sources = ["door"]\n[lines]\ngate = [[900, 0], [900, 5]]\n')
    code, stdout, stderr = run(["rules", "poses.jsonl", "--config", "rules.toml"], folder)
    assert (code, stdout) == (0, "")
    assert "poses.jsonl has no identities: only rules that count people can tell anything" in stderr
    assert "rule left is for door, and poses.jsonl has clip" in stderr
    assert "gate lies outside the picture of 640x480" in stderr


def test_a_damaged_file(folder: Path) -> None:
    with (folder / "poses.jsonl").open("ab") as file:
        file.write(b"{}\n")
    code, stdout, stderr = run(["rules", "poses.jsonl", "--config", "rules.toml"], folder)
    error = the_error(code, stderr, 2)
    assert "poses.jsonl is damaged at line 252" in error
    assert error.endswith("; the rules were tried on what precedes it")
    assert "fall" in stdout
    write(folder / "poses.jsonl", [{**line, "pts_s": None} for line in walk(3)])
    code, _, stderr = run(["rules", "poses.jsonl", "--config", "rules.toml"], folder)
    assert "has frames without times" in the_error(code, stderr, 2)
    with (folder / "poses.jsonl").open("wb") as file:
        file.write(line_of(HEADER))
        (line,) = walk(1)
        line["people"][0]["keypoints"] = [["a", 1, 2]] * len(COCO_NAMES)
        file.write(line_of(line))
    code, _, stderr = run(["rules", "poses.jsonl", "--config", "rules.toml"], folder)
    assert "is damaged: a person is not what a run writes" in the_error(code, stderr, 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[rules.a]\nwhen = 'wrist insde left'", "rules.toml: rules.a.when: 'insde' is not understood after 'wrist'"),
        ("[rules.a]\nwhen = 'tail above head'", "rules.toml: rules.a.when: unknown keypoint 'tail': this skeleton has"),
        ("[rules.a]\nwhen = 'fell'\n[zone]\na = 1", "rules.toml: unknown key 'zone': did you mean zones?"),
        ("[rules.a", "rules.toml is not a valid TOML file"),
        ("a = " + "[" * 100_000, "rules.toml is not a valid TOML file: it is nested too deeply"),
        ("[zones]\na = [[" + "9" * 5000 + ", 1], [2, 3], [4, 9]]", "rules.toml is not a valid TOML file"),
        (
            "# fine\na" + ".a" * 100_000 + " = 1",
            "rules.toml: line 2 has more than 500 dots: begin a line for each zone",
        ),
        ("", "rules.toml: no rules: add a table [rules.NAME]"),
        ("\xff", "rules.toml is not a valid TOML file"),
    ],
)
def test_errors_are_one_line(folder: Path, text: str, says: str) -> None:
    (folder / "rules.toml").write_text(text)
    code, stdout, stderr = run(["rules", "poses.jsonl", "--config", "rules.toml"], folder)
    assert says in the_error(code, stderr, 2)
    assert stdout == ""


def test_files_that_cannot_be_read(folder: Path) -> None:
    (folder / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("none.toml", ".", "binary.toml", "a\0b"):
        code, _, stderr = run(["rules", "poses.jsonl", "--config", name], folder)
        assert "cannot read" in the_error(code, stderr, 2)
    code, _, stderr = run(["rules", "none.jsonl", "--config", "rules.toml"], folder)
    assert "cannot read none.jsonl" in the_error(code, stderr, 2)
    assert run(["rules", "poses.jsonl"], folder)[0] == 2


def test_a_million_points_are_refused_at_once(folder: Path) -> None:
    points = ", ".join(f"[{k % 1000}.5, {k // 1000}.5]" for k in range(1_000_000))
    (folder / "rules.toml").write_text(f"[zones]\nbig = [{points}]\n[rules.a]\nwhen = 'person inside big'\n")
    started_s = time.perf_counter()
    code, stdout, stderr = run(["rules", "poses.jsonl", "--config", "rules.toml"], folder)
    assert time.perf_counter() - started_s < 1.0
    assert "rules.toml is too large: at most 256 kB" in the_error(code, stderr, 2)
    assert stdout == ""
    # The dots of 200 points in one line are not too many.
    ring = [[round(500 + 400 * cos(k / 32), 1), round(500 + 400 * sin(k / 32), 1)] for k in range(200)]
    (folder / "rules.toml").write_text(f"[zones]\nbig = {ring}\n[rules.a]\nwhen = 'person inside big'\n")
    assert run(["rules", "poses.jsonl", "--config", "rules.toml"], folder)[0] == 0
    points = ", ".join(["[1, 2]"] * 25_000)
    (folder / "rules.toml").write_text(f"[zones]\nbig = [{points}]\n[rules.a]\nwhen = 'person inside big'\n")
    code, _, stderr = run(["rules", "poses.jsonl", "--config", "rules.toml"], folder)
    assert "zones.big: 25000 points are too many: at most 200 are allowed" in the_error(code, stderr, 2)
