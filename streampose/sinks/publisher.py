"""The child process behind `publish.py`: owns one network connection and nothing else.

PyAV holds the interpreter lock while it opens and closes a network output and has no time limit for it. Here that hurts
nobody: every call to the network runs under an alarm that ends this process, whatever FFmpeg is waiting for.

Runs as a script, so that it loads PyAV but not the rest of the package. Standard input carries messages (see
`HEADER`): addresses to try (`START`) until one answers, then H.264 packets until the end of the input, which also comes
when the parent dies. Standard output carries one JSON line for every try and one for a lost connection.
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
"""Of a message: its kind, for packets the time in `TIME_BASE`, the number of bytes that follow."""
START, KEYFRAME, PACKET = b"S", b"K", b"P"
"""A `START` holds JSON: `url`, `format`, `width`, `height`, `extradata` (hexadecimal)."""
TIME_BASE = Fraction(1, 1000)
"""FLV has no finer one."""

CONNECT_WITHIN_S = 6.0
"""FFmpeg itself gives a TCP connection 5 s, but the handshakes behind it no limit at all."""
STALL_AFTER_S = 3.0
"""A server that has taken nothing for so long hangs; the pause of an overloaded one is shorter."""
UNSENT_BYTES = 128 * 1024
"""What may wait in the system to be sent (the system doubles it): a second of 720p. Left to itself it grows to
megabytes: half a minute of old pictures on a line that is too slow, and a hang that long unnoticed."""

_EXPLAINED = re.compile(r"Server error: .+|Failed to resolve hostname .+")
"""What FFmpeg tells its log where its error says no more than "Input/output error"; never a line with the address."""

_OPTIONS = {"flv": {"flvflags": "no_duration_filesize"}, "rtsp": {"rtsp_transport": "tcp"}}


def main() -> None:
    """Serve standard input to its end."""
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
    """A connection that is open."""

    def __init__(self, url: str, format: str, width: int, height: int, extradata: str) -> None:
        self.container: OutputContainer = av.open(url, "w", format=format, options=_OPTIONS[format])
        # A template is the only way to give PyAV a stream's extradata without an encoder.
        template = av.open(io.BytesIO(bytes.fromhex(extradata)), format="h264")
        self.stream: VideoStream = self.container.add_stream_from_template(template.streams.video[0])
        self.stream.width, self.stream.height = width, height
        self.container.start_encoding()
        for connection in _sockets():
            with connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNSENT_BYTES)
                # Without it a picture's last bytes wait for the answer to the first, up to 40 ms.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # For the pulled cable: bytes that nobody acknowledges. macOS has no such option.
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
    """Report a connection (None) or why there is none: never the error's own text, which holds the address."""
    answer: dict[str, Any] = {"connected": error is None}
    if error is not None:
        answer["reason"] = explained or getattr(error, "strerror", None) or type(error).__name__
        answer["errno"] = getattr(error, "errno", None)
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def _alarm(within_s: float) -> Iterator[None]:
    """End this process by SIGALRM when the block takes longer: by the system, as Python's own handlers wait for the
    interpreter lock.
    """
    signal.setitimer(signal.ITIMER_REAL, within_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _sockets() -> Iterator[socket.socket]:
    """Duplicates of this process's internet sockets: PyAV does not show those of FFmpeg."""
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
            return  # the parent died in the middle of it
        yield kind, at, data


if __name__ == "__main__":
    main()
