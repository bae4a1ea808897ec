"""The child process of `publish.py`. It owns one network connection and nothing else.

PyAV holds the interpreter lock while it opens or closes a network output, and offers no timeout for these calls. In a
child process this is harmless: each network call runs under an alarm that ends the process, whatever FFmpeg waits for.

It runs as a script, so it loads PyAV but not the rest of the package. Standard input carries messages (see `HEADER`):
addresses to try (`START`) until one connects, then H.264 packets until the input ends. The input also ends if the
parent dies. Standard output carries one JSON line for each attempt and one for a lost connection.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import av
import av.logging
from av.container import OutputContainer
from av.video.stream import VideoStream

HEADER = struct.Struct("!cqI")
"""Message header: kind, timestamp in `TIME_BASE` (packets only), and number of bytes that follow."""
START, KEYFRAME, PACKET = b"S", b"K", b"P"
"""A `START` message holds JSON: `url`, `format`, `width`, `height`, `extradata` (hexadecimal)."""
TIME_BASE = Fraction(1, 1000)
"""The finest resolution of FLV."""

CONNECT_WITHIN_S = 6.0
"""Timeout of one connection attempt. FFmpeg limits the TCP connection to 5 s, but not the handshakes that follow."""
STALL_AFTER_S = 3.0
"""A server that accepts no data for this long is considered hung. Overloaded servers pause for less."""
UNSENT_BYTES = 128 * 1024
"""Size of the socket's send buffer (the system doubles it): 1 s of 720p. The default grows to megabytes: on a slow line
the viewer would then see frames half a minute old, and a hung server would go unnoticed for as long."""

_EXPLAINED = re.compile(r"Server error: .+|Failed to resolve hostname .+")
"""FFmpeg log lines that give the reason when its error is only "Input/output error". None contains the address."""

_OPTIONS = {"flv": {"flvflags": "no_duration_filesize"}, "rtsp": {"rtsp_transport": "tcp"}}


def main() -> None:
    """Process messages from standard input until it ends."""
    av.logging.set_level(av.logging.ERROR)
    messages = _messages(sys.stdin.buffer)
    output: _Output | None = None
    for kind, at, data in messages:
        if kind == START:
            output = _try(json.loads(data))
        elif output is not None and not _send(output, kind, at, data):
            return
    if output is not None:
        with contextlib.suppress(av.FFmpegError, OSError), _alarm(STALL_AFTER_S):
            output.container.close()


class _Output:
    """An open connection."""

    def __init__(self, url: str, format: str, width: int, height: int, extradata: str) -> None:
        self.container: OutputContainer = av.open(url, "w", format=format, options=_OPTIONS[format])
        # Without an encoder, a template is the only way to pass a stream's extradata to PyAV.
        template = av.open(io.BytesIO(bytes.fromhex(extradata)), format="h264")
        self.stream: VideoStream = self.container.add_stream_from_template(template.streams.video[0])
        self.stream.width, self.stream.height = width, height
        self.container.start_encoding()
        for connection in _sockets():
            with connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNSENT_BYTES)
                # Otherwise a frame's last bytes wait up to 40 ms for the acknowledgement of its first bytes.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # Detects unacknowledged data, for example after a cable is unplugged. macOS lacks this option.
                if hasattr(socket, "TCP_USER_TIMEOUT"):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALL_AFTER_S * 1000))


def _try(address: dict[str, Any]) -> _Output | None:
    with av.logging.Capture() as log:
        try:
            with _alarm(CONNECT_WITHIN_S):
                output = _Output(**address)
        except (av.FFmpegError, OSError, ValueError) as error:
            explained = [line[0].strip() for _, _, text in log if (line := _EXPLAINED.match(text))]
            _say(error, explained[-1] if explained else None)
            return None
    _say(None)
    return output


def _send(output: _Output, kind: bytes, at: int, data: bytes) -> bool:
    packet = av.Packet(data)
    packet.pts = packet.dts = at
    packet.time_base = TIME_BASE
    packet.is_keyframe = kind == KEYFRAME
    packet.stream = output.stream
    try:
        with _alarm(STALL_AFTER_S):
            output.container.mux(packet)
    except (av.FFmpegError, OSError) as error:
        _say(error)
        return False
    return True


def _say(error: Exception | None, explained: str | None = None) -> None:
    """Report a connection (`error` is None) or the reason for a failure. Omit the error's text: it has the address."""
    answer: dict[str, Any] = {"connected": error is None}
    if error is not None:
        answer["reason"] = explained or getattr(error, "strerror", None) or type(error).__name__
        answer["errno"] = getattr(error, "errno", None)
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def _alarm(within_s: float) -> Iterator[None]:
    """End this process by SIGALRM if the block takes longer than `within_s` seconds.

    The system's default action is used, because a Python signal handler would wait for the interpreter lock.
    """
    signal.setitimer(signal.ITIMER_REAL, within_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _sockets() -> Iterator[socket.socket]:
    """Yield duplicates of this process's internet sockets, because PyAV does not expose FFmpeg's sockets."""
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                duplicate = socket.socket(fileno=os.dup(descriptor))
                if duplicate.family in {socket.AF_INET, socket.AF_INET6}:
                    yield duplicate


def _messages(stream: BinaryIO) -> Iterator[tuple[bytes, int, bytes]]:
    while len(header := stream.read(HEADER.size)) == HEADER.size:
        kind, at, size = HEADER.unpack(header)
        data = stream.read(size)
        if len(data) < size:
            return  # the parent died while writing it
        yield kind, at, data


if __name__ == "__main__":
    main()
