"""FFmpeg containers and decoders: which files may be opened, which stream is read, and its intact frames.

Uses only the timestamps stored in the file.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import cv2  # noqa: F401 - import before av, or windows hang: see sinks/display.py

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
"""Container formats that FFmpeg may detect. Playlists and scripts are excluded on purpose, because they make FFmpeg
open other files and network addresses. The sound formats in the last line are included so that the error can say that
the file has no video."""
_HAS_CLOCK = frozenset(["mpegts", "mpeg", "dhav", "asf"])
"""Containers whose timestamps come from a clock that was running before the recording began."""


STEPS_BACK_STAY = {"correct_ts_overflow": "0"}
"""FFmpeg option. By default FFmpeg takes each step back of a clock for its end (26.5 hours in transport streams), so
times would leap by this much where a recording was joined. A clock that really ends steps back too, to 0."""


class Lost(Exception):
    """The input is unavailable or was lost. The text gives the reason without the source's name.

    The error, its cause and its context are kept without tracebacks. The stack frames of a traceback would keep
    FFmpeg's decoder alive, with its threads and images.
    """

    def __init__(self, reason: str, cause: Exception | None = None) -> None:
        super().__init__(reason)
        self.__cause__ = None if cause is None else cause.with_traceback(None)


def open_recording(path: str) -> InputContainer:
    """Open the video file at `path`. The file cannot make FFmpeg read another file or the network.

    Raises `av.FFmpegError`.
    """
    # "file:" stops FFmpeg from treating a name with a colon as an address.
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS} | STEPS_BACK_STAY
    return av.open(f"file:{path}", "r", options=options, metadata_errors="replace")


def video_stream(container: InputContainer, reading: Reading) -> VideoStream:
    """Return the requested video stream, or the best one if none was requested.

    Raises:
        Lost: no such stream exists, or none can be decoded.
    """
    # FFmpeg reports the cover picture of a sound file as a video stream.
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not videos:
        raise Lost("no video stream")
    if reading.stream is not None:
        if reading.stream >= len(videos):
            raise Lost(f"no video stream {reading.stream}: there are {len(videos)}, counted from 0")
        videos = [videos[reading.stream]]
    decodable = [s for s in videos if s.codec_context is not None]
    if not decodable:
        raise Lost("this FFmpeg has no decoder for its video; use H.264, which is always supported")
    decodable = [s for s in decodable if not _may_be_thumbnail(s)] or decodable
    if reading.max_height is not None:
        low = [s for s in decodable if s.codec_context.height <= reading.max_height]
        decodable = low or [min(decodable, key=lambda s: s.codec_context.height)]
    return max(decodable, key=_rank)


_STILL_CODECS = frozenset(["bmp", "gif", "mjpeg", "png", "tiff", "webp"])


def _may_be_thumbnail(stream: VideoStream) -> bool:
    """Return whether a stream looks like a picture of a video beside it. Some writers do not mark such pictures."""
    return stream.frames == 1 or stream.codec_context.name in _STILL_CODECS


def _rank(stream: VideoStream) -> tuple[bool, int, int]:
    """Return the sort key for streams: the container's default first, then the largest, then the lowest index."""
    pixels = stream.codec_context.width * stream.codec_context.height
    return bool(stream.disposition & Disposition.default), pixels, -stream.index


def packets_of(container: InputContainer, *streams: Stream) -> Iterator[Packet[Any]]:
    """Yield the packets of `container.demux`.

    A single flipped bit in a transport stream can make a new stream appear after the header. PyAV (18.1) has not
    counted this stream and raises `IndexError` when it flushes at the end. All packets have been yielded by then, so
    the error is ignored.
    """
    with contextlib.suppress(IndexError):
        yield from container.demux(*streams)


RESTART_S = 0.4
"""A larger backward jump in time starts the next of several joined recordings."""

LATE_START_S = 10.0
"""A recording that starts later than this is treated as cut from a longer one. A small offset is kept as it is."""


def late_start_s(container: InputContainer) -> Fraction:
    """Return the start time of a recording that has its own clock, such as a segment of a transport stream.

    Return 0 if it starts within `LATE_START_S`, or if the container's start time is chosen freely by its writer.
    """
    start_s = Fraction(container.start_time or 0, av.time_base)
    has_clock = container.format.name in _HAS_CLOCK
    return start_s if has_clock and start_s > LATE_START_S else Fraction(0)


class Fault(NamedTuple):
    at_s: float
    reason: str
    cause: Exception | None = None


class Decoding:
    """One decoder pass over a recording's packets. Yields the intact frames and records the first fault."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, packets: Iterable[Packet[Any]], thread_type: str
    ) -> None:
        self._packets = packets
        self._stream = stream
        self._context = stream.codec_context
        # Use AUTO or NONE: with SLICE, FFmpeg's H.264 decoder (8.1) does not flag the frames that it repaired.
        self._context.thread_type = thread_type
        # MPEG-TS flags intact packets as corrupt wherever its counters jump, for example between joined recordings.
        self._flags_are_exact = container.format.name not in ("mpegts", "hls")
        # AVI stores no frame times, only the packet order, and B-frames are displayed in a different order. The nth
        # decoded frame therefore gets the nth packet time.
        self._times: deque[int] | None = deque() if container.format.name == "avi" else None
        self.fault: Fault | None = None
        """The first fault."""
        self.outstanding = 0
        """Number of packets that have produced neither a frame nor an error."""
        self.good = 0
        """Number of frames yielded."""
        self.last_pts: int | None = None
        """The latest time of an intact frame, in ticks of the stream."""
        self.reached_s = 0.0
        """End time of the latest intact packet of any stream, in seconds."""

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the intact frames. Damage in the file is recorded in `fault` and never raised."""
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
                self._note("a frame is incomplete")
                continue
            if frame.pts is not None:
                self.last_pts = frame.pts if self.last_pts is None else max(self.last_pts, frame.pts)
            self.good += 1
            yield frame

    def _note(self, reason: str, cause: Exception | None = None) -> None:
        if self.fault is None:
            time_base = self._stream.time_base or Fraction(1, av.time_base)
            self.fault = Fault(float((self.last_pts or 0) * time_base), reason, cause)
