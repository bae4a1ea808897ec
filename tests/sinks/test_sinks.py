"""Every sink against the one promise, and each against what it alone promises; results are made by hand."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2

# isort: split
import av
import numpy as np
import pytest

from streampose import __version__, stream
from streampose.errors import SinkError, UsageError
from streampose.frames import NO_TRACK, Boxes, Frame, Image, People, Result, RunInfo, Skeleton, SourceInfo
from streampose.sinks.null import NullSink
from streampose.sinks.open import open_sink
from streampose.sinks.poses import KeypointsSink, read_poses
from streampose.sinks.sink import Sink
from streampose.sinks.stills import StillSink, StillsSink
from streampose.sinks.video import MIN_FRAGMENT_FRAMES, VideoFileSink
from streampose.sources.open import open_source
from tests.clips import make_clip, numbered_image, read_number

ROOT = Path(__file__).resolve().parents[2]
SKELETON = Skeleton(("nose", "left_eye", "right_eye"), ((0, 1), (0, 2)), ((1, 2),))

TARGETS = ("null", "out.mp4", "out.m4v", "out.mov", "out.mkv", "out.jsonl", "out/", "out.png")
FILE_TARGETS = TARGETS[1:]
"""Those that leave something on disk."""
VIDEOS = ("out.mp4", "out.mov", "out.mkv")


def run_info(
    *,
    size: tuple[int, int] = (192, 120),
    fps: float | None = 25.0,
    time_base: Fraction = Fraction(1, 25),
    frame_count: int | None = None,
    is_live: bool = False,
    path: Path | None = None,
) -> RunInfo:
    source = SourceInfo(
        "clip", "clip.mp4", *size, fps, time_base, frame_count, is_live, None if path is None else str(path)
    )
    return RunInfo(source, SKELETON, {"detector": "finder", "pose": "poser"})


def someone(count: int = 1, label_of: dict[int, str] | None = None) -> People:
    boxes = Boxes(
        np.tile(np.float32([10.123, 20.5, 60, 110]), (count, 1)),
        np.full(count, 0.87654321, np.float32),
        np.arange(count),
    )
    xy = np.tile(np.float32([[30.126, 40], [31, 41], [-5.5, 300]]), (count, 1, 1))
    return People.of(boxes, xy, np.tile(np.float32([0.91234567, 0.5, 1.25]), (count, 1)), label_of)


def result(
    index: int,
    *,
    pts_s: float | None = None,
    image: Image | None = None,
    picture: Image | None = None,
    people: People | None = None,
    file: str | None = None,
) -> Result:
    image = numbered_image(index) if image is None else image
    frame = Frame("clip", index, index / 25 if pts_s is None else pts_s, 0.0, image, file)
    return Result(frame, someone() if people is None else people, SKELETON, image if picture is None else picture)


def results_for(target: str) -> list[Result]:
    return [result(index) for index in range(1 if target == "out.png" else 5)]


def everything_below(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}


def open_files() -> list[str]:
    """What this process holds open, but not what each process has: libraries keep some devices and pipes."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except FileNotFoundError:  # the descriptor of this very listing
            continue
    return sorted(link for link in links if not link.startswith(("/dev", "/proc", "pipe:", "socket:", "anon_inode:")))


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow over `size_bytes`, as on a full disk: Python ignores the signal, writes fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


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


# --- the promise of every sink ---------------------------------------------------------------------------------------


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
        assert [line["frame"] for line in read_poses(path)[1]] == list(range(written))
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


def readable_frames(path: Path) -> int:
    count = 0
    with av.open(str(path)) as container:
        try:
            for _ in container.decode(video=0):
                count += 1
        except av.InvalidDataError:  # the last piece of a file that was cut
            pass
    return count


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
    run = replace(run, source=replace(run.source, pictures=(str(tmp_path / "gone.png"), str(source))))
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


# --- text to sink ----------------------------------------------------------------------------------------------------


