"""The parent's side of the publishing child process: sends messages to it and reads its answers."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

from streampose.errors import describe
from streampose.sinks import publisher

FINISH_WITHIN_S = 2.0
"""Time limit for a server to receive the last frames."""
_LOOK_EVERY_S = 0.02
_PIPE_WITHIN_S = publisher.STALL_AFTER_S + 1.0
"""Timeout for a child that does not run. A running child ends by itself earlier."""
_NOBODY_THERE = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ETIMEDOUT}
_END_OF_FILE = 541478725
"""FFmpeg's error number AVERROR_EOF."""
_UNSAID = {errno.EIO, errno.ECONNRESET, errno.EPIPE, _END_OF_FILE}


class Lost(Exception):
    """The connection failed or was lost. The text gives the reason without the address."""

    def __init__(self, reason: str, *, was_refused: bool = False) -> None:
        super().__init__(reason)
        self.was_refused = was_refused


class PublisherProcess:
    """The process of `publisher.py`. It receives the address on standard input, which other users cannot read."""

    def __init__(self) -> None:
        """Start it. Raises `OSError`."""
        self._process = subprocess.Popen(
            [sys.executable, "-P", publisher.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            process_group=0,  # Ctrl-C reaches only the parent, which ends the child after the last frames
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._messages, self._answers = self._process.stdin, self._process.stdout
        os.set_blocking(self._messages.fileno(), False)
        self._text = b""
        self.connected = False

    @property
    def running(self) -> bool:
        """Whether the process can take another address."""
        return self._process.poll() is None

    def connect(self, url: str, format: str, size: tuple[int, int], extradata: bytes, cut: threading.Event) -> None:
        """Ask the process to connect to an address, for frames of `size` (width, height). Raises `Lost`."""
        address = {"url": url, "format": format, "extradata": extradata.hex()}
        data = json.dumps(address | {"width": size[0], "height": size[1]}).encode()
        self.send(publisher.START, 0, data, cut)

    def send(self, kind: bytes, at_ms: int, data: bytes, cut: threading.Event) -> None:
        """Send a message. Wait while the pipe is full, but only briefly once `cut` is set. Raises `Lost`."""
        left = memoryview(publisher.HEADER.pack(kind, at_ms, len(data)) + data)
        began_s = time.monotonic()
        room = select.poll()
        room.register(self._messages, select.POLLOUT)
        while left:
            try:
                left = left[os.write(self._messages.fileno(), left) :]
            except BlockingIOError:
                waited_s = time.monotonic() - began_s
                if waited_s > (FINISH_WITHIN_S if cut.is_set() else _PIPE_WITHIN_S):
                    raise Lost(f"the server accepted no data for {waited_s:.0f} s") from None
                room.poll(_LOOK_EVERY_S * 1000)
            except BrokenPipeError as error:
                while self.heard(wait_s=1.0):  # read until the answer that gives the reason
                    pass
                raise Lost(describe(error)) from None

    def heard(self, wait_s: float = 0.0) -> bool:
        """Read pending answers and return whether the process is connected.

        Raises `Lost` if it reports a failure or has ended.
        """
        ready = select.poll()
        ready.register(self._answers, select.POLLIN)
        if ready.poll(wait_s * 1000):
            data = os.read(self._answers.fileno(), 65536)
            if not data:
                raise self._ended()
            *lines, self._text = (self._text + data).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                was_connected, self.connected = self.connected, answer["connected"]
                if not self.connected:
                    raise lost(answer["reason"], answer["errno"], was_connected)
        return self.connected

    def close(self, within_s: float) -> None:
        """Give the process `within_s` seconds to finish, then kill it. No process is left behind."""
        with suppress(OSError):
            self._messages.close()
        if within_s:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(within_s)
        self._process.kill()
        self._process.wait()
        self._answers.close()

    def _ended(self) -> Lost:
        code = self._process.wait()
        if code == -signal.SIGALRM:
            taken = f"accepted no data for {publisher.STALL_AFTER_S:g} s"
            return Lost(f"the server {taken if self.connected else 'does not answer'}")
        return Lost(f"the publishing process ended ({code})")


def lost(reason: str, number: int | None, was_connected: bool) -> Lost:
    reason = reason[:1].lower() + reason[1:]
    if was_connected:
        return Lost(f"connection lost ({reason})")
    if number in _UNSAID and not reason.startswith("failed to resolve"):
        reason = "the server closed the connection: check the name and the key of the stream"
    return Lost(reason, was_refused=number not in _NOBODY_THERE)
