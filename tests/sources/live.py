"""Reads live sources as the pipeline does, and tells how old each frame is."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from streampose.errors import SourceError, StreamposeError
from streampose.frames import Frame
from streampose.inputs import Input
from streampose.sources.endpoint import address
from streampose.sources.live import OPEN_TIMEOUT_S, LiveSource
from streampose.sources.open import open_source
from streampose.sources.source import Reading, Source
from tests.clips import read_number
from tests.servers import age_s

FPS = 25
FRESHNESS_S = 0.5
JITTER_S = 0.25
"""What a loaded machine may add to the age of a frame between its source and the test's look at it."""


class Reader:
    """Reads a source in a thread of its own, as the pipeline does, and keeps what is said of each frame."""

    def __init__(self, source: Source, fps: int = FPS) -> None:
        self.source = source
        self.frames: list[Frame] = []
        self.ages_s: list[float] = []
        self.error: StreamposeError | None = None
        self.ended = threading.Event()
        self._fps = fps
        self._thread = threading.Thread(target=self._read, name="streampose test reader")
        self._thread.start()

    def _read(self) -> None:
        try:
            for frame in self.source.frames():
                self.ages_s.append(age_s(read_number(frame.image), self._fps))
                self.frames.append(frame)
        except StreamposeError as error:
            self.error = error
        finally:
            self.ended.set()

    def wait_for(self, count: int, within_s: float = 10.0) -> float:
        """Wait for so many more frames; return how long it took."""
        started_s = time.monotonic()
        wanted = len(self.frames) + count
        while len(self.frames) < wanted:
            waited_s = time.monotonic() - started_s
            assert not self.ended.is_set(), self.error
            assert waited_s < within_s, f"{len(self.frames) - wanted + count} of {count} frames within {within_s} s"
            time.sleep(0.005)
        return time.monotonic() - started_s

    def wait_for_state(self, state: str, within_s: float = 10.0) -> None:
        """Wait until the meter's state starts with `state`."""
        deadline_s = time.monotonic() + within_s
        while not self.source.meter.state.startswith(state):
            assert time.monotonic() < deadline_s, self.source.meter.state
            time.sleep(0.005)

    def interrupt(self) -> float:
        """Interrupt the source; return how long its frames took to end."""
        started_s = time.monotonic()
        self.source.interrupt()
        self._thread.join(10.0)
        assert self.ended.is_set()
        return time.monotonic() - started_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.interrupt()
        self.source.close()
        if kind is None:
            self._check()

    def _check(self) -> None:
        """What holds of every run."""
        stats = self.source.meter.stats()
        assert stats["captured"] == len(self.frames) + stats["dropped"].get("stale", 0)
        assert stats["state"] == "ended"
        assert [frame.index for frame in self.frames] == list(range(len(self.frames)))
        assert all(late.pts_s > early.pts_s for early, late in pairwise(self.frames))
        for frame in self.frames:
            assert frame.image.flags.c_contiguous
            assert abs(frame.pts_s * 90_000 - round(frame.pts_s * 90_000)) < 1e-3


def open_live(
    text: str, *, open_timeout_s: float | None = None, read_timeout_s: float | None = None, **options: Any
) -> Source:
    """A live source that fails when its first attempt does, where the options do not say otherwise."""
    options = {"give_up_after_s": 0.0} | options
    if open_timeout_s is None and read_timeout_s is None:
        give_up_after_s = options.pop("give_up_after_s")
        return open_source(Input(text, give_up_after_s=give_up_after_s, **options), is_alone=False)
    return LiveSource(
        address(text, "tcp"),
        "live",
        Reading(),
        freshness_s=0.5,
        open_timeout_s=open_timeout_s or OPEN_TIMEOUT_S,
        read_timeout_s=read_timeout_s,
        **options,
    )


def failure(text: str, **options: Any) -> str:
    """The error of a source that cannot be connected to."""
    try:
        source = open_live(text, **options)
    except SourceError as error:
        return str(error)
    with Reader(source) as reader:
        assert reader.ended.wait(10.0)
    assert isinstance(reader.error, SourceError)
    return str(reader.error)
