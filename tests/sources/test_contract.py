"""Every recorded source against the one promise."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from streampose.sources.open import open_source
from tests.clips import make_clip
from tests.sources.helpers import assert_given_back, held, numbers, read, write_folder, write_picture

SOURCES: dict[str, tuple[Callable[[Path], str], int | None]] = {
    "mp4": (lambda folder: str(make_clip(folder / "a.mp4", audio_s=1)), 30),
    "mkv": (lambda folder: str(make_clip(folder / "a.mkv", b_frames=2, start_s=3.0)), 30),
    "turned": (lambda folder: str(make_clip(folder / "a.mov", rotation=90)), 30),
    "gif": (lambda folder: str(make_clip(folder / "a.gif", codec="gif", pix_fmt="bgr8")), 30),
    "picture": (lambda folder: str(write_picture(folder / "a.jpg", 0)), 1),
    "folder": (lambda folder: str(write_folder(folder / "pictures")), 4),
    "glob": (lambda folder: str(write_folder(folder / "pictures") / "img*.*"), 4),
    "demo": (lambda _: "demo", None),
}


@pytest.fixture(params=SOURCES)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, int | None]:
    make, count = SOURCES[request.param]
    return make(tmp_path), count


class TestEverySource:
    def test_frames_agree_with_the_promises(self, kind: tuple[str, int | None]) -> None:
        text, count = kind
        with open_source(text, name="cam 1") as source:
            info = source.info
            frames = list(source.frames())
            assert next(source.frames(), None) is None
        assert [frame.index for frame in frames] == list(range(len(frames)))
        assert len(frames) == info.frame_count
        assert {frame.source_id for frame in frames} == {info.source_id} == {"cam 1"}
        assert info.text == text
        assert not info.is_live
        assert (info.height, info.width) == frames[0].image.shape[:2]
        ticks = [frame.pts_s / info.time_base for frame in frames]
        assert all(abs(tick - round(tick)) < 1e-6 for tick in ticks)
        assert all(late.pts_s > early.pts_s for early, late in pairwise(frames))
        assert all(late.captured_at_s >= early.captured_at_s for early, late in pairwise(frames))
        for frame in frames:
            assert frame.image.dtype == np.uint8
            assert frame.image.ndim == 3
            assert frame.image.shape[2] == 3
            assert frame.image.flags.c_contiguous
        if count is not None:
            assert numbers(frames) == list(range(count))

    def test_close_twice_and_nothing_comes_afterwards(self, kind: tuple[str, int | None]) -> None:
        source = open_source(kind[0])
        source.close()
        source.close()
        assert list(source.frames()) == []

    def test_leaving_early_leaves_no_file_and_no_thread(self, kind: tuple[str, int | None]) -> None:
        read(kind[0])  # what libraries keep for ever after their first use is not ours
        before = held()
        for _ in range(3):
            with open_source(kind[0]) as source:
                next(source.frames())
        assert_given_back(before)

    def test_reading_goes_on_where_it_was_left(self, kind: tuple[str, int | None]) -> None:
        with open_source(kind[0]) as source:
            first = next(source.frames())
            assert first.index == 0
            assert [frame.index for frame in source.frames()] == list(range(1, source.info.frame_count or 0))
