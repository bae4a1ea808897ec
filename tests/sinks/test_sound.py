"""The sound of a video file in its drawn copy."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

# isort: split
import av
import numpy as np
import pytest

from streampose.frames import People, Result, RunInfo
from streampose.sinks.open import open_sink
from streampose.sources.open import open_source
from tests.clips import make_clip
from tests.sinks.helpers import SKELETON, VIDEOS, frame_times, open_files, sound_packets, source_run, video_run


def add_sound(
    clip: Path, target: Path, codec: str, *, seconds: float = 1.2, tracks: int = 1, begin_s: float = 0
) -> Path:
    """Copy the clip's pictures into `target` beside tones of `codec`."""
    rate = 48_000
    with av.open(str(clip)) as source, av.open(str(target), "w") as container:
        pictures = source.streams.video[0]
        copied = container.add_stream_from_template(pictures, opaque=True)
        tones = [container.add_stream(codec, rate=rate, layout="mono") for _ in range(tracks)]
        packets: list[av.Packet[Any]] = []
        for number, tone in enumerate(tones):
            assert isinstance(tone, av.AudioStream)
            at_s = np.arange(round(seconds * rate)) / rate
            wave = (8000 * np.sin(2 * np.pi * 440 * (number + 1) * at_s)).astype(np.int16)
            sound = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = rate, round(begin_s * rate), Fraction(1, rate)
            wanted = av.AudioResampler(
                tone.codec_context.format.name, "mono", rate, tone.codec_context.frame_size or 960
            )
            for piece in [*wanted.resample(sound), *wanted.resample(None)]:
                packets += tone.encode(piece)
            packets += tone.encode(None)
        for packet in source.demux(pictures):
            if packet.dts is not None:
                packet.stream = copied
                packets.append(packet)
        for packet in sorted(packets, key=lambda each: each.dts * each.time_base):
            container.mux(packet)
    return target


@pytest.mark.parametrize("target", VIDEOS)
@pytest.mark.parametrize("source", ["clip.mp4", "clip.mkv"])
def test_sound_is_copied_bit_by_bit_in_time(source: str, target: str, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / source, frames=50, start_s=0.4, audio_s=2.6)
    times = video_run(clip, tmp_path / target)
    assert [float(at) for at in frame_times(tmp_path / target)] == pytest.approx([float(at) for at in times], abs=5e-4)
    wanted, got = sound_packets(clip), sound_packets(tmp_path / target)
    assert len(wanted) > 30
    assert wanted[0][0] < 0, "the encoder's priming, which no container may turn into a shift"
    assert [data for _, data in got] == [data for _, data in wanted]
    assert [at for at, _ in got] == pytest.approx([at for at, _ in wanted], abs=1.001e-3)


def test_all_tracks_are_copied(tmp_path: Path) -> None:
    clip = add_sound(make_clip(tmp_path / "clip.mkv"), tmp_path / "two.mkv", "aac", tracks=2, begin_s=0.3)
    video_run(clip, tmp_path / "out.mp4")
    for track in (0, 1):
        wanted, got = sound_packets(clip, track), sound_packets(tmp_path / "out.mp4", track)
        assert [data for _, data in got] == [data for _, data in wanted]
        assert got[0][0] == pytest.approx(wanted[0][0], abs=1e-3)


@pytest.mark.parametrize("codec", ["libopus", "flac", "ac3", "pcm_s16le", "libmp3lame"])
def test_other_codecs_are_copied_too(codec: str, tmp_path: Path) -> None:
    clip = add_sound(make_clip(tmp_path / "clip.mkv"), tmp_path / "sound.mkv", codec)
    video_run(clip, tmp_path / "out.mp4")
    wanted, got = sound_packets(clip), sound_packets(tmp_path / "out.mp4")
    if codec == "pcm_s16le":  # whose packets are as long as a reader likes
        assert b"".join(data for _, data in got) == b"".join(data for _, data in wanted)
    else:
        assert [data for _, data in got] == [data for _, data in wanted]


