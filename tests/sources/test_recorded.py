"""Video files: their frames, times, colours and turns."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.sources.open import open_source
from streampose.sources.recorded import _Clock
from tests.clips import PATCHES_BGR, make_clip, numbered_image
from tests.sources.helpers import numbers, packets, read


class TestVideo:
    def test_equals_a_plain_decoding(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4", b_frames=2, size=(190, 122))
        with av.open(str(path)) as container:
            plain = [(frame.time, frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]
        frames, error = read(path)
        assert error is None
        assert [frame.pts_s for frame in frames] == [time for time, _ in plain]
        for frame, (_, image) in zip(frames, plain, strict=True):
            np.testing.assert_array_equal(frame.image, image)

    def test_equals_opencv(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mkv", times_s=[0, 0.04, 0.3, 0.31, 1.0, 1.5])
        frames, _ = read(path)
        capture = cv2.VideoCapture(str(path))
        for frame in frames:
            ok, image = capture.read()
            assert ok
            assert capture.get(cv2.CAP_PROP_POS_MSEC) == pytest.approx(1000 * frame.pts_s)
            assert cv2.absdiff(frame.image, image).mean() < 1
        assert not capture.read()[0]
        capture.release()

    @pytest.mark.parametrize("b_frames", [0, 2])
    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    def test_keeps_varying_times(self, tmp_path: Path, suffix: str, b_frames: int) -> None:
        times_s = [0.0, 0.04, 0.1, 0.6, 0.62, 2.0]
        frames, error = read(make_clip(tmp_path / f"a{suffix}", times_s=times_s, b_frames=b_frames))
        assert error is None
        assert numbers(frames) == list(range(6))
        assert [frame.pts_s for frame in frames] == times_s

    def test_keeps_a_start_that_is_not_zero(self, tmp_path: Path) -> None:
        frames, error = read(make_clip(tmp_path / "a.mkv", start_s=10, frames=10))
        assert error is None
        assert [frame.pts_s for frame in frames] == [10 + k / 25 for k in range(10)]

    def test_frames_shrink_as_their_pictures_do(self) -> None:
        with open_source("demo") as source:
            captures = list(islice(source.captures(), 8))
        assert all(captured.shrink for captured in captures)
        with ThreadPoolExecutor(4) as threads:
            shrunk = list(threads.map(lambda captured: captured.shrink(224, 398), captures))
        for (frame, _), found in zip(captures, shrunk, strict=True):
            expected = cv2.resize(frame.image, (398, 224), interpolation=cv2.INTER_AREA)
            assert found.shape == expected.shape
            assert found.dtype == np.uint8
            # Swscale rounds down where it converts whole pictures, by 1.4 on average, and not where it shrinks.
            difference = np.abs(found.astype(int) - expected)
            assert difference.mean() < 2
            assert np.percentile(difference, 99.9) < 12

    @pytest.mark.parametrize("rotation", [90, 180])
    def test_turned_frames_do_not(self, tmp_path: Path, rotation: int) -> None:
        with open_source(str(make_clip(tmp_path / "a.mp4", rotation=rotation))) as source:
            assert next(source.captures()).shrink is None

    @pytest.mark.parametrize("rotation", [0, 90, 180, 270, -90])
    def test_applies_rotation(self, tmp_path: Path, rotation: int) -> None:
        path = make_clip(tmp_path / "a.mp4", size=(192, 120), rotation=rotation)
        frames, _ = read(path)
        assert frames[0].image.shape == (120, 192, 3)
        assert numbers(frames) == list(range(30))

    @pytest.mark.parametrize("is_transposed", [False, True])
    @pytest.mark.parametrize("across", [1, -1])
    @pytest.mark.parametrize("down", [1, -1])
    def test_applies_mirroring(self, tmp_path: Path, is_transposed: bool, across: int, down: int) -> None:
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=25, options={"crf": "12"})
            assert isinstance(video, av.VideoStream)
            stored = numbered_image(5)[::down, ::across]
            stored = np.ascontiguousarray(stored.swapaxes(0, 1) if is_transposed else stored)
            video.height, video.width = stored.shape[:2]
            video.pix_fmt = "yuv420p"
            places = (3, 1) if is_transposed else (0, 4)
            matrix = [0] * 8 + [1 << 30]
            for place, sign in zip(places, (across, down), strict=True):
                matrix[place] = sign << 16
            video.set_display_matrix(matrix)
            container.mux(video.encode(av.VideoFrame.from_ndarray(stored, format="bgr24")))
            container.mux(video.encode())
        frames, error = read(path)
        assert error is None
        assert numbers(frames) == [5]

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    @pytest.mark.parametrize(
        ("rotation", "expected"), [(0, Fraction(4, 3)), (90, Fraction(3, 4)), (180, Fraction(4, 3))]
    )
    def test_pixels_that_are_not_square(self, tmp_path: Path, suffix: str, rotation: int, expected: Fraction) -> None:
        path = make_clip(tmp_path / f"a{suffix}", rotation=rotation, pixel_aspect=Fraction(4, 3), frames=2)
        with open_source(path) as source:
            assert next(iter(source.frames())).pixel_aspect == expected

    def test_pictures_are_not_left_to_the_garbage_collector(self, tmp_path: Path) -> None:
        def decoded() -> int:
            return sum(type(thing) is av.VideoFrame for thing in gc.get_objects())

        with open_source(make_clip(tmp_path / "a.mp4", frames=60)) as source:
            gc.collect()
            before = decoded()
            gc.disable()
            try:
                for frame in source.frames():
                    if frame.index in (30, 59):  # to look at every object takes long
                        assert decoded() < before + 20
            finally:
                gc.enable()

    @pytest.mark.parametrize("count", [30, 14])
    def test_goes_on_after_joined_recordings(self, tmp_path: Path, count: int) -> None:
        parts = [make_clip(tmp_path / f"{k}.ts", frames=count, first=count * k).read_bytes() for k in range(2)]
        (tmp_path / "both.ts").write_bytes(b"".join(parts))
        frames, error = read(tmp_path / "both.ts")
        assert error is None
        assert numbers(frames) == list(range(2 * count))
        np.testing.assert_allclose(np.diff([frame.pts_s for frame in frames]), 0.04, atol=1e-4)

    def test_repairs_repeated_times(self, tmp_path: Path) -> None:
        frames, error = read(make_clip(tmp_path / "a.mkv", codec="ffv1", times_s=[0, 0.04, 0.04, 0.04, 0.12]))
        assert error is None
        assert [frame.pts_s for frame in frames] == [0, 0.04, 0.041, 0.042, 0.12]

    def test_a_new_size_in_mid_stream_is_ordinary(self, tmp_path: Path) -> None:
        sizes = [(192, 120), (160, 96)]
        parts = [make_clip(tmp_path / f"{k}.h264", size=size, frames=5).read_bytes() for k, size in enumerate(sizes)]
        (tmp_path / "both.h264").write_bytes(b"".join(parts))
        frames, error = read(tmp_path / "both.h264")
        assert error is None
        assert [frame.image.shape for frame in frames] == [(120, 192, 3)] * 5 + [(96, 160, 3)] * 5
        assert numbers(frames) == [0, 1, 2, 3, 4] * 2

    @pytest.mark.parametrize(
        ("codec", "pix_fmt", "suffix"),
        [
            ("ffv1", "yuv420p10le", ".mkv"),
            ("ffv1", "yuv422p", ".mkv"),
            ("ffv1", "bgra", ".mkv"),
            ("mjpeg", "yuvj420p", ".avi"),
            ("libx264rgb", "bgr24", ".mp4"),
            ("rawvideo", "bgr24", ".avi"),
            ("libvpx-vp9", "yuv420p", ".webm"),
            ("libvpx", "yuv420p", ".webm"),
        ],
    )
    def test_colours(self, tmp_path: Path, codec: str, pix_fmt: str, suffix: str) -> None:
        # Odd sizes, so that rows are padded on the way.
        frames, error = read(
            make_clip(tmp_path / f"a{suffix}", codec=codec, pix_fmt=pix_fmt, size=(195, 121), frames=6)
        )
        assert error is None
        assert numbers(frames) == list(range(6))
        assert all(frame.image.flags.c_contiguous and frame.image.shape == (121, 195, 3) for frame in frames)
        patches = frames[0].image[110, [32, 97, 162]].astype(int)
        assert np.abs(patches - PATCHES_BGR).max() <= 6

    def test_grey(self, tmp_path: Path) -> None:
        frames, _ = read(make_clip(tmp_path / "a.mkv", codec="ffv1", pix_fmt="gray", frames=2))
        image = frames[0].image
        assert np.ptp(image.astype(int), axis=2).max() == 0
        assert np.abs(image[:80].astype(int) - numbered_image(0)[:80]).max() <= 2

    @pytest.mark.parametrize(("colorspace", "matrix"), [(1, "ITU709"), (5, "ITU601"), (3, "ITU601")])
    @pytest.mark.parametrize("color_range", [1, 2])
    def test_matrix_and_range_of_the_file_count(
        self, tmp_path: Path, colorspace: int, matrix: str, color_range: int
    ) -> None:
        path = tmp_path / "a.mkv"
        with av.open(str(path), "w") as container:
            video = container.add_stream("ffv1", rate=25)
            assert isinstance(video, av.VideoStream)
            video.width, video.height, video.pix_fmt = 192, 120, "yuv444p"
            video.codec_context.colorspace, video.codec_context.color_range = colorspace, color_range
            rgb = av.VideoFrame.from_ndarray(numbered_image(0), format="bgr24")
            frame = rgb.reformat(format="yuv444p", dst_colorspace=matrix, dst_color_range=color_range)
            frame.pts = 0
            container.mux(video.encode(frame))
            container.mux(video.encode())
        frames, _ = read(path)
        assert np.abs(frames[0].image.astype(int) - numbered_image(0)).max() <= 3

    def test_sound_may_be_longer_or_shorter(self, tmp_path: Path) -> None:
        for name, audio_s in (("a.mkv", 6.0), ("b.mp4", 6.0), ("c.mkv", 0.3)):
            frames, error = read(make_clip(tmp_path / name, audio_s=audio_s))
            assert error is None
            assert len(frames) == 30

    def test_real_clips_are_whole(self, labelled_data: Path) -> None:
        clips = sorted((labelled_data / "clips").glob("*.m*"))
        assert clips
        for clip in clips:
            frames, error = read(clip)
            assert error is None
            assert len(frames) == len(packets(clip))

    def test_info(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a b.mp4")
        with open_source(str(path)) as source:
            info = source.info
        assert (info.source_id, info.width, info.height, info.fps) == ("a_b", 192, 120, 25.0)
        assert (info.frame_count, info.path, info.text) == (30, str(path), str(path))


class TestClock:
    @given(st.lists(st.integers(-(2**40), 2**40), unique=True, min_size=1))
    def test_good_times_stay(self, ticks: list[int]) -> None:
        clock = _Clock(Fraction(1, 90000), Fraction(25))
        assert [clock.tick(tick) for tick in sorted(ticks)] == sorted(ticks)

    @given(st.lists(st.none() | st.integers(0, 300) | st.integers(-(2**40), 2**40)))
    def test_any_times_come_out_increasing(self, ticks: list[int | None]) -> None:
        clock = _Clock(Fraction(1, 100), Fraction(25))
        out = [clock.tick(tick) for tick in ticks]
        assert all(late > early for early, late in pairwise(out))

    @pytest.mark.parametrize(
        ("given_ticks", "expected"),
        [
            ([None, None, None], [0, 4, 8]),
            ([8, None, 16], [8, 12, 16]),
            ([0, 4, 4, 8], [0, 4, 5, 8]),
            ([0, 4, 12, 8, 16], [0, 4, 12, 13, 16]),
            ([1000, 1004, 0, 2, 9], [1000, 1004, 1008, 1010, 1017]),
            ([1000, 1004, 0, 1012, 1016], [1000, 1004, 1008, 1012, 1016]),
        ],
        ids=["none", "one missing", "repeated", "swapped", "started anew", "one wild"],
    )
    def test_repairs(self, given_ticks: list[int | None], expected: list[int]) -> None:
        clock = _Clock(Fraction(1, 100), Fraction(25))
        assert [clock.tick(tick) for tick in given_ticks] == expected


def test_the_default_video_track_is_read_else_the_largest(tmp_path: Path) -> None:
    small = make_clip(tmp_path / "small.mp4", size=(96, 60), frames=10)
    large = make_clip(tmp_path / "large.mp4", size=(192, 120), frames=10, first=100)
    for name, chosen, width in (("default.mkv", 0, 96), ("none.mkv", None, 192)):
        with av.open(str(tmp_path / name), "w") as out, av.open(str(small)) as first, av.open(str(large)) as second:
            tracks = []
            for number, container in enumerate((first, second)):
                stream = container.streams.video[0]
                track = out.add_stream_from_template(stream)
                track.disposition = av.stream.Disposition.default if number == chosen else av.stream.Disposition(0)
                tracks.append((container.demux(stream), track))
            for packets, track in tracks:
                for packet in packets:
                    if packet.size:
                        packet.stream = track
                        out.mux(packet)
        with open_source(tmp_path / name) as source:
            assert source.info.width == width, name


def test_a_piece_of_a_transport_stream_begins_at_its_first_frame(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "piece.ts", frames=20, start_s=3600.0)
    with open_source(clip) as source:
        times = [frame.pts_s for frame in source.frames()]
    assert times[0] < 0.1
    assert np.allclose(np.diff(times), 0.04, atol=1e-3)
