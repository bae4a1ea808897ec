"""Live sources: cameras and network streams, kept up over disconnects, by FFmpeg.

Knows what each kind needs to be opened quickly and safely, and how the times of a connection become the source's. Any
end, error or silence of a live source is a disconnect, and it is connected again. Its frames are as new as they can be
had: what has waited somewhere for too long is skipped.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import cv2  # noqa: F401 - before av, else windows hang: see sinks/window.py

# isort: split
import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from streampose.addresses import for_ffmpeg, redact, redact_address, split_userinfo
from streampose.channel import Channel, Closed, Empty, Finished
from streampose.errors import SourceError, UsageError, describe
from streampose.frames import Frame, SourceInfo
from streampose.inputs import check_name
from streampose.meter import Drop
from streampose.sources.outage import Outage
from streampose.sources.recorded import (
    CONTAINERS,
    PICTURES_PER_S,
    VideoFile,
    ffmpeg_reason,
    packets_of,
    pixel_aspect,
    shrinking,
    upright_bgr,
    video_stream,
)
from streampose.sources.source import Source, file_safe

_log = logging.getLogger("streampose")

TICKS_PER_S = 90_000
"""A live source's times are in these ticks, RTP's and MPEG's own."""

_POLL_S = 0.05
"""Between two looks at whether a source that waits is still wanted."""
_PACKETS = 64
"""Read ahead of the decoder, which takes them at once; a few seconds of a paced source."""
_WITHOUT_CLOCK = frozenset(["mpjpeg", "mjpeg"])
"""Streams of pictures without times, which FFmpeg takes for 25 a second: each has the time at which it comes."""
_GRACE_S = 0.5
_CAMERA_POLL_S = 0.002
_PICTURE_WITHIN_S = 20.0
"""Some cameras send a keyframe only every ten seconds; a stream without a picture for longer cannot be decoded."""

_FORGET_S_PER_S = 1e-3
"""The least delay seen is forgotten at this rate, faster than clocks drift apart (1e-4) and too slow for a backlog."""
_SETTLE_S = 1.0
_CATCHES_UP_S_PER_S = 0.1
"""Late frames that in `_SETTLE_S` have not caught up at this rate never will: the stream's clock lost time."""
_STEP_BACK_S, _STEP_AHEAD_S = 1.0, 10.0
"""A stream whose time jumps back, or ahead of the wall clock, by more has a new clock."""


_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "srt")
_PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443, "http": 80, "https": 443}
_PROBE_S = 1.0
_KINDS = "a camera (0, /dev/video2), rtsp(s)://, rtmp(s)://, http(s)://, udp://, or - for a container on standard input"


def open_live(
    text: str,
    *,
    name: str | None = None,
    give_up_after_s: float | None = 0.0,
    freshness_s: float = 0.5,
    rtsp_transport: str = "tcp",
    size: str | None = None,
    fps: float | None = None,
    input_format: str | None = None,
    open_timeout_s: float = 5.0,
    read_timeout_s: float | None = None,
) -> Source:
    """Return the source that `text` names; only standard input is opened before its frames are asked for.

    A recording behind http(s), which says how long it is, and HLS, which comes in pieces of seconds, are played at
    their own pace. A recording ends with its last picture; everything else is live and ends only when interrupted.
    Standard input is read like a file, as fast as its frames are taken, every one of them.

    Args:
        text: a camera (`0`, `/dev/video2`), an address (`rtsp`, `rtsps`, `rtmp`, `rtmps`, `http`, `https`, `udp`, and
            `srt` where FFmpeg has it), or `-`. A user name and password in an address may be written plainly, but for a
            `%` before two hexadecimal digits, which is `%25`; an `@` in the query of an address is `%40`.
        name: the `source_id` of its frames; made from `text` where it is not given.
        give_up_after_s: fail when the source is not there for so long, from the beginning or later. 0 fails when the
            first attempt does, and tries for ever to get back what once was there; None always tries for ever.
        freshness_s: frames that come later than the freshest did, by more than this, are skipped.
        rtsp_transport: `tcp`, or `udp`, which loses packets and never waits for them.
        size: of a camera's picture, as `1280x720`; None leaves it to the camera.
        fps: of a camera; None leaves it to the camera.
        input_format: pixel or codec format of a camera, by FFmpeg's name (`mjpeg`, `yuyv422`); None leaves it to it.
        open_timeout_s: how long an attempt to connect may take.
        read_timeout_s: a connection on which nothing comes for so long is given up; None means 5 s, and 15 s for
            http(s), where a whole piece of HLS is waited for.

    Raises:
        UsageError: a value that cannot be right.
        SourceError: standard input is no video. From a live source's `frames` when it is given up.
    """
    check_name(name)
    if give_up_after_s is not None and not 0 <= give_up_after_s < float("inf"):
        raise UsageError(f"give up after {give_up_after_s} s: give a number of seconds from 0 on")
    if not 0 < freshness_s < float("inf"):
        raise UsageError(f"freshness {freshness_s} s: give a number of seconds above 0")
    if text == "-":
        return _Pipe(name or "stdin")
    way = _camera(text, size, fps, input_format) if "://" not in text else _address(text, rtsp_transport)
    if "://" in text and (size, fps, input_format) != (None, None, None):
        raise UsageError(f"{way.text}: size, rate and format are asked of cameras; a stream has its own")
    return LiveSource(
        way,
        name or way.source_id,
        give_up_after_s=give_up_after_s,
        freshness_s=freshness_s,
        open_timeout_s=open_timeout_s,
        read_timeout_s=read_timeout_s if read_timeout_s is not None else 15.0 if way.may_be_recorded else 5.0,
    )


