"""The interface of every source: a context manager that yields frames. Knows no file format and no network."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from streampose.frames import Captured, Frame, SourceInfo
from streampose.meter import SourceMeter


@dataclass(frozen=True, slots=True)
class Reading:
    """How a source is read where there is a choice."""

    stream: int | None = None
    """The video stream to read, counted from 0 among the video streams; None takes the best."""
    max_height: int | None = None
    """Of several video streams, take the best of at most this many lines; None sets no limit."""
    max_pixels: int = 200_000_000
    """Refuse frames and stills of more pixels: a file of a few hundred bytes can claim a hundred times as many."""


class Source(ABC):
    """Where frames come from: a context manager, read by one thread, closed by whoever opened it."""

    info: SourceInfo
    """Known as soon as the source is open; of a live one, size and rate with its first frame (0 and None until
    then), and they may change.
    """

    def __init__(self) -> None:
        self.meter = SourceMeter()
        """Counts of the source's frames. A live source counts what it captures; for a recorded one the taker does."""

    def interrupt(self) -> None:  # noqa: B027 - a recording is read as it is asked for, and waits for nothing
        """Let `frames` end soon, whatever it waits for; from any thread or a signal handler."""

    def frames(self) -> Iterator[Frame]:
        """Yield what `captures` does, the frames alone."""
        for captured in self.captures():
            yield captured.frame

    @abstractmethod
    def captures(self) -> Iterator[Captured]:
        """Yield what is left of the source, frame by frame, and end where it ends; a consumer stops by stopping to ask.

        Raises:
            SourceError: behind the last good frame, when the source is damaged.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back files and threads; safe twice. Called when no thread is inside `frames` any more."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def file_safe(stem: str) -> str:
    """Return `stem` with everything that a file name had better not hold replaced: the default `source_id`."""
    # 100: a file name holds 255 bytes, and sinks add their own endings.
    return re.sub(r"[^\w.-]+", "_", stem).strip("._")[:100] or "source"
