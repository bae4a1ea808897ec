from __future__ import annotations

import itertools
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.errors import SourceError, StreamposeError, UsageError
from streampose.frames import Frame
from streampose.inputs import Input
from streampose.sources.endpoint import Endpoint, address, camera
from streampose.sources.live import OPEN_TIMEOUT_S, LiveSource
from streampose.sources.open import is_live_text, open_source
from streampose.sources.outage import Outage
from streampose.sources.source import Reading, Source
from streampose.sources.timing import Timing
from tests.clips import make_clip, read_number
from tests.servers import Publisher, Relay, RtmpServer, RtspServer, age_s, free_port

FPS = 25
FRESHNESS_S = 0.5
JITTER_S = 0.25
"""What a loaded machine may add to the age of a frame between its source and the test's look at it."""
NASTY = "p@s/s%1:?#"
"""A password with everything that an address does not take kindly."""


class Reader:
    """Reads a source in a thread of its own, as the pipeline does, and keeps what is said of each frame."""

    def __init__(self, source: Source, fps: int = FPS) -> None:
        self.source = source
        self.frames: list[Frame] = []
        self.ages_s: list[float] = []
        self.error: StreamposeError | None = None
        self.ended = threading.Event()
        self._fps = fps
        self._thread = threading.Thread(target=self._read, name="streampose test reader")
        self._thread.start()

    def _read(self) -> None:
        try:
            for frame in self.source.frames():
                self.ages_s.append(age_s(read_number(frame.image), self._fps))
                self.frames.append(frame)
        except StreamposeError as error:
            self.error = error
        finally:
            self.ended.set()

    def wait_for(self, count: int, within_s: float = 10.0) -> float:
        """Wait for so many more frames; return how long it took."""
        started_s = time.monotonic()
        wanted = len(self.frames) + count
        while len(self.frames) < wanted:
            waited_s = time.monotonic() - started_s
            assert not self.ended.is_set(), self.error
            assert waited_s < within_s, f"{len(self.frames) - wanted + count} of {count} frames within {within_s} s"
            time.sleep(0.005)
        return time.monotonic() - started_s

    def wait_for_state(self, state: str, within_s: float = 10.0) -> None:
        """Wait until the meter's state starts with `state`."""
        deadline_s = time.monotonic() + within_s
        while not self.source.meter.state.startswith(state):
            assert time.monotonic() < deadline_s, self.source.meter.state
            time.sleep(0.005)

    def interrupt(self) -> float:
        """Interrupt the source; return how long its frames took to end."""
        started_s = time.monotonic()
        self.source.interrupt()
        self._thread.join(10.0)
        assert self.ended.is_set()
        return time.monotonic() - started_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.interrupt()
        self.source.close()
        if kind is None:
            self._check()

    def _check(self) -> None:
        """What holds of every run."""
        stats = self.source.meter.stats()
        assert stats["captured"] == len(self.frames) + stats["dropped"].get("stale", 0)
        assert stats["state"] == "ended"
        assert [frame.index for frame in self.frames] == list(range(len(self.frames)))
        assert all(late.pts_s > early.pts_s for early, late in pairwise(self.frames))
        for frame in self.frames:
            assert frame.image.flags.c_contiguous
            assert abs(frame.pts_s * 90_000 - round(frame.pts_s * 90_000)) < 1e-3


def open_live(
    text: str, *, open_timeout_s: float | None = None, read_timeout_s: float | None = None, **options: Any
) -> Source:
    """A live source that fails when its first attempt does, where the options do not say otherwise."""
    options = {"give_up_after_s": 0.0} | options
    if open_timeout_s is None and read_timeout_s is None:
        give_up_after_s = options.pop("give_up_after_s")
        return open_source(Input(text, give_up_after_s=give_up_after_s, **options), is_alone=False)
    return LiveSource(
        address(text, "tcp"),
        "live",
        Reading(),
        freshness_s=0.5,
        open_timeout_s=open_timeout_s or OPEN_TIMEOUT_S,
        read_timeout_s=read_timeout_s,
        **options,
    )


def failure(text: str, **options: Any) -> str:
    """The error of a source that cannot be connected to."""
    try:
        source = open_live(text, **options)
    except SourceError as error:
        return str(error)
    with Reader(source) as reader:
        assert reader.ended.wait(10.0)
    assert isinstance(reader.error, SourceError)
    return str(reader.error)


def held() -> tuple[int, int]:
    """How many files and how many threads, those of libraries included, this process has."""
    return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))


@pytest.fixture(scope="module")
def rtsp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RtspServer]:
    with RtspServer(tmp_path_factory.mktemp("rtsp")) as server:
        yield server


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