@dataclass(frozen=True, slots=True)
class Way:
    """What FFmpeg is told to open."""

    url: str = field(repr=False)
    """With the credentials, as FFmpeg wants them."""
    text: str
    """As the user wrote it, without them."""
    source_id: str
    format: str | None = None
    """FFmpeg's name; None lets it find out."""
    options: dict[str, str] = field(default_factory=dict)
    is_camera: bool = False
    may_be_recorded: bool = False
    """Whether a connection that says how long it is comes to a real end."""


def _address(text: str, rtsp_transport: str) -> Way:
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    shown = redact_address(f"{scheme}://{rest}")
    if scheme not in _SCHEMES:
        raise UsageError(f"{shown} cannot be read: give {_KINDS}")
    if rtsp_transport not in ("tcp", "udp"):
        raise UsageError(f"{rtsp_transport!r} is no transport of RTSP: give tcp or udp")
    host = re.split(r"[/?]", split_userinfo(rest)[1])[0]
    if not host:
        raise UsageError(f"{shown} names no host")
    url = for_ffmpeg(scheme, rest)
    # Of what is shown: a password that `split_userinfo` did not recognize must not leak into a name.
    source_id = file_safe(re.split(r"[?#]", shown.removeprefix(f"{scheme}://").removeprefix("***@"))[0])
    # FFmpeg would look at 5 s of a stream first. With `fflags=nobuffer` it would throw that away, the first keyframe
    # included; kept, it is decoded at once and does not delay what follows.
    quick = {"analyzeduration": "100000"}
    match scheme:
        case "rtsp" | "rtsps":
            only = {"protocol_whitelist": "rtsp,rtsps,rtp,udp,tcp,tls,crypto", "allowed_media_types": "video"}
            return Way(url, shown, source_id, "rtsp", quick | only | {"rtsp_transport": rtsp_transport})
        case "rtmp" | "rtmps":
            only = {"protocol_whitelist": "rtmp,rtmps,tcp,tls,crypto", "probesize": "4096"}
            return Way(url, shown, source_id, "flv", quick | only)
        case "udp" | "srt":
            return Way(url, shown, source_id, "mpegts", quick | {"protocol_whitelist": scheme})
    options = {
        # No "file": a playlist names further addresses.
        "protocol_whitelist": "http,https,tcp,tls,crypto",
        "format_whitelist": f"{CONTAINERS},hls,mpjpeg",
        "live_start_index": "-1",  # the latest piece of HLS, not the third last
        "analyzeduration": "500000",
    }
    return Way(url, shown, source_id, None, options, may_be_recorded=True)


