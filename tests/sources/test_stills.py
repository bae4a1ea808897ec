"""Picture files of several frames, photographs of phones, and pictures of absurd size."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pillow_heif
import pytest

from streampose.errors import SourceError
from streampose.inputs import Input
from streampose.sources.open import open_source

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