class TestAddresses:
    @pytest.mark.parametrize(
        ("text", "url", "source_id"),
        [
            ("rtsp://host/cam", "rtsp://host/cam", "host_cam"),
            ("RTSP://host:554/cam?channel=1", "rtsp://host:554/cam?channel=1", "host_554_cam"),
            ("rtsp://me:p@ss/w%rd@host/cam", "rtsp://me:p%40ss%2Fw%25rd@host/cam", "host_cam"),
            ("rtsp://me:50%25@host/cam", "rtsp://me:50%25@host/cam", "host_cam"),
            ("rtsp://me:a:b?c#d e@host/cam", "rtsp://me:a:b%3Fc%23d%20e@host/cam", "host_cam"),
            ("rtsp://me@host/cam", "rtsp://me@host/cam", "host_cam"),
            ("rtsp://me:/word@host/cam", "rtsp://me:%2Fword@host/cam", "host_cam"),
            ("rtsp://me:12/34@10.0.0.7:554/cam", "rtsp://me:12%2F34@10.0.0.7:554/cam", "10.0.0.7_554_cam"),
            ("rtsp://me:12/34@host/cam", None, "host_cam"),
            ("rtsp://a.host:554/live@a.place", "rtsp://a.host:554/live@a.place", "a.host_554_live_a.place"),
            ("rtsp://host/live@1", "rtsp://host/live@1", "host_live_1"),
            ("rtsp://host:554/live@1", "rtsp://host:554/live@1", "1"),
            ("rtsp://[::1]:554/cam", "rtsp://[::1]:554/cam", "1_554_cam"),
        ],
    )
    def test_credentials_are_found_and_written_as_ffmpeg_wants_them(
        self, text: str, url: str | None, source_id: str
    ) -> None:
        endpoint = address(text, "tcp")
        assert endpoint.source_id == source_id
        if url is not None:
            assert endpoint.url == url

    @given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])))
    def test_credentials_are_shown_nowhere(self, password: str) -> None:
        secret = f"SECRET{password}SECRET"
        endpoint = address(f"rtsp://me:{secret}@host/cam", "tcp")
        source = open_live(f"rtsp://me:{secret}@host/cam?token=SECRET&channel=1")
        for shown in (repr(endpoint), endpoint.text, endpoint.source_id, repr(source.info)):
            assert "SECRET" not in shown
        assert source.info.text == "rtsp://***@host/cam?***"

    @pytest.mark.parametrize("text", ["file:///etc/passwd", "ftp://host/a.mp4", "concat://a", "rtsp://", "rtsp:///cam"])
    def test_what_cannot_be_read(self, text: str) -> None:
        assert is_live_text(text)
        with pytest.raises(UsageError):
            open_source(text)

    def test_values_that_cannot_be_right(self) -> None:
        for options in (
            {"rtsp_transport": "smoke"},
            {"size": "640x480"},
            {"give_up_after_s": -1.0},
            {"freshness_s": float("nan")},
        ):
            with pytest.raises(UsageError):
                open_live("rtsp://host/cam", **options)
        for asked in ({"size": "big"}, {"fps": 0.0}):
            with pytest.raises(UsageError):
                open_live("0", **asked)

    def test_only_the_protocols_that_it_needs_are_allowed(self) -> None:
        for scheme in ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "srt"):
            allowed = address(f"{scheme}://host/a", "tcp").options["protocol_whitelist"].split(",")
            assert scheme in allowed
            assert not {"file", "pipe", "fd", "concat", "subfile", "data", "cache"} & set(allowed)

    @pytest.mark.skipif(sys.platform != "linux", reason="the names of Linux")
    def test_cameras(self) -> None:
        endpoint = camera("0", "1280x720", 29.97, "mjpeg")
        assert (endpoint.url, endpoint.format, endpoint.source_id) == ("/dev/video0", "v4l2", "camera0")
        asked = {"video_size": "1280x720", "framerate": "29.97", "input_format": "mjpeg"}
        assert endpoint.options.items() >= asked.items()
        assert camera("/dev/video2", None, None, None).url == "/dev/video2"


