"""Video files: every frame, its time, its shape and its colours."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2

# isort: split
import av
import numpy as np
import pytest

from streampose.errors import SinkError
from streampose.frames import Result
from streampose.sinks.open import open_sink
from tests.clips import make_clip, numbered_image, read_number
from tests.sinks.helpers import (
    SKELETON,
    VIDEOS,
    everything_below,
    frame_times,
    readable_frames,
    result,
    run_info,
    source_run,
    video_run,
)

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
