"""Recordings and playlists behind http, and streams that begin with sound, from a real server."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from streampose.errors import SourceError
from streampose.inputs import Input
from streampose.sources.open import open_source
from tests.clips import make_clip, read_number
from tests.servers import RtmpServer

FPS = 25


def write_playlist(folder: Path, names: list[str], *, is_finished: bool, sequence: int = 0) -> str:
    """Write `list.m3u8` of pieces of one second, in one go."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{sequence}"]
    for name in names:
        lines += ["#EXTINF:1.0,", name]
    if is_finished:
        lines.append("#EXT-X-ENDLIST")
    new = folder / "list.m3u8.new"
    new.write_text("\n".join(lines) + "\n")
    new.rename(folder / "list.m3u8")
    return "list.m3u8"


def make_pieces(folder: Path, count: int, ending: str = ".ts") -> list[str]:
    """Make pieces of a second each, whose numbers and times go on from one to the next."""
    names = []
    for number in range(count):
        made = make_clip(folder / f"piece{number}.ts", frames=FPS, first=number * FPS, start_s=number, gop=FPS)
        names.append(made.rename(made.with_suffix(ending)).name)
    return names


@pytest.fixture
def folder(rtmp: RtmpServer, request: pytest.FixtureRequest) -> Path:
    """A folder of the web server."""
    own = rtmp.folder / re.sub(r"\W", "_", request.node.name)
    own.mkdir()
    return own


def url_of(rtmp: RtmpServer, folder: Path, name: str) -> str:
    return rtmp.web_url(f"{folder.name}/{name}")


@pytest.mark.parametrize("ending", [".ts", ".bin"])
@pytest.mark.parametrize("token", ["", "?token=a.b&e=1"])
def test_a_finished_playlist_is_a_recording(rtmp: RtmpServer, folder: Path, ending: str, token: str) -> None:
    names = [name + token for name in make_pieces(folder, 3, ending)]
    with open_source(url_of(rtmp, folder, write_playlist(folder, names, is_finished=True))) as source:
        assert not source.info.is_live
        frames = []
        for frame in source.frames():
            time.sleep(0.005)  # a slow taker loses nothing
            frames.append(frame)
    assert [read_number(frame.image) for frame in frames] == list(range(3 * FPS))


def test_a_live_playlist_that_ends_ends(rtmp: RtmpServer, folder: Path) -> None:
    names = make_pieces(folder, 6)
    name = write_playlist(folder, names[:3], is_finished=False)
    source = open_source(url_of(rtmp, folder, name))
    assert source.info.is_live
    numbers: list[int] = []

    def go_on() -> None:
        for end in (4, 5, 6):
            time.sleep(0.8)
            write_playlist(folder, names[end - 3 : end], is_finished=end == 6, sequence=end - 3)

    with source:
        server = threading.Thread(target=go_on)
        for frame in source.frames():
            if not numbers:
                server.start()
            numbers.append(read_number(frame.image))
        server.join()
    assert numbers == list(range(numbers[0], 6 * FPS)), "each frame once, to the end"
    assert source.meter.stats()["dropped"] == {}


def test_a_recording_that_breaks_off(rtmp: RtmpServer, folder: Path) -> None:
    names = make_pieces(folder, 2)
    name = write_playlist(folder, [*names, "gone.ts"], is_finished=True)
    with open_source(url_of(rtmp, folder, name)) as source:
        assert len(list(source.frames())) == 2 * FPS, "what is there is read"
    clip = make_clip(folder / "clip.mp4", frames=3 * FPS, grain=20, container_options={"movflags": "faststart"})
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with open_source(url_of(rtmp, folder, clip.name)) as source:
        frames = source.frames()
        assert read_number(next(frames).image) == 0
        with pytest.raises(SourceError, match=r"clip\.mp4"):
            list(frames)


def test_of_several_variants_the_one_asked_for_is_read(rtmp: RtmpServer, folder: Path) -> None:
    for height in (120, 240):
        make_clip(folder / f"{height}.ts", frames=FPS, size=(height * 8 // 5, height))
        (folder / f"{height}.m3u8").write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n{height}.ts\n#EXT-X-ENDLIST\n"
        )
    master = "".join(
        f"#EXT-X-STREAM-INF:BANDWIDTH={height}000,RESOLUTION={height * 8 // 5}x{height}\n{height}.m3u8\n"
        for height in (120, 240)
    )
    (folder / "master.m3u8").write_text(f"#EXTM3U\n{master}")
    url = url_of(rtmp, folder, "master.m3u8")
    for one, height in (
        (Input(url), 240),
        (Input(url, max_height=200), 120),
        (Input(url, max_height=50), 120),
        (Input(url, stream=0), 120),
    ):
        with open_source(one) as source:
            assert next(source.frames()).image.shape[0] == height
    with (
        open_source(Input(url, stream=2)) as source,
        pytest.raises(SourceError, match="no video stream 2: there are 2"),
    ):
        next(source.frames())


SOUND_AND_FRAMES = """
import av, sys, time
clip, url = sys.argv[1:]
with av.open(clip) as source, av.open(url, "w", format="flv") as sink:
    tracks = {one.index: sink.add_stream_from_template(one) for one in source.streams}
    began_s = time.monotonic()
    for packet in source.demux():
        if packet.dts is not None:
            time.sleep(max(0.0, began_s + float(packet.dts * packet.time_base) - time.monotonic()))
            packet.stream = tracks[packet.stream_index]
            sink.mux(packet)
"""


def test_a_stream_that_begins_with_sound(rtmp: RtmpServer, folder: Path) -> None:
    # The server sends a player sound at once, and frames from the next keyframe on, which comes after 3 s.
    clip = make_clip(folder / "clip.mp4", frames=10 * FPS, gop=3 * FPS, audio_s=10.0)
    command = [sys.executable, "-c", SOUND_AND_FRAMES, str(clip), rtmp.url("sound")]
    with subprocess.Popen(command) as publisher:
        try:
            deadline_s = time.monotonic() + 10.0
            while not rtmp.streams().get("sound", {}).get("bytes_in"):
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            time.sleep(0.5)
            with open_source(rtmp.url("sound")) as source:
                assert read_number(next(source.frames()).image) % (3 * FPS) < FPS
            time.sleep(0.3)  # what has been released is closed when the next packet comes
        finally:
            publisher.kill()
