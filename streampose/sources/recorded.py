"""Recorded sources: video files and stills, every frame at its own time.

Nothing here knows what happens to a frame afterwards. A recording that opened has already shown its first picture, so
whatever cannot be read at all is known before a network is loaded.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import warnings
from abc import abstractmethod
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2  # before av, else windows hang: see sinks/window.py

# isort: split
import av
import numpy as np
import numpy.typing as npt
import PIL.Image
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from streampose.errors import SourceError, describe
from streampose.frames import Frame, Image, Shrink, SourceInfo
from streampose.sources.source import Source

_log = logging.getLogger("streampose")

PICTURE_SUFFIXES = frozenset(
    [".bmp", ".dib", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"]
)
"""Endings, in small letters, of the files that are read as single pictures; every other file is read as a video."""
PICTURES_PER_S = 25
"""Pictures carry no time: they follow each other at this rate, the one FFmpeg gives to a folder of pictures."""


class _Shot(NamedTuple):
    pts_s: float
    image: Image
    file: str | None = None
    pixel_aspect: Fraction = Fraction(1)
    shrink: Shrink | None = None


class _Recorded(Source):
    """A source that is read once, from its first picture to its last."""

    def __init__(self) -> None:
        super().__init__()
        self._reader = self._read()
        self._shots: Iterator[_Shot] = chain([next(self._reader)], self._reader)
        self._index = 0

    @abstractmethod
    def _read(self) -> Generator[_Shot]:
        """Own everything that needs closing; set `info` before the first shot; raise `SourceError` if there is none."""

    def frames(self) -> Iterator[Frame]:
        for shot in self._shots:
            index, self._index = self._index, self._index + 1
            yield Frame(
                self.info.source_id,
                index,
                shot.pts_s,
                time.monotonic(),
                shot.image,
                shot.file,
                shot.pixel_aspect,
                shot.shrink,
            )

    def close(self) -> None:
        self._reader.close()
        self._shots = iter(())


class _BadPicture(NamedTuple):
    file: str
    reason: str
    cause: Exception


class Stills(_Recorded):
    """Picture files in a given order, by OpenCV: EXIF orientation applied, alpha dropped, 16 bits scaled to 8."""

    def __init__(self, files: Sequence[Path], folder: Path, text: str, source_id: str) -> None:
        self._files = files
        self._folder = folder
        self._text = text
        self._source_id = source_id
        super().__init__()

    def _read(self) -> Generator[_Shot]:
        first_bad: _BadPicture | None = None
        bad = count = 0
        for path in self._files:
            file = path.relative_to(self._folder).as_posix()
            try:
                image = _read_picture(path)
            except (OSError, ValueError, cv2.error) as error:
                is_ours = isinstance(error, OSError | _TooLarge)
                reason = describe(error) if is_ours else "damaged, or not a picture"
                first_bad = first_bad or _BadPicture(file, reason, error)
                bad += 1
                if len(self._files) > 1:  # else the error says it all
                    _log.warning("%s: %s", path, reason)
                continue
            if count == 0:
                self.info = self._describe(image)
            yield _Shot(count / PICTURES_PER_S, image, file)
            count += 1
        if first_bad:
            which, reason, cause = first_bad
            if len(self._files) == 1:
                raise SourceError(f"{self._text} cannot be read: {reason}") from cause
            what = f"{bad} of {len(self._files)} pictures cannot be read, the first of them {which} ({reason})"
            raise SourceError(f"{self._text}: {what}") from cause

    def _describe(self, first: Image) -> SourceInfo:
        height, width = first.shape[:2]
        return SourceInfo(
            source_id=self._source_id,
            text=self._text,
            width=width,
            height=height,
            fps=float(PICTURES_PER_S),
            time_base=Fraction(1, PICTURES_PER_S),
            frame_count=len(self._files),
            is_live=False,
            pictures=tuple(str(path) for path in self._files),
        )


MAX_PIXELS = 200_000_000
"""Of one frame; 600 MB as BGR. A file of a few hundred bytes can claim a hundred times as many."""


class _TooLarge(ValueError):
    """A picture of too many pixels."""


def check_size(width: int, height: int) -> None:
    """Raise `ValueError` for a picture that is too large to be decoded."""
    if width * height > MAX_PIXELS:
        raise _TooLarge(f"{width} x {height} pixels are more than the {MAX_PIXELS:,} that are decoded")


def _read_picture(path: Path) -> Image:
    with contextlib.suppress(OSError, SyntaxError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged headers, and of PIL's own limit
        try:
            with PIL.Image.open(path) as picture:  # reads no more than the header
                size = picture.size
        except PIL.Image.DecompressionBombError as error:
            raise _TooLarge(f"{describe(error)}: more pixels than are decoded") from error
        check_size(*size)
    # imdecode and not imread, which cannot open every file name on every system.
    # OpenCV writes to stderr what is wrong with a picture; what matters of it is in our warnings. The level belongs to
    # the host program and is put back.
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if image is None:
        raise ValueError(f"OpenCV cannot decode {path}")
    return np.asarray(image, np.uint8)


CONTAINERS = (
    "3gp,apng,asf,av1,avi,dv,flv,gif,gxf,h261,h263,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mxf,nut,obu,"
    "ogg,rm,vc1,vvc,webm,wtv,yuv4mpegpipe,"
    "dhav,lmlm4,mxg,nsv,nuv,pva,ty,"
    "aac,aiff,flac,mp3,wav"
)
"""What FFmpeg may take a file for. Playlists, scripts and the like are missing on purpose: they make it open other
files and network addresses. The sound formats of the last line are there to be told that they hold no video."""
_DECLARES_DURATION = frozenset(["mov", "matroska", "avi", "flv"])
"""Containers whose header says how long they are; elsewhere FFmpeg guesses it from what is there."""

_HAS_CLOCK = frozenset(["mpegts", "mpeg", "dhav", "asf"])
"""Containers whose times are those of a clock that ran before the recording began."""

_UNSPECIFIED_MATRIX = 2
_KNOWN_MATRICES = frozenset([0, 1, _UNSPECIFIED_MATRIX, 4, 5, 6, 7, 9])
"""FFmpeg's numbers (AVColorSpace) of the matrices that its converter knows (swscale 9.5). It refuses pictures that name
another, some of them by mistake; they are read as those that name none, with BT.601."""


def upright_bgr(frame: VideoFrame, to_bgr: VideoReformatter, text: str) -> Image:
    """Return a decoded frame of the source `text` as BGR, contiguous, turned as its display matrix says.

    `to_bgr` is one for all frames: `VideoFrame.to_ndarray(format=...)` makes a new one each time, which takes longer
    than decoding the frame. Raises `SourceError`.
    """
    try:
        check_size(frame.width, frame.height)
    except ValueError as error:
        raise SourceError(f"{text}: {describe(error)}") from error
    if frame.colorspace not in _KNOWN_MATRICES:
        frame.colorspace = _UNSPECIFIED_MATRIX
    try:
        bgr = to_bgr.reformat(frame, format="bgr24").to_ndarray()
    except av.FFmpegError as error:
        what = f"holds pictures ({frame.format.name}) that cannot be converted to BGR: {ffmpeg_reason(error)}"
        raise SourceError(f"{text} {what}") from error
    upright: npt.NDArray[Any] = bgr
    orientation = _orientation(frame)
    if orientation.is_transposed:
        upright = cv2.transpose(upright)
    if orientation.flip is not None:
        upright = cv2.flip(upright, orientation.flip)
    return np.ascontiguousarray(upright, np.uint8)


def shrinking(frame: VideoFrame) -> Shrink | None:
    """Return what shrinks a frame that `upright_bgr` has seen, from its own pixels; None if they are not upright, or
    RGB.

    Before the conversion to BGR there are half as many of them: 1280x720 to 398x224 takes 0.9 ms, and 2.5 by OpenCV.
    """
    if frame.format.is_rgb or _orientation(frame) != _UPRIGHT:
        return None

    def shrink(height: int, width: int) -> Image:
        shrunk = _of_thread.reformatter.reformat(frame, width, height, "bgr24", interpolation=_AREA, threads=1)
        return cast(Image, shrunk.to_ndarray())

    return shrink


_AREA = Interpolation.AREA | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND
"""With the flags that keep the colour of a pixel to itself."""


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.reformatter = VideoReformatter()  # with its tables for the sizes that it was last given


_of_thread = _OfThread()


class _Orientation(NamedTuple):
    """How a stored picture becomes upright: rows and columns change places first, if they do."""

    is_transposed: bool
    flip: int | None
    """As `cv2.flip` names it: 1 left to right, 0 upside down, -1 both."""


_UPRIGHT = _Orientation(False, None)


def _orientation(frame: VideoFrame) -> _Orientation:
    # Not `VideoFrame.rotation`, which cannot tell a mirror image from half a turn. A stored point (x, y) is shown at
    # (a x + c y, b x + d y), see libavutil/display.h; other angles go to the nearest quarter.
    try:
        # Not `frame.side_data`: the frame would hold what holds it, and its pixels stay until the garbage collector
        # comes, hundreds of frames later (PyAV 18.1, whose stubs do not know the constructor).
        matrix = SideDataContainer(frame)[SideDataType.DISPLAYMATRIX]  # type: ignore[call-arg]
    except KeyError:
        return _UPRIGHT
    a, b, _, c, d = np.frombuffer(memoryview(matrix), np.int32, 5).tolist()
    is_transposed = abs(b) + abs(c) > abs(a) + abs(d)
    across, down = (c, b) if is_transposed else (a, d)
    flip = {(True, False): 1, (False, True): 0, (True, True): -1}.get((across < 0, down < 0))
    return _Orientation(is_transposed, flip)


def pixel_aspect(frame: VideoFrame, stored: Fraction | None) -> Fraction:
    """Return the width of a pixel over its height in the picture that `upright_bgr` makes of `frame`, whose stream says
    `stored`.
    """
    aspect = stored or Fraction(1)
    return 1 / aspect if _orientation(frame).is_transposed else aspect


def open_recording(path: str) -> InputContainer:
    """Return the video file at `path`, opened such that it can make FFmpeg read no other file and no network.

    Raises `av.FFmpegError`.
    """
    # "file:" keeps FFmpeg from taking a name with a colon for an address.
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    return av.open(f"file:{path}", "r", options=options, metadata_errors="replace")


def video_stream(container: InputContainer) -> VideoStream | None:
    """Return the stream that holds the pictures; None when there is none."""
    # The cover picture of a sound file is a video stream to FFmpeg.
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    decodable = [s for s in videos if s.codec_context is not None] or videos
    return max(decodable, key=_rank, default=None)


def _rank(stream: VideoStream) -> tuple[bool, int, int]:
    """Return what makes a stream the one to read: the container's default first, then its size, then its place."""
    context = stream.codec_context
    pixels = 0 if context is None else context.width * context.height
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


