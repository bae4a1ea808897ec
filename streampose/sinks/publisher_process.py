"""The child process that publishes, from the side of the program: what it is sent and what it answers."""

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
"""What a server is given to take the last frames."""
_LOOK_EVERY_S = 0.02
_PIPE_WITHIN_S = publisher.STALL_AFTER_S + 1.0
"""The child ends by itself before; this is for a child that does not run."""
_NOBODY_THERE = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ETIMEDOUT}
_END_OF_FILE = 541478725
"""FFmpeg's number (AVERROR_EOF)."""
_UNSAID = {errno.EIO, errno.ECONNRESET, errno.EPIPE, _END_OF_FILE}


class Lost(Exception):
    """There is no connection; the text says why, without the address."""

    def __init__(self, reason: str, *, was_refused: bool = False) -> None:
        super().__init__(reason)
        self.was_refused = was_refused


class PublisherProcess:
    """The process of `publisher.py`; the address goes to its standard input, where nobody can look."""

    def __init__(self) -> None:
        """Start it. Raises `OSError`."""
        self._process = subprocess.Popen(
            [sys.executable, "-P", publisher.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            process_group=0,  # Ctrl-C is for the parent, which ends it when the last frames are sent
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._messages, self._answers = self._process.stdin, self._process.stdout
        os.set_blocking(self._messages.fileno(), False)
        self._text = b""
        self.connected = False

    @property
    def running(self) -> bool:
        """Whether it can be told another address."""
        return self._process.poll() is None

    def connect(self, url: str, format: str, size: tuple[int, int], extradata: bytes, cut: threading.Event) -> None:
        """Tell it to try an address, for frames of `size` (width, height). Raises `Lost`."""
        address = {"url": url, "format": format, "extradata": extradata.hex()}
        data = json.dumps(address | {"width": size[0], "height": size[1]}).encode()
        self.send(publisher.START, 0, data, cut)

    def send(self, kind: bytes, at_ms: int, data: bytes, cut: threading.Event) -> None:
        """Hand a message over, waiting while the pipe is full, not for long after `cut` is set. Raises `Lost`."""
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
                    raise Lost(f"the server has taken nothing for {waited_s:.0f} s") from None
                room.poll(_LOOK_EVERY_S * 1000)
            except BrokenPipeError as error:
                while self.heard(wait_s=1.0):  # up to the reason
                    pass
                raise Lost(describe(error)) from None

    def heard(self, wait_s: float = 0.0) -> bool:
        """Return whether it is connected, by its latest answer. Raises `Lost` when it says why not, or ended."""
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
        """Let it finish within this time, then kill it; leaves nothing behind."""
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
            taken = f"has taken nothing for {publisher.STALL_AFTER_S:g} s"
            return Lost(f"the server {taken if self.connected else 'does not answer'}")
        return Lost(f"the publishing process ended ({code})")


def lost(reason: str, number: int | None, was_connected: bool) -> Lost:
    reason = reason[:1].lower() + reason[1:]
    if was_connected:
        return Lost(f"the connection is lost ({reason})")
    if number in _UNSAID and not reason.startswith("failed to resolve"):
        reason = "the server closed the connection: is the name or the key of the stream right?"
    return Lost(reason, was_refused=number not in _NOBODY_THERE)
