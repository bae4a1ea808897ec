"""The encoder of video files begins afresh without a break in the stream, and earlier files can be continued."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from streampose.sinks.encode import Canvas
from streampose.sinks.h264 import Encoder
from streampose.sinks.kept import frames_in, packets_from
from tests.clips import make_clip, numbered_image

TIME_BASE = Fraction(1, 12800)
STEADY = [number * 512 for number in range(90)]
UNSTEADY = list(itertools.accumulate([0] + [100 + (number * 7919) % 3000 for number in range(89)]))


def encoded(path: Path, ticks: Sequence[int], afresh: Sequence[int] = ()) -> list[tuple[int, int, bool, bytes]]:
    """Time, decoding time, keyframe and content of every packet, beginning afresh before some of the frames."""
    canvas = Canvas(192, 120)
    packets = []
    with av.open(str(path), "w", format="mp4") as container:
        encoder = Encoder(container, canvas, time_base=TIME_BASE, rate=Fraction(25), keyframe_every=50)
        container.start_encoding()

        def out() -> Iterator[av.Packet]:
            for number, tick in enumerate(ticks):
                if number in afresh:
                    yield from encoder.begin_afresh()
                frame = canvas.frame(numbered_image(number), Fraction(1))
                frame.pts, frame.time_base = tick, TIME_BASE
                yield from encoder.encode(frame)
            yield from encoder.finish()

        for packet in out():
            assert packet.pts is not None
            assert packet.dts is not None
            packets.append((packet.pts, packet.dts, packet.is_keyframe, bytes(packet)))
            container.mux(packet)
    return packets


@pytest.mark.parametrize("ticks", [STEADY, UNSTEADY])
@pytest.mark.parametrize("afresh", [[40], [4], [20, 24, 28], [30, 60]])
def test_beginning_afresh_leaves_no_break(ticks: list[int], afresh: list[int], tmp_path: Path) -> None:
    packets = encoded(tmp_path / "a.mp4", ticks, afresh)
    decoding = [dts for _, dts, _, _ in packets]
    assert all(one < other for one, other in itertools.pairwise(decoding))
    assert all(dts <= pts for pts, dts, _, _ in packets)
    assert {ticks[number] for number in afresh} <= {pts for pts, _, is_keyframe, _ in packets if is_keyframe}
    with av.open(str(tmp_path / "a.mp4")) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]  # type: ignore[operator]
    assert times == [tick * TIME_BASE for tick in ticks]


def test_decoding_times_are_those_of_the_encoder_where_it_knows_them(tmp_path: Path) -> None:
    whole = [(pts, dts) for pts, dts, _, _ in encoded(tmp_path / "a.mp4", STEADY)]
    assert [dts for _, dts in whole] == [tick - 1024 for tick in STEADY]


def test_what_follows_does_not_depend_on_what_precedes(tmp_path: Path) -> None:
    one = encoded(tmp_path / "a.mp4", STEADY, [40])
    other = encoded(tmp_path / "b.mp4", STEADY, [10, 40])
    assert one[40:] == other[40:]
    assert one[:40] != other[:40]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_an_earlier_file_is_read_back(suffix: str, tmp_path: Path) -> None:
    path = make_clip(tmp_path / f"a{suffix}", frames=60, b_frames=2, audio_s=2.4)
    size = path.stat().st_size
    assert frames_in(path, size) == 60
    assert 0 < frames_in(path, size // 2) < 60
    assert frames_in(path, 100) == 0
    assert frames_in(tmp_path / "none.mp4", 100) == 0
    found = list(packets_from(path, Fraction(3), 40))
    assert next(time_s for _, time_s in found) == 3
    assert sorted(time_s for _, time_s in found)[:3] == pytest.approx([3.0, 3.04, 3.08])
    assert all(bytes(packet).startswith(b"\0\0\0\1") for packet, _ in found)
    with pytest.raises(ValueError, match="has 60 frames, not 61"):
        list(packets_from(path, Fraction(0), 61))


def test_pictures_of_the_same_numbers_are_the_same() -> None:
    """Otherwise the tests above compare nothing."""
    assert np.array_equal(numbered_image(3), numbered_image(3))
    assert not np.array_equal(numbered_image(3), numbered_image(4))
