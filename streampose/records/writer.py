"""The interface of everything that poses can be written to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from streampose.sinks.target import check_file, name_of


class Writer(ABC):
    """An output of poses. It receives the header and the lines of a poses file, be they read from one or made by a run.

    Call `begin` once, `write` per frame, and `close` at the end, also after a failure. All of them raise `SinkError`.
    """

    is_folder: ClassVar[bool] = False
    """Whether the output is a folder."""

    @classmethod
    def check(cls, path: Path, *, overwrite: bool, source_path: str | None) -> None:
        """Check that `path` can become an output. Nothing on disk changes.

        Raises:
            UsageError: it is the source itself, cannot be a name of this format, or exists and `overwrite` is False.
            SinkError: writing there is not permitted.
        """
        check_file(path, overwrite=overwrite, source_path=source_path)

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        """Store the path. Nothing on disk changes before `begin`."""
        self.path = path
        self.overwrite = overwrite

    @abstractmethod
    def begin(self, header: dict[str, Any]) -> None:
        """Create the output."""

    @abstractmethod
    def write(self, line: dict[str, Any]) -> None:
        """Add a frame."""

    @abstractmethod
    def close(self) -> None:
        """Complete the output. Safe to call twice, and without `begin`."""

    def shown(self) -> str:
        """Return the name for messages."""
        return name_of(self.path)

    def size_bytes(self) -> int:
        """Return the size of what was written, as far as it is known."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
