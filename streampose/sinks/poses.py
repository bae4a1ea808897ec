"""Writes people as JSON Lines: a header, then one line per frame. docs/formats.md describes the format."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

from streampose.errors import SinkError
from streampose.frames import Result, RunInfo
from streampose.records.lines import frame_line, header
from streampose.sinks.sink import Sink
from streampose.sinks.target import check_file, create, failed, frames_and_size, make_folder, name_of, settle


class KeypointsSink(Sink):
    """A `.jsonl` file, or standard output.

    Each line is written with one call on an unbuffered descriptor, so a killed run leaves only complete lines. If the
    disk is full, the file (or the file that standard output is redirected to) is truncated to its last complete line.
    The file is created with the first frame: a run without frames creates no file and leaves an existing one unchanged.
    """

    needs_drawn = False

    def __init__(self, path: Path | None, *, overwrite: bool = False, source_path: str | None = None) -> None:
        """Check `path`; None means standard output. Raises `UsageError` and `SinkError`."""
        super().__init__("standard output" if path is None else name_of(path))
        if path is not None:
            check_file(path, overwrite=overwrite, source_path=source_path)
        elif sys.stdout is None or sys.stdout.closed:
            raise SinkError("cannot write to standard output: it is closed; name a file, e.g. poses.jsonl")
        self._path = path
        self._overwrite = overwrite
        self._run: RunInfo | None = None
        self._fd: int | None = None
        self._frames = 0
        self._size_bytes = 0
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
            if self._fd is None:
                self._fd = self._descriptor()
                self._append(header(self._run))
            self._append(frame_line(result))
        except BrokenPipeError:
            return False
        except OSError as error:
            self._failed = True
            raise failed(self.text, error) from error
        self._frames += 1
        return None

    def close(self) -> None:
        """Close the file. Raises `SinkError`."""
        fd, self._fd = self._fd, None
        if fd is not None:
            try:
                os.close(fd)
            except OSError as error:
                raise failed(self.text, error) from error
            if self._path is not None:
                settle(self._path)

    def summary(self) -> str | None:
        """Return name, number of frames and size; None before the first frame."""
        if not self._frames:
            return None
        return frames_and_size(self.text, self._frames, self._size_bytes, broken_off=self._failed)

    def _descriptor(self) -> int:
        if self._path is not None:
            return create(self._path, overwrite=self._overwrite)
        sys.stdout.flush()
        return os.dup(sys.stdout.fileno())

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        assert self._fd is not None
        left = memoryview(line)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            self._take_back(len(line) - len(left))
            raise
        self._size_bytes += len(line)

    def _take_back(self, count: int) -> None:
        """Cut the last `count` bytes off a file, if no other process has appended to it (standard output is shared)."""
        assert self._fd is not None
        status = os.fstat(self._fd)
        if count and stat.S_ISREG(status.st_mode):
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            if end == status.st_size:
                os.ftruncate(self._fd, end - count)
                os.lseek(self._fd, end - count, os.SEEK_SET)
