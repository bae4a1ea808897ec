"""One connection to a camera or stream, read in its own thread. Explains why it failed or was lost."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2  # noqa: F401 - import before av, or windows hang: see sinks/display.py

# isort: split
import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard

from streampose.addresses import redact
from streampose.channel import Channel, Closed, Empty, Finished
from streampose.errors import UsageError, describe
from streampose.sources.convert import ffmpeg_reason
from streampose.sources.decode import Lost, packets_of, video_stream
from streampose.sources.endpoint import KINDS, Endpoint
from streampose.sources.source import Reading

_POLL_S = 0.05
"""Interval at which a waiting source checks whether it was stopped."""
_PACKETS = 64
"""Maximum packets buffered ahead of the decoder. The decoder takes packets at once unless the source is paced. For a
paced source this is a few seconds of video."""
_GRACE_S = 0.5
_SOUND_FIRST_S = 12.0
"""Some servers send a new player only sound until the next keyframe, and some send a keyframe only every 10 s."""
_LOOK_LONGER = {"analyzeduration": f"{_SOUND_FIRST_S * 1e6:.0f}", "probesize": "5000000", "fpsprobesize": "0"}
_CAMERA_POLL_S = 0.002
_PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443, "http": 80, "https": 443}
_PROBE_S = 1.0


class Connection:
    """One connection with its own thread for FFmpeg's calls, which cannot be interrupted before their timeout.

    The thread opens, reads and closes the container. A caller that loses interest calls `release()` and does not wait.
    """

    def __init__(
        self, endpoint: Endpoint, reading: Reading, open_timeout_s: float, read_timeout_s: float, source_id: str
    ) -> None:
        self._reading = reading
        self._endpoint = endpoint
        self._open_timeout_s = open_timeout_s
        self._read_timeout_s = read_timeout_s
        self._opening_since_s = time.monotonic()
        self._container: InputContainer | None = None
        self._packets: Channel[Packet[Any]] = Channel(_PACKETS)
        self._opened = threading.Event()
        self._released = threading.Event()
        threading.Thread(target=self._run, name=f"streampose read {source_id}", daemon=True).start()

    def container(self, stop: threading.Event) -> InputContainer | None:
        """Wait for the open container and return it for inspection; return None if stopped.

        Raises `Lost` or `UsageError`.
        """
        # FFmpeg applies its timeout to each of two phases separately, and not to name lookups or device drivers.
        while not self._opened.wait(_POLL_S):
            if stop.is_set():
                return None
            if time.monotonic() > self._opening_since_s + self._open_timeout_s + _GRACE_S:
                raise self._no_answer()
        if self._container is None:
            self._packets.take()  # raises the error
        return self._container

    def packets(self, stop: threading.Event) -> Iterator[Packet[Any]]:
        """Yield the packets of all streams until the end or until stopped. Raises `Lost`."""
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

    def skip_waiting(self) -> None:
        """Discard all buffered packets."""
        with contextlib.suppress(Empty, Finished, Lost):
            while True:
                self._packets.take(timeout_s=0)

    def release(self) -> None:
        """Give up the connection and stop using its container. The thread closes it after FFmpeg's current call."""
        self._packets.close()
        self._released.set()

    def _run(self) -> None:
        try:
            container = self._open()
        except (Lost, UsageError) as error:
            self._packets.finish(error.with_traceback(None))
            self._opened.set()
            return
        with container:
            self._container = container
            self._opened.set()
            try:
                self._read(container)
            except Lost as lost:
                self._packets.finish(lost.with_traceback(None))
            self._packets.finish()
            self._released.wait()

    def _open(self) -> InputContainer:
        container = self._attempt(self._endpoint.options)
        if self._endpoint.may_begin_with_sound and not container.streams.video:
            # Frames start at the next keyframe, so probe again for longer.
            container.close()
            self._open_timeout_s = max(self._open_timeout_s, _SOUND_FIRST_S)
            self._opening_since_s = time.monotonic()
            container = self._attempt(self._endpoint.options | _LOOK_LONGER)
        if container.format.name == "hls":
            _read_one_variant(container, self._reading)
        return container

    def _attempt(self, options: dict[str, str]) -> InputContainer:
        try:
            return av.open(
                self._endpoint.url,
                "r",
                format=self._endpoint.format,
                options=options,
                timeout=(self._open_timeout_s, self._read_timeout_s),
                metadata_errors="replace",
            )
        except av.ProtocolNotFoundError as error:
            raise UsageError(
                f"{self._endpoint.text}: this FFmpeg does not support this protocol; give {KINDS}"
            ) from error
        except (av.FFmpegError, OSError, ValueError) as error:
            # FFmpeg's RTSP demuxer reports a silent server as invalid data.
            if time.monotonic() - self._opening_since_s >= self._open_timeout_s:
                raise self._no_answer(error) from error
            raise Lost(_why(error, self._endpoint), error) from error

    def _read(self, container: InputContainer) -> None:
        while not self._released.is_set():
            try:
                # Read all streams: with only one selected, PyAV blocks while other streams send.
                for packet in packets_of(container):
                    if self._released.is_set():
                        return
                    if packet.size:  # PyAV marks the end with an empty packet
                        self._packets.put(packet)
            except Closed:
                return
            except av.BlockingIOError:  # the camera has no new frame yet
                self._released.wait(_CAMERA_POLL_S)
            except av.ExitError as error:
                raise self._silence(error) from error
            except av.FFmpegError as error:
                if error.errno == errno.EIO and container.size <= 0:
                    return  # FFmpeg (8.1) reports an error at the end of each HTTP response without a length
                raise Lost(f"the connection failed: {ffmpeg_reason(error)}", error) from error
            else:
                return

    def _no_answer(self, cause: Exception | None = None) -> Lost:
        return Lost(f"no answer within {self._open_timeout_s:.1f} s", cause)

    def _silence(self, cause: Exception | None = None) -> Lost:
        return Lost(f"no data received for {self._read_timeout_s:g} s", cause)


