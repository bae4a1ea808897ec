"""Settings of the whole process for a pipeline: signals, threads and memory."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol

from streampose.cli.terminal import say_in_handler

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 + SIGINT, as shells report it."""


def set_up_process(*, threads_change: bool = False) -> None:
    """Set up OpenCV's threads and the C library's memory for a pipeline, whose steps share the cores.

    With `threads_change`, the threads of the pipeline come and go.
    """
    import cv2

    # With more threads, resizing a frame for the detector takes twice the CPU time, because they busy-wait.
    cv2.setNumThreads(1)
    # Keep the memory of freed frames for later frames. By default the C library returns it to the system, which clears
    # each page before it hands it out again. That takes a fifth of the time needed to read a 720p frame.
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # glibc's malloc.h
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 32 * 2**20)  # the maximum; a 2160p frame has 24 MB
        libc.mallopt(trim_threshold, 256 * 2**20)
        if threads_change:
            # By default there are 8 heaps per core, and new threads get any of them. Each would grow to the size that
            # its largest user needed: 60 clips of 720p took 2.7 GB, and take 1.7 GB with 2 heaps, in the same time.
            libc.mallopt(arena_max, 2)


class _Ending:
    """A signal handler that raises `KeyboardInterrupt`, and remembers it: some libraries swallow it during import."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        raise KeyboardInterrupt


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Make Ctrl-C and SIGTERM end the block. By default, the first process of a container ignores SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    end = _Ending()
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Stoppable(Protocol):
    def stop(self) -> None: ...


@contextmanager
def interrupts(pipeline: _Stoppable) -> Iterator[Callable[[], bool]]:
    """Make the first Ctrl-C (or SIGTERM) finish the run cleanly, and the second one end the process at once.

    Yields a function that returns whether there was one.

    Raises:
        KeyboardInterrupt: there was one before, which was swallowed.
    """
    ending = signal.getsignal(signal.SIGINT)
    if isinstance(ending, _Ending) and ending.asked:
        raise KeyboardInterrupt
    count = 0

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count > 1:
            os._exit(INTERRUPTED)
        pipeline.stop()
        say_in_handler("finishing the frames in progress; press Ctrl-C again to stop at once")

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: count > 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
