"""Video files of unusual sources: long pauses, strange pixels, sound that does not fit."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from streampose.errors import SinkError, UsageError, describe
from streampose.frames import Boxes, Frame, People, Result, RunInfo, Skeleton, SourceInfo
from streampose.sinks.open import open_sink, open_sinks
from tests.clips import make_clip, numbered_image

SKELETON = Skeleton(("nose",), (), ())
NOBODY = People.of(
    Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)),
    np.zeros((0, 1, 2), np.float32),
    np.zeros((0, 1), np.float32),
)


def result(index: int, pts_s: float, pixel_aspect: Fraction = Fraction(1)) -> Result:
    image = numbered_image(index)
    return Result(Frame("a", index, pts_s, 0.0, image, pixel_aspect=pixel_aspect), NOBODY, SKELETON, image)


def write(target: Path, times_s: list[float], *, path: Path | None = None) -> None:
    """Write frames at these times. `path` is the recording whose sound is copied."""
    source = SourceInfo(
        "a", "a.ts", 192, 120, 25.0, Fraction(1, 90_000), None, is_live=False, path=None if path is None else str(path)
    )
    with open_sink(target) as sink:
        sink.open(RunInfo(source, SKELETON, {"detector": "finder", "pose": "poser"}))
        for index, time_s in enumerate(times_s):
            sink.write(result(index, time_s))


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_pause_longer_than_a_container_can_hold_names_another(tmp_path: Path, suffix: str) -> None:
    times_s = [index / 25 for index in range(30)]
    with pytest.raises(SinkError, match=r"a pause of hours does not fit .* use \.mkv"):
        write(tmp_path / f"a{suffix}", [*times_s, 7 * 3600.0])
    with av.open(str(tmp_path / f"a{suffix}")) as container:
        assert len(list(container.decode(video=0))) == 30
    write(tmp_path / "a.mkv", [*times_s, 7 * 3600.0])
    with av.open(str(tmp_path / "a.mkv")) as container:
        assert len(list(container.decode(video=0))) == 31


def test_sound_that_does_not_fit_names_a_container_that_holds_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = tmp_path / "clip.mov"
    with av.open(str(make_clip(tmp_path / "a.mp4", frames=5, audio_s=1.0))) as silent, av.open(str(clip), "w") as made:
        video = made.add_stream_from_template(silent.streams.video[0])
        sound = made.add_stream("pcm_mulaw", rate=8000, layout="mono")
        for packet in silent.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                made.mux(packet)
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="mono")
        tone.sample_rate = 8000
        made.mux(sound.encode(tone))
    with caplog.at_level(logging.WARNING, logger="streampose"):
        write(tmp_path / "drawn.mkv", [0.0, 0.04], path=clip)
    assert "omitting the pcm_mulaw sound, which this container cannot hold; use .mov" in caplog.text


def test_an_error_of_ffmpeg_is_told_without_its_number() -> None:
    error = av.InvalidDataError(1094995529, "Invalid data found when processing input", "file:out.mp4")
    assert describe(error) == "Invalid data found when processing input"


@pytest.mark.parametrize(
    ("host", "reason"), [("[::1", "invalid host name"), ("host:99999", "invalid port"), ("", "no host name")]
)
@pytest.mark.parametrize("scheme", ["rtmp", "rtsp"])
def test_a_malformed_host_is_refused_at_once(scheme: str, host: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as raised:
        open_sink(f"{scheme}://me:hunter2@{host}/live/x?token=SECRET")
    assert "SECRET" not in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_null_character_in_a_name_is_one_line(tmp_path: Path) -> None:
    source = SourceInfo("a", "a.mp4", 192, 120, 25.0, Fraction(1, 25), None, is_live=False)
    with ExitStack() as opened, pytest.raises(UsageError, match="null character"):
        open_sinks(opened, [source], [[f"{tmp_path}/\0.mp4"]])