def test_each_text_gives_its_sink(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    expected: dict[str, type[Sink]] = {
        "a.mp4": VideoFileSink,
        "a.M4V": VideoFileSink,
        "a.mov": VideoFileSink,
        "a.mkv": VideoFileSink,
        "a.jsonl": KeypointsSink,
        "a.jpg": StillSink,
        "a.JPEG": StillSink,
        "a.png": StillSink,
        "a.webp": StillSink,
        "a.bmp": StillSink,
        "new/": StillsSink,
        "there": StillsSink,
    }
    for name, kind in expected.items():
        assert type(open_sink(f"{tmp_path}/{name}")) is kind, name
    assert isinstance(open_sink("null"), NullSink)
    assert isinstance(open_sink("-"), KeypointsSink)
    assert type(open_sink(tmp_path / "a.mp4")) is VideoFileSink


@pytest.mark.parametrize("text", ["out", "out.avi", "out.txt", "", "poses.json"])
def test_an_unknown_text_names_what_is_understood(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a folder of that name is understood
    with pytest.raises(UsageError) as caught:
        open_sink(text)
    for word in ("window", "null", ".mp4", ".mkv", ".jsonl", ".jpg", "/"):
        assert word in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "srt"])
def test_a_url_is_refused_in_one_line_without_its_password(scheme: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_sink(f"{scheme}://user:secret@host/live.mp4")
    assert "secret" not in str(caught.value)
    assert "files" in str(caught.value)


def test_an_endless_name_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown output"):
        open_sink(str(tmp_path / ("x" * 300)))


def test_only_drawing_sinks_ask_for_the_picture(tmp_path: Path) -> None:
    needs = {
        text: open_sink(text if text in {"null", "-"} else f"{tmp_path}/{text}").needs_picture
        for text in (*TARGETS, "-")
    }
    assert {text for text, wanted in needs.items() if not wanted} == {"null", "-", "out.jsonl"}


# --- video files -----------------------------------------------------------------------------------------------------


def video_run(clip: Path, target: Path, *, limit: int | None = None, with_path: bool = True) -> list[Fraction]:
    """Send the clip through a sink as a run would; return the times of the frames that were written."""
    times = []
    with av.open(str(clip)) as container, open_sink(target) as sink:
        stream = container.streams.video[0]
        rate = stream.average_rate
        assert stream.time_base is not None
        sink.open(
            run_info(
                size=(stream.width, stream.height),
                fps=None if rate is None else float(rate),
                time_base=stream.time_base,
                path=clip if with_path else None,
            )
        )
        try:
            for index, frame in enumerate(container.decode(stream)):
                if index == limit:
                    break
                assert frame.pts is not None
                times.append(frame.pts * stream.time_base)
                sink.write(result(index, pts_s=float(times[-1]), image=frame.to_ndarray(format="bgr24")))
        except av.FFmpegError:  # a damaged clip; its source would tell
            pass
    return times


def source_run(text: Path, target: Path) -> list[Frame]:
    """Send a source through a sink as a run would; return its frames."""
    with open_source(text) as source, open_sink(target) as sink:
        sink.open(replace(run_info(), source=source.info))
        frames = list(source.frames())
        for frame in frames:
            sink.write(Result(frame, someone(), SKELETON))
    return frames


def frame_times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0) if frame.pts is not None]


def sound_packets(path: Path, track: int = 0) -> list[tuple[float, bytes]]:
    packets = []
    with av.open(str(path)) as container:
        try:
            for packet in container.demux(audio=track):
                if packet.pts is not None:
                    packets.append((float(packet.pts * packet.time_base), bytes(packet)))
        except av.InvalidDataError:
            pass
    return packets


def add_sound(
    clip: Path, target: Path, codec: str, *, seconds: float = 1.2, tracks: int = 1, begin_s: float = 0
) -> Path:
    """Copy the clip's pictures into `target` beside tones of `codec`."""
    rate = 48_000
    with av.open(str(clip)) as source, av.open(str(target), "w") as container:
        pictures = source.streams.video[0]
        copied = container.add_stream_from_template(pictures, opaque=True)
        tones = [container.add_stream(codec, rate=rate, layout="mono") for _ in range(tracks)]
        packets: list[av.Packet[Any]] = []
        for number, tone in enumerate(tones):
            assert isinstance(tone, av.AudioStream)
            at_s = np.arange(round(seconds * rate)) / rate
            wave = (8000 * np.sin(2 * np.pi * 440 * (number + 1) * at_s)).astype(np.int16)
            sound = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = rate, round(begin_s * rate), Fraction(1, rate)
            wanted = av.AudioResampler(
                tone.codec_context.format.name, "mono", rate, tone.codec_context.frame_size or 960
            )
            for piece in [*wanted.resample(sound), *wanted.resample(None)]:
                packets += tone.encode(piece)
            packets += tone.encode(None)
        for packet in source.demux(pictures):
            if packet.dts is not None:
                packet.stream = copied
                packets.append(packet)
        for packet in sorted(packets, key=lambda each: each.dts * each.time_base):
            container.mux(packet)
    return target


