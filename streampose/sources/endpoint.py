"""Maps the user's camera or address to the URL, format and options that FFmpeg opens."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field

import av

from streampose.addresses import for_ffmpeg, host_of, redact_address
from streampose.errors import SourceError, UsageError
from streampose.sources.decode import CONTAINERS, STEPS_BACK_STAY
from streampose.sources.source import file_safe

_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "srt")
KINDS = "a camera (0, /dev/video2), rtsp(s)://, rtmp(s)://, http(s)://, udp://, or - for a container on standard input"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An input as FFmpeg opens it."""

    url: str = field(repr=False)
    """The address with credentials, in FFmpeg's form."""
    text: str
    """The address as the user wrote it, with credentials redacted."""
    source_id: str
    format: str | None = None
    """FFmpeg's format name; None detects the format."""
    options: dict[str, str] = field(default_factory=dict)
    is_camera: bool = False
    may_be_recorded: bool = False
    """Whether the address may hold a recording: a connection that declares a length and really ends there."""
    may_begin_with_sound: bool = False
    """Whether a server may send only sound for a while before the first frame."""
    read_timeout_s: float = 5.0
    """A connection that delivers no data for this long is lost."""


def address(text: str, rtsp_transport: str) -> Endpoint:
    """Return the endpoint of a network address.

    Supported schemes: `rtsp`, `rtsps`, `rtmp`, `rtmps`, `http`, `https`, `udp`, and `srt` if FFmpeg supports it. User
    names and passwords are written without escapes, except that a `%` before two hexadecimal digits is written `%25`.
    An `@` in the query is written `%40`.

    Args:
        text: the address.
        rtsp_transport: `tcp` or `udp`. UDP loses packets and never waits for them.

    Raises:
        UsageError: the address is invalid.
    """
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    shown = redact_address(f"{scheme}://{rest}")
    if scheme not in _SCHEMES:
        raise UsageError(f"{shown} cannot be read: give {KINDS}")
    try:
        host_of(rest)
    except ValueError as error:
        raise UsageError(f"{shown} {error}") from error
    url = for_ffmpeg(scheme, rest)
    # Use the redacted text: a password that `split_userinfo` did not recognize must not leak into the name.
    source_id = file_safe(re.split(r"[?#]", shown.removeprefix(f"{scheme}://").removeprefix("***@"))[0])
    # By default FFmpeg probes 5 s of a stream first. With `fflags=nobuffer` it would discard the probed data, including
    # the first keyframe. Without that flag the data is decoded at once and does not delay later frames.
    quick = {"analyzeduration": "100000"}
    match scheme:
        case "rtsp" | "rtsps":
            only = {"protocol_whitelist": "rtsp,rtsps,rtp,udp,tcp,tls,crypto", "allowed_media_types": "video"}
            return Endpoint(url, shown, source_id, "rtsp", quick | only | {"rtsp_transport": rtsp_transport})
        case "rtmp" | "rtmps":
            only = {"protocol_whitelist": "rtmp,rtmps,tcp,tls,crypto", "probesize": "4096"}
            return Endpoint(url, shown, source_id, "flv", quick | only, may_begin_with_sound=True)
        case "udp" | "srt":
            return Endpoint(url, shown, source_id, "mpegts", quick | {"protocol_whitelist": scheme})
    options = {
        # "file" is excluded, because a playlist names further addresses.
        "protocol_whitelist": "http,https,tcp,tls,crypto",
        "format_whitelist": f"{CONTAINERS},hls,mpjpeg",
        "live_start_index": "-1",  # start at the latest HLS segment, not the third last
        "analyzeduration": "500000",
        # Segments may have any name, with a token after it. `format_whitelist` checks their content instead.
        "extension_picky": "0",
        "allowed_extensions": "ALL",
        "allowed_segment_extensions": "ALL",
        # Continue a recording after the server closes the connection, for example while inference delays reading.
        "reconnect": "1",
        # Otherwise FFmpeg (8.1) asks for the first frame of an MP4 file whose index is at its end on a connection that
        # the server closes, and drops this frame without an error.
        "multiple_requests": "1",
    } | STEPS_BACK_STAY
    # A read may have to wait for a complete HLS segment.
    return Endpoint(url, shown, source_id, None, options, may_be_recorded=True, read_timeout_s=15.0)


def camera(text: str, size: str | None, fps: float | None, input_format: str | None) -> Endpoint:
    """Return the endpoint of a camera (`0`, `/dev/video2`).

    Args:
        text: camera number or device path.
        size: frame size, for example `1280x720`; None uses the camera's default.
        fps: frames per second; None uses the camera's default.
        input_format: pixel or codec format by FFmpeg's name (`mjpeg`, `yuyv422`); None uses the camera's default.

    Raises:
        UsageError: a value is invalid.
        SourceError: the camera does not exist.
    """
    options: dict[str, str] = {}
    if size is not None:
        options["video_size"] = size
    if fps is not None:
        options["framerate"] = f"{fps:g}"
    number = text.removeprefix("/dev/video")
    source_id = f"camera{number}"
    if sys.platform == "darwin":
        # AVFoundation has no default rate, and few cameras support FFmpeg's default of 29.97.
        options = {"framerate": "30"} | options | ({"pixel_format": input_format} if input_format else {})
        return Endpoint(f"{number}:none", text, source_id, "avfoundation", options, is_camera=True)
    if sys.platform == "win32":
        options |= {"vcodec": input_format} if input_format else {}
        return Endpoint(f"video={_directshow_name(number)}", text, source_id, "dshow", options, is_camera=True)
    options |= {"input_format": input_format} if input_format else {}
    return Endpoint(f"/dev/video{number}", text, source_id, "v4l2", options, is_camera=True)


def _directshow_name(number: str) -> str:
    cameras = [device for device in av.enumerate_input_devices("dshow") if "video" in device.media_types]
    if int(number) >= len(cameras):
        raise SourceError(f"camera {number} does not exist: {len(cameras)} found")
    return cameras[int(number)].name