def _camera(text: str, size: str | None, fps: float | None, input_format: str | None) -> Way:
    if size is not None and not re.fullmatch(r"[1-9][0-9]{0,4}x[1-9][0-9]{0,4}", size):
        raise UsageError(f"{size!r} is no size of a picture: give width and height, as 1280x720")
    if fps is not None and not 0 < fps < 10_000:
        raise UsageError(f"{fps} is no rate: give frames a second")
    options: dict[str, str] = {}
    if size is not None:
        options["video_size"] = size
    if fps is not None:
        options["framerate"] = f"{fps:g}"
    number = text.removeprefix("/dev/video")
    source_id = f"camera{number}"
    if sys.platform == "darwin":
        # AVFoundation has no rate of its own choosing: FFmpeg's 29.97 suits hardly any camera.
        options = {"framerate": "30"} | options | ({"pixel_format": input_format} if input_format else {})
        return Way(f"{number}:none", text, source_id, "avfoundation", options, is_camera=True)
    if sys.platform == "win32":
        options |= {"vcodec": input_format} if input_format else {}
        return Way(f"video={_directshow_name(number)}", text, source_id, "dshow", options, is_camera=True)
    options |= {"input_format": input_format} if input_format else {}
    return Way(f"/dev/video{number}", text, source_id, "v4l2", options, is_camera=True)


def _directshow_name(number: str) -> str:
    cameras = [device for device in av.enumerate_input_devices("dshow") if "video" in device.media_types]
    if int(number) >= len(cameras):
        raise SourceError(f"there is no camera {number}: {len(cameras)} found")
    return cameras[int(number)].name


class _Lost(Exception):
    """The source is not there, for the reason that the text gives, without its name.

    Neither it nor its cause is kept with a traceback, nor is what it was raised beside: the frames there would hold on
    to FFmpeg's decoder with its threads and pictures.
    """

    def __init__(self, reason: str, cause: Exception | None = None) -> None:
        super().__init__(reason)
        self.__cause__ = None if cause is None else cause.with_traceback(None)