class TestTiming:
    TICKS = Fraction(1, 1000)

    def timing(self, *, is_paced: bool = False) -> Timing:
        timing = Timing(FRESHNESS_S)
        timing.connected(self.TICKS, Fraction(FPS), is_paced=is_paced)
        return timing

    @given(st.lists(st.tuples(st.none() | st.integers(-(2**33), 2**33), st.floats(0, 10)), min_size=2))
    def test_times_grow_whatever_comes(self, arrivals: list[tuple[int | None, float]]) -> None:
        timing = self.timing()
        now_s = 1000.0
        times_s = []
        for number, (pts, waited_s) in enumerate(arrivals):
            now_s += waited_s
            if number % 5 == 4:
                timing.connected(Fraction(1, 90_000), None, is_paced=False)
            times_s.append(timing.place(pts, now_s)[0])
        assert all(late > early for early, late in pairwise(times_s))
        assert times_s[0] == 0.0

    def test_a_new_connection_goes_on_by_the_wall_clock(self) -> None:
        timing = self.timing()
        assert [timing.place(pts, 50 + pts / 1000)[0] for pts in (0, 40, 80)] == pytest.approx([0, 0.04, 0.08])
        timing.connected(Fraction(1, 90_000), Fraction(FPS), is_paced=False)
        assert timing.place(9_000_000, 53.0) == pytest.approx((3.0, 0.0))
        assert timing.place(9_003_600, 53.05) == pytest.approx((3.04, 0.01), abs=1e-3)

    @pytest.mark.parametrize("timed", [True, False])
    def test_what_has_waited_is_late_until_it_has_caught_up(self, timed: bool) -> None:
        timing = self.timing()
        for pts in range(0, 1000, 40):
            assert timing.place(pts, 50 + pts / 1000)[1] == pytest.approx(0, abs=1e-3)
        # 3 s of frames come within 0.3 s, the first ones perhaps without a time
        late = [
            timing.place(pts if timed or number > 2 else None, 54.0 + number * 0.004)[1]
            for number, pts in enumerate(range(1000, 4000, 40))
        ]
        assert late[0] == pytest.approx(3.0, abs=0.05)
        assert late == sorted(late, reverse=True)
        assert late[-1] < FRESHNESS_S

    def test_a_clock_that_lost_time_does_not_blank_the_source(self) -> None:
        timing = self.timing()
        for pts in range(0, 1000, 40):
            timing.place(pts, 50 + pts / 1000)
        late = [timing.place(pts, 53 + pts / 1000)[1] > FRESHNESS_S for pts in range(1000, 4000, 40)]
        assert sum(late) == pytest.approx(FPS, abs=2)  # a second's worth
        assert not any(late[FPS + 2 :])

    @pytest.mark.parametrize("jump_s", [-5000, 5000])
    def test_a_new_clock_is_no_reason_to_skip(self, jump_s: int) -> None:
        timing = self.timing()
        for pts in range(0, 1000, 40):
            timing.place(pts, 50 + pts / 1000)
        for pts in range(1000, 2000, 40):
            time_s, behind_s = timing.place(pts + jump_s * 1000, 50 + pts / 1000)
            assert time_s == pytest.approx(pts / 1000, abs=1e-3)
            assert behind_s == pytest.approx(0, abs=1e-3)

    @pytest.mark.parametrize("drift", [-1e-4, 1e-4])
    def test_clocks_may_drift_apart(self, drift: float) -> None:
        timing = self.timing()
        for second in range(6 * 3600):  # 2 s apart at the end
            behind_s = timing.place(second * 1000, 50 + second * (1 + drift))[1]
            assert behind_s < 0.1

    def test_a_paced_source_is_early_by_what_it_has_in_hand(self) -> None:
        timing = self.timing(is_paced=True)
        early = [timing.place(pts, 50.0)[1] for pts in range(0, 1000, 40)]
        assert early == pytest.approx([-pts / 1000 for pts in range(0, 1000, 40)])
        assert timing.place(1000, 53.0)[1] == pytest.approx(2.0)


