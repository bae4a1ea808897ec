"""Containers and decoders, by FFmpeg: what may be opened, which stream is read, and its good frames.

Knows no times but those that the file gives.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import cv2  # noqa: F401 - before av, else windows hang: see sinks/window.py

# isort: split
import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streampose.sources.convert import ffmpeg_reason
from streampose.sources.source import Reading

CONTAINERS = (
    "3gp,apng,asf,av1,avi,dv,flv,gif,gxf,h261,h263,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mxf,nut,obu,"
    "ogg,rm,vc1,vvc,webm,wtv,yuv4mpegpipe,"
    "dhav,lmlm4,mxg,nsv,nuv,pva,ty,"
    "aac,aiff,flac,mp3,wav"
)
"""What FFmpeg may take a file for. Playlists, scripts and the like are missing on purpose: they make it open other
files and network addresses. The sound formats of the last line are there to be told that they hold no video."""
_HAS_CLOCK = frozenset(["mpegts", "mpeg", "dhav", "asf"])
"""Containers whose times are those of a clock that ran before the recording began."""


class Lost(Exception):
    """What is read is not there, or not any more, for the reason that the text gives, without the source's name.

    Neither it nor its cause is kept with a traceback, nor is what it was raised beside: the frames there would hold on
    to FFmpeg's decoder with its threads and pictures.
    """

    def __init__(self, reason: str, cause: Exception | None = None) -> None:
        super().__init__(reason)
        self.__cause__ = None if cause is None else cause.with_traceback(None)


def open_recording(path: str) -> InputContainer:
    """Return the video file at `path`, opened such that it can make FFmpeg read no other file and no network.

    Raises `av.FFmpegError`.
    """
    # "file:" keeps FFmpeg from taking a name with a colon for an address.
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    return av.open(f"file:{path}", "r", options=options, metadata_errors="replace")


def video_stream(container: InputContainer, reading: Reading) -> VideoStream:
    """Return the video stream to read: the one asked for, or the best.

    Raises:
        Lost: there is none, or none that can be decoded.
    """
    # The cover picture of a sound file is a video stream to FFmpeg.
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not videos:
        raise Lost("no video stream")
    if reading.stream is not None:
        if reading.stream >= len(videos):
            raise Lost(f"no video stream {reading.stream}: there are {len(videos)}, counted from 0")
        videos = [videos[reading.stream]]
    decodable = [s for s in videos if s.codec_context is not None]
    if not decodable:
        raise Lost("this FFmpeg has no decoder for its video; H.264 always works")
    if reading.max_height is not None:
        low = [s for s in decodable if s.codec_context.height <= reading.max_height]
        decodable = low or [min(decodable, key=lambda s: s.codec_context.height)]
    return max(decodable, key=_rank)


def _rank(stream: VideoStream) -> tuple[bool, int, int]:
    """Return what makes a stream the one to read: the container's default first, then its size, then its place."""
    pixels = stream.codec_context.width * stream.codec_context.height
    return bool(stream.disposition & Disposition.default), pixels, -stream.index


def packets_of(container: InputContainer, *streams: Stream) -> Iterator[Packet[Any]]:
    """Yield what `container.demux` does.

    A stream that appears behind the header, as one flipped bit of a transport stream brings about, is one more than
    PyAV (18.1) has counted: at the end, when it flushes, it fails for lack of it. All packets have been yielded then.
    """
    with contextlib.suppress(IndexError):
        yield from container.demux(*streams)


LATE_START_S = 10.0
"""A recording that begins later than this was cut out of something longer; one that begins a little late is whole."""


def late_start_s(container: InputContainer) -> Fraction:
    """Return the time at which a recording with a clock of its own, such as a piece of a transport stream, begins; 0
    where it begins within `LATE_START_S`, or where the container's times are a matter of its maker's will.
    """
    start_s = Fraction(container.start_time or 0, av.time_base)
    has_clock = container.format.name in _HAS_CLOCK
    return start_s if has_clock and start_s > LATE_START_S else Fraction(0)


class Fault(NamedTuple):
    at_s: float
    reason: str
    cause: Exception | None = None


class Decoding:
    """One pass of a decoder over a recording's packets: its good frames, and what was wrong with the others."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, packets: Iterable[Packet[Any]], thread_type: str
    ) -> None:
        self._packets = packets
        self._stream = stream
        self._context = stream.codec_context
        # AUTO or NONE: with SLICE alone FFmpeg's H.264 decoder (8.1) does not mark the pictures that it patched up.
        self._context.thread_type = thread_type
        # MPEG-TS flags packets that are whole wherever its counters jump, as between joined recordings.
        self._flags_are_exact = container.format.name not in ("mpegts", "hls")
        # AVI stores no times of frames, only the order of packets, and B-frames are shown in another: the first frame
        # that comes out has the first time, and so on.
        self._times: deque[int] | None = deque() if container.format.name == "avi" else None
        self.fault: Fault | None = None
        """The first one."""
        self.outstanding = 0
        """Packets that have given neither a frame nor an error."""
        self.good = 0
        """Frames yielded."""
        self.last_pts: int | None = None
        """The latest of the good frames' times, in ticks of the stream."""
        self.reached_s = 0.0
        """Where the last whole packet of any stream ends."""

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the good frames; never raises for what is in the file."""
        try:
            for packet in self._packets:
                at = packet.pts if packet.pts is not None else packet.dts
                if packet.is_corrupt and self._flags_are_exact:
                    self._note("a packet is incomplete")
                    continue
                if at is not None and packet.time_base is not None:
                    self.reached_s = max(self.reached_s, float((at + (packet.duration or 0)) * packet.time_base))
                if packet.stream_index == self._stream.index and packet.size:
                    self.outstanding += 1
                    yield from self._decode(packet)
        except av.FFmpegError as error:
            self._note(ffmpeg_reason(error), error)
        except Lost as lost:
            self._note(str(lost), lost)
        yield from self._decode(None)

    def _decode(self, packet: Packet[Any] | None) -> Iterator[VideoFrame]:
        if self._times is not None and packet is not None and packet.dts is not None:
            self._times.append(packet.dts)
        try:
            frames = self._context.decode(packet)
        except av.FFmpegError as error:
            self.outstanding -= packet is not None
            if self._times and packet is not None:
                self._times.pop()
            self._note(ffmpeg_reason(error), error)
            return
        self.outstanding -= len(frames)
        for frame in frames:
            if self._times:
                frame.pts = self._times.popleft()
            if frame.is_corrupt:
                self._note("a picture is incomplete")
                continue
            if frame.pts is not None:
                self.last_pts = frame.pts if self.last_pts is None else max(self.last_pts, frame.pts)
            self.good += 1
            yield frame

    def _note(self, reason: str, cause: Exception | None = None) -> None:
        if self.fault is None:
            time_base = self._stream.time_base or Fraction(1, av.time_base)
            self.fault = Fault(float((self.last_pts or 0) * time_base), reason, cause)
