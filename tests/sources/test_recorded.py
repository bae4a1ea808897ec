from __future__ import annotations

import gc
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.errors import SourceError, UsageError
from streampose.frames import Frame
from streampose.sources.open import open_source
from streampose.sources.recorded import _Clock
from tests.clips import PATCHES_BGR, make_clip, numbered_image, read_number


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
    return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))


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
        assert held() == before

    def test_reading_goes_on_where_it_was_left(self, kind: tuple[str, int | None]) -> None:
        with open_source(kind[0]) as source:
            first = next(source.frames())
            assert first.index == 0
            assert [frame.index for frame in source.frames()] == list(range(1, source.info.frame_count or 0))


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
                for _ in source.frames():
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


class TestDamagedVideo:
    @pytest.mark.parametrize("share", [0.35, 0.6, 0.95])
    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".flv"])
    def test_cut_off(self, tmp_path: Path, suffix: str, share: float) -> None:
        path = tmp_path / f"a{suffix}"
        options = {"movflags": "faststart"} if suffix == ".mp4" else {}
        make_clip(path, frames=150, container_options=options)
        whole, error = read(path)
        assert error is None
        size = round(path.stat().st_size * share)
        complete = sum(offset + length <= size for offset, length in packets(path))
        frames, error = read(cut(path, size))
        assert 20 < complete < 150
        # FFmpeg's Matroska reader gives a block up when what follows it is missing.
        assert len(frames) in ((complete, complete - 1) if suffix == ".mkv" else (complete,))
        assert numbers(frames) == list(range(len(frames)))
        for frame, original in zip(frames, whole, strict=False):
            np.testing.assert_array_equal(frame.image, original.image)
            assert frame.pts_s == original.pts_s
        if complete < 125:
            assert error is not None
            assert str(error).endswith("of 6.0 s: the file is cut off")
        elif suffix != ".mkv":
            assert error is not None
            assert "a packet is incomplete" in str(error) or "cut off" in str(error)

    def test_cut_off_without_its_index(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4")
        with pytest.raises(SourceError, match=r"a\.mp4 is not a video, or its beginning or index is missing") as caught:
            open_source(cut(path, path.stat().st_size // 2))
        assert isinstance(caught.value.__cause__, av.InvalidDataError)

    @pytest.mark.parametrize("bad", [0, 12, 20, 26, 27, 28, 29])
    def test_every_other_frame_comes_and_then_the_error(self, tmp_path: Path, bad: int) -> None:
        # Keyframes only, so that one bad packet is one lost picture; also among the last, which the flush brings.
        path = make_clip(tmp_path / "a.mp4", gop=1)
        offset, size = packets(path)[bad]
        overwrite(path, offset, size)
        frames, error = read(path)
        assert numbers(frames) == [k for k in range(30) if k != bad]
        assert [frame.index for frame in frames] == list(range(29))
        assert [frame.pts_s for frame in frames] == [k / 25 for k in range(30) if k != bad]
        assert error is not None
        assert "is damaged near" in str(error)
        assert isinstance(error.__cause__, av.FFmpegError)

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
    def test_overwritten_in_the_middle(self, tmp_path: Path, suffix: str) -> None:
        path = make_clip(tmp_path / f"a{suffix}", frames=100, gop=10, grain=30)
        whole, _ = read(path)
        offset, size = packets(path)[45]
        assert size > 2000
        # H.264 has no checksum: what is overwritten further back is often decoded without a complaint.
        overwrite(path, offset + size // 5, 150)
        frames, error = read(path)
        times_s = [frame.pts_s for frame in frames]
        originals = {frame.pts_s: frame.image for frame in whole}
        assert times_s[:45] == [frame.pts_s for frame in whole[:45]]
        assert times_s[-50:] == [frame.pts_s for frame in whole[50:]]
        for frame in frames[:45] + frames[-50:]:
            np.testing.assert_array_equal(frame.image, originals[frame.pts_s])
        assert whole[45].pts_s not in times_s
        assert error is not None
        assert "damaged near 1." in str(error)

    def test_nothing_good_in_it(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4", gop=1, frames=5)
        for offset, size in packets(path):
            overwrite(path, offset, size)
        with pytest.raises(SourceError, match=r"a\.mp4 has no frame that can be decoded \(.*\)$"):
            open_source(path)

    @pytest.mark.parametrize("suffix", [".ts", ".h264"])
    def test_begun_between_two_keyframes_is_not_damaged(self, tmp_path: Path, suffix: str) -> None:
        path = make_clip(tmp_path / f"a{suffix}", frames=60, gop=20, grain=30)
        data = path.read_bytes()
        start = len(data) // 9 // 188 * 188
        path.write_bytes(data[start:])
        frames, error = read(path)
        assert error is None
        assert numbers(frames) == list(range(20, 60))


class TestRefusedFiles:
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("empty.mp4", b"", r"empty\.mp4 is empty \(0 bytes\)"),
            ("empty.png", b"", r"empty\.png is empty \(0 bytes\)"),
            ("text.mp4", b"not a video at all\n" * 40, r"text\.mp4 is not a video"),
            ("notes.txt", b"not a video at all\n" * 40, r"notes\.txt is not a supported video format"),
            ("noise.mkv", np.random.default_rng(0).bytes(5000), r"noise\.mkv is "),
            ("text.jpg", b"not a picture", r"text\.jpg cannot be read: damaged or not a still"),
        ],
    )
    def test_one_line_that_names_the_file(self, tmp_path: Path, name: str, content: bytes, message: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError, match=message) as caught:
            open_source(str(tmp_path / name))
        assert "\n" not in str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        write_picture(tmp_path / "holiday.jpg", 0)
        with pytest.raises(SourceError, match=r"holyday\.jpg does not exist; did you mean .*holiday\.jpg\?"):
            open_source(str(tmp_path / "holyday.jpg"))
        with pytest.raises(SourceError, match=r"a\.mp4 does not exist: the folder .*nowhere does not exist$"):
            open_source(str(tmp_path / "nowhere" / "a.mp4"))
        with pytest.raises(SourceError, match="cannot be opened: Not a directory"):
            open_source(str(tmp_path / "holiday.jpg" / "a.mp4"))

    def test_a_broken_link(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").symlink_to("gone.mp4")
        with pytest.raises(SourceError, match=r"a\.mp4 is a broken link: gone\.mp4 does not exist$"):
            open_source(tmp_path / "a.mp4")

    def test_names_that_no_file_can_have(self) -> None:
        with pytest.raises(SourceError, match="cannot be opened: File name too long"):
            open_source("a" * 5000)
        with pytest.raises(SourceError, match="null byte"):
            open_source("a\0b")

    def test_no_pictures(self, tmp_path: Path) -> None:
        make_clip(tmp_path / "a.mp4", frames=1)
        for text in (str(tmp_path), str(tmp_path / "*.png"), str(tmp_path / "*.mp4")):
            with pytest.raises(SourceError, match=r"no stills found \(recognized by suffix: .*\.jpg"):
                open_source(text)

    def test_neither_file_nor_folder(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.mp4")
        for path in (tmp_path / "pipe.mp4", Path("/dev/zero")):
            with pytest.raises(SourceError, match="neither a file nor a folder"):
                open_source(path)

    @pytest.fixture
    def nobody(self) -> Iterator[None]:
        """Without root's right to read everything."""
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        yield
        os.seteuid(before)

    @pytest.mark.usefixtures("nobody")
    @pytest.mark.parametrize("name", ["a.mp4", "a.png", "folder"])
    def test_no_permission(self, name: str) -> None:
        # Not under tmp_path, which is closed to others as a whole.
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            path = Path(folder) / name
            if path.suffix:
                path.write_bytes(b"content")
            else:
                path.mkdir()
            path.chmod(0)
            with pytest.raises(SourceError, match=rf"{name} cannot be (opened|read): Permission denied"):
                open_source(path)
            Path(folder).chmod(0o100)
            with pytest.raises(SourceError, match=r"b\.mp4 does not exist$"):
                open_source(Path(folder) / "b.mp4")
            Path(folder).chmod(0o400)
            with pytest.raises(SourceError, match="cannot be opened: Permission denied"):
                open_source(f"{folder}/{name[:1]}*")
            Path(folder).chmod(0o700)

    def test_sound_with_a_cover_picture(self, tmp_path: Path) -> None:
        path = tmp_path / "song.mp3"
        with av.open(str(path), "w") as container:
            sound = container.add_stream("mp3", rate=16000, layout="mono")
            cover = container.add_stream("mjpeg", rate=1)
            assert isinstance(cover, av.VideoStream)
            assert isinstance(sound, av.AudioStream)
            cover.width, cover.height, cover.pix_fmt = 192, 120, "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic
            picture = av.VideoFrame.from_ndarray(numbered_image(1), format="bgr24")
            picture.pts = 0
            container.mux(cover.encode(picture))
            container.mux(cover.encode())
            for at in range(0, 16000, 1152):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
                silence.sample_rate, silence.pts = 16000, at
                container.mux(sound.encode(silence))
            container.mux(sound.encode())
        with pytest.raises(SourceError, match=r"song\.mp3: no video stream"):
            open_source(path)

    def test_a_codec_without_a_decoder(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4")
        path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
        with pytest.raises(SourceError, match="no decoder for its video"):
            open_source(path)

    def test_a_failed_opening_leaves_no_file_open(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4")
        path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
        before = held()
        with pytest.raises(SourceError):
            open_source(path)
        assert held() == before

    @pytest.mark.parametrize("name", ["list.m3u8", "list.mp4"])
    def test_playlists_open_neither_network_nor_files(self, tmp_path: Path, name: str) -> None:
        make_clip(tmp_path / "inside.ts")
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0.2)
            address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
            for entry in (address, str(tmp_path / "inside.ts"), "inside.ts"):
                text = f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\n{entry}\n#EXT-X-ENDLIST\n"
                (tmp_path / name).write_text(text)
                with pytest.raises(SourceError, match=r"is not a video|refused"):
                    open_source(str(tmp_path / name))
            with pytest.raises(TimeoutError):
                server.accept()

    def test_concat_scripts_open_no_files(self, tmp_path: Path) -> None:
        make_clip(tmp_path / "inside.ts")
        for entry in ("inside.ts", str(tmp_path / "inside.ts")):
            (tmp_path / "script.mp4").write_text(f"ffconcat version 1.0\nfile '{entry}'\n")
            with pytest.raises(SourceError, match="refused"):
                open_source(str(tmp_path / "script.mp4"))


class TestPictures:
    def test_a_folder(self, tmp_path: Path) -> None:
        frames, error = read(write_folder(tmp_path / "pictures"))
        assert error is None
        assert [frame.file for frame in frames] == ["img1.png", "img2.jpg", "img10.PNG", "img11.bmp"]
        assert [frame.pts_s for frame in frames] == [0, 0.04, 0.08, 0.12]

    def test_its_info(self, tmp_path: Path) -> None:
        with open_source(write_folder(tmp_path / "my pictures")) as source:
            info = source.info
        assert (info.source_id, info.fps, info.time_base, info.frame_count) == ("my_pictures", 25.0, Fraction(1, 25), 4)
        assert info.path is None
        folder = tmp_path / "my pictures"
        assert info.place == str(folder)
        assert info.stills[2:] == (f"{folder}/img10.PNG", f"{folder}/img11.bmp")
        with open_source(folder / "img2.jpg") as source:
            assert source.info.place == f"{folder}/img2.jpg"

    def test_globs(self, tmp_path: Path) -> None:
        for number, name in enumerate(["a/img2.png", "a/img10.png", "b/c/img1.png"]):
            write_picture(tmp_path / name, number)
        write_picture(tmp_path / ".hidden" / "img1.png", 7)
        frames, _ = read(str(tmp_path / "**" / "*.png"))
        assert [frame.file for frame in frames] == ["a/img2.png", "a/img10.png", "b/c/img1.png"]
        assert numbers(frames) == [0, 1, 2]
        frames, _ = read(str(tmp_path / "a" / "img?.png"))
        assert [frame.file for frame in frames] == ["img2.png"]

    def test_a_relative_glob(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_picture(tmp_path / "1.png", 0)
        write_picture(tmp_path / "sub" / "2.png", 1)
        monkeypatch.chdir(tmp_path)
        frames, _ = read("**/*.png")
        assert [frame.file for frame in frames] == ["1.png", "sub/2.png"]

    @pytest.mark.parametrize("name", ["a[1].png", "naïve 日本.jpg", "100%d.png", "rtsp:a.png"])
    def test_any_file_name(self, tmp_path: Path, name: str) -> None:
        frames, error = read(str(write_picture(tmp_path / name, 5)))
        assert error is None
        assert numbers(frames) == [5]
        assert frames[0].file == name
        assert (frames[0].index, frames[0].pts_s) == (0, 0.0)

    @pytest.mark.parametrize("name", ["a[1].mp4", "naïve 日本.mkv", "100%d.mp4", "rtsp:a.mp4", "-.mp4"])
    def test_any_video_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.chdir(tmp_path)
        shutil.copy(make_clip(tmp_path / "clip.mkv", frames=3), name)
        assert numbers(read(name)[0]) == [0, 1, 2]

    @pytest.mark.parametrize(
        ("orientation", "stored_turn"), [(1, 0), (3, 2), (6, 1), (8, 3)], ids=["upright", "180", "right", "left"]
    )
    def test_exif_orientation(self, tmp_path: Path, orientation: int, stored_turn: int) -> None:
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        stored = np.ascontiguousarray(np.rot90(numbered_image(9)[..., ::-1], stored_turn))
        PIL.Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=95)
        frames, _ = read(tmp_path / "a.jpg")
        assert frames[0].image.shape == (120, 192, 3)
        assert numbers(frames) == [9]

    @pytest.mark.parametrize(
        "convert",
        [
            lambda image: np.dstack([image, np.full(image.shape[:2], 128, np.uint8)]),
            lambda image: image.astype(np.uint16) * 257,
            lambda image: image[:, :, 0],
            lambda image: image[:, :, 0].astype(np.uint16) * 257,
        ],
        ids=["alpha", "16 bit", "grey", "grey 16 bit"],
    )
    @pytest.mark.parametrize("suffix", [".png", ".tiff"])
    def test_becomes_8_bit_bgr(self, tmp_path: Path, convert: Callable[[Any], Any], suffix: str) -> None:
        image = convert(numbered_image(3))
        (tmp_path / f"a{suffix}").write_bytes(cv2.imencode(suffix, image)[1].tobytes())
        frames, _ = read(tmp_path / f"a{suffix}")
        expected = numbered_image(3) if image.ndim == 3 else numbered_image(3)[:, :, :1]
        assert frames[0].image.shape == (120, 192, 3)
        assert np.abs(frames[0].image.astype(int) - expected).max() <= 1

    def test_sizes_may_differ(self, tmp_path: Path) -> None:
        write_picture(tmp_path / "1.png", 0, (192, 120))
        write_picture(tmp_path / "2.png", 1, (240, 160))
        with open_source(tmp_path) as source:
            assert (source.info.width, source.info.height) == (192, 120)
            assert [frame.image.shape for frame in source.frames()] == [(120, 192, 3), (160, 240, 3)]

    def test_bad_ones_are_named_as_they_are_met(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        for number in range(6):
            write_picture(tmp_path / f"{number}.png", number)
        for number in (0, 3, 5):
            cut(tmp_path / f"{number}.png", 100)
        frames, error = read(tmp_path)
        assert numbers(frames) == [1, 2, 4]
        assert [frame.index for frame in frames] == [0, 1, 2]
        assert [frame.pts_s for frame in frames] == [0, 0.04, 0.08]
        reason = "damaged or not a still"
        assert str(error) == f"{tmp_path}: 3 of 6 stills cannot be read; the first is 0.png ({reason})"
        assert caplog.messages == [f"{tmp_path}/{number}.png: {reason}" for number in (0, 3, 5)]

    def test_a_bad_one_has_its_own_reason(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        for number in range(3):
            write_picture(tmp_path / f"{number}.png", number)
        with open_source(tmp_path) as source:
            (tmp_path / "1.png").unlink()
            (tmp_path / "2.png").write_bytes(b"no picture")
            with pytest.raises(SourceError, match=r"2 of 3 stills .* 1\.png \(No such file or directory\)"):
                list(source.frames())
        assert caplog.messages == [
            f"{tmp_path}/1.png: No such file or directory",
            f"{tmp_path}/2.png: damaged or not a still",
        ]

    @pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp", ".jp2"])
    def test_opencv_says_nothing_of_a_bad_one(
        self, tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        path = write_picture(tmp_path / f"a{suffix}", 0)
        cut(path, path.stat().st_size // 2)
        with pytest.raises(SourceError):
            open_source(path)
        assert capfd.readouterr().err == ""

    def test_a_folder_of_bad_ones_does_not_open(self, tmp_path: Path) -> None:
        for number in range(2):
            (tmp_path / f"{number}.jpg").write_bytes(b"not a picture")
        with pytest.raises(SourceError, match=r"2 of 2 stills cannot be read; the first is 0\.jpg"):
            open_source(tmp_path)


class TestNames:
    @pytest.mark.parametrize("text", ["0", "/dev/video0", "rtsp://host/a", "http://127.0.0.1:9/a.mp4"])
    def test_cameras_and_streams_are_live(self, text: str) -> None:
        with open_source(text, name="cam 1") as source:
            assert (source.info.source_id, source.info.text, source.info.is_live) == ("cam 1", text, True)

    def test_credentials_stay_secret(self) -> None:
        with pytest.raises(UsageError) as caught:
            open_source("ftp://me:se/c@ret@host/a")
        assert "ftp://***@host/a " in str(caught.value)

    def test_a_path_object_is_always_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("demo", "0"):
            shutil.copy(make_clip(tmp_path / "clip.mkv", frames=3), name)
            for text in (Path(name), f"./{name}"):
                assert numbers(read(text)[0]) == [0, 1, 2]

    def test_the_demo(self) -> None:
        with open_source("demo") as source:
            info = source.info
        assert (info.source_id, info.text, info.width, info.height) == ("demo", "demo", 1280, 720)
        assert info.path is not None
        assert Path(info.path).is_file()

    def test_nothing(self) -> None:
        with pytest.raises(UsageError, match="an empty source"):
            open_source("")

    @pytest.mark.parametrize("name", ["", " ", "a/b", "..", "a\nb"])
    def test_names_that_no_file_could_carry(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UsageError, match="cannot name a source"):
            open_source(write_picture(tmp_path / "a.png", 0), name=name)

    @pytest.mark.parametrize(
        ("stem", "source_id"),
        [("a b:c", "a_b_c"), ("..x", "x"), ("日本", "日本"), ("***", "source"), ("y" * 200, "y" * 100)],
    )
    def test_ids_are_safe_for_file_names(self, tmp_path: Path, stem: str, source_id: str) -> None:
        with open_source(write_picture(tmp_path / f"{stem}.png", 0)) as source:
            assert source.info.source_id == source_id


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


def test_a_still_of_absurd_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    picture = tmp_path / "bomb.jpg"
    data = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    at = data.index(b"\xff\xc0")  # the frame header: length, precision, height, width
    data[at + 5 : at + 9] = (30_000).to_bytes(2, "big") * 2
    picture.write_bytes(data)
    with pytest.raises(SourceError, match="pixels"):
        open_source(picture)


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
