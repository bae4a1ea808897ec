"""Drawn frames as a live H.264 stream to an RTMP or RTSP server, for as long as the run lives.

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

import errno
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from fractions import Fraction
from math import inf
from statistics import median

import cv2  # before av, else windows hang: see window.py

# isort: split
import av
import numpy as np
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from streampose.addresses import for_ffmpeg, redact_address
from streampose.errors import SinkError, UsageError, describe
from streampose.frames import Image, Result, RunInfo
from streampose.sinks import publisher
from streampose.sinks.sink import Sink
from streampose.sinks.video import Canvas, frame_rate

log = logging.getLogger("streampose")

SCHEMES = {"rtmp": "flv", "rtmps": "flv", "rtsp": "rtsp"}
"""What an address begins with -> FFmpeg's name of the format."""

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
NO_SIGNAL_AFTER_S = 2.0
"""Without a frame for so long, or for three of a slow source, the picture is marked."""
FINISH_WITHIN_S = 2.0
"""What `close` gives a server to take the last frames."""

_JUMP_S = 1.0
"""A source's clock may run ahead of ours by so much (a burst after a stall); what is more is a new clock."""
_LOOK_EVERY_S = 0.02
_PIPE_WITHIN_S = publisher.STALL_AFTER_S + 1.0
"""The child ends by itself before; this is for a child that does not run."""
_NOBODY_THERE = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ETIMEDOUT}
_END_OF_FILE = 541478725
"""FFmpeg's number (AVERROR_EOF)."""
_UNSAID = {errno.EIO, errno.ECONNRESET, errno.EPIPE, _END_OF_FILE}


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
        self._url = for_ffmpeg(scheme, rest)
        self._format = SCHEMES[scheme.lower()]
        self._give_up_after_s = give_up_after_s
        self._interrupted = threading.Event()
        self._run: RunInfo | None = None
        self._child: _Child | None = None
        self._canvas: Canvas | None = None
        self._encoder: _Encoder | None = None
        """Of the connection, or of the try under way; a new one each begins with a keyframe."""
        self._timeline = Timeline()
        self._last: Image | None = None
        self._marked: Image | None = None
        self._written_at_s = 0.0
        self._written_pts_s: float | None = None
        self._intervals_s: deque[float] = deque(maxlen=5)
        """Between the latest frames."""
        self._pixel_aspect = Fraction(1)

        self._state = "waiting for the first frame"
        self._connections = self._published = self._dropped = self._repeated = 0
        self._outages = 0
        self._is_up = False
        self._first_try_s: float | None = None
        self._try_at_s = 0.0
        self._refused_retry_s = RETRY_AFTER_S
        self._connected_at_s = 0.0

    def open(self, run: RunInfo) -> None:
        """Start the child process, which takes a tenth of a second until it can connect."""
        self._run = run
        with suppress(OSError):  # tried again, and reported, with the first frame
            self._child = _Child()

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
                self._canvas = Canvas(picture.shape[1], picture.shape[0], result.frame.pixel_aspect)
            except ValueError as error:
                raise SinkError(f"cannot publish to {self.text}: {describe(error)}") from error
        if not self._run.source.is_live:
            while not (self._connected() or self._outages or self._interrupted.wait(_LOOK_EVERY_S)):
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
            "state": self._state,
            "connections": self._connections,
            "published": self._published,
            "dropped": self._dropped,
            "repeated": self._repeated,
        }

    def close(self) -> None:
        """Let the server take the last frames, for `FINISH_WITHIN_S` at most, and end the child."""
        child, self._child = self._child, None
        self._run = None
        if child is not None:
            child.close(FINISH_WITHIN_S if child.connected else 0.0)
        self._state = "closed"

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
        if not self._connected() or self._encoder is None or self._child is None:
            return False
        at_ms = self._timeline.at(pts_s, time.monotonic())
        try:
            kind, data = self._encoder.encode(picture, self._pixel_aspect, at_ms)
        except (av.FFmpegError, ValueError) as error:
            raise SinkError(f"cannot encode for {self.text}: {describe(error)}") from error
        try:
            self._child.send(kind, at_ms, data, self._interrupted)
        except _Lost as lost:
            self._on_lost(lost)
            return False
        return True

    def _connected(self) -> bool:
        """Look after the connection: begin one when its time has come, hear what became of it. Never waits."""
        assert self._run is not None
        assert self._canvas is not None
        try:
            if self._child is None:
                self._child = _Child()
            if self._encoder is None:
                if time.monotonic() < self._try_at_s:
                    return False
                self._encoder = _Encoder(self._canvas, frame_rate(self._run.source.fps))
                self._first_try_s = self._first_try_s or time.monotonic()
                if not self._outages:
                    self._state = "connecting"
                self._child.connect(self._url, self._format, self._canvas, self._encoder, self._interrupted)
            if self._child.heard() and not self._is_up:
                self._on_connected()
            return self._is_up
        except OSError as error:  # no process or pipe can be had
            self._on_lost(_Lost(describe(error)))
        except _Lost as lost:
            self._on_lost(lost)
        return False

    def _on_connected(self) -> None:
        self._connections += 1
        self._is_up = True
        self._connected_at_s = time.monotonic()
        self._state = "publishing"
        log.info("%s: publishing", self.text)

    def _on_lost(self, lost: _Lost) -> None:
        now_s = time.monotonic()
        was_connected, self._is_up = self._is_up, False
        if self._child is not None and (was_connected or not self._child.running):
            self._child.close(0.0)
            self._child = None
        self._encoder = None
        if was_connected and now_s - self._connected_at_s > STABLE_AFTER_S:
            self._refused_retry_s = RETRY_AFTER_S
        self._try_at_s = now_s + (self._refused_retry_s if lost.was_refused else RETRY_AFTER_S)
        if lost.was_refused:
            self._refused_retry_s = min(2 * self._refused_retry_s, REFUSED_RETRY_S)
        is_new = was_connected or not self._outages
        self._outages += is_new
        self._state = f"no connection: {lost}"
        if self._give_up_after_s is not None and not self._connections:
            assert self._first_try_s is not None
            if now_s - self._first_try_s >= self._give_up_after_s:
                raise SinkError(f"cannot publish to {self.text}: {lost}") from lost
        if is_new:
            # As a text: a handler may keep what it is given, and with the error's traceback the picture.
            log.warning("%s: %s; trying again until it is there", self.text, str(lost))


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


