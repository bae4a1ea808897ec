"""Results made by hand, and the means to look at what a sink wrote."""

from __future__ import annotations

import os
import resource
import select
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

# isort: split
import av
import numpy as np
import pytest

from streampose.frames import Boxes, Frame, Image, People, Result, RunInfo, Skeleton, SourceInfo
from streampose.inputs import Input
from streampose.sinks.open import open_sink
from streampose.sources.open import open_source
from tests.clips import numbered_image

ROOT = Path(__file__).resolve().parents[2]

SKELETON = Skeleton(("nose", "left_eye", "right_eye"), ((0, 1), (0, 2)), ((1, 2),))

TARGETS = ("null", "out.mp4", "out.m4v", "out.mov", "out.mkv", "out.jsonl", "out/", "out.png")

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
    return People.of(boxes, xy, np.tile(np.float32([0.91234567, 0.5, 1.25]), (count, 1)), label_of=label_of)


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


def readable_frames(path: Path) -> int:
    count = 0
    with av.open(str(path)) as container:
        try:
            for _ in container.decode(video=0):
                count += 1
        except av.InvalidDataError:  # the last piece of a file that was cut
            pass
    return count


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


def source_run(text: Path | Input, target: Path, *, speed: float = 1.0, segment_s: float | None = None) -> list[Frame]:
    """Send a source through a sink as a run would; return its frames."""
    with open_source(text) as source, open_sink(target, speed=speed, segment_s=segment_s) as sink:
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
