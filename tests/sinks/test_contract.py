"""What every sink promises; results are made by hand."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import cv2

# isort: split
import numpy as np
import pytest

from streampose import stream
from streampose.errors import SinkError, UsageError
from streampose.frames import Result
from streampose.records.lines import read_lines
from streampose.sinks.open import open_sink
from tests.clips import numbered_image
from tests.sinks.helpers import (
    TARGETS,
    everything_below,
    file_size_limit,
    open_files,
    readable_frames,
    result,
    run_info,
)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Ask the system for permissions as an ordinary user would, whoever runs the tests."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(65534, 0, 0)  # `os.access` asks for the real user
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def results_for(target: str) -> list[Result]:
    return [result(index) for index in range(1 if target == "out.png" else 5)]


FILE_TARGETS = TARGETS[1:]
"""Those that leave something on disk."""


@pytest.mark.parametrize("target", TARGETS)
def test_open_write_close_leaves_whole_files_and_nothing_else(target: str, tmp_path: Path) -> None:
    before, threads = open_files(), threading.active_count()
    folder = tmp_path / "new" / "folders"
    sink = open_sink(target if target == "null" else f"{folder}/{target}")
    assert everything_below(tmp_path) == {}
    sink.open(run_info())
    for each in results_for(target):
        assert sink.write(each) is None
    sink.close()
    left = everything_below(tmp_path)
    sink.close()
    assert everything_below(tmp_path) == left
    assert open_files() == before
    assert threading.active_count() == threads
    if target != "null":
        count = len(results_for(target))
        frames = "1 frame" if count == 1 else f"{count} frames"
        assert re.fullmatch(rf"{re.escape(f'{folder}/{target}')}: {frames}, [0-9.]+ [kM]B", sink.summary() or "")
        assert all(content is None or len(content) > 100 for content in left.values())
    else:
        assert sink.summary() is None


@pytest.mark.parametrize("target", TARGETS)
def test_a_sink_that_was_never_opened_closes_without_a_trace(target: str, tmp_path: Path) -> None:
    with open_sink(target if target == "null" else f"{tmp_path}/{target}") as sink:
        pass
    sink.close()
    assert everything_below(tmp_path) == {}


@pytest.mark.parametrize("target", TARGETS)
def test_a_run_without_frames_leaves_no_file(target: str, tmp_path: Path) -> None:
    sink = open_sink(target if target == "null" else f"{tmp_path}/{target}")
    sink.open(run_info())
    sink.close()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sink.summary() is None


@pytest.mark.parametrize("target", FILE_TARGETS)
def test_what_exists_is_refused_and_left_as_it_was(target: str, tmp_path: Path) -> None:
    old = tmp_path / target / "000000.jpg" if target == "out/" else tmp_path / target
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(b"precious")
    with pytest.raises(UsageError, match="overwrite"):
        open_sink(f"{tmp_path}/{target}")
    assert old.read_bytes() == b"precious"

    sink = open_sink(f"{tmp_path}/{target}", overwrite=True)
    sink.open(run_info())
    assert old.read_bytes() == b"precious", "a run that never gets a frame replaces nothing"
    for each in results_for(target):
        sink.write(each)
    sink.close()
    assert b"precious" not in old.read_bytes()


@pytest.mark.parametrize("target", FILE_TARGETS)
def test_what_appears_after_the_checks_is_not_replaced(target: str, tmp_path: Path) -> None:
    sink = open_sink(f"{tmp_path}/{target}")
    sink.open(run_info())
    new = tmp_path / target / "000000.jpg" if target == "out/" else tmp_path / target
    new.write_bytes(b"another's")
    with pytest.raises(SinkError, match="overwrite"):
        sink.write(result(0))
    sink.close()
    sink.close()
    assert new.read_bytes() == b"another's"


@pytest.mark.parametrize("target", FILE_TARGETS)
def test_a_failed_open_is_one_line_and_closes(target: str, tmp_path: Path) -> None:
    sink = open_sink(f"{tmp_path}/later/{target}")
    (tmp_path / "later").write_text("a file where the folder should be")
    with pytest.raises(SinkError, match="later") as caught:
        sink.open(run_info())
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    sink.close()
    sink.close()


@pytest.mark.parametrize("target", FILE_TARGETS)
def test_a_full_disk_is_one_line_and_what_was_written_stays_readable(target: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    images = [noise.integers(0, 255, (240, 320, 3)).astype(np.uint8) for _ in range(4)]
    before = open_files()
    sink = open_sink(f"{tmp_path}/{target}")
    sink.open(run_info(size=(320, 240)))
    written, caught = 0, None
    with file_size_limit({"out/": 1000, "out.png": 1000, "out.jsonl": 20_000}.get(target, 1_500_000)):
        try:
            for index in range(400):
                sink.write(result(index, image=images[index % 4]))
                written += 1
        except SinkError as error:
            caught = error
        sink.close()
        sink.close()
    assert "no space left" in str(caught)
    assert "\n" not in str(caught)
    assert isinstance(caught, SinkError)
    assert isinstance(caught.__cause__, OSError)
    assert open_files() == before
    path = tmp_path / target
    if written:
        assert f"{target}: cut off after {written} frame" in (sink.summary() or "")
    if target in {"out/", "out.png"}:
        assert not [path for path in tmp_path.rglob("*") if path.is_file()], "no half pictures"
    elif target == "out.jsonl":
        assert path.stat().st_size <= 20_000
        assert path.read_bytes().endswith(b"}\n")
        assert [line["frame"] for line in read_lines(path)[1]] == list(range(written))
    else:
        assert 25 <= readable_frames(path) <= written


@pytest.mark.parametrize("target", FILE_TARGETS)
def test_a_disk_without_any_room_leaves_no_file(target: str, tmp_path: Path) -> None:
    sink = open_sink(f"{tmp_path}/{target}")
    sink.open(run_info())
    with file_size_limit(0):
        with suppress(SinkError):
            for index in range(200):
                sink.write(result(index))
            pytest.fail("nothing was written, and nobody said so")
        sink.close()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("target", FILE_TARGETS)
def test_a_place_that_is_closed_to_us_is_refused_at_once(target: str, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    tmp_path.chmod(0o755)
    with as_nobody(), pytest.raises(SinkError, match="permission denied"):
        open_sink(f"{closed}/new/{target}")
    assert everything_below(tmp_path) == {"closed": None}


@pytest.mark.parametrize("target", FILE_TARGETS)
def test_a_file_in_the_place_of_a_folder_is_refused_at_once(target: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file, not a folder"):
        open_sink(f"{tmp_path}/file/{target}")


@pytest.mark.parametrize("target", FILE_TARGETS[:-2])
def test_a_folder_in_the_place_of_a_file_is_refused_at_once(target: str, tmp_path: Path) -> None:
    (tmp_path / target).mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        open_sink(tmp_path / target, overwrite=True)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.png"])
def test_the_source_is_never_replaced(name: str, tmp_path: Path) -> None:
    source = tmp_path / name
    source.write_bytes(b"the source")
    (tmp_path / f"link{source.suffix}").symlink_to(source)
    for target in (source, tmp_path / f"link{source.suffix}"):
        with pytest.raises(UsageError, match="is the source itself"):
            open_sink(target, overwrite=True, source_path=str(source))


def test_pictures_are_never_written_over_their_source(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(b"the source")
    for source_path in (tmp_path, source):
        with pytest.raises(UsageError, match="is the source itself"):
            open_sink(f"{tmp_path}/", overwrite=True, source_path=str(source_path))


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("in", "in/"),
        ("in/*.png", "in/"),
        ("in", "link"),
        ("link", "in/"),
        ("in/0.png", "in/0.png"),
        ("in/0.png", "in/"),
    ],
)
def test_a_run_over_its_own_pictures_is_refused_at_once(text: str, target: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    for number in range(2):
        cv2.imwrite(f"{tmp_path}/in/{number}.png", numbered_image(number))
    before = everything_below(tmp_path)
    with pytest.raises(UsageError, match="is the source itself"):
        stream(f"{tmp_path}/{text}", to=[f"{tmp_path}/{target}"], overwrite=True)
    assert everything_below(tmp_path) == before


def test_no_picture_of_the_source_is_replaced_later(tmp_path: Path) -> None:
    """As by `**/*.png` into a folder below it, where the pictures of the last run are a source too."""
    (tmp_path / "out").mkdir()
    source = tmp_path / "out" / "a.png"
    source.write_bytes(b"the source")
    run = run_info()
    run = replace(run, source=replace(run.source, stills=(str(tmp_path / "gone.png"), str(source))))
    with open_sink(f"{tmp_path}/out/", overwrite=True) as sink:
        sink.open(run)
        sink.write(result(0, file="b.png"))
        with pytest.raises(SinkError, match=r"out/a\.png is the source itself"):
            sink.write(result(1, file="a.png"))
    assert f"{tmp_path}/out/: cut off after 1 frame, " in (sink.summary() or "")
    with open_sink(source, overwrite=True) as sink, pytest.raises(SinkError, match="is the source itself"):
        sink.open(run)
    assert source.read_bytes() == b"the source"


@pytest.mark.parametrize("target", FILE_TARGETS)
def test_a_name_that_is_too_long_is_one_line(target: str, tmp_path: Path) -> None:
    for text in (f"{tmp_path}/{'y' * 300}{target}", f"{tmp_path}/{'y' * 300}/{target}"):
        with pytest.raises(SinkError, match="File name too long"):
            open_sink(text)


@pytest.mark.parametrize("target", FILE_TARGETS)
def test_a_folder_that_may_not_be_entered_is_one_line(target: str) -> None:
    # Not under tmp_path, which is closed to others as a whole.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o600)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(SinkError, match=r"[Pp]ermission denied"):
                open_sink(f"{folder}/{target}", overwrite=True)
        finally:
            os.seteuid(user)
        Path(folder).chmod(0o700)


def test_names_are_one_line_that_can_be_printed(tmp_path: Path) -> None:
    with open_sink(f"{tmp_path}/a\nb\x1b[31m é\udcff.jsonl") as sink:
        sink.open(run_info())
        sink.write(result(0))
    assert (sink.summary() or "").startswith(f"{tmp_path}/a\\nb\\x1b[31m é\\udcff.jsonl: 1 frame")
    assert (tmp_path / "a\nb\x1b[31m é\udcff.jsonl").is_file()
