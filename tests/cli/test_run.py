"""Runs of the program to their end: what they leave on disk and write to standard output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from streampose.cli.main import main
from streampose.records.lines import read_lines
from tests.cli.helpers import run, run_child, the_error
from tests.clips import make_clip


def test_several_sinks_at_once_get_every_frame(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=30)
    sinks = ["out/drawn.mp4", "out/drawn.mkv", "out/poses.jsonl", "pictures/"]
    code, stdout, stderr = run(
        ["run", "clip.mp4", *tiny, *(word for sink in sinks for word in ("--to", sink)), "--boxes", "--labels"],
        tmp_path,
    )
    assert code == 0, stderr
    assert stdout == ""
    for video in sinks[:2]:
        with av.open(tmp_path / video) as container:
            assert sum(1 for _ in container.decode(video=0)) == 30
    head, lines = read_lines(tmp_path / "out/poses.jsonl")
    assert head["source"] == "clip.mp4"
    assert [line["frame"] for line in lines] == list(range(30))
    assert len(list((tmp_path / "pictures").iterdir())) == 30
    for sink in sinks:
        assert sink.rstrip("/") in stderr


def test_keypoints_on_standard_output_and_nothing_else(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=5)
    code, stdout, stderr = run(["run", "clip.mp4", *tiny, "--to", "-"], tmp_path)
    assert code == 0, stderr
    lines = [json.loads(line) for line in stdout.splitlines()]
    assert [line.get("frame") for line in lines] == [None, 0, 1, 2, 3, 4]
    people = lines[1]["people"]
    assert 1 <= len(people) <= 3
    assert np.array(people[0]["keypoints"]).shape == (17, 3)


@pytest.mark.logs_errors
def test_one_failing_sink_is_one_line(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=20)
    (tmp_path / "full").symlink_to("/dev/full")
    code, _, stderr = run(["run", "clip.mp4", *tiny, "--to", "full", "--to", "out.jsonl", "--overwrite"], tmp_path)
    assert code == 2, "a sink is known by its ending"
    (tmp_path / "full.jsonl").symlink_to("/dev/full")
    code, _, stderr = run(
        ["run", "clip.mp4", *tiny, "--to", "full.jsonl", "--to", "out.jsonl", "--overwrite"], tmp_path
    )
    assert "no space left" in the_error(code, stderr, 1)
    assert len(list(read_lines(tmp_path / "out.jsonl")[1])) == 20


def test_a_picture_and_a_folder_of_pictures_keep_their_names(tmp_path: Path, tiny: list[str]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in (("a.jpg", (64, 48)), ("b.png", (90, 120))):
        cv2.imwrite(str(folder / name), np.full((*size, 3), 90, np.uint8))
    code, _, stderr = run(["run", "photos", *tiny, "--to", "drawn/", "--to", "photos.jsonl"], tmp_path)
    assert code == 0, stderr
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a.jpg", "b.png"]
    _, lines = read_lines(tmp_path / "photos.jsonl")
    assert [(line["file"], line["height"]) for line in lines] == [("a.jpg", 64), ("b.png", 90)]
    code, _, stderr = run(["run", "photos/a.jpg", *tiny, "--to", "one.png", "--style", "weighted"], tmp_path)
    assert code == 0, stderr
    assert cv2.imread(str(tmp_path / "one.png")).shape == (64, 48, 3)


def empty(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_text("this is no video\n" * 100)


def cut_off(path: Path) -> None:
    whole = make_clip(path, frames=200).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])  # an MP4's index comes last


@pytest.mark.parametrize("damage", [empty, text, cut_off])
def test_files_that_are_no_video(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(tmp_path / "bad.mp4")
    code, _, stderr = run(["run", "bad.mp4", "--to", "out.mp4", "--to", "out.jsonl"], tmp_path)
    assert "bad.mp4" in the_error(code, stderr, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.mp4"], "nothing was begun"


def test_a_damaged_file_gives_every_good_frame_and_then_the_error(tmp_path: Path, tiny: list[str]) -> None:
    clip = make_clip(tmp_path / "clip.mkv", frames=100)
    whole = clip.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    code, _, stderr = run(["run", "cut.mkv", *tiny, "--to", "out.mkv", "--to", "out.jsonl"], tmp_path)
    assert "cut.mkv" in the_error(code, stderr, 1)
    _, lines = read_lines(tmp_path / "out.jsonl")
    count = len(list(lines))
    assert 30 <= count < 70
    with av.open(tmp_path / "out.mkv") as container:
        assert sum(1 for _ in container.decode(video=0)) == count


def test_counts_that_cannot_be_written(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=5)
    for file, says in (
        ("nowhere/stats.json", "nowhere"),
        ("folder", "folder"),
        ("clip.mp4", "the source itself"),
        ("./out.jsonl", "a sink writes there"),
    ):
        (tmp_path / "folder").mkdir(exist_ok=True)
        code, _, stderr = run(["run", "clip.mp4", *tiny, "--to", "out.jsonl", "--stats", file], tmp_path)
        assert says in the_error(code, stderr, 2)
        assert not (tmp_path / "out.jsonl").exists(), "nothing was begun"
    code, _, stderr = run(["run", "clip.mp4", *tiny, "--to", "null", "--stats", "/dev/full"], tmp_path)
    assert "cannot write /dev/full" in the_error(code, stderr, 1)
    code, _, stderr = run(["run", "rtsp://127.0.0.1:9/1", *tiny, "--to", "null", "--stats", "/dev/full"], tmp_path)
    assert code == 1
    first, last = (line for line in stderr.splitlines() if line.startswith("streampose: "))
    assert "cannot write /dev/full" in first
    assert "refused" in last


def test_a_camera_that_is_not_there_is_one_line(tmp_path: Path, tiny: list[str]) -> None:
    code, _, stderr = run(["run", "rtsp://user:secret@127.0.0.1:9/1", *tiny, "--to", "null"], tmp_path)
    line = the_error(code, stderr, 1)
    assert "rtsp://***@127.0.0.1:9/1" in line
    assert "refused" in line
    assert "secret" not in stderr
    code, _, stderr = run(["run", "/dev/video87", *tiny, "--to", "null"], tmp_path)
    assert "/dev/video87" in the_error(code, stderr, 1)


def test_a_container_on_standard_input_and_the_counts_of_the_run(tmp_path: Path, tiny: list[str]) -> None:
    clip = make_clip(tmp_path / "clip.mkv", frames=50)
    code, _, stderr = run(
        ["run", "cam=-", *tiny, "--to", "{source}.jsonl", "--stats", "stats.json"], tmp_path, stdin=clip
    )
    assert code == 0, stderr
    assert len(list(read_lines(tmp_path / "cam.jsonl")[1])) == 50
    stats = json.loads((tmp_path / "stats.json").read_text())
    counts = stats["sources"]["cam"]
    assert counts["captured"] == counts["delivered"] + sum(counts["dropped"].values()) == 50
    assert counts["latency_ms"]["p50"] > 0
    assert stats["sinks"]["cam.jsonl"]["written"] == 50


def test_several_recordings_named_on_the_command_line_and_in_a_file(tmp_path: Path, tiny: list[str]) -> None:
    for name, frames in (("a", 10), ("b", 25)):
        make_clip(tmp_path / f"{name}.mp4", frames=frames)
    code, _, stderr = run(["run", "left=a.mp4", "right=b.mp4", *tiny, "--to", "{source}.jsonl"], tmp_path)
    assert code == 0, stderr
    for name, frames in (("left", 10), ("right", 25)):
        lines = list(read_lines(tmp_path / f"{name}.jsonl")[1])
        assert [(line["source"], line["frame"]) for line in lines] == [(name, index) for index in range(frames)]
    (tmp_path / "two.toml").write_text(
        'to = ["null"]\n[sources.one]\nsource = "a.mp4"\nto = ["{source}.jsonl"]\n[sources.two]\nsource = "b.mp4"\n'
    )
    code, _, stderr = run(["run", "--config", "two.toml", *tiny, "--to", "{source}-all.jsonl"], tmp_path)
    assert code == 0, stderr
    assert len(list(read_lines(tmp_path / "one.jsonl")[1])) == 10, "a source's own sinks stay"
    assert len(list(read_lines(tmp_path / "two-all.jsonl")[1])) == 25, "a flag wins over the file"


def test_a_step_that_does_not_come_back_is_one_line(tmp_path: Path) -> None:
    """In a process of its own, which it ends at once. A batch of the bundled networks takes longer than the time from
    one check to the next.
    """
    words = ["run", "demo", "--to", "null", "--stall-timeout", "0.0001", "--quiet"]
    code, _, stderr = run_child(words, tmp_path)
    assert "aborted" in the_error(code, stderr, 1)


def test_an_existing_file_is_refused_and_untouched(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=5)
    (tmp_path / "out.jsonl").write_text("precious")
    code, _, stderr = run(["run", "clip.mp4", *tiny, "--to", "out.jsonl"], tmp_path)
    assert "--overwrite" in the_error(code, stderr, 2)
    assert (tmp_path / "out.jsonl").read_text() == "precious"
    code, _, stderr = run(["run", "clip.mp4", *tiny, "--to", "out.jsonl", "--overwrite"], tmp_path)
    assert code == 0, stderr
    assert len(list(read_lines(tmp_path / "out.jsonl")[1])) == 5


def test_the_source_is_never_overwritten(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=5)
    before = clip.read_bytes()
    code, _, stderr = run(["run", "clip.mp4", "--to", "./clip.mp4", "--overwrite"], tmp_path)
    assert "source" in the_error(code, stderr, 2)
    assert clip.read_bytes() == before


def test_the_counts_never_replace_what_a_sink_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "cam=demo", "--to", "{source}.jsonl", "--stats", "cam.jsonl"]) == 2
    assert "a sink writes there" in capsys.readouterr().err
