"""What suits a pipeline of the whole process: its signals, threads and memory."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from streampose.cli.terminal import CLEAR

if TYPE_CHECKING:
    from streampose.pipeline.pipeline import Pipeline

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 + SIGINT, as shells report it."""


def set_up_process() -> None:
    """Choose for the whole process what suits a pipeline, whose steps have the cores between them."""
    import cv2

    # Else a resize for the detector takes twice the processor's time, for the waiting of its threads for each other.
    cv2.setNumThreads(1)
    # Let the C library keep what pictures leave behind for the next ones. It would give it back to the system, which
    # has to clear every page before it gives it out again: a fifth of the time that reading a 720p frame takes.
    trim_threshold, mmap_threshold = -1, -3  # glibc's malloc.h
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 32 * 2**20)  # its most; a 2160p frame has 24 MB
        libc.mallopt(trim_threshold, 256 * 2**20)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does: the first process of a container is not ended by it by itself."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupts(pipeline: Pipeline) -> Iterator[Callable[[], bool]]:
    """Let a first Ctrl-C (or SIGTERM) finish the run cleanly, a second one force it; yields whether there was one."""
    count = 0

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count > 1:
            os._exit(INTERRUPTED)
        pipeline.stop()
        # Not print: a handler may interrupt a write to the same stream, which must not be entered twice.
        with suppress(OSError):
            begin = CLEAR.encode() if os.isatty(2) else b"\n"
            os.write(2, begin + b"streampose: finishing what is under way; Ctrl-C again stops at once\n")

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: count > 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
