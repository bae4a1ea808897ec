"""Picture files of several frames, photographs of phones, and pictures of absurd size."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pillow_heif
import pytest

from streampose.errors import SourceError
from streampose.inputs import Input
from streampose.sources.open import open_source
from tests.clips import make_clip, numbered_image
from tests.sources.helpers import cut, numbers, read, write_folder, write_picture

GREYS = (10, 80, 150, 220)


def animated(path: Path) -> Path:
    """Write four grey frames, shown for 200 ms each where the format can say so."""
    frames = [PIL.Image.new("RGB", (64, 48), (grey,) * 3) for grey in GREYS]
    if path.suffix == ".tif":
        frames[0].save(path, save_all=True, append_images=frames[1:])
    else:
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=200, lossless=True)
    return path


@pytest.mark.parametrize(("name", "step_s"), [("a.webp", 0.2), ("a.png", 0.2), ("a.tif", 0.04)])
def test_all_frames_of_a_file_are_read_at_their_times(tmp_path: Path, name: str, step_s: float) -> None:
    with open_source(animated(tmp_path / name)) as source:
        assert source.info.frame_count == 4
        assert source.info.stills == ()
        frames = list(source.frames())
    assert [int(frame.image[24, 32, 0]) for frame in frames] == pytest.approx(GREYS, abs=1)
    assert [frame.pts_s for frame in frames] == pytest.approx([index * step_s for index in range(4)])


def test_in_a_folder_the_first_frame_is_read_and_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    animated(tmp_path / "a.webp")
    cv2.imwrite(str(tmp_path / "b.png"), np.full((48, 64, 3), 90, np.uint8))
    with caplog.at_level(logging.WARNING, logger="streampose"), open_source(tmp_path) as source:
        assert [frame.file for frame in source.frames()] == ["a.webp", "b.png"]
    assert "a.webp: only the first of 4 frames is read" in caplog.text
    assert "b.png" not in caplog.text


def test_a_damaged_animation_gives_the_frames_before(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [PIL.Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)) for _ in range(4)]
    path = tmp_path / "a.png"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    path.write_bytes(path.read_bytes()[:-4000])
    with open_source(path) as source:
        frames = source.frames()
        assert [next(frames).index for _ in range(3)] == [0, 1, 2]
        with pytest.raises(SourceError, match=r"a\.png is damaged at frame 3"):
            next(frames)


def heic(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    rows, columns = np.mgrid[:96, :160]
    picture = np.stack([columns, rows * 2, 255 - columns], axis=-1).astype(np.uint8)
    pillow_heif.from_pillow(PIL.Image.fromarray(picture)).save(path, quality=95)
    return picture[..., ::-1]


@pytest.mark.parametrize("ending", [".heic", ".HEIC", ".heif", ".hif"])
def test_a_photograph_of_a_phone(tmp_path: Path, ending: str) -> None:
    expected = heic(tmp_path / f"a{ending}")
    for source_text in (tmp_path / f"a{ending}", tmp_path):
        with open_source(source_text) as source:
            (frame,) = source.frames()
        assert frame.image.shape == (96, 160, 3)
        assert np.abs(frame.image.astype(int) - expected).mean() < 4
        assert frame.file == f"a{ending}"


def test_a_damaged_photograph_of_a_phone(tmp_path: Path) -> None:
    heic(tmp_path / "a.heic")
    path = tmp_path / "a.heic"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(SourceError, match=r"a\.heic cannot be read"):
        open_source(path)


@pytest.mark.parametrize("name", ["a.png", "a.heic", "a.webp"])
def test_a_limit_of_pixels(tmp_path: Path, name: str) -> None:
    if name.endswith("heic"):
        heic(tmp_path / name)
    elif name.endswith("webp"):
        animated(tmp_path / name)
    else:
        cv2.imwrite(str(tmp_path / name), np.zeros((96, 160, 3), np.uint8))
    with pytest.raises(SourceError, match="pixels exceed `max_pixels`"):
        open_source(Input(tmp_path / name, max_pixels=3000))
    with open_source(Input(tmp_path / name, max_pixels=96 * 160)):
        pass


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


def test_a_still_of_absurd_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    picture = tmp_path / "bomb.jpg"
    data = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    at = data.index(b"\xff\xc0")  # the frame header: length, precision, height, width
    data[at + 5 : at + 9] = (30_000).to_bytes(2, "big") * 2
    picture.write_bytes(data)
    with pytest.raises(SourceError, match="pixels"):
        open_source(picture)
