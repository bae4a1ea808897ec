"""A recording whose networks ran on pieces of it gives the same files as one that was processed as a whole."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import streampose
from streampose.api import _OPTIONS as OF_STREAM
from streampose.archive.pieces import Piece, open_piece, pieces_of
from streampose.archive.raw import PiecesError, RawPeople, RawSink
from streampose.assembly import Assembly
from streampose.frames import Part
from streampose.inputs import Input
from streampose.options import check, default_of
from streampose.pipeline.parts import Feed
from streampose.sinks.open import open_sink
from streampose.sources import recorded
from streampose.sources.open import open_source
from streampose.sources.source import Reading
from tests.clips import make_clip

NAMES = ("out.jsonl", "out.parquet", "out.mp4")
FRAMES = 130


def a_clip(folder: Path, name: str = "clip.mp4", **options: Any) -> Path:
    return make_clip(folder / name, **{"frames": FRAMES, "gop": 24, "b_frames": 2, "grain": 40, **options})


def varying(folder: Path) -> Path:
    steps = np.random.default_rng(0).integers(11, 90, FRAMES)
    return a_clip(folder, "clip.mkv", times_s=(np.cumsum(steps) / 1000).tolist())


CLIPS: dict[str, Callable[[Path], Path]] = {
    "B-frames and sound": lambda folder: a_clip(folder, audio_s=FRAMES / 25),
    "open groups": lambda folder: a_clip(folder, codec_options={"x264-params": "open-gop=1:keyint=24:min-keyint=24"}),
    "varying rate": varying,
    "transport stream": lambda folder: a_clip(folder, "clip.ts", start_s=30.0),
    "WebM": lambda folder: a_clip(
        folder, "clip.webm", codec="libvpx-vp9", size=(96, 60), codec_options={"cpu-used": "8"}
    ),
}


@pytest.fixture(scope="module")
def asked(tiny: dict[str, Any]) -> SimpleNamespace:
    values = {name: tiny.get(name, default_of(name)) for name in OF_STREAM}
    return SimpleNamespace(**check(values, OF_STREAM))


@pytest.fixture(scope="module")
def assembly(asked: SimpleNamespace) -> Assembly:
    return Assembly(asked)


def in_pieces(assembly: Assembly, clip: Path, part: Part, folder: Path, frames: int = 20) -> list[Piece]:
    """Process a clip in pieces, in an order by chance, into `NAMES` in `folder`. Return the pieces."""
    one = Input(
        clip, start_s=part.start_s or None, end_s=None if part.end_s == np.inf else part.end_s, every=part.every
    )
    reading = Reading(part=part)
    with open_source(one) as source:
        pieces = pieces_of(source, reading, frames)
    paths = [folder / f"{piece.number}.npz" for piece in pieces]
    shuffled = random.Random(0).sample(pieces, len(pieces))
    for piece in shuffled:
        sink = RawSink(paths[piece.number], piece.frames)
        feed = Feed(open_piece(str(clip), clip.name, reading, piece), [sink])
        with assembly.pipeline([feed], draw=False, results_wanted=False) as run:
            for _ in run:
                pass
    finish(assembly, one, paths, folder)
    return pieces


def finish(assembly: Assembly, one: Input, paths: list[Path], folder: Path) -> None:
    sinks = [open_sink(str(folder / name), overwrite=True) for name in NAMES]
    with assembly.recalled_run(assembly.feed(open_source(one), sinks), RawPeople(paths)) as run:
        for _ in run:
            pass


def in_one(clip: Path, folder: Path, tiny: dict[str, Any], **part: Any) -> None:
    with streampose.stream(Input(clip, **part), to=[str(folder / name) for name in NAMES], **tiny) as run:
        for _ in run:
            pass


def assert_same(folder: Path, other: Path) -> None:
    for name in NAMES:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    whole, split = tmp_path / "whole", tmp_path / "split"
    whole.mkdir()
    split.mkdir()
    return whole, split


@pytest.mark.parametrize("kind", CLIPS)
def test_pieces_give_the_same_files(
    kind: str, assembly: Assembly, tiny: dict[str, Any], tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    whole, split = folders
    clip = CLIPS[kind](tmp_path)
    in_one(clip, whole, tiny)
    pieces = in_pieces(assembly, clip, Part(), split)
    assert len(pieces) >= 4
    assert sum(piece.frames for piece in pieces) == FRAMES
    assert_same(whole, split)


@pytest.mark.parametrize(
    "part", [{"start_s": 1.1}, {"end_s": 3.99}, {"every": 3}, {"start_s": 0.5, "end_s": 4.9, "every": 2}]
)
def test_pieces_of_a_part_give_the_same_files(
    part: dict[str, Any], assembly: Assembly, tiny: dict[str, Any], tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    whole, split = folders
    clip = a_clip(tmp_path, audio_s=FRAMES / 25)
    in_one(clip, whole, tiny, **part)
    pieces = in_pieces(assembly, clip, streampose.picker.part_of(**part), split, frames=9)
    assert len(pieces) >= 3
    assert_same(whole, split)


def test_a_piece_is_reached_without_reading_what_precedes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = a_clip(tmp_path, frames=400)
    reading = Reading()
    with open_source(Input(clip)) as source:
        last = pieces_of(source, reading, 20)[-1]
    count = 0

    def counted(container: Any) -> Any:
        nonlocal count
        for packet in packets_of(container):
            count += 1
            yield packet

    packets_of = recorded.packets_of
    monkeypatch.setattr(recorded, "packets_of", counted)
    with open_piece(str(clip), "clip", reading, last) as source:
        numbers = [frame.index for frame in source.frames()]
    assert numbers == list(range(400 - last.frames, 400))
    assert count < 2 * last.frames


def test_a_wrong_landmark_is_noticed(tmp_path: Path) -> None:
    clip = a_clip(tmp_path)
    with open_source(Input(clip)) as source:
        piece = pieces_of(source, Reading(), 20)[2]
    assert piece.landmark is not None
    wrong = Piece(2, piece.part, piece.frames, piece.landmark._replace(time=piece.landmark.time + 1))
    with open_piece(str(clip), "clip", Reading(), wrong) as source:
        assert [frame.index for frame in source.frames()] == list(range(48, 72))


def test_what_cannot_be_split_is_not(tmp_path: Path) -> None:
    one_keyframe = a_clip(tmp_path, gop=1000)
    short = a_clip(tmp_path, "short.mp4", frames=30)
    without_times = a_clip(tmp_path, "clip.avi", codec="mpeg4", b_frames=2)
    for clip in (one_keyframe, short, without_times):
        with open_source(Input(clip)) as source:
            assert len(pieces_of(source, Reading(), 20)) < 2, clip.name


def test_pieces_of_another_recording_are_refused(assembly: Assembly, tmp_path: Path) -> None:
    clip = a_clip(tmp_path)
    in_pieces(assembly, clip, Part(), tmp_path)
    paths = sorted(tmp_path.glob("*.npz"))
    other = a_clip(tmp_path, "other.mp4", grain=60)
    with pytest.raises(PiecesError, match="decoded differently"):
        finish(assembly, Input(other), paths, tmp_path)
    longer = a_clip(tmp_path, "longer.mp4", frames=FRAMES + 24)
    with pytest.raises(PiecesError):
        finish(assembly, Input(longer), paths, tmp_path)
    with pytest.raises(PiecesError, match="the pieces have frame 24"):
        finish(assembly, Input(clip), paths[1:], tmp_path)
    with pytest.raises(PiecesError, match="have more"):
        finish(assembly, Input(clip, end_s=5.0), paths, tmp_path)


def test_a_piece_that_was_interrupted_leaves_no_file(assembly: Assembly, tmp_path: Path) -> None:
    clip = a_clip(tmp_path)
    with open_source(Input(clip)) as source:
        piece = pieces_of(source, Reading(), 20)[1]
    sink = RawSink(tmp_path / "1.npz", piece.frames)
    with assembly.pipeline(
        [Feed(open_piece(str(clip), "clip", Reading(), piece), [sink])], draw=False, results_wanted=False
    ) as run:
        for _ in run:
            break
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4"]
