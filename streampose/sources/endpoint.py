"""What a camera or an address is to FFmpeg: the text that a user writes to the input, format and options to open."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field

import av

from streampose.addresses import for_ffmpeg, redact_address, split_userinfo
from streampose.errors import SourceError, UsageError
from streampose.sources.decode import CONTAINERS
from streampose.sources.source import file_safe

_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "srt")
KINDS = "a camera (0, /dev/video2), rtsp(s)://, rtmp(s)://, http(s)://, udp://, or - for a container on standard input"


@dataclass(frozen=True, slots=True)
class Endpoint:
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
    may_begin_with_sound: bool = False
    """Whether a server may send sound for a while before the first frame."""
    read_timeout_s: float = 5.0
    """A connection on which nothing comes for so long is lost."""


def address(text: str, rtsp_transport: str) -> Endpoint:
    """Return what an address (`rtsp`, `rtsps`, `rtmp`, `rtmps`, `http`, `https`, `udp`, `srt` where FFmpeg has it) is.

    A user name and password may be written plainly, but for a `%` before two hexadecimal digits, which is `%25`; an `@`
    in the query is `%40`.

    Args:
        text: the address.
        rtsp_transport: `tcp`, or `udp`, which loses packets and never waits for them.

    Raises:
        UsageError: an address that cannot be right.
    """
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    shown = redact_address(f"{scheme}://{rest}")
    if scheme not in _SCHEMES:
        raise UsageError(f"{shown} cannot be read: give {KINDS}")
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
            return Endpoint(url, shown, source_id, "rtsp", quick | only | {"rtsp_transport": rtsp_transport})
        case "rtmp" | "rtmps":
            only = {"protocol_whitelist": "rtmp,rtmps,tcp,tls,crypto", "probesize": "4096"}
            return Endpoint(url, shown, source_id, "flv", quick | only, may_begin_with_sound=True)
        case "udp" | "srt":
            return Endpoint(url, shown, source_id, "mpegts", quick | {"protocol_whitelist": scheme})
    options = {
        # No "file": a playlist names further addresses.
        "protocol_whitelist": "http,https,tcp,tls,crypto",
        "format_whitelist": f"{CONTAINERS},hls,mpjpeg",
        "live_start_index": "-1",  # the latest piece of HLS, not the third last
        "analyzeduration": "500000",
        # Pieces may have any name, with a token behind it: what they hold is checked, by `format_whitelist`.
        "extension_picky": "0",
        "allowed_extensions": "ALL",
        "allowed_segment_extensions": "ALL",
        # A recording whose server closes the connection, as while its frames wait for the networks, is read on.
        "reconnect": "1",
    }
    # A whole piece of HLS may be waited for.
    return Endpoint(url, shown, source_id, None, options, may_be_recorded=True, read_timeout_s=15.0)


def camera(text: str, size: str | None, fps: float | None, input_format: str | None) -> Endpoint:
    """Return what a camera (`0`, `/dev/video2`) is.

    Args:
        text: its number or device.
        size: of its picture, as `1280x720`; None leaves it to the camera.
        fps: None leaves it to the camera.
        input_format: pixel or codec format, by FFmpeg's name (`mjpeg`, `yuyv422`); None leaves it to the camera.

    Raises:
        UsageError: a value that cannot be right.
        SourceError: there is no such camera.
    """
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
        return Endpoint(f"{number}:none", text, source_id, "avfoundation", options, is_camera=True)
    if sys.platform == "win32":
        options |= {"vcodec": input_format} if input_format else {}
        return Endpoint(f"video={_directshow_name(number)}", text, source_id, "dshow", options, is_camera=True)
    options |= {"input_format": input_format} if input_format else {}
    return Endpoint(f"/dev/video{number}", text, source_id, "v4l2", options, is_camera=True)


def _directshow_name(number: str) -> str:
    cameras = [device for device in av.enumerate_input_devices("dshow") if "video" in device.media_types]
    if int(number) >= len(cameras):
        raise SourceError(f"there is no camera {number}: {len(cameras)} found")
    return cameras[int(number)].name
