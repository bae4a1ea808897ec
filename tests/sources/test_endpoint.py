"""Addresses and cameras: credentials, protocols and options."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.errors import UsageError
from streampose.sources.endpoint import address, camera
from streampose.sources.open import is_live_text, open_source
from tests.sources.live import open_live


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
