"""Texts to sinks."""

from __future__ import annotations

from pathlib import Path

# isort: split
import pytest

from streampose.errors import UsageError
from streampose.sinks.null import NullSink
from streampose.sinks.open import open_sink
from streampose.sinks.poses import KeypointsSink
from streampose.sinks.sink import Sink
from streampose.sinks.stills import StillSink, StillsSink
from streampose.sinks.video import VideoFileSink
from tests.sinks.helpers import TARGETS


def test_each_text_gives_its_sink(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    expected: dict[str, type[Sink]] = {
        "a.mp4": VideoFileSink,
        "a.M4V": VideoFileSink,
        "a.mov": VideoFileSink,
        "a.mkv": VideoFileSink,
        "a.jsonl": KeypointsSink,
        "a.jpg": StillSink,
        "a.JPEG": StillSink,
        "a.png": StillSink,
        "a.webp": StillSink,
        "a.bmp": StillSink,
        "new/": StillsSink,
        "there": StillsSink,
    }
    for name, kind in expected.items():
        assert type(open_sink(f"{tmp_path}/{name}")) is kind, name
    assert isinstance(open_sink("null"), NullSink)
    assert isinstance(open_sink("-"), KeypointsSink)
    assert type(open_sink(tmp_path / "a.mp4")) is VideoFileSink


@pytest.mark.parametrize("text", ["out", "out.avi", "out.txt", "", "poses.json"])
def test_an_unknown_text_names_what_is_understood(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a folder of that name is understood
    with pytest.raises(UsageError) as caught:
        open_sink(text)
    for word in ("window", "null", ".mp4", ".mkv", ".jsonl", ".jpg", "/"):
        assert word in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "srt"])
def test_a_url_is_refused_in_one_line_without_its_password(scheme: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_sink(f"{scheme}://user:secret@host/live.mp4")
    assert "secret" not in str(caught.value)
    assert "files" in str(caught.value)


def test_an_endless_name_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown output"):
        open_sink(str(tmp_path / ("x" * 300)))


def test_only_drawing_sinks_ask_for_the_picture(tmp_path: Path) -> None:
    needs = {
        text: open_sink(text if text in {"null", "-"} else f"{tmp_path}/{text}").needs_drawn for text in (*TARGETS, "-")
    }
    assert {text for text, wanted in needs.items() if not wanted} == {"null", "-", "out.jsonl"}
