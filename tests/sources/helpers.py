"""What the tests of several sources share: reading a source to its end, and damaging files."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import av
import cv2
import numpy as np

from streampose.errors import SourceError
from streampose.frames import Frame
from streampose.sources.open import open_source
from tests.clips import numbered_image, read_number


def read(text: str | Path) -> tuple[list[Frame], SourceError | None]:
    """All frames of a source, and the error behind them."""
    frames: list[Frame] = []
    with open_source(text) as source:
        try:
            frames.extend(source.frames())
        except SourceError as error:
            return frames, error
    return frames, None


def numbers(frames: list[Frame]) -> list[int]:
    return [read_number(frame.image) for frame in frames]


def packets(path: Path) -> list[tuple[int, int]]:
    """Where the video packets of a file lie: (offset, size), in the order of decoding."""
    with av.open(str(path)) as container:
        return [(p.pos or 0, p.size) for p in container.demux(video=0) if p.size]


def overwrite(path: Path, offset: int, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(np.random.default_rng(0).bytes(size))


def cut(path: Path, size: int) -> Path:
    os.truncate(path, size)
    return path


def held() -> tuple[int, int]:
    """How many files and how many threads, those of libraries included, this process has."""
    gc.collect()  # what earlier tests left
    return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))


def assert_given_back(before: tuple[int, int], within_s: float = 5.0) -> None:
    """This process holds no more files and threads than before (fewer, when something older ends meanwhile)."""
    deadline_s = time.monotonic() + within_s
    while any(now > then for now, then in zip(held(), before, strict=True)):
        assert time.monotonic() < deadline_s, (before, held())
        time.sleep(0.05)


def write_picture(path: Path, number: int, size: tuple[int, int] = (192, 120)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, numbered_image(number, size))[1].tobytes())
    return path


def write_folder(folder: Path) -> Path:
    for number, name in enumerate(["img1.png", "img2.jpg", "img10.PNG", "img11.bmp"]):
        write_picture(folder / name, number)
    (folder / "notes.txt").write_text("no picture")
    (folder / ".img3.png").write_bytes(b"hidden")
    (folder / "img4.png").mkdir()
    return folder