class LiveSource(Source):
    """A camera or stream that is connected when its frames are asked for, and again whenever it is lost.

    `meter.captured` counts every decoded frame, so captured = yielded + dropped as stale.
    """

    def __init__(
        self,
        way: Way,
        source_id: str,
        *,
        give_up_after_s: float | None,
        freshness_s: float,
        open_timeout_s: float,
        read_timeout_s: float,
    ) -> None:
        """Take the values of `open_live`; connect to nothing."""
        super().__init__()
        self.info = SourceInfo(source_id, way.text, 0, 0, None, Fraction(1, TICKS_PER_S), None, is_live=True)
        self._way = way
        self._outage = Outage(give_up_after_s, time.monotonic())
        self._freshness_s = freshness_s
        self._open_timeout_s = open_timeout_s
        self._read_timeout_s = read_timeout_s
        self._timing = Timing(freshness_s)
        self._index = 0
        self._stop = threading.Event()
        self._run = self._connections()

    def frames(self) -> Iterator[Frame]:
        """Connect, and yield frames until interrupted or given up; one thread at a time.

        Raises:
            SourceError: when it is given up (see `open_live`), with the last reason.
            UsageError: this FFmpeg does not know such addresses.
        """
        yield from self._run

    def interrupt(self) -> None:
        """Let `frames` end within a second, whatever the network does; for good."""
        self._stop.set()

    def close(self) -> None:
        """Disconnect. What an attempt to connect still holds is given back within the time that it may take."""
        self.interrupt()
        self._run.close()

    def _connections(self) -> Generator[Frame]:
        self._outage = Outage(self._outage.give_up_after_s, time.monotonic())
        try:
            while not self._stop.is_set():
                patience_s = self._outage.patience_s(self._open_timeout_s, time.monotonic())
                connection = _Connection(self._way, patience_s, self._read_timeout_s, self.info.source_id)
                try:
                    yield from self._play(connection)
                    return
                except _Lost as lost:
                    reason = lost.with_traceback(None)
                    reason.__context__ = None
                finally:
                    connection.release()
                self._wait_after(reason)
        finally:
            self.meter.state = "ended"

    def _wait_after(self, lost: _Lost) -> None:
        now_s = time.monotonic()
        is_new = self._outage.lost(now_s)
        delay_s = self._outage.delay_s(now_s)
        if delay_s is None:
            was_there = f" for {self._outage.give_up_after_s:g} s" if self._outage.give_up_after_s else ""
            raise SourceError(f"{self._way.text} is not there{was_there}: {lost}") from lost.__cause__
        if is_new:
            what = "is lost: %s; connecting again" if self._outage.was_live else "is not there: %s; trying until it is"
            _log.warning(f"%s {what}", self.info.source_id, str(lost))  # a handler may keep what it is given
        self.meter.state = f"reconnecting: {lost}" if self._outage.was_live else f"opening: {lost}"
        self._stop.wait(delay_s)

    def _play(self, connection: _Connection) -> Iterator[Frame]:
        """Yield the frames of one connection; return when interrupted and at a real end, else raise `_Lost`."""
        container = connection.container(self._stop)
        if container is None:
            return
        stream = video_stream(container)
        if stream is None:
            raise _Lost("it has no video stream")
        if stream.codec_context is None:
            raise _Lost("this FFmpeg has no decoder for its video; let it send H.264")
        # Frame threads hold a frame back for each thread; slices are decoded in parallel without.
        stream.codec_context.thread_type = "SLICE"
        ends_at_s = container.duration / av.time_base if self._way.may_be_recorded and container.duration else None
        is_paced = ends_at_s is not None or container.format.name == "hls"
        rate = stream.average_rate or stream.guessed_rate
        self._timing.connected(stream.time_base or Fraction(1, TICKS_PER_S), rate, is_paced=is_paced)
        has_clock = container.format.name not in _WITHOUT_CLOCK
        to_bgr = VideoReformatter()
        is_first = True
        for frame in self._decoded(connection, stream, ends=ends_at_s is not None):
            pts_s, behind_s = self._timing.place(frame.pts if has_clock else None, time.monotonic())
            if behind_s < 0 and is_paced and self._stop.wait(-behind_s):
                return
            self.meter.captured()
            if is_first:
                is_first = False
                self._went_live(stream, frame)
            if behind_s > self._freshness_s:
                self.meter.dropped(Drop.STALE)
                continue
            image = upright_bgr(frame, to_bgr, self._way.text)
            if image.shape[:2] != (self.info.height, self.info.width):
                self.info = replace(self.info, height=image.shape[0], width=image.shape[1])
            index, self._index = self._index, self._index + 1
            # The codec's own first: a server may go on with another publisher's pictures.
            aspect = pixel_aspect(frame, stream.codec_context.sample_aspect_ratio or stream.sample_aspect_ratio)
            yield Frame(
                self.info.source_id,
                index,
                pts_s,
                time.monotonic(),
                image,
                pixel_aspect=aspect,
                shrink=shrinking(frame),
            )

    def _went_live(self, stream: VideoStream, frame: VideoFrame) -> None:
        rate = stream.average_rate or stream.guessed_rate
        self.info = replace(
            self.info,
            width=frame.width,
            height=frame.height,
            fps=float(rate) if rate else None,
            has_sound=len(stream.container.streams.audio) > 0,
        )
        if self._outage.was_live:
            self.meter.reconnected()
            _log.info("%s is back", self.info.source_id)
        self._outage.over(time.monotonic())
        self.meter.state = "live"

    def _decoded(self, connection: _Connection, stream: VideoStream, *, ends: bool) -> Iterator[VideoFrame]:
        """Yield decoded frames; return when interrupted, and at the end where it `ends`; else raise `_Lost`."""
        picture_s = time.monotonic()
        fault: av.FFmpegError | None = None
        for packet in connection.packets(self._stop):
            try:
                for frame in stream.codec_context.decode(packet):
                    yield frame
                    picture_s = time.monotonic()
            except av.FFmpegError as error:
                fault = error.with_traceback(None)
            if time.monotonic() - picture_s > _PICTURE_WITHIN_S:
                why = f" ({ffmpeg_reason(fault)})" if fault else ""
                raise _Lost(f"no picture could be decoded for {_PICTURE_WITHIN_S:.0f} s{why}", fault)
        if not self._stop.is_set():
            if not ends:
                raise _Lost("the stream ended")
            held_back: list[VideoFrame] = []
            with contextlib.suppress(av.FFmpegError):  # damaged at its end: what there was has been yielded
                held_back = stream.codec_context.decode(None)
            yield from held_back


