"""Parts of a recording: the frames are those of the whole, with their times and numbers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest

from streampose.errors import SourceError, UsageError
from streampose.frames import Frame
from streampose.inputs import Input
from streampose.sources import recorded, skip
from streampose.sources.decode import Decoding
from streampose.sources.open import open_source
from tests.clips import make_clip, numbered_image, read_number
from tests.servers import RtmpServer, RtspServer
from tests.sources.helpers import assert_given_back, cut, held, numbers, overwrite, packets, read, write_folder
from tests.sources.live import Reader, open_live

FRAMES, GOP = 60, 12
OPEN_X264 = {"x264-params": f"open-gop=1:keyint={GOP}:min-keyint={GOP}"}
OPEN_X265 = {"x265-params": f"open-gop=1:keyint={GOP}:min-keyint={GOP}:bframes=3:log-level=none"}


def shifted(folder: Path) -> Path:
    """A clip of which an edit list cuts off the beginning, in the middle of a group of pictures."""
    clip = make_clip(folder / "whole.mkv", frames=FRAMES, b_frames=2)
    with av.open(str(clip)) as source, av.open(str(folder / "a.mp4"), "w") as target:
        video = source.streams.video[0]
        copied = target.add_stream_from_template(video)
        for packet in source.demux(video):
            if packet.pts is not None:
                packet.pts -= 200
                packet.dts = None if packet.dts is None else packet.dts - 200
                packet.stream = copied
                target.mux(packet)
    return folder / "a.mp4"


def joined(folder: Path) -> Path:
    """Two recordings in one file: the clock starts anew."""
    parts = [make_clip(folder / f"{k}.ts", frames=30, first=30 * k, b_frames=2).read_bytes() for k in range(2)]
    (folder / "both.ts").write_bytes(b"".join(parts))
    return folder / "both.ts"


def begun_late(folder: Path) -> Path:
    """A piece of a transport stream that begins between two keyframes."""
    whole = make_clip(folder / "a.ts", frames=FRAMES, gop=20, grain=30)
    data = whole.read_bytes()
    whole.write_bytes(data[len(data) // 9 // 188 * 188 :])
    return whole


def all_keyframes(folder: Path) -> Path:
    """A clip whose index says that every frame is a keyframe."""
    clip = make_clip(folder / "a.mp4", frames=FRAMES, gop=30, b_frames=2)
    data = clip.read_bytes()
    assert data.count(b"stss") == 1
    clip.write_bytes(data.replace(b"stss", b"free"))
    return clip


def without_index(folder: Path) -> Path:
    """A Matroska file without its seek index, as a killed writer leaves it."""
    clip = make_clip(folder / "a.mkv", frames=FRAMES, b_frames=2)
    data = clip.read_bytes()
    cues = data.rfind(b"\x1c\x53\xbb\x6b")
    assert cues > 0
    clip.write_bytes(data[:cues])
    return clip


def made(name: str, **settings: Any) -> Callable[[Path], Path]:
    return lambda folder: make_clip(folder / name, **{"frames": FRAMES, **settings})


CLIPS: dict[str, tuple[Callable[[Path], Path], bool]] = {
    "mp4": (made("a.mp4"), True),
    "mp4, B-frames": (made("a.mp4", b_frames=2, audio_s=2.4), True),
    "mp4, fragments": (made("a.mp4", b_frames=2, container_options={"movflags": "frag_keyframe+empty_moov"}), True),
    "mp4, open groups": (made("a.mp4", b_frames=3, codec_options=OPEN_X264), True),
    "mp4, HEVC": (made("a.mp4", codec="libx265", codec_options=OPEN_X265), True),
    "mp4, one group": (made("a.mp4", gop=1000), False),
    "mp4, refreshed": (made("a.mp4", codec_options={"x264-params": "intra-refresh=1:keyint=12"}), False),
    "mp4, edit list": (shifted, True),
    "mp4, wrong index": (all_keyframes, False),
    "mov, turned": (made("a.mov", b_frames=3, rotation=90), True),
    "mkv": (made("a.mkv", b_frames=2, start_s=3.0), True),
    "mkv, varying": (made("a.mkv", b_frames=2, times_s=[0.04 * k + 0.013 * (k % 5 == 0) for k in range(60)]), True),
    "mkv, no index": (without_index, True),
    "webm, VP8": (
        made("a.webm", codec="libvpx", codec_options={"auto-alt-ref": "1", "lag-in-frames": "8", "cpu-used": "8"}),
        True,
    ),
    "webm, VP9": (made("a.webm", codec="libvpx-vp9", codec_options={"deadline": "realtime"}), True),
    "ts": (made("a.ts", b_frames=2, audio_s=2.4), True),
    "ts, open groups": (made("a.ts", b_frames=3, codec_options=OPEN_X264), True),
    "ts, MPEG-2": (made("a.ts", codec="mpeg2video", b_frames=2), True),
    "ts, late": (made("a.ts", start_s=3600.0, b_frames=2), True),
    "ts, joined": (joined, False),
    "ts, begun late": (begun_late, True),
    "mxf": (made("a.mxf", codec="mpeg2video", b_frames=2), True),
    "flv": (made("a.flv", b_frames=2), True),
    "avi, MJPEG": (made("a.avi", codec="mjpeg", pix_fmt="yuvj420p"), True),
    "avi, B-frames": (made("a.avi", b_frames=2), False),
    "h264": (made("a.h264", b_frames=2), False),
    "gif": (made("a.gif", codec="gif", pix_fmt="bgr8"), False),
}
"""Each clip, and whether its beginning can be skipped; otherwise all of it has to be decoded."""


class Decoded(Decoding):
    """Counts the frames that are decoded."""

    count = 0

    def frames(self) -> Any:
        for frame in super().frames():
            Decoded.count += 1
            yield frame


def part(source: str | Path, **settings: Any) -> list[Frame]:
    with open_source(Input(source, **settings)) as opened:
        return list(opened.frames())


def assert_same(found: list[Frame], wanted: list[Frame]) -> None:
    assert [(frame.index, frame.pts_s) for frame in found] == [(frame.index, frame.pts_s) for frame in wanted]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.parametrize("name", CLIPS)
def test_a_part_has_the_frames_of_the_whole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, can_skip = CLIPS[name]
    clip = make(tmp_path)
    whole, _ = read(clip)
    monkeypatch.setattr(recorded, "Decoding", Decoded)
    begin_s = whole[0].pts_s
    for share in (0.001, 0.24, 0.55, 0.99):
        Decoded.count = 0
        start_s = whole[int(share * (len(whole) - 1))].pts_s + (0.001 if share == 0.55 else 0.0) + 1e-9
        with open_source(Input(clip, start_s=start_s)) as source:
            found = list(source.frames())
            info = source.info
        wanted = [frame for frame in whole if frame.pts_s >= start_s - 1e-6]
        assert_same(found, wanted)
        assert info.begins_s == wanted[0].pts_s
        at_most = len(wanted) + (32 + 2 * GOP if can_skip else len(whole) + 32)
        assert Decoded.count <= at_most, (share, Decoded.count)
        if can_skip and share == 0.99:
            assert Decoded.count < len(whole)
    end_s = begin_s + 1.0
    found = part(clip, start_s=begin_s + 0.5, end_s=end_s, every=3)
    assert_same(found, [frame for frame in whole if begin_s + 0.5 - 1e-6 <= frame.pts_s < end_s - 1e-6][::3])


def test_a_long_group_of_pictures_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(tmp_path / "a.mp4", frames=FRAMES, gop=1000, b_frames=2, grain=30)
    whole, _ = read(clip)
    monkeypatch.setattr(skip, "_MAX_HELD_BYTES", clip.stat().st_size // 4)
    assert_same(part(clip, start_s=2.0), whole[50:])


def test_two_parts_are_the_whole(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", frames=50, fps=30, b_frames=2)
    whole, _ = read(clip)
    for at_s in (0.5, 0.7, round(whole[20].pts_s, 6), 1.0):
        assert_same(part(clip, end_s=at_s) + part(clip, start_s=at_s), whole)


def test_what_is_told_of_a_part(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", frames=100)
    for settings, count, fps, begins_s in (
        ({}, 100, 25.0, 0.0),
        ({"start_s": 1.0}, 75, 25.0, 1.0),
        ({"start_s": 1.01, "end_s": 2.0}, 24, 25.0, 1.04),
        ({"every": 3}, 34, 25 / 3, 0.0),
        ({"end_s": 1.0, "every": 4}, 7, 6.25, 0.0),
        ({"end_s": 100.0}, 100, 25.0, 0.0),
    ):
        with open_source(Input(clip, **settings)) as source:
            assert len(list(source.frames())) == count
            assert (source.info.frame_count, source.info.fps, source.info.begins_s) == (count, fps, begins_s)


def test_a_part_leaves_no_file_and_no_thread(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", frames=100)
    part(clip, start_s=2.0)
    before = held()
    for _ in range(3):
        with open_source(Input(clip, start_s=2.0, end_s=3.0)) as source:
            next(source.frames())
        part(clip, start_s=2.0, end_s=3.0)
    assert_given_back(before)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"start_s": 2, "end_s": 1}, r"^`end_s` \(1 s\) must be after `start_s` \(2 s\)$"),
        ({"start_s": 2, "end_s": 2}, "must be after"),
        ({"start_s": 100}, r"^the last frame of .*a\.\w+ is at 2\.36 s: `start_s` \(100 s\) is later$"),
        ({"start_s": 1.01, "end_s": 1.02}, r"a\.\w+ has no frame from 1\.01 to 1\.02 s \(the next one is at 1\.04 s\)"),
        ({"every": 0}, "`every`: 0 is not a whole number from 1 up"),
        ({"start_s": -1}, "`start_s`: -1 is not a duration"),
        ({"end_s": "soon"}, "`end_s`: 'soon' is not a duration"),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_a_part_without_a_frame(settings: dict[str, Any], says: str, name: str, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / name, frames=FRAMES)
    with pytest.raises(UsageError, match=says):
        open_source(Input(clip, **settings))


def test_a_part_before_the_first_frame(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", start_s=3.0)
    with pytest.raises(UsageError, match=r"no frame from 0 to 2 s \(the next one is at 3 s\)"):
        open_source(Input(clip, end_s=2.0))
    found = part(clip, start_s=1.0)
    assert (len(found), found[0].index, found[0].pts_s) == (30, 0, 3.0)


class TestDamage:
    """Only damage within the part makes a run fail. What is damaged before it counts as if it could be decoded."""

    @pytest.fixture
    def clip(self, tmp_path: Path) -> Path:
        clip = make_clip(tmp_path / "a.mkv", frames=150, gop=10, grain=30)
        offset, size = packets(clip)[75]
        overwrite(clip, offset + size // 5, 150)
        assert "damaged near 3.0 s" in str(read(clip)[1])
        return clip

    def test_before_and_behind_the_part(self, clip: Path) -> None:
        found = part(clip, start_s=5.0)
        assert numbers(found) == [frame.index for frame in found] == list(range(125, 150))
        assert numbers(part(clip, start_s=0.5, end_s=2.0)) == list(range(13, 50))

    def test_within_the_part(self, clip: Path) -> None:
        for settings in ({"start_s": 2.5}, {"end_s": 4.0}, {"start_s": 2.5, "end_s": 4.0}):
            with pytest.raises(SourceError, match=r"is damaged near 3\.0 s"):
                part(clip, **settings)

    def test_of_a_file_that_is_cut_off(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "a.mkv", frames=150)
        cut(clip, round(clip.stat().st_size * 0.6))
        with pytest.raises(SourceError, match="the file is cut off"):
            part(clip, start_s=2.0)
        assert len(part(clip, start_s=2.0, end_s=3.0)) == 25


class TestStills:
    def test_what_is_left_out_is_not_read(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path)
        (folder / "img2.jpg").write_bytes(b"no picture")
        found = part(folder, every=2)
        assert [(frame.file, frame.index, frame.pts_s) for frame in found] == [
            ("img1.png", 0, 0.0),
            ("img10.PNG", 2, 0.08),
        ]
        found = part(folder, start_s=0.08)
        assert [(frame.file, frame.index) for frame in found] == [("img10.PNG", 2), ("img11.bmp", 3)]
        assert [frame.file for frame in part(folder, end_s=0.04)] == ["img1.png"]
        with open_source(Input(folder, start_s=0.08)) as source:
            assert (source.info.frame_count, source.info.begins_s) == (2, 0.08)

    def test_a_bad_one_is_no_frame(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path)
        (folder / "img1.png").write_bytes(b"no picture")
        with open_source(Input(folder, every=2)) as source:
            frames = source.frames()
            assert [next(frames).file, next(frames).file] == ["img2.jpg", "img11.bmp"]
            with pytest.raises(SourceError, match="1 of 4 stills cannot be read"):
                next(frames)

    def test_no_frame(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path)
        with pytest.raises(UsageError, match=r"the last frame of .* is at 0\.12 s"):
            open_source(Input(folder, start_s=1.0))
        with pytest.raises(UsageError, match=r"the next one is at 0\.04 s"):
            open_source(Input(folder, start_s=0.01, end_s=0.02))


def test_a_part_of_an_animation(tmp_path: Path) -> None:
    stills = [PIL.Image.fromarray(numbered_image(number)[..., ::-1]) for number in range(10)]
    stills[0].save(tmp_path / "a.png", save_all=True, append_images=stills[1:], duration=100)
    found = part(tmp_path / "a.png", start_s=0.25, end_s=0.8, every=2)
    assert [(read_number(frame.image), frame.index, frame.pts_s) for frame in found] == [
        (3, 3, 0.3),
        (5, 5, 0.5),
        (7, 7, 0.7),
    ]
    with pytest.raises(UsageError, match=r"is at 0\.9 s"):
        open_source(Input(tmp_path / "a.png", start_s=2.0))


def test_a_part_of_standard_input(tmp_path: Path) -> None:
    program = (
        "from streampose.inputs import Input\nfrom streampose.sources.open import open_source\n"
        "with open_source(Input('-', start_s=0.4, end_s=1.0, every=5)) as source:\n"
        "    print([(frame.index, frame.pts_s) for frame in source.frames()])\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        input=make_clip(tmp_path / "a.mkv", frames=40).read_bytes(),
        capture_output=True,
        cwd=Path(__file__).parents[2],
        timeout=20,
        check=True,
    )
    assert found.stdout.decode() == "[(10, 0.4), (15, 0.6), (20, 0.8)]\n"


def test_a_part_of_a_recording_at_an_address(rtmp: RtmpServer) -> None:
    make_clip(rtmp.folder / "part.mp4", frames=40)
    found = part(rtmp.web_url("part.mp4"), start_s=0.4, end_s=0.8)
    assert [frame.index for frame in found] == numbers(found) == list(range(10, 20))


class TestLive:
    def test_it_ends_after_a_time(self, rtsp: RtspServer) -> None:
        with Reader(open_live(rtsp.url(), end_s=1.0)) as reader:
            assert reader.ended.wait(10.0)
            assert reader.error is None
        assert 20 <= len(reader.frames) <= 26
        assert reader.frames[-1].pts_s < 1.0

    def test_it_ends_even_if_no_frame_comes(self, tmp_path: Path) -> None:
        with RtspServer(tmp_path) as server, Reader(open_live(server.url(), end_s=1.0)) as reader:
            reader.wait_for(5)
            started_s = time.monotonic()
            server.kill()
            assert reader.ended.wait(10.0)
            assert time.monotonic() - started_s < 6.0
            assert reader.error is None

    def test_frames_that_are_left_out_are_not_dropped(self, rtsp: RtspServer) -> None:
        source = open_live(rtsp.url(), every=5, end_s=2.0)
        found = list(source.frames())
        source.close()
        assert {late.index - early.index for early, late in pairwise(found)} == {5}
        assert np.allclose(np.diff([frame.pts_s for frame in found]), 0.2, atol=0.05)
        stats = source.meter.stats()
        assert (stats["captured"], stats["dropped"]) == (len(found), {})
        assert source.info.fps == 5.0

    def test_it_has_no_start(self, rtsp: RtspServer) -> None:
        with pytest.raises(UsageError, match=r"^rtsp://.* is live: `start_s` applies only to recordings$"):
            open_live(rtsp.url(), start_s=1.0)
