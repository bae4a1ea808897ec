"""Reads a video container from standard input."""

from __future__ import annotations

import os
import select
import sys
import threading

import cv2  # noqa: F401 - import before av, or windows hang: see sinks/display.py

# isort: split
import av
from av.container import InputContainer

from streampose.errors import UsageError
from streampose.sources.decode import CONTAINERS, STEPS_BACK_STAY
from streampose.sources.recorded import VideoFile
from streampose.sources.source import Reading

_POLL_S = 0.05
"""Interval at which a waiting read checks whether it was stopped."""


class StandardInput(VideoFile):
    """A container on standard input, read once, as fast as the consumer takes its frames."""

    def __init__(self, source_id: str, reading: Reading) -> None:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("-: standard input is a terminal or closed: pipe a video container into it")
        self._input = _Descriptor(sys.stdin.fileno())
        try:
            super().__init__(None, "-", source_id, reading)
        finally:
            if self._input.interrupted:
                raise KeyboardInterrupt

    def interrupt(self) -> None:
        self._input.stop.set()

    def _open(self) -> InputContainer:
        options = {"protocol_whitelist": "", "format_whitelist": CONTAINERS} | STEPS_BACK_STAY
        return av.open(self._input, "r", options=options, metadata_errors="replace")


class _Descriptor:
    """The file object that PyAV reads from a file descriptor. It waits for data until it is stopped."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.stop = threading.Event()
        self.interrupted = False
        """Whether Ctrl-C was pressed. PyAV (18.1) ignores exceptions raised in `read` and keeps reading."""

    def read(self, size: int) -> bytes:
        try:
            while not self.stop.is_set():
                if select.select([self._descriptor], [], [], _POLL_S)[0]:
                    return os.read(self._descriptor, size)
        except KeyboardInterrupt:
            self.interrupted = True
            self.stop.set()
        return b""