class _Connection:
    """One connection, with a thread of its own for FFmpeg's calls, which nothing can wake before their time is over.

    The thread opens, reads and closes; who is not interested any more releases it and goes on.
    """

    def __init__(self, way: Way, open_timeout_s: float, read_timeout_s: float, source_id: str) -> None:
        self._way = way
        self._open_timeout_s = open_timeout_s
        self._read_timeout_s = read_timeout_s
        self._container: InputContainer | None = None
        self._packets: Channel[Packet[VideoStream]] = Channel(_PACKETS)
        self._opened = threading.Event()
        self._released = threading.Event()
        threading.Thread(target=self._run, name=f"streampose read {source_id}", daemon=True).start()

    def container(self, stop: threading.Event) -> InputContainer | None:
        """Return what was opened, for looking at, waiting for it; None when stopped. Raises `_Lost` or `UsageError`."""
        # FFmpeg's limit counts for each of two phases, and neither for a name server nor for a device driver.
        deadline_s = time.monotonic() + self._open_timeout_s + _GRACE_S
        while not self._opened.wait(_POLL_S):
            if stop.is_set():
                return None
            if time.monotonic() > deadline_s:
                raise self._no_answer()
        if self._container is None:
            self._packets.take()  # raises the error
        return self._container

    def packets(self, stop: threading.Event) -> Iterator[Packet[VideoStream]]:
        """Yield the packets of the pictures up to the end, or until stopped. Raises `_Lost`."""
        heard_s = time.monotonic()
        while not stop.is_set():
            try:
                packet = self._packets.take(_POLL_S)
            except Finished:
                return
            except Empty:
                if time.monotonic() - heard_s > self._read_timeout_s:
                    raise self._silence() from None
                continue
            yield packet
            heard_s = time.monotonic()

    def release(self) -> None:
        """Want no more, and look at the container no more: it is closed when FFmpeg's present call is over."""
        self._packets.close()
        self._released.set()

    def _run(self) -> None:
        try:
            container = self._open()
        except (_Lost, UsageError) as error:
            self._packets.finish(error.with_traceback(None))
            self._opened.set()
            return
        with container:
            self._container = container
            self._opened.set()
            try:
                self._read(container)
            except _Lost as lost:
                self._packets.finish(lost.with_traceback(None))
            self._packets.finish()
            self._released.wait()

    def _open(self) -> InputContainer:
        started_s = time.monotonic()
        try:
            container = av.open(
                self._way.url,
                "r",
                format=self._way.format,
                options=self._way.options,
                timeout=(self._open_timeout_s, self._read_timeout_s),
                metadata_errors="replace",
            )
            _read_one_variant(container)
            return container
        except av.ProtocolNotFoundError as error:
            raise UsageError(f"{self._way.text}: this FFmpeg cannot read such addresses; give {_KINDS}") from error
        except (av.FFmpegError, OSError, ValueError) as error:
            # A server that says nothing sends data that is not valid, to FFmpeg's RTSP.
            if time.monotonic() - started_s >= self._open_timeout_s:
                raise self._no_answer(error) from error
            raise _Lost(_why(error, self._way), error) from error

    def _read(self, container: InputContainer) -> None:
        stream = video_stream(container)
        while not self._released.is_set():
            try:
                # All streams: with one alone, PyAV would not come back while only the others send.
                for packet in packets_of(container):
                    if self._released.is_set():
                        return
                    # An empty one is PyAV's word for the end.
                    if packet.size and stream is not None and packet.stream_index == stream.index:
                        self._packets.put(cast("Packet[VideoStream]", packet))
            except Closed:
                return
            except av.BlockingIOError:  # a camera between two pictures
                self._released.wait(_CAMERA_POLL_S)
            except av.ExitError as error:
                raise self._silence(error) from error
            except av.FFmpegError as error:
                raise _Lost(f"the connection broke: {ffmpeg_reason(error)}", error) from error
            else:
                return

    def _no_answer(self, cause: Exception | None = None) -> _Lost:
        return _Lost(f"it did not answer within {self._open_timeout_s:.1f} s", cause)

    def _silence(self, cause: Exception | None = None) -> _Lost:
        return _Lost(f"nothing came for {self._read_timeout_s:g} s", cause)