class VideoFile(_Recorded):
    """A video file, by FFmpeg: its own times, upright, every frame that can be decoded without an error."""

    def __init__(self, path: Path | None, text: str, source_id: str) -> None:
        """Open `path`; None for a subclass that reads from elsewhere and can read only once."""
        self._path = path
        self._text = text
        self._source_id = source_id
        super().__init__()

    def _read(self) -> Generator[_Shot]:
        to_bgr = VideoReformatter()
        pts_s: float | None = None
        with self._opened() as (container, stream):
            decoding = _Decoding(container, stream, "AUTO")
            time_base = stream.time_base or Fraction(1, av.time_base)
            rate = stream.average_rate or stream.guessed_rate
            clock = _Clock(time_base, rate)
            declared_end_s = _declared_end_s(container)
            start = round(late_start_s(container) / time_base)
            for frame in chain(decoding.frames(), self._tail(decoding)):
                image = upright_bgr(frame, to_bgr, self._text)
                if pts_s is None:
                    self.info = self._describe(container, stream, image, time_base, rate)
                ticks = clock.tick(None if frame.pts is None else frame.pts - start)
                pts_s = ticks * time_base.numerator / time_base.denominator
                aspect = pixel_aspect(frame, stream.sample_aspect_ratio)
                yield _Shot(pts_s, image, pixel_aspect=aspect, shrink=shrinking(frame))
        fault = decoding.fault
        if pts_s is None:
            reason = fault.reason if fault else "the file ends before the first one"
            what = f"has no picture that can be decoded ({reason})"
            raise SourceError(f"{self._text} {what}") from fault and fault.cause
        if declared_end_s is not None and decoding.reached_s < declared_end_s - max(1.0, 0.01 * declared_end_s):
            what = f"ends at {decoding.reached_s:.1f} s of {declared_end_s:.1f} s: the file is cut off"
            raise SourceError(f"{self._text} {what}") from fault and fault.cause
        if fault:
            what = f"is damaged near {fault.at_s:.1f} s ({fault.reason}); every picture that could be decoded was read"
            raise SourceError(f"{self._text} {what}") from fault.cause

    def _open(self) -> InputContainer:
        return open_recording(str(self._path))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        try:
            container = self._open()
        except av.ArgumentError as error:
            reason = "of a kind that is not read as a video (playlists and scripts that name other files are refused)"
            raise SourceError(f"{self._text} is {reason}") from error
        except (av.InvalidDataError, av.EOFError) as error:
            raise SourceError(f"{self._text} is not a video, or lacks its beginning or index") from error
        except av.FFmpegError as error:
            raise SourceError(f"{self._text} cannot be opened: {ffmpeg_reason(error)}") from error
        with container:
            stream = video_stream(container)
            if stream is None:
                raise SourceError(f"{self._text} has no video stream")
            if stream.codec_context is None:
                raise SourceError(f"{self._text}: this FFmpeg has no decoder for its video; convert it to H.264 first")
            yield container, stream

    def _tail(self, decoding: _Decoding) -> Iterator[VideoFrame]:
        """Decode again, on one thread, what lies behind the last frame of `decoding` where frames are missing there.

        Frame threads hold the last frames back until the decoder is flushed, and PyAV's flush (18.1) stops without a
        word at the first one that cannot be decoded; the good ones behind it would be lost. Some codecs have packets
        that show nothing: they cost a second look and bring no frame twice.
        """
        after = decoding.last_pts
        if self._path is None:
            return
        # Where frames carry no times nothing tells which of them are missing.
        if decoding.outstanding <= 0 or (decoding.good and after is None):
            return
        with self._opened() as (container, stream):
            if after is not None:
                # Without the seek it takes longer, no more.
                with contextlib.suppress(av.FFmpegError):
                    container.seek(after, stream=stream)
            again = _Decoding(container, stream, "NONE")
            for frame in again.frames():
                if after is None or (frame.pts is not None and frame.pts > after):
                    yield frame
            decoding.fault = decoding.fault or again.fault

    def _describe(
        self, container: InputContainer, stream: VideoStream, first: Image, time_base: Fraction, rate: Fraction | None
    ) -> SourceInfo:
        height, width = first.shape[:2]
        length = container.duration or 0
        if "matroska" in container.format.name:
            length -= max(0, container.start_time or 0)  # its duration counts from 0
        estimate = round(length * rate / av.time_base) if length > 0 and rate else None
        return SourceInfo(
            source_id=self._source_id,
            text=self._text,
            width=width,
            height=height,
            fps=float(rate) if rate else None,
            time_base=time_base,
            frame_count=stream.frames or estimate,
            is_live=False,
            path=None if self._path is None else str(self._path),
            has_sound=len(container.streams.audio) > 0,
        )


