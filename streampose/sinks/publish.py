"""Drawn frames as a live H.264 stream to an RTMP or RTSP server, for as long as the run lives.

Knows when a frame is due and what is sent while there is none; the connection is in `uplink`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from fractions import Fraction
from math import inf
from statistics import median

import cv2  # before av, else windows hang: see window.py

# isort: split
import numpy as np

from streampose.addresses import for_ffmpeg, redact_address
from streampose.errors import SinkError, UsageError, describe
from streampose.frames import Image, Result, RunInfo
from streampose.sinks.encode import Canvas, frame_rate
from streampose.sinks.sink import Sink
from streampose.sinks.uplink import Uplink

log = logging.getLogger("streampose")

SCHEMES = {"rtmp": "flv", "rtmps": "flv", "rtsp": "rtsp"}
"""What an address begins with -> FFmpeg's name of the format."""

NO_SIGNAL_AFTER_S = 2.0
"""Without a frame for so long, or for three of a slow source, the picture is marked."""
_JUMP_S = 1.0
"""A source's clock may run ahead of ours by so much (a burst after a stall); what is more is a new clock."""
_LOOK_EVERY_S = 0.02


class PublishSink(Sink):
    """A stream that goes on whatever happens to the server and to the source.

    H.264, 4:2:0, no B-frames, a keyframe every `KEYFRAME_EVERY_S`, in the size of the first frame; later ones are
    fitted into it. RTSP goes over TCP. A live source is sent as it comes, a recording at its own pace, from the moment
    the server takes it.

    While there is no connection frames are dropped and counted, and a new one is tried for ever; it begins with a
    keyframe, and its times go on from those before. While a source is away its last picture is sent with a "no signal"
    mark. Nothing is sent before the first frame.
    """

    idle_every_s = 0.5

    def __init__(self, url: str, *, give_up_after_s: float | None = None) -> None:
        """Check `url`; the first frame connects.

        Args:
            url: an address of one of `SCHEMES`; its user name, password and key appear nowhere but on the network.
            give_up_after_s: how long the first connection may be missing before a failure is raised as `SinkError`; 0:
                the first failure is; None: none is.

        Raises:
            UsageError: not such an address.
        """
        super().__init__(redact_address(url))
        scheme, _, rest = url.partition("://")
        if scheme.lower() not in SCHEMES or not rest.strip("/"):
            known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise UsageError(f"cannot publish to {self.text}: an address begins with {known} and a host")
        self._interrupted = threading.Event()
        self._uplink = Uplink(
            self.text, for_ffmpeg(scheme, rest), SCHEMES[scheme.lower()], give_up_after_s, self._interrupted
        )
        self._run: RunInfo | None = None
        self._canvas: Canvas | None = None
        self._timeline = Timeline()
        self._last: Image | None = None
        self._marked: Image | None = None
        self._written_at_s = 0.0
        self._written_pts_s: float | None = None
        self._intervals_s: deque[float] = deque(maxlen=5)
        """Between the latest frames."""
        self._pixel_aspect = Fraction(1)
        self._published = self._dropped = self._repeated = 0

    def open(self, run: RunInfo) -> None:
        """Start the child process, which takes a tenth of a second until it can connect."""
        self._run = run
        self._uplink.start()

    def write(self, result: Result) -> None:
        """Send one frame, or drop it while there is no connection. Raises `SinkError`.

        Waits for the frame's time (recordings), for the first connection's success or failure (recordings), and up to
        `publisher.STALL_AFTER_S` for a server that does not take what it is sent.
        """
        if self._run is None:
            raise SinkError(f"{self.text} is not open")
        picture = result.frame.image if result.picture is None else result.picture
        if self._canvas is None:
            try:
                self._canvas = Canvas(
                    picture.shape[1], picture.shape[0], result.frame.pixel_aspect, self._run.source.colours
                )
            except ValueError as error:
                raise SinkError(f"cannot publish to {self.text}: {describe(error)}") from error
        if not self._run.source.is_live:
            while not (self._connected() or self._uplink.outages or self._interrupted.wait(_LOOK_EVERY_S)):
                pass
            self._wait_for(result.frame.pts_s)
        now_s = time.monotonic()
        if self._written_pts_s is not None:
            self._intervals_s.append(now_s - self._written_at_s)
        self._written_at_s, self._written_pts_s = now_s, result.frame.pts_s
        self._last, self._marked, self._pixel_aspect = picture, None, result.frame.pixel_aspect
        if self._send(picture, result.frame.pts_s):
            self._published += 1
        else:
            self._dropped += 1

    def idle(self) -> None:
        """Send the last picture again, marked when its source is away. Raises `SinkError`."""
        if self._run is None or self._last is None:
            return
        picture = self._last
        if self._run.source.is_live and time.monotonic() - self._written_at_s > self._no_signal_after_s():
            if self._marked is None:
                self._marked = no_signal(self._last)
            picture = self._marked
        if self._send(picture, None):
            self._repeated += 1

    def interrupt(self) -> None:
        """Wait for no frame's time any more, and for the server only briefly."""
        self._interrupted.set()

    def status(self) -> dict[str, int | float | str]:
        """Return the `state` in words, how many `connections` there were, how many of the frames written were
        `published` (handed to a connection) and how many `dropped`, and how many pictures were `repeated` besides.
        """
        return {
            "state": self._uplink.state,
            "connections": self._uplink.connections,
            "published": self._published,
            "dropped": self._dropped,
            "repeated": self._repeated,
        }

    def close(self) -> None:
        """Let the server take the last frames, for `FINISH_WITHIN_S` at most, and end the child."""
        self._run = None
        self._uplink.close()

    def summary(self) -> str | None:
        """How many frames went where; None before the first."""
        if self._canvas is None:
            return None
        dropped = f", {self._dropped} dropped without a connection" if self._dropped else ""
        return f"{self.text}: {self._published} frames published{dropped}"

    def _no_signal_after_s(self) -> float:
        # The median: an outage among them is no interval of the source's. A live source does not tell its rate.
        return max(NO_SIGNAL_AFTER_S, 3 * median(self._intervals_s) if self._intervals_s else 0.0)

    def _wait_for(self, pts_s: float) -> None:
        if self._written_pts_s is not None:
            # A late frame does not make those behind it early: the pace is never above the recording's.
            self.resumed_at_s = inf
            self._interrupted.wait(max(0.0, self._written_at_s + pts_s - self._written_pts_s - time.monotonic()))
            self.resumed_at_s = time.monotonic()

    def _send(self, picture: Image, pts_s: float | None) -> bool:
        """Return whether the picture was handed to a connection; without `pts_s` its time is now."""
        if not self._connected():
            return False
        return self._uplink.send(picture, self._pixel_aspect, self._timeline.at(pts_s, time.monotonic()))

    def _connected(self) -> bool:
        assert self._run is not None
        assert self._canvas is not None
        return self._uplink.connected(self._canvas, frame_rate(self._run.source.fps))


