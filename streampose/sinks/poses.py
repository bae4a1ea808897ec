"""Writes people as JSON Lines: a header, then one line per frame. docs/formats.md describes the format."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from streampose.errors import SinkError
from streampose.frames import Result, RunInfo
from streampose.records.lines import frame_line, header, line_of
from streampose.sinks.lines import LineFile
from streampose.sinks.sink import Sink
from streampose.sinks.target import check_file, create, failed, frames_and_size, make_folder, name_of, settle


class KeypointsSink(Sink):
    """A `.jsonl` file, or standard output.

    A killed run and a full disk leave only complete lines. The file is created with the first frame: a run without
    frames creates no file and leaves an existing one unchanged.
    """

    needs_drawn = False

    def __init__(self, path: Path | None, *, overwrite: bool = False, source_path: str | None = None) -> None:
        """Check `path`; None means standard output. Raises `UsageError` and `SinkError`."""
        super().__init__("standard output" if path is None else name_of(path))
        if path is not None:
            check_file(path, overwrite=overwrite, source_path=source_path)
        elif sys.stdout is None or sys.stdout.closed:
            raise SinkError("cannot write to standard output: it is closed; name a file, e.g. poses.jsonl")
        self.path = self._path = path
        self._overwrite = overwrite
        self._run: RunInfo | None = None
        self._file: LineFile | None = None
        self._frames = 0
        self._failed = False

    def open(self, run: RunInfo) -> None:
        """Create the folder. Raises `SinkError`."""
        if self._path is not None:
            make_folder(self._path.parent, self.text)
        self._run = run

    def write(self, result: Result) -> bool | None:
        """Append one frame's line. Return False if the reader of standard output is gone. Raises `SinkError`."""
        if self._run is None:
            raise SinkError(f"{self.text} is not open")
        try:
            if self._file is None:
                self._file = LineFile(self._descriptor())
                self._file.append(line_of(header(self._run)))
            self._file.append(line_of(frame_line(result)))
        except BrokenPipeError:
            return False
        except OSError as error:
            self._failed = True
            raise failed(self.text, error) from error
        self._frames += 1
        return None

    def savepoint(self) -> dict[str, Any]:
        """See `Sink`."""
        if self._file is None:
            return {}
        try:
            self._file.sync()
        except OSError as error:
            raise failed(self.text, error) from error
        return {"frames": self._frames, "bytes": self._file.size_bytes}

    def holds(self, state: dict[str, Any]) -> bool:
        """See `Sink`."""
        try:
            return self._path is not None and bool(state) and self._path.stat().st_size >= state["bytes"]
        except OSError:
            return False

    def resume(self, state: dict[str, Any]) -> None:
        """See `Sink`. What follows the savepoint is cut off."""
        assert self._path is not None
        try:
            self._file = LineFile.cut_at(self._path, state["bytes"])
        except OSError as error:
            raise failed(self.text, error) from error
        self._frames = state["frames"]

    def close(self) -> None:
        """Close the file. Raises `SinkError`."""
        if self._file is not None and self._file.is_open:
            try:
                self._file.close()
            except OSError as error:
                raise failed(self.text, error) from error
            if self._path is not None:
                settle(self._path)

    def summary(self) -> str | None:
        """Return name, number of frames and size; None before the first frame."""
        if self._file is None or not self._frames:
            return None
        return frames_and_size(self.text, self._frames, self._file.size_bytes, broken_off=self._failed)

    def _descriptor(self) -> int:
        if self._path is not None:
            return create(self._path, overwrite=self._overwrite)
        sys.stdout.flush()
        return os.dup(sys.stdout.fileno())