class _Fault(NamedTuple):
    at_s: float
    reason: str
    cause: Exception | None = None


class _Decoding:
    """One pass of a decoder over a file's packets: its good frames, and what was wrong with the others."""

    def __init__(self, container: InputContainer, stream: VideoStream, thread_type: str) -> None:
        self._container = container
        self._stream = stream
        self._context = stream.codec_context
        # AUTO or NONE: with SLICE alone FFmpeg's H.264 decoder (8.1) does not mark the pictures that it patched up.
        self._context.thread_type = thread_type
        # MPEG-TS flags packets that are whole wherever its counters jump, as between joined recordings.
        self._flags_are_exact = container.format.name != "mpegts"
        self.fault: _Fault | None = None
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
            for packet in packets_of(self._container):
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
        yield from self._decode(None)

    def _decode(self, packet: Packet[Any] | None) -> Iterator[VideoFrame]:
        try:
            frames = self._context.decode(packet)
        except av.FFmpegError as error:
            self.outstanding -= packet is not None
            self._note(ffmpeg_reason(error), error)
            return
        self.outstanding -= len(frames)
        for frame in frames:
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
            self.fault = _Fault(float((self.last_pts or 0) * time_base), reason, cause)


class _Clock:
    """Makes strictly increasing times out of those a file gives, in whole ticks; good ones stay as they are."""

    def __init__(self, time_base: Fraction, rate: Fraction | None) -> None:
        self._step = max(1, round(1 / (rate or PICTURES_PER_S) / time_base))
        self._jump = max(1, round(1 / time_base))  # a second
        self._offset = 0
        self._last: int | None = None

    def tick(self, pts: int | None) -> int:
        """Return the time of the next frame, whose file says `pts`."""
        if self._last is None:
            self._last = pts or 0
        elif pts is None:
            self._last += self._step
        elif pts > self._last:
            self._offset = 0
            self._last = pts
        elif self._last - (pts + self._offset) > self._jump:
            # The file's clock started anew, as in joined recordings: go on from here.
            self._offset = self._last + self._step - pts
            self._last += self._step
        else:
            # A repeated or swapped time: the least shift that keeps the order.
            self._last = max(self._last + 1, pts + self._offset)
        return self._last


def ffmpeg_reason(error: av.FFmpegError) -> str:
    """Return FFmpeg's own words, without the number and the file name around them."""
    return error.strerror or type(error).__name__


def _declared_end_s(container: InputContainer) -> float | None:
    """Return the time before which a whole file cannot end; None where its header does not say."""
    if container.duration is None or _DECLARES_DURATION.isdisjoint(container.format.name.split(",")):
        return None
    # Matroska's duration counts from 0, that of the others from the first frame: the earlier end is the safe one.
    return container.duration / av.time_base