class Timeline:
    """The stream's own clock in ms: it follows the source's, never stands still and never jumps."""

    def __init__(self) -> None:
        self._last_ms: int | None = None
        self._last_s = 0.0
        self._start_s = 0.0
        """The source's time at 0 ms."""

    def at(self, pts_s: float | None, now_s: float) -> int:
        """Return the stream's time of a frame of the source's `pts_s`, or of one made up (None), sent at `now_s` of
        `time.monotonic()`.
        """
        if self._last_ms is None:
            at_ms, self._start_s = 0, pts_s or 0.0
        else:
            elapsed_ms = max(1, round((now_s - self._last_s) * 1000))
            due_ms = self._last_ms + elapsed_ms if pts_s is None else round((pts_s - self._start_s) * 1000)
            if self._last_ms < due_ms <= self._last_ms + elapsed_ms + _JUMP_S * 1000:
                at_ms = due_ms
            else:
                at_ms = self._last_ms + elapsed_ms
                self._start_s = (pts_s or 0.0) - at_ms / 1000
        self._last_ms, self._last_s = at_ms, now_s
        return at_ms


def no_signal(picture: Image) -> Image:
    """Return a dimmed copy of the (H, W, 3) uint8 BGR `picture` with the words "no signal" across its middle."""
    marked = np.asarray(picture // 3, np.uint8)
    height, width = marked.shape[:2]
    words, font, thickness = "no signal", cv2.FONT_HERSHEY_SIMPLEX, max(1, height // 180)
    (words_width, words_height), _ = cv2.getTextSize(words, font, 1.0, thickness)
    scale = min(width / 2 / words_width, height / 4 / words_height)
    left, bottom = round((width - words_width * scale) / 2), round((height + words_height * scale) / 2)
    cv2.putText(marked, words, (left, bottom), font, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    return marked
