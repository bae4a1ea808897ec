"""Video files of a part of a recording, and at another speed."""

from __future__ import annotations

import logging
from pathlib import Path

# isort: split
import av
import pytest

from streampose.errors import UsageError
from streampose.inputs import Input
from streampose.sinks.open import open_sink
from tests.clips import make_clip, read_number
from tests.sinks.helpers import VIDEOS, frame_times, sound_packets, source_run


def times(path: Path) -> list[float]:
    return [float(at_s) for at_s in frame_times(path)]


@pytest.mark.parametrize("target", VIDEOS)
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts"])
def test_a_part_begins_at_0_with_its_sound(name: str, target: str, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / name, frames=100, b_frames=2, audio_s=4.0)
    frames = source_run(Input(clip, start_s=1.01, end_s=2.5), tmp_path / target)
    begin_s = frames[0].pts_s
    assert 1.01 <= begin_s < 1.05
    assert times(tmp_path / target) == pytest.approx([frame.pts_s - begin_s for frame in frames], abs=5e-4)
    cut = 7 if name == "clip.ts" else 0  # its packets have headers
    wanted = [(at_s - begin_s, data[cut:]) for at_s, data in sound_packets(clip) if begin_s <= at_s < 2.5]
    found = sound_packets(tmp_path / target)
    assert [data for _, data in found] == [data for _, data in wanted]
    assert [at_s for at_s, _ in found] == pytest.approx([at_s for at_s, _ in wanted], abs=1.001e-3)


def test_the_pictures_of_a_part_are_those_of_its_sound(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=100, audio_s=4.0)
    source_run(Input(clip, start_s=2.0, end_s=3.0), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        found = [(read_number(frame.to_ndarray(format="bgr24")), frame.time) for frame in container.decode(video=0)]
    assert found == [(number, pytest.approx((number - 50) / 25)) for number in range(50, 75)]


def test_a_part_to_the_end_has_all_of_its_sound(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=50, audio_s=3.0)
    for number, end_s in enumerate((None, 10.0)):
        source_run(Input(clip, start_s=1.0, end_s=end_s), tmp_path / f"{number}.mp4")
        wanted = [data for at_s, data in sound_packets(clip) if at_s >= 1.0]
        assert [data for _, data in sound_packets(tmp_path / f"{number}.mp4")] == wanted


def test_sound_of_a_joined_recording(tmp_path: Path) -> None:
    parts = [make_clip(tmp_path / f"{k}.ts", frames=50, audio_s=2.0, first=100 * k).read_bytes() for k in range(2)]
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    source_run(Input(tmp_path / "both.ts"), tmp_path / "whole.mkv")
    frames = source_run(Input(tmp_path / "both.ts", start_s=2.6), tmp_path / "part.mkv")
    begin_s = frames[0].pts_s
    wanted = [(at_s - begin_s, data) for at_s, data in sound_packets(tmp_path / "whole.mkv") if at_s >= begin_s]
    found = sound_packets(tmp_path / "part.mkv")
    assert [data for _, data in found] == [data for _, data in wanted]
    assert [at_s for at_s, _ in found] == pytest.approx([at_s for at_s, _ in wanted], abs=2e-3)


def test_a_third_of_the_frames_plays_at_the_right_speed(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=50, audio_s=2.0)
    source_run(Input(clip, every=3), tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4") == pytest.approx([k / 25 for k in range(0, 50, 3)])
    assert len(sound_packets(tmp_path / "out.mp4")) == len(sound_packets(clip))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].duration * container.streams.video[0].time_base == pytest.approx(2.04)


class TestSpeed:
    @pytest.mark.parametrize("target", VIDEOS)
    @pytest.mark.parametrize("speed", [0.25, 0.3, 1 / 3, 2.0, 100.0])
    def test_times_are_stretched_and_no_frame_is_lost(self, speed: float, target: str, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "clip.mp4", frames=30)
        frames = source_run(Input(clip), tmp_path / target, speed=speed)
        assert [frame.pts_s for frame in frames] == [k / 25 for k in range(30)]
        wanted = [k / 25 / speed for k in range(30)]
        found = times(tmp_path / target)
        if speed == 100.0 and target == "out.mkv":  # milliseconds
            assert len(found) == 30
        else:
            assert found == pytest.approx(wanted, rel=1e-3, abs=6e-4)

    def test_of_a_part(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "clip.mkv", times_s=[0, 0.5, 1.0, 1.1, 1.5, 2.0])
        source_run(Input(clip, start_s=0.6), tmp_path / "out.mp4", speed=0.5)
        assert times(tmp_path / "out.mp4") == pytest.approx([0.0, 0.2, 1.0, 2.0])

    def test_the_sound_is_left_out_with_a_word(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        clip = make_clip(tmp_path / "clip.mp4", audio_s=1.0)
        with caplog.at_level(logging.WARNING, "streampose"):
            source_run(Input(clip), tmp_path / "out.mp4", speed=0.5)
        assert f"{tmp_path / 'out.mp4'}: omitting the sound, because `speed` is not 1" in caplog.text
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert not container.streams.audio

    def test_of_segments(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "clip.mp4", frames=50)
        source_run(Input(clip, start_s=0.4), tmp_path / "{source}-{time}.mkv", speed=0.5, segment_s=1.0)
        files = sorted(tmp_path.glob("clip-*.mkv"))
        found = sorted((times(file) for file in files), key=len)
        assert [len(one) for one in found] == [15, 25]
        for one in found:
            assert one == pytest.approx([k / 12.5 for k in range(len(one))], abs=6e-4)

    def test_of_a_live_stream_is_refused(self) -> None:
        for text in ("rtmp://host/live", "rtsp://host/cam"):
            with pytest.raises(UsageError, match=rf"^cannot write to {text}: `speed` applies only to files"):
                open_sink(text, speed=0.5)
