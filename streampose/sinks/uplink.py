"""Keeps the connection of a live stream to its server alive across failures.

This process encodes. A child process (`publisher.py`) receives the packets through a pipe and does the network I/O. The
alternative was FFmpeg's fifo muxer, which uses an FFmpeg thread inside this process. The table compares both, measured
with PyAV 18.1 at 720p30 to nginx-rtmp on a machine with 2 cores. For each design it gives the longest `write`, then the
longest time that another Python thread was blocked:

                                      child process          fifo muxer
    publishing, 8 s                   41 ms     6 ms         50 ms     6 ms
    server stopped for 10 s           2.9 s     3 ms         24 ms     7 ms
    server killed for 5 s             13 ms     4 ms         22 ms     4 ms
    server accepts but stays silent    2 ms     3 ms         26 ms     4 ms
    closing                           20 ms     0 ms          0 ms     0 ms
    closing on the silent server       4 ms     0 ms         2.6 s    2.6 s

The fifo muxer's `close` blocks the whole process, and no timeout can be set. The muxer reports neither that it is
connected nor why a connection failed, so frames are also encoded when nobody receives them. The child process can be
killed at any time and reports both. It costs 37 MB of memory and 0.1 s to start. If a server accepts no data, the
sink's own thread waits `publisher.STALL_AFTER_S` before it gives the server up. The latency from `write` to a player's
decoded frame is 17 ms (p95 22 ms), of which encoding takes 13 ms.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from fractions import Fraction

import cv2  # noqa: F401 - import before av, or windows hang: see window.py

# isort: split
import av
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from streampose.errors import SinkError, describe
from streampose.frames import Image
from streampose.sinks import publisher
from streampose.sinks.encode import Canvas
from streampose.sinks.publisher_process import FINISH_WITHIN_S, Lost, PublisherProcess

log = logging.getLogger("streampose")

ENCODER = {
    "preset": "veryfast",
    "tune": "zerolatency",
    "crf": "23",
    # Keyframes are set by time, see KEYFRAME_EVERY_S. By frame count, the gap could be minutes during a source outage.
    "g": "100000",
    "forced-idr": "1",
    # Some relays corrupt frames with several slices, and a second thread delays every frame until the next one.
    "x264-params": "sliced-threads=0:threads=1:scenecut=0",
}
BITS_PER_PIXEL = 0.15
"""Maximum bit rate: 4 Mbit/s for 720p30. If a moving camera needs more, quality decreases instead."""
KEYFRAME_EVERY_S = 2.0
"""Maximum time that a new player waits for its first frame."""

RETRY_AFTER_S = 0.5
"""Delay between a failure and the next attempt."""
REFUSED_RETRY_S = 5.0
"""Maximum retry delay for a server that refuses the stream (for example a wrong key). The delay doubles up to this."""
STABLE_AFTER_S = 10.0
"""A connection that lasted longer than this resets the retry delay."""


class Uplink:
    """A connection that is retried until it is closed. Each new connection starts with a keyframe."""

    def __init__(
        self, text: str, url: str, format: str, give_up_after_s: float | None, interrupted: threading.Event
    ) -> None:
        """Store the settings without connecting.

        Args:
            text: names the stream in messages, with credentials redacted.
            url: the address in FFmpeg's form, with credentials.
            format: FFmpeg's format name.
            give_up_after_s: see `PublishSink`.
            interrupted: set when all waiting must stop.
        """
        self._text = text
        self._url = url
        self._format = format
        self._give_up_after_s = give_up_after_s
        self._interrupted = interrupted
        self._process: PublisherProcess | None = None
        self._encoder: _Encoder | None = None
        """Encoder of the current connection or connection attempt."""
        self.state = "waiting for the first frame"
        """State in words, for people."""
        self.connections = 0
        """Number of connections made so far."""
        self.outages = 0
        """Number of times that the connection failed or was lost; retries of the same outage count once."""
        self._is_up = False
        self._first_try_s: float | None = None
        self._try_at_s = 0.0
        self._refused_retry_s = RETRY_AFTER_S
        self._connected_at_s = 0.0

    def start(self) -> None:
        """Start the child process. It needs 0.1 s before it can connect."""
        with suppress(OSError):  # retried and reported with the first frame
            self._process = PublisherProcess()

    def connected(self, canvas: Canvas, rate: Fraction) -> bool:
        """Return whether there is a connection for frames of `canvas` at about `rate`. Never waits.

        Starts a connection attempt when one is due, and checks the result of a pending attempt. Raises `SinkError` when
        it gives up.
        """
        try:
            if self._process is None:
                self._process = PublisherProcess()
            if self._encoder is None:
                if time.monotonic() < self._try_at_s:
                    return False
                self._encoder = _Encoder(canvas, rate)
                self._first_try_s = self._first_try_s or time.monotonic()
                if not self.outages:
                    self.state = "connecting"
                size = canvas.width, canvas.height
                self._process.connect(self._url, self._format, size, self._encoder.extradata, self._interrupted)
            if self._process.heard() and not self._is_up:
                self._on_connected()
            return self._is_up
        except OSError as error:  # the process or pipe could not be created
            self._on_lost(Lost(describe(error)))
        except Lost as lost:
            self._on_lost(lost)
        return False

    def send(self, image: Image, pixel_aspect: Fraction, at_ms: int) -> bool:
        """Encode a frame for stream time `at_ms` and send it over the open connection.

        Return whether the connection accepted it. Raises `SinkError`.
        """
        assert self._encoder is not None
        assert self._process is not None
        try:
            kind, data = self._encoder.encode(image, pixel_aspect, at_ms)
        except (av.FFmpegError, ValueError) as error:
            raise SinkError(f"cannot encode for {self._text}: {describe(error)}") from error
        try:
            self._process.send(kind, at_ms, data, self._interrupted)
        except Lost as lost:
            self._on_lost(lost)
            return False
        return True

    def close(self) -> None:
        """Give the server up to `FINISH_WITHIN_S` to receive the last frames, then end the child process."""
        process, self._process = self._process, None
        if process is not None:
            process.close(FINISH_WITHIN_S if process.connected else 0.0)
        self.state = "closed"

    def _on_connected(self) -> None:
        self.connections += 1
        self._is_up = True
        self._connected_at_s = time.monotonic()
        self.state = "publishing"
        log.info("%s: publishing", self._text)

    def _on_lost(self, lost: Lost) -> None:
        now_s = time.monotonic()
        was_connected, self._is_up = self._is_up, False
        if self._process is not None and (was_connected or not self._process.running):
            self._process.close(0.0)
            self._process = None
        self._encoder = None
        if was_connected and now_s - self._connected_at_s > STABLE_AFTER_S:
            self._refused_retry_s = RETRY_AFTER_S
        self._try_at_s = now_s + (self._refused_retry_s if lost.was_refused else RETRY_AFTER_S)
        if lost.was_refused:
            self._refused_retry_s = min(2 * self._refused_retry_s, REFUSED_RETRY_S)
        is_new = was_connected or not self.outages
        self.outages += is_new
        self.state = f"no connection: {lost}"
        if self._give_up_after_s is not None and not self.connections:
            assert self._first_try_s is not None
            if now_s - self._first_try_s >= self._give_up_after_s:
                raise SinkError(f"cannot publish to {self._text}: {lost}") from lost
        if is_new:
            # Log the text only: a handler may keep its arguments, and the error's traceback would keep the image alive.
            log.warning("%s: %s; retrying", self._text, str(lost))


class _Encoder:
    """The x264 encoder of one connection. Raises PyAV's own errors."""

    def __init__(self, canvas: Canvas, rate: Fraction) -> None:
        self._canvas = canvas
        self._keyframe_at_ms = 0
        context = av.CodecContext.create("libx264", "w")
        assert isinstance(context, VideoCodecContext)
        canvas.set_up(context)
        context.framerate = rate
        context.time_base = publisher.TIME_BASE
        ceiling = str(round(BITS_PER_PIXEL * canvas.width * canvas.height * rate))
        context.options = ENCODER | {"maxrate": ceiling, "bufsize": ceiling}
        context.flags |= Flags.global_header
        context.open()
        self._context = context
        self.extradata = context.extradata or b""

    def encode(self, image: Image, pixel_aspect: Fraction, at_ms: int) -> tuple[bytes, bytes]:
        """Encode `image` and return the kind and the data of its message."""
        frame = self._canvas.frame(image, pixel_aspect)
        frame.pts = at_ms
        frame.time_base = publisher.TIME_BASE
        if at_ms >= self._keyframe_at_ms:
            frame.pict_type = PictureType.I
            self._keyframe_at_ms = at_ms + round(KEYFRAME_EVERY_S * 1000)
        (packet,) = self._context.encode(frame)  # `zerolatency` returns one packet per frame
        return publisher.KEYFRAME if packet.is_keyframe else publisher.PACKET, bytes(packet)