class _Lost(Exception):
    """There is no connection; the text says why, without the address."""

    def __init__(self, reason: str, *, was_refused: bool = False) -> None:
        super().__init__(reason)
        self.was_refused = was_refused


class _Child:
    """The process of `publisher.py`; the address goes to its standard input, where nobody can look."""

    def __init__(self) -> None:
        """Start it. Raises `OSError`."""
        self._process = subprocess.Popen(
            [sys.executable, "-P", publisher.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            process_group=0,  # Ctrl-C is for the parent, which ends it when the last frames are sent
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._messages, self._answers = self._process.stdin, self._process.stdout
        os.set_blocking(self._messages.fileno(), False)
        self._text = b""
        self.connected = False

    @property
    def running(self) -> bool:
        """Whether it can be told another address."""
        return self._process.poll() is None

    def connect(self, url: str, format: str, canvas: Canvas, encoder: _Encoder, cut: threading.Event) -> None:
        """Tell it to try an address. Raises `_Lost`."""
        address = {"url": url, "format": format, "extradata": encoder.extradata.hex()}
        data = json.dumps(address | {"width": canvas.width, "height": canvas.height}).encode()
        self.send(publisher.START, 0, data, cut)

    def send(self, kind: bytes, at_ms: int, data: bytes, cut: threading.Event) -> None:
        """Hand a message over, waiting while the pipe is full, not for long after `cut` is set. Raises `_Lost`."""
        left = memoryview(publisher.HEADER.pack(kind, at_ms, len(data)) + data)
        began_s = time.monotonic()
        room = select.poll()
        room.register(self._messages, select.POLLOUT)
        while left:
            try:
                left = left[os.write(self._messages.fileno(), left) :]
            except BlockingIOError:
                waited_s = time.monotonic() - began_s
                if waited_s > (FINISH_WITHIN_S if cut.is_set() else _PIPE_WITHIN_S):
                    raise _Lost(f"the server has taken nothing for {waited_s:.0f} s") from None
                room.poll(_LOOK_EVERY_S * 1000)
            except BrokenPipeError as error:
                while self.heard(wait_s=1.0):  # up to the reason
                    pass
                raise _Lost(describe(error)) from None

    def heard(self, wait_s: float = 0.0) -> bool:
        """Return whether it is connected, by its latest answer. Raises `_Lost` when it says why not, or ended."""
        ready = select.poll()
        ready.register(self._answers, select.POLLIN)
        if ready.poll(wait_s * 1000):
            data = os.read(self._answers.fileno(), 65536)
            if not data:
                raise self._ended()
            *lines, self._text = (self._text + data).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                was_connected, self.connected = self.connected, answer["connected"]
                if not self.connected:
                    raise _lost(answer["reason"], answer["errno"], was_connected)
        return self.connected

    def close(self, within_s: float) -> None:
        """Let it finish within this time, then kill it; leaves nothing behind."""
        with suppress(OSError):
            self._messages.close()
        if within_s:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(within_s)
        self._process.kill()
        self._process.wait()
        self._answers.close()

    def _ended(self) -> _Lost:
        code = self._process.wait()
        if code == -signal.SIGALRM:
            taken = f"has taken nothing for {publisher.STALL_AFTER_S:g} s"
            return _Lost(f"the server {taken if self.connected else 'does not answer'}")
        return _Lost(f"the publishing process ended ({code})")


def _lost(reason: str, number: int | None, was_connected: bool) -> _Lost:
    reason = reason[:1].lower() + reason[1:]
    if was_connected:
        return _Lost(f"the connection is lost ({reason})")
    if number in _UNSAID and not reason.startswith("failed to resolve"):
        reason = "the server closed the connection: is the name or the key of the stream right?"
    return _Lost(reason, was_refused=number not in _NOBODY_THERE)
