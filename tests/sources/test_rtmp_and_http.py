"""RTMP, HLS and HTTP against real servers that die and return."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from streampose.sources.open import open_source
from tests.clips import make_clip, read_number
from tests.servers import Publisher, Relay, RtmpServer, free_port
from tests.sources.helpers import assert_given_back, held
from tests.sources.live import FPS, FRESHNESS_S, JITTER_S, Reader, failure, open_live


class TestRtmpAndHttp:
    def test_a_publisher_and_a_server_that_come_back(self, tmp_path: Path) -> None:
        with (
            RtmpServer(tmp_path / "server") as server,
            Publisher(tmp_path / "one", server.url("a"), fps=FPS),
            Reader(open_live(server.url("a"))) as reader,
        ):
            reader.wait_for(FPS)
            assert max(reader.ages_s[-10:]) < JITTER_S
            before = held()
            server.kill()
            reader.wait_for_state("reconnecting: ")
            server.start()
            with Publisher(tmp_path / "two", server.url("a"), fps=FPS):
                reader.wait_for(FPS)
                assert max(reader.ages_s[-10:]) < JITTER_S
            seen = len(reader.frames)
            time.sleep(0.5)
            with Publisher(tmp_path / "three", server.url("a"), fps=FPS, size=(320, 240)):
                while reader.frames[-1].image.shape != (240, 320, 3):
                    reader.wait_for(1)
                reader.wait_for(FPS)
                assert_given_back(before)
            assert max(reader.ages_s[seen:]) < FRESHNESS_S + JITTER_S

    def test_a_backlog_is_drained(self, rtmp: RtmpServer, tmp_path: Path) -> None:
        with (
            Publisher(tmp_path / "publisher", rtmp.url("drained"), fps=FPS),
            Relay(tmp_path / "relay", rtmp.port) as relay,
            Reader(open_live(f"rtmp://127.0.0.1:{relay.port}/live/drained")) as reader,
        ):
            reader.wait_for(FPS)
            relay.pause()
            time.sleep(2.0)
            seen = len(reader.frames)
            relay.resume()
            reader.wait_for(FPS)
            assert max(reader.ages_s[seen:]) < FRESHNESS_S + JITTER_S
        stats = reader.source.meter.stats()
        assert stats["reconnects"] == 0
        assert stats["dropped"]["stale"] > FPS

    def test_reasons(self, rtmp: RtmpServer, silent: int) -> None:
        assert "no such stream, or this user has no access to it" in failure(rtmp.url("a?pass=wr0ng", app="closed"))
        assert "wr0ng" not in failure(rtmp.url("a?pass=wr0ng", app="closed"))
        assert "no answer" in failure(rtmp.url("nobody"), open_timeout_s=1.0)
        assert "refused" in failure(f"rtmp://127.0.0.1:{free_port()}/live/a")
        for scheme in ("rtmp", "http"):
            assert "no answer" in failure(f"{scheme}://127.0.0.1:{silent}/a", open_timeout_s=1.0)
        assert "not found" in failure(rtmp.web_url("nowhere.mp4"))

    def test_hls(self, rtmp: RtmpServer, tmp_path: Path) -> None:
        with Publisher(tmp_path, rtmp.url("hls"), fps=FPS):
            playlist = rtmp.folder / "hls" / "hls.m3u8"
            deadline_s = time.monotonic() + 10
            while not playlist.exists():
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            with Reader(open_live(rtmp.hls_url("hls"))) as reader:
                reader.wait_for(4 * FPS)
                gaps_s = [late.captured_at_s - early.captured_at_s for early, late in pairwise(reader.frames)]
                assert sorted(gaps_s)[len(gaps_s) // 2] == pytest.approx(1 / FPS, abs=0.01)
                assert max(reader.ages_s) < 4.0
            assert reader.source.meter.stats()["reconnects"] == 0

    @pytest.mark.parametrize("line", ["file://{path}", "{path}", "concat:{path}", "subfile,,start,0,end,9999,,:{path}"])
    def test_a_playlist_cannot_name_local_files(self, rtmp: RtmpServer, line: str) -> None:
        clip = make_clip(rtmp.folder / "local.ts")
        (rtmp.folder / "evil.m3u8").write_text(
            "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\n" + line.format(path=clip) + "\n#EXT-X-ENDLIST\n"
        )
        assert "is unavailable" in failure(rtmp.web_url("evil.m3u8"), open_timeout_s=2.0)

    def test_a_file_behind_http_is_a_recording(self, rtmp: RtmpServer) -> None:
        make_clip(rtmp.folder / "clip.mp4", frames=30, fps=FPS, b_frames=2)
        with open_source(rtmp.web_url("clip.mp4")) as source:
            assert not source.info.is_live
            assert source.info.frame_count == 30
            frames = list(source.frames())
        assert [read_number(frame.image) for frame in frames] == list(range(30))
        assert [frame.pts_s for frame in frames] == pytest.approx([k / FPS for k in range(30)])
        assert frames[-1].captured_at_s - frames[0].captured_at_s < 15 / FPS, "as fast as it is read"


MJPEG_CAMERA = """
import http.server, time
import cv2, numpy as np

class Camera(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        data = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
        for _ in range(100):
            self.wfile.write(b"--frame\\r\\nContent-Type: image/jpeg\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(data))
            self.wfile.write(data + b"\\r\\n")
            self.wfile.flush()
            time.sleep(0.1)

server = http.server.HTTPServer(("127.0.0.1", 0), Camera)
print(server.server_port, flush=True)
server.handle_request()
"""


def test_pictures_without_times_have_the_time_at_which_they_come() -> None:
    with subprocess.Popen([sys.executable, "-c", MJPEG_CAMERA], stdout=subprocess.PIPE, text=True) as camera:
        assert camera.stdout is not None
        port = int(camera.stdout.readline())
        try:
            with open_live(f"http://127.0.0.1:{port}/stream") as source:
                frames = list(itertools.islice(source.frames(), 25))
        finally:
            camera.kill()
    span_s = frames[-1].captured_at_s - frames[0].captured_at_s
    assert span_s > 1.0
    assert frames[-1].pts_s - frames[0].pts_s == pytest.approx(span_s, abs=0.3)
    assert [frame.index for frame in frames] == list(range(25))
    assert source.meter.stats()["dropped"] == {}