def _read_one_variant(container: InputContainer, reading: Reading) -> None:
    """Make HLS fetch only the segments of the selected variant. Raises `Lost`."""
    chosen = video_stream(container, reading)
    for stream in container.streams:
        if stream.index != chosen.index:
            stream.discard = Discard.all


def _why(error: Exception, endpoint: Endpoint) -> str:
    """Return why a connection failed and, where possible, what to do about it."""
    if endpoint.is_camera:
        return _why_no_camera(error, endpoint)
    match error:
        case av.HTTPUnauthorizedError():
            return "unauthorised: check the user name and the password"
        case av.HTTPForbiddenError():
            return "forbidden: this user has no access to the stream"
        case av.HTTPNotFoundError():
            return "not found: the server answers but has no such stream"
        case av.HTTPClientError():
            return "the server refuses the request; the stream may contain no video"
        case av.HTTPServerError():
            return "the server reports an internal error"
        case av.ExitError():
            return "timed out"
    # FFmpeg's RTSP and RTMP code hides why a connection failed.
    unreachable = _why_unreachable(endpoint)
    if unreachable is not None:
        return unreachable
    match error:
        case av.DecoderNotFoundError():
            return "this FFmpeg has no decoder for the video; configure the source to send H.264"
        case av.ArgumentError() | av.InvalidDataError() | av.EOFError() if endpoint.may_be_recorded:
            return "the response is not a video, or it is a playlist that refers to addresses other than http(s)"
        case av.InvalidDataError() | av.EOFError():
            return "the data received is not a video stream"
        case av.ArgumentError():
            return "the response is invalid or redirects to another kind of address"
        case OSError() if error.errno == errno.EIO:
            return "the server closed the connection: no such stream, or this user has no access to it"
        case av.FFmpegError():
            return ffmpeg_reason(error)
    return redact(str(error))


def _why_unreachable(endpoint: Endpoint) -> str | None:
    """Return why the host and port are unreachable; None if they are reachable or the protocol has no connections."""
    try:
        parts = urlsplit(endpoint.url)
        if parts.scheme not in _PORTS:
            return None
        socket.create_connection((parts.hostname, parts.port or _PORTS[parts.scheme]), _PROBE_S).close()
    except (socket.gaierror, UnicodeError):
        return "no such host: check the host name"
    except ConnectionRefusedError:
        return "refused: no server listens on this port; check the host and the port"
    except TimeoutError:
        return "timed out"
    except ValueError:
        return "invalid port (0 to 65535)"
    except OSError as error:
        return f"no route: check the address and the network ({describe(error)})"
    return None


def _why_no_camera(error: Exception, endpoint: Endpoint) -> str:
    match error:
        case FileNotFoundError() | av.FileNotFoundError():
            there = ", ".join(sorted(str(path) for path in Path("/dev").glob("video[0-9]*")))
            return f"no such camera (found: {there or 'none'})"
        case PermissionError():
            return "no permission to use it: add the user to the group that owns it (usually video)"
        case OSError() if error.errno == errno.EBUSY:
            return "another program is using it"
        case OSError() if error.errno in (errno.ENOTTY, errno.ENODEV, errno.ENXIO):
            return "it is not a camera"
        case OSError() | av.ArgumentError() if getattr(error, "errno", None) == errno.EINVAL:
            asked = endpoint.options.keys() & {"video_size", "framerate", "input_format", "pixel_format", "vcodec"}
            return "it does not offer this size, rate or format" if asked else "it is not a camera"
        case av.FFmpegError():
            return ffmpeg_reason(error)
    return str(error)
