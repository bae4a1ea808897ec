"""The connection of a live stream to its server, kept up over failures.

Encodes here and leaves the network to a child process (`publisher.py`), which is handed packets through a pipe. The
other candidate was FFmpeg's fifo muxer, a thread of FFmpeg's own inside this process. Measured with PyAV 18.1 at 720p30
to nginx-rtmp on a machine of 2 cores; the longest `write`, and the longest that a Python thread beside it was held up:

                                      child process          fifo muxer
    publishing, 8 s                   41 ms     6 ms         50 ms     6 ms
    server stopped for 10 s           2.9 s     3 ms         24 ms     7 ms
    server killed for 5 s             13 ms     4 ms         22 ms     4 ms
    server accepts and says nothing    2 ms     3 ms         26 ms     4 ms
    closing                           20 ms     0 ms          0 ms     0 ms
    closing on the silent server       4 ms     0 ms         2.6 s    2.6 s

The fifo's `close` holds the whole process, without a limit that can be set, and it tells neither that it is connected
nor why it is not; it encodes for nobody. The child can be killed at any moment and reports both. Its price is 37 MB, a
tenth of a second to start, and a wait of `publisher.STALL_AFTER_S`, in the sink's own thread, until a server that takes
nothing is given up. From `write` to a player's decoded picture it takes 17 ms (p95 22), of which encoding is 13.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from fractions import Fraction

import cv2  # noqa: F401 - before av, else windows hang: see window.py

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
    # By time, see KEYFRAME_EVERY_S: a count of frames would be minutes while a source is away.
    "g": "100000",
    "forced-idr": "1",
    # Some relays damage pictures of several slices, and a second thread holds every picture back until the next.
    "x264-params": "sliced-threads=0:threads=1:scenecut=0",
}
BITS_PER_PIXEL = 0.15
"""The rate's ceiling, 4 Mbit/s for 720p30: what a moving camera would need above it goes into the quality."""
KEYFRAME_EVERY_S = 2.0
"""How long a new player waits for its first picture, at most."""

RETRY_AFTER_S = 0.5
"""From a failure to the next try."""
REFUSED_RETRY_S = 5.0
"""A server that is there and says no (a wrong key) is asked after delays that double up to this."""
STABLE_AFTER_S = 10.0
"""A connection that has held so long was no refusal."""


class Uplink:
    """A connection that is tried again for as long as it is wanted; every new one begins with a keyframe."""

    def __init__(
        self, text: str, url: str, format: str, give_up_after_s: float | None, interrupted: threading.Event
    ) -> None:
        """Connect to nothing yet.

        Args:
            text: names the stream in messages, credentials redacted.
            url: the address as FFmpeg wants it, with the credentials.
            format: FFmpeg's name of the format.
            give_up_after_s: see `PublishSink`.
            interrupted: set when nothing may wait any more.
        """
        self._text = text
        self._url = url
        self._format = format
        self._give_up_after_s = give_up_after_s
        self._interrupted = interrupted
        self._process: PublisherProcess | None = None
        self._encoder: _Encoder | None = None
        """Of the connection, or of the try under way."""
        self.state = "waiting for the first frame"
        """In words, for people."""
        self.connections = 0
        """How many there were."""
        self.outages = 0
        """How often there was none where there should have been."""
        self._is_up = False
        self._first_try_s: float | None = None
        self._try_at_s = 0.0
        self._refused_retry_s = RETRY_AFTER_S
        self._connected_at_s = 0.0

    def start(self) -> None:
        """Start the child process, which takes a tenth of a second until it can connect."""
        with suppress(OSError):  # tried again, and reported, with the first frame
            self._process = PublisherProcess()

    def connected(self, canvas: Canvas, rate: Fraction) -> bool:
        """Return whether there is a connection, for frames of `canvas` at about `rate`. Begins one when its time has
        come and hears what became of it; never waits. Raises `SinkError` when it is given up.
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
        except OSError as error:  # no process or pipe can be had
            self._on_lost(Lost(describe(error)))
        except Lost as lost:
            self._on_lost(lost)
        return False

    def send(self, picture: Image, pixel_aspect: Fraction, at_ms: int) -> bool:
        """Encode a picture for the stream's time `at_ms` and hand it to the connection that there is; return whether it
        took it. Raises `SinkError`.
        """
        assert self._encoder is not None
        assert self._process is not None
        try:
            kind, data = self._encoder.encode(picture, pixel_aspect, at_ms)
        except (av.FFmpegError, ValueError) as error:
            raise SinkError(f"cannot encode for {self._text}: {describe(error)}") from error
        try:
            self._process.send(kind, at_ms, data, self._interrupted)
        except Lost as lost:
            self._on_lost(lost)
            return False
        return True

    def close(self) -> None:
        """Let the server take the last frames, for `FINISH_WITHIN_S` at most, and end the child."""
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
            # As a text: a handler may keep what it is given, and with the error's traceback the picture.
            log.warning("%s: %s; trying again until it is there", self._text, str(lost))


class _Encoder:
    """x264 for one connection; raises what PyAV raises."""

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

    def encode(self, picture: Image, pixel_aspect: Fraction, at_ms: int) -> tuple[bytes, bytes]:
        """Return the kind and the data of the message that holds `picture`."""
        frame = self._canvas.frame(picture, pixel_aspect)
        frame.pts = at_ms
        frame.time_base = publisher.TIME_BASE
        if at_ms >= self._keyframe_at_ms:
            frame.pict_type = PictureType.I
            self._keyframe_at_ms = at_ms + round(KEYFRAME_EVERY_S * 1000)
        (packet,) = self._context.encode(frame)  # this tuning holds nothing back
        return publisher.KEYFRAME if packet.is_keyframe else publisher.PACKET, bytes(packet)
