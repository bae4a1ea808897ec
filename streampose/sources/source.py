"""The interface of every source: a context manager that yields frames. Knows no file format and no network."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType

from streampose.frames import Frame, SourceInfo
from streampose.meter import SourceMeter


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

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
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
