"""RTSP against a real server that dies, hangs and returns."""

from __future__ import annotations

import logging
import random
import time
from pathlib import Path

import pytest

from tests.servers import Relay, RtspServer, free_port
from tests.sources.helpers import assert_given_back, held
from tests.sources.live import FPS, FRESHNESS_S, JITTER_S, Reader, failure, open_live

NASTY = "p@s/s%1:?#"
"""A password with everything that an address does not take kindly."""


class TestRtsp:
    @pytest.mark.parametrize("transport", ["tcp", "udp"])
    def test_play(self, rtsp: RtspServer, transport: str) -> None:
        source = open_live(rtsp.url(), name="cam1", rtsp_transport=transport)
        assert (source.info.width, source.info.fps, source.info.is_live) == (0, None, True)
        with Reader(source) as reader:
            reader.wait_for(FPS)
            assert source.meter.state == "live"
            assert (source.info.width, source.info.height) == (640, 360)
            assert source.info.text == rtsp.url()
            assert {frame.source_id for frame in reader.frames} == {"cam1"}
            assert max(reader.ages_s[-10:]) < JITTER_S
        assert reader.source.meter.stats()["reconnects"] == 0

    @pytest.mark.parametrize("digest", [False, True], ids=["basic", "digest"])
    def test_authentication(
        self, tmp_path: Path, digest: bool, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with caplog.at_level(logging.DEBUG), RtspServer(tmp_path, user="me", password=NASTY, digest=digest) as server:
            for userinfo in (f"me:{NASTY}", "me:p%40s%2Fs%251%3A%3F%23"):
                with Reader(open_live(server.url(userinfo=userinfo))) as reader:
                    reader.wait_for(3)
            for userinfo in ("me:wr@ng/s3cret", ""):
                error = failure(server.url(userinfo=userinfo))
                assert "unauthorised" in error
                assert "s3cret" not in error
        captured = capfd.readouterr()
        for shown in (caplog.text, captured.out, captured.err):
            assert NASTY not in shown
            assert "s3cret" not in shown

    def test_reasons(self, rtsp: RtspServer, silent: int) -> None:
        assert "not found" in failure(rtsp.url("nowhere"))
        assert "no video" in failure(rtsp.url("audio"))
        assert "refused" in failure(f"rtsp://127.0.0.1:{free_port()}/cam")
        assert "no such host" in failure("rtsp://nowhere.invalid/cam")
        started_s = time.monotonic()
        assert "no answer within 1.0 s" in failure(f"rtsp://127.0.0.1:{silent}/cam", open_timeout_s=1.0)
        assert time.monotonic() - started_s < 2.0

    def test_kills_and_restarts_leave_nothing_behind(self, tmp_path: Path) -> None:
        with RtspServer(tmp_path) as server, Reader(open_live(server.url())) as reader:
            reader.wait_for(5)
            before = held()
            for _ in range(5):
                server.kill()
                time.sleep(random.uniform(0.1, 1.0))
                server.start()
                assert reader.wait_for(1) < 2.0
                reader.wait_for(10)
            assert_given_back(before)
            span_s = reader.frames[-1].captured_at_s - reader.frames[0].captured_at_s
            assert reader.frames[-1].pts_s - reader.frames[0].pts_s == pytest.approx(span_s, abs=JITTER_S)
        assert reader.source.meter.stats()["reconnects"] == 5

    def test_another_size_after_a_restart(self, tmp_path: Path) -> None:
        with RtspServer(tmp_path / "small") as small, Reader(open_live(small.url())) as reader:
            reader.wait_for(5)
            small.kill()
            reader.wait_for_state("reconnecting: ")
            with RtspServer(tmp_path / "large", port=small.port, size=(1280, 720), codec="jpeg"):
                reader.wait_for(5)
                assert (reader.source.info.width, reader.source.info.height) == (1280, 720)
        assert [frame.image.shape[1] for frame in reader.frames][:: len(reader.frames) - 1] == [640, 1280]

    def test_a_stopped_server(self, tmp_path: Path) -> None:
        with RtspServer(tmp_path) as server, Reader(open_live(server.url())) as reader:
            reader.wait_for(FPS)
            server.pause()
            time.sleep(2.0)
            seen = len(reader.frames)
            server.resume()
            assert reader.wait_for(1) < 2.0
            reader.wait_for(FPS)
            assert max(reader.ages_s[seen:]) < FRESHNESS_S + JITTER_S
        assert reader.source.meter.stats()["reconnects"] == 0

    def test_a_server_that_says_nothing_more(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with RtspServer(tmp_path) as server:
            source = open_live(server.url(), read_timeout_s=1.0, open_timeout_s=2.0)
            with Reader(source) as reader:
                reader.wait_for(5)
                before = held()
                for _ in range(2):
                    server.pause()
                    reader.wait_for_state("reconnecting: no data received for 1 s", within_s=3.0)
                    server.resume()
                    assert reader.wait_for(1) < 2.0
                    reader.wait_for(5)
                assert_given_back(before)
        given = [argument for record in caplog.records for argument in record.args or ()]
        assert not [one for one in given if not isinstance(one, str)], "who keeps the log keeps no connection"

    def test_a_backlog_is_drained(self, rtsp: RtspServer, tmp_path: Path) -> None:
        with Relay(tmp_path, rtsp.port) as relay, Reader(open_live(f"rtsp://127.0.0.1:{relay.port}/cam")) as reader:
            reader.wait_for(FPS)
            relay.pause()
            time.sleep(2.0)
            seen = len(reader.frames)
            relay.resume()
            assert reader.wait_for(1) < 2.0
            reader.wait_for(FPS)
            assert max(reader.ages_s[seen:]) < FRESHNESS_S + JITTER_S
        stats = reader.source.meter.stats()
        assert stats["reconnects"] == 0
        assert stats["dropped"]["stale"] == pytest.approx(1.5 * FPS, abs=10)

    def test_a_source_that_comes_later_is_waited_for(self, tmp_path: Path) -> None:
        port = free_port()
        with Reader(open_live(f"rtsp://127.0.0.1:{port}/cam", give_up_after_s=None)) as reader:
            reader.wait_for_state("opening: refused")
            with RtspServer(tmp_path, port=port):
                assert reader.wait_for(1) < 2.0
        assert reader.source.meter.stats()["reconnects"] == 0

    def test_giving_up(self, tmp_path: Path) -> None:
        started_s = time.monotonic()
        error = failure(f"rtsp://127.0.0.1:{free_port()}/cam", give_up_after_s=1.0)
        assert "is unavailable (retried for 1 s): refused" in error
        assert 1.0 <= time.monotonic() - started_s < 2.0
        with RtspServer(tmp_path) as server, Reader(open_live(server.url(), give_up_after_s=1.0)) as reader:
            reader.wait_for(5)
            server.kill()
            assert reader.ended.wait(5.0)
            assert "is unavailable (retried for 1 s): refused" in str(reader.error)
