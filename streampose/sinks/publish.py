"""Publishes drawn frames as a live H.264 stream to an RTMP or RTSP server for the duration of the run.

Decides when a frame is sent and what is sent while no frame arrives. `uplink` owns the connection.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from fractions import Fraction
from math import inf
from statistics import median

import cv2  # import before av, or windows hang: see window.py

# isort: split
import numpy as np

from streampose.addresses import for_ffmpeg, host_of, redact_address
from streampose.errors import SinkError, UsageError, describe
from streampose.frames import Image, Result, RunInfo
from streampose.sinks.encode import Canvas, frame_rate
from streampose.sinks.sink import Sink
from streampose.sinks.uplink import Uplink

log = logging.getLogger("streampose")

SCHEMES = {"rtmp": "flv", "rtmps": "flv", "rtsp": "rtsp"}
"""Address scheme -> FFmpeg's format name."""

NO_SIGNAL_AFTER_S = 2.0
"""Mark the last frame after this long without a new one, or after three frame intervals of a slow source."""
_JUMP_S = 1.0
"""A source's clock may run ahead of ours by up to this (a burst after a stall). A larger jump means a new clock."""
_LOOK_EVERY_S = 0.02


class PublishSink(Sink):
    """A live stream that survives failures of the server and of the source.

    The stream is H.264, 4:2:0, without B-frames, with a keyframe every `KEYFRAME_EVERY_S`. Its size is that of the
    first frame; later frames are fitted into it. RTSP uses TCP. Frames of a live source are sent as they arrive. A
    recording is sent at its own pace, starting when the server accepts the stream.

    While there is no connection, frames are dropped and counted, and the connection is retried indefinitely. A new
    connection starts with a keyframe and continues the previous timestamps. While a source is unavailable, its last
    frame is sent with a "no signal" mark. Nothing is sent before the first frame.
    """

    idle_every_s = 0.5
    leaves_nothing = True

    def __init__(self, url: str, *, give_up_after_s: float | None = None) -> None:
        """Check `url`. The sink connects with the first frame.

        Args:
            url: an address with one of `SCHEMES`. Its user name, password and key appear only on the network.
            give_up_after_s: how long the first connection is retried before a failure raises `SinkError`. With 0, the
                first failure raises; with None, no failure raises.

        Raises:
            UsageError: the address is invalid.
        """
        super().__init__(redact_address(url))
        scheme, _, rest = url.partition("://")
        if scheme.lower() not in SCHEMES or not rest.strip("/"):
            known = " or ".join(f"{scheme}://" for scheme in SCHEMES)
            raise UsageError(f"cannot publish to {self.text}: give an address of the form {known}, followed by a host")
        try:
            host_of(rest)
        except ValueError as error:
            raise UsageError(f"cannot publish to {self.text}: it {error}") from error
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
        """Intervals between the latest frames."""
        self._pixel_aspect = Fraction(1)
        self._published = self._dropped = self._repeated = 0

    def open(self, run: RunInfo) -> None:
        """Start the child process. It needs 0.1 s before it can connect."""
        self._run = run
        self._uplink.start()

    def write(self, result: Result) -> None:
        """Send one frame, or drop it while there is no connection. Raises `SinkError`.

        For a recording, this waits until the first connection succeeds or fails, and until the frame is due. For any
        source, it waits up to `publisher.STALL_AFTER_S` for a server that accepts no data.
        """
        if self._run is None:
            raise SinkError(f"{self.text} is not open")
        image = result.frame.image if result.drawn is None else result.drawn
        if self._canvas is None:
            try:
                self._canvas = Canvas(
                    image.shape[1], image.shape[0], result.frame.pixel_aspect, self._run.source.colours
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
        self._last, self._marked, self._pixel_aspect = image, None, result.frame.pixel_aspect
        if self._send(image, result.frame.pts_s):
            self._published += 1
        else:
            self._dropped += 1

    def idle(self) -> None:
        """Send the last frame again, marked if its source is unavailable. Raises `SinkError`."""
        if self._run is None or self._last is None:
            return
        image = self._last
        if self._run.source.is_live and time.monotonic() - self._written_at_s > self._no_signal_after_s():
            if self._marked is None:
                self._marked = no_signal(self._last)
            image = self._marked
        if self._send(image, None):
            self._repeated += 1

    def interrupt(self) -> None:
        """Stop waiting for frame times, and wait only briefly for the server."""
        self._interrupted.set()

    def status(self) -> dict[str, int | float | str]:
        """Return the `state` in words and four counts.

        `connections` counts connections. `published` and `dropped` count the written frames that were handed to a
        connection or discarded. `repeated` counts the additional frames sent while no frame arrived.
        """
        return {
            "state": self._uplink.state,
            "connections": self._uplink.connections,
            "published": self._published,
            "dropped": self._dropped,
            "repeated": self._repeated,
        }

    def close(self) -> None:
        """Give the server up to `FINISH_WITHIN_S` to receive the last frames, then end the child process."""
        self._run = None
        self._uplink.close()

    def summary(self) -> str | None:
        """Return the target and its frame counts; None before the first frame."""
        if self._canvas is None:
            return None
        dropped = f", {self._dropped} dropped without a connection" if self._dropped else ""
        return f"{self.text}: {self._published} frames published{dropped}"

    def _no_signal_after_s(self) -> float:
        # Measure the interval, because a live source may not declare its rate. The median ignores a single outage.
        return max(NO_SIGNAL_AFTER_S, 3 * median(self._intervals_s) if self._intervals_s else 0.0)

    def _wait_for(self, pts_s: float) -> None:
        if self._written_pts_s is not None:
            # Count from the previous frame, so that frames after a late one are never sent faster than recorded.
            self.resumed_at_s = inf
            self._interrupted.wait(max(0.0, self._written_at_s + pts_s - self._written_pts_s - time.monotonic()))
            self.resumed_at_s = time.monotonic()

    def _send(self, image: Image, pts_s: float | None) -> bool:
        """Send the frame and return whether a connection accepted it. If `pts_s` is None, its time is now."""
        if not self._connected():
            return False
        return self._uplink.send(image, self._pixel_aspect, self._timeline.at(pts_s, time.monotonic()))

    def _connected(self) -> bool:
        assert self._run is not None
        assert self._canvas is not None
        return self._uplink.connected(self._canvas, frame_rate(self._run.source.fps))


class Timeline:
    """The stream's clock in ms. It follows the source's clock, always advances and never jumps."""

    def __init__(self) -> None:
        self._last_ms: int | None = None
        self._last_s = 0.0
        self._start_s = 0.0
        """The source's time at stream time 0 ms."""

    def at(self, pts_s: float | None, now_s: float) -> int:
        """Return the stream time of a frame that is sent at `now_s` of `time.monotonic()`.

        `pts_s` is the frame's source time, or None for a repeated frame.
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


def no_signal(image: Image) -> Image:
    """Return a dimmed copy of the (H, W, 3) uint8 BGR `image` with the words "no signal" across its middle."""
    marked = np.asarray(image // 3, np.uint8)
    height, width = marked.shape[:2]
    words, font, thickness = "no signal", cv2.FONT_HERSHEY_SIMPLEX, max(1, height // 180)
    (words_width, words_height), _ = cv2.getTextSize(words, font, 1.0, thickness)
    scale = min(width / 2 / words_width, height / 4 / words_height)
    left, bottom = round((width - words_width * scale) / 2), round((height + words_height * scale) / 2)
    cv2.putText(marked, words, (left, bottom), font, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    return marked