class TestOutage:
    def test_delays_grow_and_a_server_is_asked_again_soon(self) -> None:
        outage = Outage(None, 0.0)
        outage.over(0.0)
        assert outage.lost(100.0)
        assert not outage.lost(101.0)
        delays = {after_s: outage.delay_s(100.0 + after_s) or 0 for after_s in (0, 10, 30, 150, 3000)}
        assert 0.4 <= delays[0] <= 0.6
        assert delays[10] <= 0.6
        assert delays[30] <= 1.2
        assert 4 <= delays[150] <= 6
        assert 8 <= delays[3000] <= 12

    def test_a_connection_that_never_holds_is_asked_less_and_less(self) -> None:
        outage = Outage(None, 0.0)
        now_s = 0.0
        for _ in range(1000):
            outage.over(now_s)
            now_s += 0.1
            outage.lost(now_s)
            now_s += outage.delay_s(now_s) or 0
        assert (outage.delay_s(now_s) or 0) > 5
        outage.over(now_s)
        outage.lost(now_s + 60)
        assert (outage.delay_s(now_s + 60) or 0) <= 0.6

    def test_giving_up(self) -> None:
        at_once, never, later = Outage(0.0, 0.0), Outage(None, 0.0), Outage(2.0, 0.0)
        for outage in (at_once, never, later):
            outage.lost(1.9)
        assert at_once.delay_s(1.9) is None
        assert never.delay_s(1e6) is not None
        assert (later.delay_s(1.9) or 1) <= 0.11
        assert later.patience_s(5.0, 1.9) == pytest.approx(0.5)
        assert later.delay_s(2.0) is None
        for outage in (at_once, never, later):
            outage.over(10.0)
            outage.lost(20.0)
        assert at_once.delay_s(1e6) is not None
        assert later.delay_s(21.9) is not None
        assert later.delay_s(22.1) is None


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
                time.sleep(random.uniform(0.1, 1.5))
                server.start()
                assert reader.wait_for(1) < 2.0
                reader.wait_for(10)
            assert held() == before
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
            time.sleep(3.0)
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
                for _ in range(3):
                    server.pause()
                    reader.wait_for_state("reconnecting: no data received for 1 s", within_s=3.0)
                    server.resume()
                    assert reader.wait_for(1) < 2.0
                    reader.wait_for(5)
                deadline_s = time.monotonic() + 5.0
                while held() != before:
                    assert time.monotonic() < deadline_s, (before, held())
                    time.sleep(0.05)
        given = [argument for record in caplog.records for argument in record.args or ()]
        assert not [one for one in given if not isinstance(one, str)], "who keeps the log keeps no connection"

    def test_a_backlog_is_drained(self, rtsp: RtspServer, tmp_path: Path) -> None:
        with Relay(tmp_path, rtsp.port) as relay, Reader(open_live(f"rtsp://127.0.0.1:{relay.port}/cam")) as reader:
            reader.wait_for(FPS)
            relay.pause()
            time.sleep(3.0)
            seen = len(reader.frames)
            relay.resume()
            assert reader.wait_for(1) < 2.0
            reader.wait_for(FPS)
            assert max(reader.ages_s[seen:]) < FRESHNESS_S + JITTER_S
        stats = reader.source.meter.stats()
        assert stats["reconnects"] == 0
        assert stats["dropped"]["stale"] == pytest.approx(2.5 * FPS, abs=10)

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
                assert held() == before
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
            deadline_s = time.monotonic() + 3.0
            while held() != before:
                assert time.monotonic() < deadline_s, (before, held())
                time.sleep(0.05)

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


class TestStandardInput:
    COUNT = (
        "from streampose.sources.open import open_source\n"
        "from tests.clips import read_number\n"
        "with open_source('-') as source:\n"
        "    print(source.info.is_live, source.info.source_id, [read_number(f.image) for f in source.frames()])\n"
    )

    def run(self, data: bytes) -> tuple[str, str]:
        """Return what a child that is piped `data` writes to stdout and stderr."""
        child = subprocess.run(
            [sys.executable, "-c", self.COUNT],
            input=data,
            capture_output=True,
            cwd=Path(__file__).parents[2],
            timeout=20,
            check=False,
        )
        return child.stdout.decode(), child.stderr.decode()

    @pytest.mark.parametrize("ending", ["ts", "mkv"])
    def test_every_frame_is_read(self, tmp_path: Path, ending: str) -> None:
        out, err = self.run(make_clip(tmp_path / f"clip.{ending}", frames=40).read_bytes())
        assert out == f"False stdin {list(range(40))}\n", err

    def test_an_interrupt_while_it_is_opened(self) -> None:
        reading, writing = os.pipe()
        with subprocess.Popen(
            # It tells when its imports are over, an interrupt of which is another matter.
            [sys.executable, "-c", f"import streampose.sources.live\nprint(flush=True)\n{self.COUNT}"],
            stdin=reading,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        ) as child:
            os.close(reading)
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(2.0)
            child.send_signal(signal.SIGINT)
            try:
                _, said = child.communicate(timeout=20)
            finally:
                child.kill()
                os.close(writing)
        assert said.endswith(b"KeyboardInterrupt\n")
        assert b"ignored" not in said

    def test_no_video(self) -> None:
        assert "SourceError: - is not a video" in self.run(b"no video")[1]

    def test_an_interrupt_while_nothing_comes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        reading, writing = os.pipe()
        with os.fdopen(reading) as stdin, os.fdopen(writing, "wb", 0) as pipe:
            monkeypatch.setattr(sys, "stdin", stdin)
            feeder = threading.Thread(
                target=pipe.write, args=[make_clip(tmp_path / "clip.ts", frames=100, grain=30).read_bytes()]
            )
            feeder.start()
            source = open_source("-")
            got: list[Frame] = []
            reader = threading.Thread(target=lambda: got.extend(source.frames()))
            reader.start()
            feeder.join(10)
            time.sleep(0.3)
            assert reader.is_alive()
            source.interrupt()
            reader.join(1.0)
            assert not reader.is_alive()
            source.close()
        assert len(got) > 90


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
