"""Stills and recordings that a user of a window saves."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from streampose.errors import SinkError
from streampose.sinks.keepsakes import Keepsakes
from tests.clips import numbered_image
from tests.sinks.helpers import frame_times, run_info
from tests.sources.helpers import numbers, read


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keepsakes:
    monkeypatch.chdir(tmp_path)
    return Keepsakes(run_info(path=tmp_path / "clip.mp4"), "clip")


def test_stills_are_what_is_shown_and_replace_nothing(kept: Keepsakes) -> None:
    names = [kept.save_still(numbered_image(number)) for number in range(3)]
    assert len(set(names)) == 3
    for number, name in enumerate(names):
        assert name.startswith("clip-")
        image = cv2.imread(name)
        assert image is not None
        assert np.array_equal(image, numbered_image(number))
    assert kept.summary() == ", ".join(names)


def test_a_recording_has_what_was_shown_while_it_ran(kept: Keepsakes) -> None:
    assert kept.summary() is None
    for number in range(30):
        if number == 5:
            kept.start()
        if number == 20:
            name = kept.stop()
        assert kept.is_recording == (5 <= number < 20)
        kept.record(numbered_image(number), 2 + number / 25)
    frames, error = read(name)
    assert error is None
    assert numbers(frames) == list(range(5, 20))
    assert frame_times(Path(name)) == [Fraction(n, 25) for n in range(15)]
    assert kept.stop() == ""
    kept.start()
    kept.record(numbered_image(1), 0.0)
    second = kept.stop()
    assert second != name
    assert kept.summary() == f"{name}, {second}"


def test_a_recording_without_a_picture_leaves_no_file(kept: Keepsakes, tmp_path: Path) -> None:
    kept.start()
    assert kept.stop() == ""
    assert kept.summary() is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_rights_or_room_is_one_line(kept: Keepsakes, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as there:
        there.chdir(folder)
        folder.rmdir()
        with pytest.raises(SinkError, match=r"cannot write clip-.*\.png: No such file or directory"):
            kept.save_still(numbered_image(1))
        with pytest.raises(SinkError, match=r"cannot write clip-\{time\}\.mp4: No such file or directory"):
            kept.start()
    assert not kept.is_recording