UNEVEN_S = [0.52, 0.56, 0.601, 0.7, 0.95, 0.99, 1.5, 1.517, 1.9, 3.2, 3.24, 3.25]
"""Times of a varying rate that begin away from zero."""


@pytest.mark.parametrize("target", VIDEOS)
def test_timestamps_are_the_sources_own(target: str, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", times_s=UNEVEN_S, b_frames=2)
    times = video_run(clip, tmp_path / target)
    assert times == [Fraction(str(at_s)) for at_s in UNEVEN_S]
    got = frame_times(tmp_path / target)
    if target.endswith(".mkv"):  # its ticks are milliseconds
        assert got == [Fraction(round(at * 1000), 1000) for at in times]
    else:
        assert got == times


@pytest.mark.parametrize(
    "time_base", [Fraction(1001, 30000), Fraction(1, 90_000), Fraction(1, 1_000_000), Fraction(1, 3)]
)
def test_every_tick_of_a_time_base_is_kept(time_base: Fraction, tmp_path: Path) -> None:
    ticks = [7, 8, 9, 11, 14, 18, 37, 38]
    with open_sink(tmp_path / "out.mp4") as sink:
        sink.open(run_info(time_base=time_base, fps=None))
        for index, tick in enumerate(ticks):
            sink.write(result(index, pts_s=float(tick * time_base)))
    assert frame_times(tmp_path / "out.mp4") == [tick * time_base for tick in ticks]


@pytest.mark.parametrize("target", VIDEOS)
def test_times_that_do_not_grow_are_repaired(target: str, tmp_path: Path) -> None:
    with open_sink(tmp_path / target) as sink:
        sink.open(run_info(time_base=Fraction(1, 1000)))
        for index, pts_s in enumerate([0.0, 0.04, 0.04, 0.02, 0.08]):
            sink.write(result(index, pts_s=pts_s))
    assert frame_times(tmp_path / target) == [Fraction(ms, 1000) for ms in (0, 40, 41, 42, 80)]


@pytest.mark.parametrize("target", VIDEOS)
def test_every_picture_arrives_in_order(target: str, tmp_path: Path) -> None:
    with open_sink(tmp_path / target) as sink:
        sink.open(run_info())
        for index in range(60):
            sink.write(result(index))
    with av.open(str(tmp_path / target)) as container:
        assert [read_number(frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)] == list(range(60))
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        container.seek(round(1.5 / stream.time_base), stream=stream)
        assert next(container.decode(stream)).pts is not None


@pytest.mark.parametrize("count", [1, 2, 49, 50, 51, 52, 53, 54, 76, 77, 101, 102, 103])
def test_the_last_frames_are_not_lost(count: int, tmp_path: Path) -> None:
    """Whatever the place of the last B-frames between the pieces of the file; x264 uses them for what moves."""
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 3)).astype(np.uint8)
    texture = cv2.resize(noise, (192, 120))
    with open_sink(tmp_path / "out.mp4") as sink:
        sink.open(run_info())
        for index in range(count):
            sink.write(result(index, image=np.roll(texture, index * 2, 1)))
    assert frame_times(tmp_path / "out.mp4") == [Fraction(index, 25) for index in range(count)]


def test_the_drawn_picture_is_written_and_without_one_the_frame(tmp_path: Path) -> None:
    drawn = result(1, image=numbered_image(7), picture=numbered_image(9))
    plain = Result(drawn.frame, drawn.people, SKELETON)
    for name, each, expected in (("a.mp4", drawn, 9), ("b.mp4", plain, 7), ("a.png", drawn, 9), ("b.png", plain, 7)):
        with open_sink(tmp_path / name) as sink:
            sink.open(run_info())
            sink.write(each)
        with av.open(str(tmp_path / name)) as container:
            assert read_number(next(container.decode(video=0)).to_ndarray(format="bgr24")) == expected


def top_level_boxes(path: Path) -> list[str]:
    data, at, kinds = path.read_bytes(), 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        size = int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size
        kinds.append(data[at + 4 : at + 8].decode("latin1"))
        at += size
    return kinds