def _read_one_variant(container: InputContainer) -> None:
    """Let HLS fetch the pieces of the variant that is read, the best one, and of no other."""
    chosen = video_stream(container)
    if container.format.name == "hls" and chosen is not None:
        for stream in container.streams:
            if stream.index != chosen.index:
                stream.discard = Discard.all


def _why(error: Exception, way: Way) -> str:
    """Return why a connection could not be made, in words that say what to do."""
    if way.is_camera:
        return _why_no_camera(error, way)
    match error:
        case av.HTTPUnauthorizedError():
            return "unauthorised: check the user name and the password"
        case av.HTTPForbiddenError():
            return "forbidden: this user may not see it"
        case av.HTTPNotFoundError():
            return "not found: the server is there, such a stream is not"
        case av.HTTPClientError():
            return "the server refuses to play it; it may have no video stream"
        case av.HTTPServerError():
            return "the server reports a failure of its own"
        case av.ExitError():
            return "timed out"
    # FFmpeg's RTSP and RTMP hide why they could not connect.
    unreachable = _why_unreachable(way)
    if unreachable is not None:
        return unreachable
    match error:
        case av.DecoderNotFoundError():
            return "this FFmpeg has no decoder for its video; let it send H.264"
        case av.ArgumentError() | av.InvalidDataError() | av.EOFError() if way.may_be_recorded:
            return "what comes from there is no video, or a playlist that leads elsewhere than to http(s)"
        case av.InvalidDataError() | av.EOFError():
            return "what comes from there is no video stream"
        case av.ArgumentError():
            return "what comes from there makes no sense, or leads to another kind of address"
        case OSError() if error.errno == errno.EIO:
            return "the server closed the connection: no such stream, or not for this user"
        case av.FFmpegError():
            return ffmpeg_reason(error)
    return redact(str(error))


def _why_unreachable(way: Way) -> str | None:
    """Return why nothing can be connected to there; None when something can, or there are no connections."""
    parts = urlsplit(way.url)
    if parts.scheme not in _PORTS:
        return None
    try:
        socket.create_connection((parts.hostname, parts.port or _PORTS[parts.scheme]), _PROBE_S).close()
    except (socket.gaierror, UnicodeError):
        return "no such host: check its name"
    except ConnectionRefusedError:
        return "refused: nothing listens there; check the host and the port"
    except TimeoutError:
        return "timed out"
    except ValueError:
        return "its port is no number up to 65535"
    except OSError as error:
        return f"no route: check the address and the network ({describe(error)})"
    return None


def _why_no_camera(error: Exception, way: Way) -> str:
    match error:
        case FileNotFoundError() | av.FileNotFoundError():
            there = ", ".join(sorted(str(path) for path in Path("/dev").glob("video[0-9]*")))
            return f"there is no such camera (there is {there or 'none'})"
        case PermissionError():
            return "no permission to use it: add the user to the group that owns it (usually video)"
        case OSError() if error.errno == errno.EBUSY:
            return "another program is using it"
        case OSError() if error.errno in (errno.ENOTTY, errno.ENODEV, errno.ENXIO):
            return "it is no camera"
        case OSError() | av.ArgumentError() if getattr(error, "errno", None) == errno.EINVAL:
            asked = way.options.keys() & {"video_size", "framerate", "input_format", "pixel_format", "vcodec"}
            return "it does not offer this size, rate or format" if asked else "it is no camera"
        case av.FFmpegError():
            return ffmpeg_reason(error)
    return str(error)


