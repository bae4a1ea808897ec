"""Live sources: cameras and network streams read through FFmpeg, with automatic reconnection.

Any end, error or silence of a live source counts as a disconnect and triggers a reconnection. Frames are as recent as
possible: a frame that was delayed too long is skipped.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from fractions import Fraction
from math import inf

import cv2  # noqa: F401 - import before av, or windows hang: see sinks/display.py

# isort: split
import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streampose.errors import SourceError
from streampose.frames import Captured, Frame, SourceInfo
from streampose.meter import Drop
from streampose.picker import Picker
from streampose.sources.connection import Connection
from streampose.sources.convert import FrameConverter, colours_of, ffmpeg_reason
from streampose.sources.decode import Lost, video_stream
from streampose.sources.endpoint import Endpoint
from streampose.sources.outage import Outage
from streampose.sources.source import Reading, Source
from streampose.sources.timing import TICKS_PER_S, Timing

_log = logging.getLogger("streampose")

OPEN_TIMEOUT_S = 5.0
"""Timeout of one connection attempt."""
_WITHOUT_CLOCK = frozenset(["mpjpeg", "mjpeg"])
"""Streams without timestamps, for which FFmpeg assumes 25 frames per second. Their frames are timed on arrival."""
_FRAME_WITHIN_S = 20.0
"""A connection is lost if no frame can be decoded for this long. Some cameras send a keyframe only every 10 s."""


_END_GRACE_S = 2.0
"""A source ends this long after the end of its part even if no frame arrives."""


class _Stop(threading.Event):
    """An event that sets itself at a time."""

    at_s = inf
    """Time of `time.monotonic()` at which it counts as set."""

    def is_set(self) -> bool:
        return super().is_set() or time.monotonic() >= self.at_s

    def wait(self, timeout: float | None = None) -> bool:
        left_s = max(0.0, self.at_s - time.monotonic())
        limits_s = [limit_s for limit_s in (timeout, left_s) if limit_s is not None and limit_s < inf]
        return super().wait(min(limits_s, default=None)) or self.is_set()


class LiveSource(Source):
    """A camera or stream. It connects when its frames are first requested and reconnects after every disconnect.

    `meter.captured` counts every decoded frame of the part, so captured = yielded + dropped as stale.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        source_id: str,
        reading: Reading,
        *,
        give_up_after_s: float | None,
        freshness_s: float,
        open_timeout_s: float = OPEN_TIMEOUT_S,
        read_timeout_s: float | None = None,
        connection: Connection | None = None,
    ) -> None:
        """Store the settings without connecting.

        Args:
            endpoint: where to connect.
            source_id: the name given to its frames.
            reading: stream selection and size limits.
            give_up_after_s: fail after the source has been unavailable for this long, at the start or later. With 0,
                fail if the first attempt fails, but once connected, retry indefinitely. None always retries
                indefinitely.
            freshness_s: skip frames that arrive with a delay this much longer than that of the freshest frames.
            open_timeout_s: timeout of one connection attempt.
            read_timeout_s: drop a connection that delivers no data for this long; None uses the endpoint's value.
            connection: a first connection that is already open; the source takes ownership of it.
        """
        super().__init__()
        self._reading = reading
        self._first = connection
        self.info = SourceInfo(
            source_id,
            endpoint.text,
            width=0,
            height=0,
            fps=None,
            time_base=Fraction(1, TICKS_PER_S),
            frame_count=None,
            is_live=True,
            is_camera=endpoint.is_camera,
            part=reading.part,
        )
        self._endpoint = endpoint
        self._outage = Outage(give_up_after_s, time.monotonic())
        self._freshness_s = freshness_s
        self._open_timeout_s = open_timeout_s
        self._read_timeout_s = endpoint.read_timeout_s if read_timeout_s is None else read_timeout_s
        self._timing = Timing(freshness_s)
        self._index = 0
        self._picker = Picker(reading.part)
        self._stop = _Stop()
        self._run = self._connections()

    def captures(self) -> Iterator[Captured]:
        """Connect and yield frames until interrupted or until the source really ends. Use one thread at a time.

        Raises:
            SourceError: the source was given up; the text gives the last reason.
            UsageError: this FFmpeg does not support the protocol.
        """
        yield from self._run

    def interrupt(self) -> None:
        """Make `frames` end within a second, whatever the network does. This is permanent."""
        self._stop.set()

    def close(self) -> None:
        """Disconnect. A pending connection attempt releases its resources within its timeout."""
        self.interrupt()
        self._run.close()
        if self._first is not None:
            self._first.release()

    def _connections(self) -> Generator[Captured]:
        self._outage = Outage(self._outage.give_up_after_s, time.monotonic())
        try:
            while not self._stop.is_set():
                connection = self._connected()
                try:
                    yield from self._play(connection)
                    return
                except Lost as lost:
                    reason = lost.with_traceback(None)
                    reason.__context__ = None
                finally:
                    connection.release()
                self._wait_after(reason)
        finally:
            self.meter.state = "ended"

    def _connected(self) -> Connection:
        if self._first is not None:
            connection, self._first = self._first, None
            return connection
        patience_s = self._outage.patience_s(self._open_timeout_s, time.monotonic())
        return Connection(self._endpoint, self._reading, patience_s, self._read_timeout_s, self.info.source_id)

    def _wait_after(self, lost: Lost) -> None:
        now_s = time.monotonic()
        is_new = self._outage.lost(now_s)
        delay_s = self._outage.delay_s(now_s)
        if delay_s is None:
            was_there = f" (retried for {self._outage.give_up_after_s:g} s)" if self._outage.give_up_after_s else ""
            raise SourceError(f"{self._endpoint.text} is unavailable{was_there}: {lost}") from lost.__cause__
        if is_new:
            what = "is disconnected: %s; reconnecting" if self._outage.was_live else "is unavailable: %s; retrying"
            _log.warning(f"%s {what}", self.info.source_id, str(lost))  # as text: a handler may keep its arguments
        self.meter.state = f"reconnecting: {lost}" if self._outage.was_live else f"opening: {lost}"
        self._stop.wait(delay_s)

    def _play(self, connection: Connection) -> Iterator[Captured]:
        """Yield the frames of one connection. Return if interrupted or at a real end; otherwise raise `Lost`."""
        container = connection.container(self._stop)
        if container is None:
            return
        is_playlist = container.format.name == "hls"
        if is_playlist and container.duration and self._outage.was_live:
            # The playlist is complete now, so the disconnect was the end of the live stream.
            _log.info("%s has ended", self.info.source_id)
            return
        stream = video_stream(container, self._reading)
        # Frame threading delays output by one frame per thread. Slice threading decodes in parallel without delay.
        stream.codec_context.thread_type = "SLICE"
        ends_at_s = container.duration / av.time_base if self._endpoint.may_be_recorded and container.duration else None
        is_paced = ends_at_s is not None or is_playlist
        rate = stream.average_rate or stream.guessed_rate
        self._timing.connected(stream.time_base or Fraction(1, TICKS_PER_S), rate, is_paced=is_paced)
        has_clock = container.format.name not in _WITHOUT_CLOCK
        if not has_clock:
            connection.skip_waiting()  # without timestamps, the age of buffered frames is unknown
        converter = FrameConverter(self._endpoint.text, self._reading.max_pixels)
        is_first = True
        for frame in self._decoded(connection, stream, ends=ends_at_s is not None):
            pts_s, behind_s = self._timing.place(frame.pts if has_clock else None, time.monotonic())
            if behind_s < 0 and is_paced and self._stop.wait(-behind_s):
                return
            if self._picker.is_over(pts_s):
                return
            if is_first:
                is_first = False
                self._went_live(stream, frame)
            if not self._picker.takes(pts_s):
                self._index += 1
                continue
            self.meter.captured()
            if behind_s > self._freshness_s:
                self.meter.dropped(Drop.STALE)
                continue
            image = converter.to_bgr(frame)
            if image.shape[:2] != (self.info.height, self.info.width):
                self.info = replace(self.info, height=image.shape[0], width=image.shape[1])
            index, self._index = self._index, self._index + 1
            # Prefer the codec's value: a server may continue the stream with another publisher's video.
            aspect = converter.pixel_aspect(stream.codec_context.sample_aspect_ratio or stream.sample_aspect_ratio)
            yield Captured(
                Frame(self.info.source_id, index, pts_s, time.monotonic(), image, pixel_aspect=aspect),
                converter.shrinking(frame),
            )

    def _went_live(self, stream: VideoStream, frame: VideoFrame) -> None:
        rate = stream.average_rate or stream.guessed_rate
        self.info = replace(
            self.info,
            width=frame.width,
            height=frame.height,
            fps=float(rate) / self.info.part.every if rate else None,
            has_sound=len(stream.container.streams.audio) > 0,
            colours=colours_of(frame),
        )
        if self._outage.was_live:
            self.meter.reconnected()
            _log.info("%s has reconnected", self.info.source_id)
        now_s = time.monotonic()
        if self._stop.at_s == inf:
            self._stop.at_s = now_s + self.info.part.end_s + _END_GRACE_S
        self._outage.over(now_s)
        self.meter.state = "live"

    def _decoded(self, connection: Connection, stream: VideoStream, *, ends: bool) -> Iterator[VideoFrame]:
        """Yield decoded frames. Return if interrupted, or at the end if the stream `ends`; otherwise raise `Lost`."""
        frame_s = time.monotonic()
        fault: av.FFmpegError | None = None
        for packet in connection.packets(self._stop):
            if packet.stream_index != stream.index:
                continue
            try:
                for frame in stream.codec_context.decode(packet):
                    yield frame
                    frame_s = time.monotonic()
            except av.FFmpegError as error:
                fault = error.with_traceback(None)
            if time.monotonic() - frame_s > _FRAME_WITHIN_S:
                why = f" ({ffmpeg_reason(fault)})" if fault else ""
                raise Lost(f"no frame could be decoded for {_FRAME_WITHIN_S:.0f} s{why}", fault)
        if not self._stop.is_set():
            if not ends:
                raise Lost("the stream ended")
            held_back: list[VideoFrame] = []
            with contextlib.suppress(av.FFmpegError):  # damaged at the end; all intact frames were yielded
                held_back = stream.codec_context.decode(None)
            yield from held_back