@pytest.mark.parametrize("target", ["out.mp4", "out.mov"])
def test_a_closed_file_is_an_ordinary_one(target: str, tmp_path: Path) -> None:
    video_run(make_clip(tmp_path / "clip.mp4", frames=80, audio_s=3.2), tmp_path / target)
    kinds = top_level_boxes(tmp_path / target)
    assert kinds.count("moov") == 1
    assert "moof" not in kinds
    with av.open(str(tmp_path / target)) as container:
        assert container.streams.video[0].frames == 80


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (192, 120)])
def test_colours_survive(width: int, height: int, tmp_path: Path) -> None:
    bars = np.zeros((height, width, 3), np.uint8)
    colours = [
        (255, 255, 255),
        (0, 255, 255),
        (255, 255, 0),
        (0, 255, 0),
        (255, 0, 255),
        (0, 0, 255),
        (255, 0, 0),
        (60, 90, 120),
    ]
    for number, colour in enumerate(colours):
        bars[:, number * width // 8 : (number + 1) * width // 8] = colour
    with open_sink(tmp_path / "out.mp4") as sink:
        sink.open(run_info(size=(width, height)))
        for index in range(3):
            sink.write(result(index, image=bars))
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
    matrix = 1 if height >= 720 else 6
    assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (matrix, 2, 2, 1)
    error = np.abs(frame.to_ndarray(format="bgr24").astype(int) - bars)
    centres = (np.arange(8) * 2 + 1) * width // 16
    assert error[height // 2, centres].max() <= 5
    assert error.mean() < 2.5


@pytest.mark.parametrize("size", [(191, 121), (191, 120), (192, 121), (1, 1), (17, 2)])
def test_odd_sizes_grow_by_one(size: tuple[int, int], tmp_path: Path) -> None:
    width, height = size
    image = np.full((height, width, 3), 30, np.uint8)
    image[:, -1] = image[-1] = 200
    with open_sink(tmp_path / "out.mp4") as sink:
        sink.open(run_info(size=size))
        sink.write(result(0, image=image))
    with av.open(str(tmp_path / "out.mp4")) as container:
        got = next(container.decode(video=0)).to_ndarray(format="bgr24")
    assert got.shape[:2] == (height + height % 2, width + width % 2)
    assert np.abs(got[-1].astype(int) - 200).mean() < 20


@pytest.mark.parametrize("target", VIDEOS)
def test_pixels_that_are_not_square_stay_so(target: str, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", pixel_aspect=Fraction(4, 3))
    source_run(clip, tmp_path / target)
    with av.open(str(tmp_path / target)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
        assert next(container.decode(video=0)).width == 192


def test_a_picture_that_h264_cannot_hold_is_one_line(tmp_path: Path) -> None:
    with open_sink(tmp_path / "out.mp4") as sink:
        sink.open(run_info())
        with pytest.raises(SinkError, match=r"20000 x 4 pixels are too large: H\.264 allows at most 16384 per side"):
            sink.write(result(0, image=np.zeros((4, 20000, 3), np.uint8)))
    assert everything_below(tmp_path) == {}
    with open_sink(tmp_path / "out.mp4") as sink:
        sink.open(run_info())
        sink.write(result(0, image=np.zeros((4, 16384, 3), np.uint8)))
    assert readable_frames(tmp_path / "out.mp4") == 1


def test_frames_of_another_size_are_fitted_into_the_first(tmp_path: Path) -> None:
    sizes = [(192, 120), (96, 60), (120, 120), (192, 120)]
    with open_sink(tmp_path / "out.mp4") as sink:
        sink.open(run_info())
        for index, size in enumerate(sizes):
            sink.write(result(index, image=np.full((size[1], size[0], 3), 200, np.uint8)))
    with av.open(str(tmp_path / "out.mp4")) as container:
        got = [frame.to_ndarray(format="bgr24").astype(int) for frame in container.decode(video=0)]
    assert {image.shape for image in got} == {(120, 192, 3)}
    assert all(image.mean() > 190 for image in (got[0], got[1], got[3]))
    square = got[2]
    assert square[:, :30].mean() < 10
    assert square[:, -30:].mean() < 10
    assert square[:, 42:150].mean() > 190


# --- sound -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", VIDEOS)
@pytest.mark.parametrize("source", ["clip.mp4", "clip.mkv"])
def test_sound_is_copied_bit_by_bit_in_time(source: str, target: str, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / source, frames=50, start_s=0.4, audio_s=2.6)
    times = video_run(clip, tmp_path / target)
    assert [float(at) for at in frame_times(tmp_path / target)] == pytest.approx([float(at) for at in times], abs=5e-4)
    wanted, got = sound_packets(clip), sound_packets(tmp_path / target)
    assert len(wanted) > 30
    assert wanted[0][0] < 0, "the encoder's priming, which no container may turn into a shift"
    assert [data for _, data in got] == [data for _, data in wanted]
    assert [at for at, _ in got] == pytest.approx([at for at, _ in wanted], abs=1.001e-3)


def test_all_tracks_are_copied(tmp_path: Path) -> None:
    clip = add_sound(make_clip(tmp_path / "clip.mkv"), tmp_path / "two.mkv", "aac", tracks=2, begin_s=0.3)
    video_run(clip, tmp_path / "out.mp4")
    for track in (0, 1):
        wanted, got = sound_packets(clip, track), sound_packets(tmp_path / "out.mp4", track)
        assert [data for _, data in got] == [data for _, data in wanted]
        assert got[0][0] == pytest.approx(wanted[0][0], abs=1e-3)


@pytest.mark.parametrize("codec", ["libopus", "flac", "ac3", "pcm_s16le", "libmp3lame"])
def test_other_codecs_are_copied_too(codec: str, tmp_path: Path) -> None:
    clip = add_sound(make_clip(tmp_path / "clip.mkv"), tmp_path / "sound.mkv", codec)
    video_run(clip, tmp_path / "out.mp4")
    wanted, got = sound_packets(clip), sound_packets(tmp_path / "out.mp4")
    if codec == "pcm_s16le":  # whose packets are as long as a reader likes
        assert b"".join(data for _, data in got) == b"".join(data for _, data in wanted)
    else:
        assert [data for _, data in got] == [data for _, data in wanted]


def test_sound_with_a_header_a_packet_is_copied_without(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.ts", frames=30, audio_s=1.2)
    assert sound_packets(clip)[0][1][:2] in {b"\xff\xf1", b"\xff\xf9"}, "AAC with ADTS headers"
    for target in VIDEOS:
        video_run(clip, tmp_path / target)
        assert [data for _, data in sound_packets(tmp_path / target)] == [data[7:] for _, data in sound_packets(clip)]
        assert samples(tmp_path / target) == samples(clip)


def samples(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(frame.samples for frame in container.decode(audio=0))


@pytest.mark.parametrize(
    ("source", "codec", "target"), [("s.mov", "pcm_mulaw", "out.mp4"), ("s.mkv", "libopus", "out.mov")]
)
def test_sound_that_the_container_cannot_hold_is_left_out_with_a_warning(
    source: str, codec: str, target: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = add_sound(make_clip(tmp_path / "clip.mkv"), tmp_path / source, codec)
    before = open_files()
    with caplog.at_level(logging.WARNING, "streampose"):
        times = video_run(clip, tmp_path / target)
    warnings = [record.getMessage() for record in caplog.records if record.name == "streampose"]
    assert len(warnings) == 1
    assert codec.removeprefix("lib") in warnings[0]
    assert str(tmp_path / target) in warnings[0]
    assert len(frame_times(tmp_path / target)) == len(times) == 30
    with av.open(str(tmp_path / target)) as container:
        assert not container.streams.audio
    assert open_files() == before


def test_sound_longer_than_the_pictures_is_whole(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=30, audio_s=4.0)
    video_run(clip, tmp_path / "out.mp4")
    assert [data for _, data in sound_packets(tmp_path / "out.mp4")] == [data for _, data in sound_packets(clip)]


def test_sound_of_a_run_that_was_left_early_ends_with_its_last_picture(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=100, audio_s=4.0)
    video_run(clip, tmp_path / "out.mp4", limit=25)
    packets = sound_packets(tmp_path / "out.mp4")
    assert packets == [packet for packet in sound_packets(clip) if packet[0] < 1.0]


@pytest.mark.parametrize("zeros", [False, True])
def test_sound_of_a_damaged_source_ends_with_it(zeros: bool, tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.ts", frames=100, audio_s=4.0, grain=40)
    damaged = tmp_path / "damaged.ts"
    half = whole.stat().st_size // 2
    damaged.write_bytes(whole.read_bytes()[:half] + bytes(half if zeros else 0))  # FFmpeg fails at the zeros
    video_run(damaged, tmp_path / "out.mkv")
    got = [data for _, data in sound_packets(tmp_path / "out.mkv")]
    assert 20 < len(got) < len(sound_packets(whole))
    assert got[:-1] == [data[7:] for _, data in sound_packets(whole)][: len(got) - 1]


def test_sound_of_joined_recordings_goes_on_with_the_pictures(tmp_path: Path) -> None:
    parts = [make_clip(tmp_path / f"{k}.ts", frames=60 + 20 * k, audio_s=2.0 + k, first=100 * k) for k in range(3)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = source_run(joined, tmp_path / "out.mp4")
    assert len(frames) == 60 + 80 + 100
    firsts_s = [frames[index].pts_s for index in (0, 60, 140)]
    wanted = []
    for part, first_s in zip(parts, firsts_s, strict=True):
        shift_s = first_s - float(frame_times(part)[0])
        wanted += [(at_s + shift_s, data[7:]) for at_s, data in sound_packets(part)]
    got = sound_packets(tmp_path / "out.mp4")
    assert [data for _, data in got] == [data for _, data in wanted]
    assert [at_s for at_s, _ in got] == pytest.approx([at_s for at_s, _ in wanted], abs=1e-3)


@pytest.mark.parametrize("source", ["clip.mp4", "clip.mkv"])
def test_names_in_a_source_that_are_not_utf8_do_not_matter(source: str, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / source, audio_s=1.0, title="a title")
    clip.write_bytes(clip.read_bytes().replace(b"a title", b"a \xff\xfele"))
    with pytest.raises(UnicodeDecodeError):
        av.open(str(clip)).close()
    assert len(source_run(clip, tmp_path / "out.mp4")) == 30
    assert [data for _, data in sound_packets(tmp_path / "out.mp4")]


# --- a run that is killed --------------------------------------------------------------------------------------------

KILLED = """
    import sys, time
    from streampose.sinks.open import open_sink
    from tests.sinks.test_sinks import VIDEOS, result, run_info

    sinks = [open_sink(f"{sys.argv[1]}/{name}") for name in (*VIDEOS, "out.jsonl", "out/")]
    for sink in sinks:
        sink.open(run_info(path=sys.argv[2]))
    for index in range(150):
        for sink in sinks:
            sink.write(result(index))
    print("written", flush=True)
    time.sleep(60)
"""


@contextmanager
def child(script: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script in a process of its own, which does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def next_line(process: subprocess.Popen[str], within_s: float = 40.0) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], within_s)
    if not ready:
        process.kill()
        pytest.fail(f"no word within {within_s} s: {process.communicate()[1]}")
    line = process.stdout.readline().strip()
    if not line:
        pytest.fail(f"ended without a word: {process.communicate()[1]}")
    return line


@pytest.mark.parametrize("target", VIDEOS)
def test_of_a_camera_that_does_not_tell_its_rate_a_killed_run_loses_no_more(target: str, tmp_path: Path) -> None:
    with open_sink(tmp_path / target) as sink:
        sink.open(run_info(fps=None, time_base=Fraction(1, 90_000), is_live=True))
        for index in range(100):
            sink.write(result(index, pts_s=index / 5, image=np.full((120, 192, 3), 90, np.uint8)))
    with av.open(str(tmp_path / target)) as container:
        keyframes_s = [
            float(packet.pts * packet.time_base) for packet in container.demux(video=0) if packet.is_keyframe
        ]
    assert len(keyframes_s) > 5
    assert max(np.diff(keyframes_s)) == pytest.approx(MIN_FRAGMENT_FRAMES / 5, abs=0.01)


def test_a_killed_run_leaves_readable_files_that_lack_little(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=150, audio_s=6.0)
    with child(KILLED, str(tmp_path), str(clip)) as process:
        assert next_line(process) == "written"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    for target in VIDEOS:
        times = frame_times(tmp_path / target)
        assert times == [Fraction(index, 25) for index in range(len(times))], target
        assert sound_packets(tmp_path / target)[-1][0] > times[-1] - 0.5
        assert len(times) >= 150 - 50 - 25, "at most one fragment and what the encoder holds"
    assert [line["frame"] for line in read_poses(tmp_path / "out.jsonl")[1]] == list(range(150))
    pictures = sorted((tmp_path / "out").iterdir())
    assert [read_number(cv2.imread(str(path))) for path in pictures] == list(range(150))


# --- keypoints -------------------------------------------------------------------------------------------------------


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
        "format": 1,
        "source": "clip.mp4",
        "skeleton": {"names": ["nose", "left_eye", "right_eye"], "edges": [[0, 1], [0, 2]]},
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
    header, frames = read_poses(path)
    assert [header, *frames] == lines

    path.write_bytes(path.read_bytes()[:-40])
    assert [line["frame"] for line in read_poses(str(path))[1]] == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a poses file"),
        ("hello\n", "not a poses file"),
        ("[1]\n", "not a poses file"),
        ('{"frame": 1}\n', "not a poses file"),
        ('{"streampose": "9", "format": 2}\n', "format 2"),
        ('{"streampose": "0", "format": 1}\n{"frame"\n{}\n', "line 2"),
    ],
)
def test_read_poses_refuses_what_it_does_not_know(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "poses.jsonl").write_text(text)
    with pytest.raises(UsageError, match=message):
        list(read_poses(tmp_path / "poses.jsonl")[1])
    with pytest.raises(UsageError, match="cannot read"):
        read_poses(tmp_path / "none.jsonl")


# --- pictures --------------------------------------------------------------------------------------------------------


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


# --- the window ------------------------------------------------------------------------------------------------------

WINDOW = """
    import sys, threading, time
    from streampose.errors import StreamposeError
    from streampose.sinks.open import open_sink
    import numpy as np

    try:
        sink = open_sink("window", window_title="a title")
    except StreamposeError as error:
        print(type(error).__name__, error)
        sys.exit(error.exit_code)
    from tests.sinks.test_sinks import result, run_info

    red = np.zeros((300, 500, 3), np.uint8)
    red[:] = 0, 0, 255
    if sys.argv[1] == "live":
        sink.open(run_info(is_live=True))
        index = 0
        while sink.write(result(index, image=red)) is not False:
            if index == 3:
                print("shown", flush=True)
            index += 1
            time.sleep(0.005)
    elif sys.argv[1] == "one":
        sink.open(run_info(frame_count=1))
        threading.Timer(0.5, print, ["shown"], {"flush": True}).start()
        assert sink.write(result(0, image=red)) is False
    elif sys.argv[1] == "recorded":
        sink.open(run_info())
        shown = []
        for index in (0, 1, 2, 10, 11):
            assert sink.write(result(index, image=red)) is None
            shown.append(time.monotonic())
        print(*(each - shown[0] for each in shown), flush=True)
    else:
        sink.close()
        sink.open(run_info())
    sink.close()
    sink.close()
    print("quit", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="session")
def display() -> Iterator[str]:
    """A screen of its own, 800 x 600; skips where there is no Xvfb, but not in CI, and where OpenCV has no windows."""
    if re.search(r"GUI: +NONE", cv2.getBuildInformation()):
        pytest.skip("this OpenCV has no windows (opencv-python-headless)")
    missing = [tool for tool in ("Xvfb", "xdotool") if shutil.which(tool) is None]
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            f"needs {' and '.join(missing)} (apt-get install xvfb xdotool)"
        )
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "800x600x24", "-nolisten", "tcp", "-noreset"],
        pass_fds=[writer],
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    try:
        with os.fdopen(reader) as number:
            assert select.select([number], [], [], 20.0)[0], "Xvfb does not start"
            yield f":{number.readline().strip()}"
    finally:
        server.terminate()
        server.wait(timeout=10)


GRAB = """
    import sys
    import av

    with av.open(sys.argv[1], format="x11grab", options={"video_size": "800x600", "framerate": "10"}) as screen:
        image = next(screen.decode(video=0)).to_ndarray(format="bgr24")
        print((image == (0, 0, 255)).all(2).sum())
"""


def red_pixels(display: str) -> int:
    """Count them on the screen; in a process without OpenCV, whose X library PyAV's does not survive."""
    with child(GRAB, display) as process:
        return int(next_line(process))


def find_window(display: str) -> str:
    found = subprocess.run(
        ["xdotool", "search", "--name", "a title"],
        env=os.environ | {"DISPLAY": display},
        capture_output=True,
        text=True,
    )
    return found.stdout.split()[-1]


def press(display: str, key: str) -> None:
    subprocess.run(
        ["xdotool", "key", "--window", find_window(display), key],
        env=os.environ | {"DISPLAY": display},
        check=True,
        capture_output=True,
    )


def click_close(display: str) -> None:
    """Send what a window manager sends when its close button is clicked (ICCCM 4.2.8.1)."""

    class ClientMessage(ctypes.Structure):
        _fields_: Sequence[tuple[str, Any]] = (
            ("type", ctypes.c_int),
            ("serial", ctypes.c_ulong),
            ("send_event", ctypes.c_int),
            ("display", ctypes.c_void_p),
            ("window", ctypes.c_ulong),
            ("message_type", ctypes.c_ulong),
            ("format", ctypes.c_int),
            ("data", ctypes.c_long * 5),
            ("rest", ctypes.c_long * 12),
        )

    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.restype = ctypes.c_ulong
    x11.XInternAtom.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    x11.XSendEvent.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
    x11.XCloseDisplay.argtypes = [ctypes.c_void_p]
    connection = x11.XOpenDisplay(display.encode())
    window = int(find_window(display))
    event = ClientMessage(type=33, window=window, format=32)
    event.message_type = x11.XInternAtom(connection, b"WM_PROTOCOLS", 0)
    event.data[0] = x11.XInternAtom(connection, b"WM_DELETE_WINDOW", 0)
    x11.XSendEvent(connection, window, 0, 0, ctypes.byref(event))
    x11.XCloseDisplay(connection)


@pytest.mark.parametrize("quit_by", ["q", "Escape", "close"])
def test_the_window_shows_the_picture_until_the_user_quits(display: str, quit_by: str) -> None:
    with child(WINDOW, "live", DISPLAY=display) as process:
        assert next_line(process) == "shown"
        assert red_pixels(display) > 0.9 * 500 * 300
        press(display, "x")
        time.sleep(0.2)
        assert process.poll() is None, "only some keys quit"
        if quit_by == "close":
            click_close(display)
        else:
            press(display, quit_by)
        assert next_line(process, 10) == "quit"
        assert red_pixels(display) == 0
        assert process.communicate(timeout=10)[1] == ""
        assert process.returncode == 0


def test_a_single_picture_stays_until_the_user_quits(display: str) -> None:
    with child(WINDOW, "one", DISPLAY=display) as process:
        assert next_line(process) == "shown"
        assert red_pixels(display) > 0.9 * 500 * 300
        press(display, "q")
        assert next_line(process, 10) == "quit"


def test_a_recording_is_shown_at_its_own_pace(display: str) -> None:
    with child(WINDOW, "recorded", DISPLAY=display) as process:
        shown_s = [float(word) for word in next_line(process).split()]
        assert next_line(process, 10) == "quit"
    for at_s, index in zip(shown_s, (0, 1, 2, 10, 11), strict=True):
        assert index / 25 - 0.02 <= at_s < index / 25 + 1.0


def test_a_window_without_frames_closes(display: str) -> None:
    with child(WINDOW, "none", DISPLAY=display) as process:
        assert next_line(process) == "quit"
        process.communicate(timeout=10)
        assert process.returncode == 0


@pytest.mark.parametrize("name", ["", ":9876"])
def test_without_a_display_one_line_names_what_to_use_instead(name: str) -> None:
    with child(WINDOW, "live", DISPLAY=name, WAYLAND_DISPLAY="") as process:
        line = next_line(process)
        assert line.startswith("SinkError no window can be opened")
        assert "`to`" in line
        assert process.wait(timeout=10) == 1
        assert process.stderr is not None
        assert process.stderr.read() == ""


class TestSoundNeverCostsAPicture:
    """What is wrong with the sound is left out with a word, and every frame is there."""

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    def test_a_damaged_header_of_one_packet(self, tmp_path: Path, suffix: str) -> None:
        clip = make_clip(tmp_path / "clip.ts", frames=50, audio_s=2.0)
        data = bytearray(clip.read_bytes())
        headers = [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] & 0xF6 == 0xF0]
        at = headers[len(headers) // 2]
        data[at : at + 2] = b"\x00\x00"
        clip.write_bytes(data)
        out = tmp_path / f"out{suffix}"
        with open_source(clip) as source, open_sink(out) as sink:
            sink.open(RunInfo(source.info, SKELETON, {}))
            count = 0
            for frame in source.frames():
                sink.write(Result(frame, People.none(3), SKELETON))
                count += 1
        with av.open(str(out)) as written:
            assert sum(1 for _ in written.decode(video=0)) == count > 40

    def test_a_track_that_only_calls_itself_aac(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        clip = make_clip(tmp_path / "clip.mov", frames=25, audio_s=1.0)
        data = bytearray(clip.read_bytes())
        at = data.rfind(b"mp4a")
        data[at : at + 4] = b"apac"
        at = data.find(b"esds", at)
        data[at : at + 4] = b"dapa"
        clip.write_bytes(data)
        for name in ("out.mp4", "out.mkv"):
            with open_source(clip) as source, open_sink(tmp_path / name) as sink:
                sink.open(RunInfo(source.info, SKELETON, {}))
                for frame in source.frames():
                    sink.write(Result(frame, People.none(3), SKELETON))
            with av.open(str(tmp_path / name)) as written:
                assert sum(1 for _ in written.decode(video=0)) == 25
                assert not written.streams.audio
            assert f"{name}: omitting" in caplog.text
