"""Recordings in segments: every file playable by itself, no frame lost or doubled between them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import cv2  # noqa: F401 - before av

# isort: split
import av
import pytest

from streampose.errors import SinkError, UsageError
from streampose.frames import Frame, People, Result, RunInfo, Skeleton, SourceInfo
from streampose.sinks.open import open_sink
from streampose.sinks.segments import SegmentsSink
from tests.clips import make_clip, numbered_image, read_number

SKELETON = Skeleton(("nose",), (), ())
FPS = 10


def run_info() -> RunInfo:
    return RunInfo(SourceInfo("cam", "cam", 192, 120, FPS, Fraction(1, 90_000), None, True), SKELETON, {})


def result(number: int, pts_s: float) -> Result:
    picture = numbered_image(number)
    return Result(Frame("cam", number, pts_s, 0.0, picture), People.none(1), SKELETON, picture)


def play(path: Path) -> list[tuple[float, int]]:
    with av.open(str(path)) as container:
        return [
            (round(float(frame.time or 0), 3), read_number(frame.to_ndarray(format="bgr24")))
            for frame in container.decode(video=0)
        ]


def files_below(folder: Path) -> list[Path]:
    """In the order in which they were begun: those of one second are numbered."""
    return sorted(folder.rglob("*.m*"), key=lambda path: [int(digits) for digits in re.findall(r"\d+", path.stem)])


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("start_s", [0.0, 1234.5])
def test_every_frame_is_in_one_file_and_each_file_begins_at_zero(tmp_path: Path, suffix: str, start_s: float) -> None:
    with open_sink(f"{tmp_path}/rec/{{source}}-{{time}}{suffix}", segment_s=1.2) as sink:
        sink.open(run_info())
        for number in range(40):
            sink.write(result(number, start_s + number / FPS))
    segments = [play(path) for path in files_below(tmp_path)]
    assert [len(segment) for segment in segments] == [12, 12, 12, 4]
    assert [number for segment in segments for _, number in segment] == list(range(40))
    for segment in segments:
        assert [at_s for at_s, _ in segment] == [round(index / FPS, 3) for index in range(len(segment))]
    size_mb = sum(path.stat().st_size for path in files_below(tmp_path)) / 1e6
    assert sink.summary() == f"{tmp_path}/rec: 4 segments, 40 frames, {size_mb:.1f} MB"
    assert sink.status() == {"segments": 4, "file": str(files_below(tmp_path)[-1])}


def test_cuts_are_at_multiples_of_the_length_whatever_is_missing(tmp_path: Path) -> None:
    times_s = [0.0, 0.9, 1.1, 1.95, 2.0, 2.4, 7.3, 7.9, 8.0]
    with open_sink(f"{tmp_path}/{{time}}.mkv", segment_s=1.0) as sink:
        sink.open(run_info())
        for number, at_s in enumerate(times_s):
            sink.write(result(number, at_s))
    numbers = [[number for _, number in play(path)] for path in files_below(tmp_path)]
    assert numbers == [[0, 1], [2, 3], [4, 5], [6, 7], [8]], "a time without a frame has no file"


def test_names_hold_source_and_time_and_replace_nothing(tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    for _ in range(2):
        with open_sink(f"{tmp_path}/{{source}}/a-{{time}}.mkv", segment_s=1.0, overwrite=True) as sink:
            sink.open(run_info())
            for number in range(20):
                sink.write(result(number, number / FPS))
    paths = files_below(tmp_path)
    assert len(paths) == 4
    for path in paths:
        match = re.fullmatch(r"a-(\d{8}-\d{6})(-[2-9])?\.mkv", path.name)
        assert match is not None
        assert before <= datetime.strptime(match[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC) <= datetime.now(UTC)
        assert path.parent == tmp_path / "cam"
        assert len(play(path)) == 10


def test_time_alone_names_one_file_and_a_length_alone_numbers_them(tmp_path: Path) -> None:
    with open_sink(f"{tmp_path}/one/{{time}}.mp4") as one, open_sink(f"{tmp_path}/many/cam.mkv", segment_s=0.5) as many:
        for sink in (one, many):
            assert isinstance(sink, SegmentsSink)
            sink.open(run_info())
            for number in range(12):
                sink.write(result(number, number / FPS))
    assert len(files_below(tmp_path / "one")) == 1
    assert {path.name for path in files_below(tmp_path / "many")} == {"cam.mkv", "cam-2.mkv", "cam-3.mkv"}


def test_sound_of_a_recorded_source_stays_out(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=10, fps=FPS, audio_s=1.0)
    run = run_info()
    with open_sink(f"{tmp_path}/out/{{time}}.mkv", source_path=str(clip)) as sink:
        sink.open(replace(run, source=replace(run.source, path=str(clip))))
        for number in range(10):
            sink.write(result(number, number / FPS))
    (path,) = files_below(tmp_path / "out")
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video"]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_killed_recording_keeps_its_files(tmp_path: Path, suffix: str) -> None:
    program = textwrap.dedent("""
        import os, signal, sys
        from tests.sinks.test_segments import *

        sink = open_sink(sys.argv[1], segment_s=8.0)
        sink.open(run_info())
        for number in range(230):
            sink.write(result(number, number / FPS))
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    ended = subprocess.run([sys.executable, "-c", program, f"{tmp_path}/{{time}}{suffix}"], timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    segments = [[number for _, number in play(path)] for path in files_below(tmp_path)]
    assert [len(segment) for segment in segments[:2]] == [80, 80]
    assert 0 < len(segments[2]) < 70, "the last seconds of the last file are lost"
    numbers = [number for segment in segments for number in segment]
    assert numbers == list(range(len(numbers)))


def test_a_run_without_frames_leaves_no_file(tmp_path: Path) -> None:
    sink = open_sink(f"{tmp_path}/rec/{{time}}.mkv", segment_s=1.0)
    assert not (tmp_path / "rec").exists(), "before it is opened nothing changes"
    with sink:
        sink.open(run_info())
    sink.close()
    assert files_below(tmp_path) == []
    assert sink.summary() is None


def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path) -> None:
    for segment_s in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="seconds above 0"):
            open_sink(f"{tmp_path}/{{time}}.mkv", segment_s=segment_s)
    with pytest.raises(UsageError, match="video files"):
        open_sink(f"{tmp_path}/{{time}}.jsonl")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UsageError, match="not a folder"):
        open_sink(f"{tmp_path}/file/{{time}}.mkv")
    sink = open_sink(f"{tmp_path}/rec/{{time}}.mkv")
    with pytest.raises(SinkError, match="not open"):
        sink.write(result(0, 0.0))
    assert files_below(tmp_path) == []