class Timing:
    """The times of a live source over all its connections, and how far a frame is behind the freshest ones.

    A connection starts at the monotonic time that has passed since the source's first frame and goes on by its own
    clock; times always grow. The least delay between a frame's time and its coming is that of a fresh one.
    """

    def __init__(self, freshness_s: float) -> None:
        self._freshness_s = freshness_s
        self._origin_s: float | None = None
        self._last_tick = -1
        self.connected(Fraction(1, TICKS_PER_S), None, is_paced=False)

    def connected(self, time_base: Fraction, rate: Fraction | None, *, is_paced: bool) -> None:
        """A new connection, whose times are in `time_base`, with about `rate` frames a second; a paced one may deliver
        frames before it is time for them.
        """
        self._time_base = time_base
        self._step_s = float(1 / rate) if rate else 1 / PICTURES_PER_S
        self._is_paced = is_paced
        self._offset_s: float | None = None
        self._stream_s = self._now_s = self._least_s = 0.0
        self._stale_since: tuple[float, float] | None = None

    def place(self, pts: int | None, now_s: float) -> tuple[float, float]:
        """Return the source's time of the frame that comes at `now_s` of `time.monotonic()`, and by how many seconds it
        is late; a paced one is early by as much as this is less than 0.
        """
        if self._origin_s is None:
            self._origin_s = now_s
        elapsed_s = now_s - self._origin_s
        if pts is not None:
            stream_s = float(pts * self._time_base)
        elif self._offset_s is not None:
            # FFmpeg's H.264 parser loses the next times when nothing came for a while.
            stream_s = self._stream_s + self._step_s
        else:
            # RTSP, before the server has said how its times begin.
            return self._tick(elapsed_s), 0.0
        if self._offset_s is None or self._is_new_clock(stream_s, now_s):
            self._offset_s = max(elapsed_s, (self._last_tick + 1) / TICKS_PER_S) - stream_s
            self._least_s = elapsed_s - stream_s - self._offset_s
            self._stale_since = None
            self._stream_s, self._now_s = stream_s, now_s
        time_s = stream_s + self._offset_s
        behind_s = self._behind(elapsed_s - time_s, stream_s, now_s)
        self._stream_s, self._now_s = stream_s, now_s
        return self._tick(time_s), behind_s

    def _tick(self, time_s: float) -> float:
        self._last_tick = max(self._last_tick + 1, round(time_s * TICKS_PER_S))
        return self._last_tick / TICKS_PER_S

    def _is_new_clock(self, stream_s: float, now_s: float) -> bool:
        step_s = stream_s - self._stream_s
        return step_s < -_STEP_BACK_S or step_s > now_s - self._now_s + _STEP_AHEAD_S

    def _behind(self, delay_s: float, stream_s: float, now_s: float) -> float:
        waited_s = now_s - self._now_s
        if not self._is_paced:
            self._least_s = min(self._least_s + waited_s * _FORGET_S_PER_S, delay_s)
        if delay_s - self._least_s <= self._freshness_s:
            self._stale_since = None
        elif self._stale_since is None or waited_s - (stream_s - self._stream_s) > self._freshness_s:
            self._stale_since = now_s, delay_s  # at a stall, the catching up has still to begin
        else:
            since_s, from_s = self._stale_since
            if now_s - since_s >= _SETTLE_S:
                if from_s - delay_s < _CATCHES_UP_S_PER_S * (now_s - since_s):
                    self._least_s = delay_s
                    self._stale_since = None
                else:
                    self._stale_since = now_s, delay_s
        return delay_s - self._least_s


class _Pipe(VideoFile):
    """A container on standard input, read once, as fast as it is taken."""

    def __init__(self, source_id: str) -> None:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("-: a container has to be piped into standard input")
        self._input = _Input(sys.stdin.fileno())
        try:
            super().__init__(None, "-", source_id)
        finally:
            if self._input.interrupted:
                raise KeyboardInterrupt

    def interrupt(self) -> None:
        self._input.stop.set()

    def _open(self) -> InputContainer:
        options = {"protocol_whitelist": "", "format_whitelist": CONTAINERS}
        return av.open(self._input, "r", options=options, metadata_errors="replace")


class _Input:
    """What PyAV reads of a file descriptor: waits for data only as long as it is wanted."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.stop = threading.Event()
        self.interrupted = False
        """By Ctrl-C: PyAV (18.1) ignores what is raised here, and reads on."""

    def read(self, size: int) -> bytes:
        try:
            while not self.stop.is_set():
                if select.select([self._descriptor], [], [], _POLL_S)[0]:
                    return os.read(self._descriptor, size)
        except KeyboardInterrupt:
            self.interrupted = True
            self.stop.set()
        return b""