def test_sound_with_a_header_a_packet_is_copied_without(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.ts", frames=30, audio_s=1.2)
    assert sound_packets(clip)[0][1][:2] in {b"\xff\xf1", b"\xff\xf9"}, "AAC with ADTS headers"
    for target in VIDEOS:
        video_run(clip, tmp_path / target)
        assert [data for _, data in sound_packets(tmp_path / target)] == [data[7:] for _, data in sound_packets(clip)]
        assert samples(tmp_path / target) == samples(clip)


def samples(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(frame.samples for frame in container.decode(audio=0))


@pytest.mark.parametrize(
    ("source", "codec", "target"), [("s.mov", "pcm_mulaw", "out.mp4"), ("s.mkv", "libopus", "out.mov")]
)
def test_sound_that_the_container_cannot_hold_is_left_out_with_a_warning(
    source: str, codec: str, target: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = add_sound(make_clip(tmp_path / "clip.mkv"), tmp_path / source, codec)
    before = open_files()
    with caplog.at_level(logging.WARNING, "streampose"):
        times = video_run(clip, tmp_path / target)
    warnings = [record.getMessage() for record in caplog.records if record.name == "streampose"]
    assert len(warnings) == 1
    assert codec.removeprefix("lib") in warnings[0]
    assert str(tmp_path / target) in warnings[0]
    assert len(frame_times(tmp_path / target)) == len(times) == 30
    with av.open(str(tmp_path / target)) as container:
        assert not container.streams.audio
    assert open_files() == before


def test_sound_longer_than_the_pictures_is_whole(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=30, audio_s=4.0)
    video_run(clip, tmp_path / "out.mp4")
    assert [data for _, data in sound_packets(tmp_path / "out.mp4")] == [data for _, data in sound_packets(clip)]


def test_sound_of_a_run_that_was_left_early_ends_with_its_last_picture(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=100, audio_s=4.0)
    video_run(clip, tmp_path / "out.mp4", limit=25)
    packets = sound_packets(tmp_path / "out.mp4")
    assert packets == [packet for packet in sound_packets(clip) if packet[0] < 1.0]


@pytest.mark.parametrize("zeros", [False, True])
def test_sound_of_a_damaged_source_ends_with_it(zeros: bool, tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.ts", frames=100, audio_s=4.0, grain=40)
    damaged = tmp_path / "damaged.ts"
    half = whole.stat().st_size // 2
    damaged.write_bytes(whole.read_bytes()[:half] + bytes(half if zeros else 0))  # FFmpeg fails at the zeros
    video_run(damaged, tmp_path / "out.mkv")
    got = [data for _, data in sound_packets(tmp_path / "out.mkv")]
    assert 20 < len(got) < len(sound_packets(whole))
    assert got[:-1] == [data[7:] for _, data in sound_packets(whole)][: len(got) - 1]


def test_sound_of_joined_recordings_goes_on_with_the_pictures(tmp_path: Path) -> None:
    parts = [make_clip(tmp_path / f"{k}.ts", frames=60 + 20 * k, audio_s=2.0 + k, first=100 * k) for k in range(3)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = source_run(joined, tmp_path / "out.mp4")
    assert len(frames) == 60 + 80 + 100
    firsts_s = [frames[index].pts_s for index in (0, 60, 140)]
    wanted = []
    for part, first_s in zip(parts, firsts_s, strict=True):
        shift_s = first_s - float(frame_times(part)[0])
        wanted += [(at_s + shift_s, data[7:]) for at_s, data in sound_packets(part)]
    got = sound_packets(tmp_path / "out.mp4")
    assert [data for _, data in got] == [data for _, data in wanted]
    assert [at_s for at_s, _ in got] == pytest.approx([at_s for at_s, _ in wanted], abs=1e-3)


@pytest.mark.parametrize("source", ["clip.mp4", "clip.mkv"])
def test_names_in_a_source_that_are_not_utf8_do_not_matter(source: str, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / source, audio_s=1.0, title="a title")
    clip.write_bytes(clip.read_bytes().replace(b"a title", b"a \xff\xfele"))
    with pytest.raises(UnicodeDecodeError):
        av.open(str(clip)).close()
    assert len(source_run(clip, tmp_path / "out.mp4")) == 30
    assert [data for _, data in sound_packets(tmp_path / "out.mp4")]


class TestSoundNeverCostsAPicture:
    """What is wrong with the sound is left out with a word, and every frame is there."""

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    def test_a_damaged_header_of_one_packet(self, tmp_path: Path, suffix: str) -> None:
        clip = make_clip(tmp_path / "clip.ts", frames=50, audio_s=2.0)
        data = bytearray(clip.read_bytes())
        headers = [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] & 0xF6 == 0xF0]
        at = headers[len(headers) // 2]
        data[at : at + 2] = b"\x00\x00"
        clip.write_bytes(data)
        out = tmp_path / f"out{suffix}"
        with open_source(clip) as source, open_sink(out) as sink:
            sink.open(RunInfo(source.info, SKELETON, {}))
            count = 0
            for frame in source.frames():
                sink.write(Result(frame, People.none(3), SKELETON))
                count += 1
        with av.open(str(out)) as written:
            assert sum(1 for _ in written.decode(video=0)) == count > 40

    def test_a_track_that_only_calls_itself_aac(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        clip = make_clip(tmp_path / "clip.mov", frames=25, audio_s=1.0)
        data = bytearray(clip.read_bytes())
        at = data.rfind(b"mp4a")
        data[at : at + 4] = b"apac"
        at = data.find(b"esds", at)
        data[at : at + 4] = b"dapa"
        clip.write_bytes(data)
        for name in ("out.mp4", "out.mkv"):
            with open_source(clip) as source, open_sink(tmp_path / name) as sink:
                sink.open(RunInfo(source.info, SKELETON, {}))
                for frame in source.frames():
                    sink.write(Result(frame, People.none(3), SKELETON))
            with av.open(str(tmp_path / name)) as written:
                assert sum(1 for _ in written.decode(video=0)) == 25
                assert not written.streams.audio
            assert f"{name}: omitting" in caplog.text
