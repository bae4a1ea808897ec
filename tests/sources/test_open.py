"""Text to source, and the names of sources."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from streampose.errors import UsageError
from streampose.inputs import Input
from streampose.sources.open import open_source
from tests.clips import make_clip
from tests.sources.helpers import numbers, read, write_picture


class TestNames:
    @pytest.mark.parametrize("text", ["0", "/dev/video0", "rtsp://host/a", "http://127.0.0.1:9/a.mp4"])
    def test_cameras_and_streams_are_live(self, text: str) -> None:
        with open_source(text, name="cam 1") as source:
            assert (source.info.source_id, source.info.text, source.info.is_live) == ("cam 1", text, True)

    @pytest.mark.parametrize("number", [0, np.int64(0), 2])
    def test_a_number_is_a_camera(self, number: int) -> None:
        with open_source(Input(number)) as source, open_source(str(number)) as wanted:
            assert source.info == wanted.info
            assert source.info.is_camera

    @pytest.mark.parametrize("number", [-1, True])
    def test_other_numbers_are_none(self, number: int) -> None:
        with pytest.raises(UsageError, match=f"`source`: {number} is not a camera number: use 0 for the first camera"):
            open_source(Input(number))

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
