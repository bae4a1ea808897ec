"""Drawn stills."""

from __future__ import annotations

import os
from pathlib import Path

import cv2

# isort: split
import numpy as np
import pytest

from streampose.errors import SinkError
from streampose.sinks.open import open_sink
from tests.clips import numbered_image, read_number
from tests.sinks.helpers import child, result, run_info


def test_pictures_keep_the_names_of_theirs(tmp_path: Path) -> None:
    names = ["a.png", "sub/deep/b.JPG", "c.gif", "c.jpg", None]
    with open_sink(f"{tmp_path}/out/") as sink:
        sink.open(run_info())
        for index, name in enumerate(names):
            sink.write(result(index, file=name))
    written = ["000004.jpg", "a.png", "c.gif.jpg", "c.jpg", "sub/deep/b.JPG"]
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in tmp_path.rglob("*") if path.is_file()) == written
    assert [read_number(cv2.imread(str(tmp_path / "out" / name))) for name in written] == [4, 0, 2, 3, 1]
    assert np.array_equal(cv2.imread(str(tmp_path / "out" / "a.png")), numbered_image(0))


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.png", "a.webp", "a.bmp"])
def test_a_picture_has_the_format_of_its_name(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open_sink(tmp_path / name) as sink:
        sink.open(run_info())
        sink.write(result(5))
    begin = {".jpg": b"\xff\xd8", ".jpeg": b"\xff\xd8", ".png": b"\x89PNG", ".webp": b"RIFF", ".bmp": b"BM"}
    assert (tmp_path / name).read_bytes().startswith(begin[Path(name).suffix])
    assert read_number(cv2.imread(str(tmp_path / name))) == 5
    assert capfd.readouterr().err == "", "OpenCV prints what it does not like"


@pytest.mark.parametrize("target", ["out/", "out/0.png"])
def test_what_a_killed_run_has_left_is_removed(target: str, tmp_path: Path) -> None:
    (tmp_path / "out" / "sub").mkdir(parents=True)
    with child("pass") as ended:
        ended.wait(timeout=10)
    for folder in (tmp_path / "out", tmp_path / "out" / "sub"):
        (folder / f".streampose-{ended.pid}-7.part").write_text("half")
        (folder / f".streampose-{os.getppid()}-7.part").write_text("another run's")
        (folder / ".streampose-notes.part").write_text("not ours")
    with open_sink(f"{tmp_path}/{target}") as sink:
        sink.open(run_info())
        sink.write(result(0, file="sub/a.png" if target == "out/" else None))
    left = sorted(path.name for path in tmp_path.rglob("*.part"))
    kept = [f".streampose-{os.getppid()}-7.part", ".streampose-notes.part"] * 2
    assert left == sorted(kept if target == "out/" else [*kept, f".streampose-{ended.pid}-7.part"])


def test_a_name_as_long_as_a_name_can_be(tmp_path: Path) -> None:
    name = "y" * 251 + ".png"
    with open_sink(f"{tmp_path}/out/") as sink:
        sink.open(run_info())
        sink.write(result(0, file=name))
    with open_sink(tmp_path / name) as sink:
        sink.open(run_info())
        sink.write(result(0))
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [name, name]


def test_one_picture_is_one_frame(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "out.png")
    sink.open(run_info())
    sink.write(result(0))
    with pytest.raises(
        SinkError, match=r"is a single still, but the source has more frames: give a folder, e\.g\. out/"
    ):
        sink.write(result(1))
    sink.close()
    assert read_number(cv2.imread(str(tmp_path / "out.png"))) == 0


def test_a_folder_with_other_things_takes_pictures(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("keep")
    with open_sink(tmp_path / "out") as sink:
        sink.open(run_info())
        sink.write(result(0))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000000.jpg", "notes.txt"]
