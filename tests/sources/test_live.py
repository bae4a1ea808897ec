"""Every live source: encryption, interrupts and cameras."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from streampose.errors import SourceError
from streampose.sources.endpoint import Endpoint
from streampose.sources.live import LiveSource
from streampose.sources.open import open_source
from streampose.sources.source import Reading
from tests.clips import make_clip, read_number
from tests.servers import Publisher, Relay, RtmpServer, RtspServer, free_port
from tests.sources.helpers import assert_given_back, held
from tests.sources.live import FPS, Reader, failure, open_live


class TestTls:
    """With a certificate that nobody vouches for, as those of cameras are: FFmpeg encrypts, and does not look at it."""

    def test_rtsp(self, rtsp: RtspServer, tmp_path: Path) -> None:
        with Relay(tmp_path, rtsp.port, tls=True) as relay:
            with Reader(open_live(f"rtsps://127.0.0.1:{relay.port}/cam")) as reader:
                reader.wait_for(5)
            assert "not found" in failure(f"rtsps://127.0.0.1:{relay.port}/nowhere")

    def test_rtmp_and_http(self, rtmp: RtmpServer, tmp_path: Path) -> None:
        make_clip(rtmp.folder / "tls.mp4", frames=10)
        with (
            Publisher(tmp_path / "publisher", rtmp.url("tls"), fps=FPS),
            Relay(tmp_path / "rtmp", rtmp.port, tls=True) as relay,
            Reader(open_live(f"rtmps://127.0.0.1:{relay.port}/live/tls", give_up_after_s=10)) as reader,
        ):
            reader.wait_for(5)
        with (
            Relay(tmp_path / "http", rtmp.http_port, tls=True) as relay,
            open_source(f"https://127.0.0.1:{relay.port}/tls.mp4") as source,
        ):
            assert [read_number(frame.image) for frame in source.frames()] == list(range(10))


class TestInterrupt:
    """Within a second, whatever the source is doing."""

    def test_while_connecting(self, silent: int) -> None:
        for scheme in ("rtsp", "rtmp", "http"):
            with Reader(open_live(f"{scheme}://127.0.0.1:{silent}/a", open_timeout_s=1.5)) as reader:
                time.sleep(0.3)
                assert reader.interrupt() < 1.0
                assert reader.error is None

    def test_while_waiting_to_connect_again(self) -> None:
        with Reader(open_live(f"rtsp://127.0.0.1:{free_port()}/cam", give_up_after_s=None)) as reader:
            reader.wait_for_state("opening: refused")
            assert reader.interrupt() < 1.0

    def test_before_the_first_frame_is_asked_for(self) -> None:
        source = open_live("rtsp://127.0.0.1:1/cam")
        source.interrupt()
        assert list(source.frames()) == []
        source.close()
        source.close()

    @pytest.mark.parametrize("is_stopped", [False, True], ids=["live", "stopped"])
    def test_while_live(self, rtsp: RtspServer, is_stopped: bool, tmp_path: Path) -> None:
        with Relay(tmp_path, rtsp.port) as relay:
            source = open_live(f"rtsp://127.0.0.1:{relay.port}/cam", read_timeout_s=1.5)
            before = held()
            with Reader(source) as reader:
                reader.wait_for(5)
                if is_stopped:
                    relay.pause()
                    time.sleep(0.5)
                assert reader.interrupt() < 1.0
            assert_given_back(before)

    def test_by_closing_between_two_frames(self, rtsp: RtspServer) -> None:
        with open_live(rtsp.url()) as source:
            frames = source.frames()
            next(frames)
        assert next(frames, None) is None
        assert source.meter.state == "ended"


class TestCameras:
    def source(self, endpoint: Endpoint) -> LiveSource:
        return LiveSource(
            endpoint,
            endpoint.source_id,
            Reading(),
            give_up_after_s=0.0,
            freshness_s=0.5,
            open_timeout_s=3.0,
            read_timeout_s=3.0,
        )

    def test_a_paced_stand_in(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "clip.mp4", frames=40)
        endpoint = Endpoint(
            f"movie={clip}:loop=0,setpts=N/{FPS}/TB,realtime", "stand-in", "stand-in", "lavfi", {}, is_camera=True
        )
        with Reader(self.source(endpoint)) as reader:
            reader.wait_for(60)
            assert reader.interrupt() < 1.0
        numbers = [read_number(frame.image) for frame in reader.frames]
        assert numbers[:60] == [number % 40 for number in range(60)]

    def test_a_driver_that_does_not_come_back(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "clip.mp4", frames=9)
        slow = f"movie={clip}:loop=0,setpts=N*2/TB,realtime=limit=5"
        source = LiveSource(
            Endpoint(slow, "stand-in", "stand-in", "lavfi", is_camera=True),
            "stand-in",
            Reading(),
            give_up_after_s=0.0,
            freshness_s=0.5,
            open_timeout_s=4.0,
            read_timeout_s=0.5,
        )
        with Reader(source) as reader:
            reader.wait_for_state("reconnecting: no data received for 0.5 s")
            assert reader.interrupt() < 1.0

    @pytest.mark.skipif(sys.platform != "linux", reason="the devices of Linux")
    def test_reasons(self) -> None:
        for path, reason in (("/dev/video987", "no such camera"), ("/dev/null", "it is not a camera")):
            source = self.source(Endpoint(path, path, "camera", "v4l2", is_camera=True))
            with pytest.raises(SourceError, match=reason):
                next(source.frames())
