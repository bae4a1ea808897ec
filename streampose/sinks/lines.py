"""A file of lines that has only complete ones, even if the program is killed or the disk is full."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class LineFile:
    """Appends lines to an unbuffered descriptor, each with one call. Closes it."""

    def __init__(self, fd: int) -> None:
        """Take over a descriptor that is open for writing."""
        self._fd = fd
        self.is_open = True
        self.size_bytes = 0

    @classmethod
    def cut_at(cls, path: Path, size_bytes: int) -> LineFile:
        """Open a file to append to its first `size_bytes`, and cut off the rest. Raises `OSError`."""
        file = cls(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
        file.size_bytes = size_bytes
        os.ftruncate(file._fd, size_bytes)
        os.lseek(file._fd, 0, os.SEEK_END)
        return file

    def sync(self) -> None:
        """Bring the file to the disk. Raises `OSError`."""
        os.fsync(self._fd)

    def append(self, line: bytes, *, over: int = 0) -> None:
        """Append a line, which ends with a line break, in place of the last `over` bytes.

        If that fails, the file (or the file that standard output is redirected to) is truncated to its last complete
        line. Raises `OSError`.
        """
        if over:
            os.lseek(self._fd, -over, os.SEEK_CUR)
        left = memoryview(line)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            self._take_back(len(line) - len(left))
            raise
        self.size_bytes += len(line) - over

    def close(self) -> None:
        """Close the descriptor, once. Raises `OSError`."""
        if self.is_open:
            self.is_open = False
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _take_back(self, count: int) -> None:
        """Cut the last `count` bytes off a file, if no other process has appended to it (standard output is shared)."""
        status = os.fstat(self._fd)
        if count and stat.S_ISREG(status.st_mode):
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            if end == status.st_size:
                os.ftruncate(self._fd, end - count)
                os.lseek(self._fd, end - count, os.SEEK_SET)
