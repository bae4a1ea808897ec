"""The source interface: a context manager that yields frames. Knows nothing about file formats or networks."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from streampose.frames import WHOLE, Captured, Frame, Part, SourceInfo
from streampose.meter import SourceMeter

if TYPE_CHECKING:
    from streampose.sources.skip import Landmark


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read of a source: stream, size limits and part."""

    stream: int | None = None
    """Index of the video stream to read, counted from 0 among the video streams; None selects the best."""
    max_height: int | None = None
    """If there are several video streams, select the best one of at most this height in pixels; None sets no limit."""
    max_pixels: int = 200_000_000
    """Refuse larger frames and stills: a file of a few hundred bytes can claim a hundred times as many pixels."""
    part: Part = WHOLE
    """The frames to read. A live source has no start."""
    landmark: Landmark | None = None
    """A keyframe of a video file, at or before the start of `part`. Reading begins there, instead of at the beginning
    of the file. None if none is known."""


class Source(ABC):
    """A source of frames: a context manager that one thread reads and its opener closes."""

    info: SourceInfo
    """Available as soon as the source is open. For a live source, size and rate are 0 and None until its first frame,
    and may change later.
    """

    def __init__(self) -> None:
        self.meter = SourceMeter()
        """Frame counts. A live source counts the frames it captures itself; a recording's consumer counts them."""

    def interrupt(self) -> None:  # noqa: B027 - a recording is read on request and never waits
        """Make `frames` end soon, whatever it waits for. Callable from any thread or a signal handler."""

    def frames(self) -> Iterator[Frame]:
        """Yield only the frames of `captures`."""
        for captured in self.captures():
            yield captured.frame

    @abstractmethod
    def captures(self) -> Iterator[Captured]:
        """Yield the remaining frames of the source, until it ends. A consumer may stop iterating at any time.

        Raises:
            SourceError: the source is damaged; raised after the last intact frame.
        """

    @abstractmethod
    def close(self) -> None:
        """Release files and threads. Safe to call twice. Call it only when no thread is inside `frames`."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def file_safe(stem: str) -> str:
    """Return `stem` with characters that are unsafe in file names replaced. This is the default `source_id`."""
    # 100 characters: a file name holds 255 bytes, and sinks add suffixes.
    return re.sub(r"[^\w.-]+", "_", stem).strip("._")[:100] or "source"
