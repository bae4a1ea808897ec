"""Output paths: checks before a run, creation of files, and errors of a failing disk.

Knows nothing about the content of the files.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from streampose.addresses import redact_address
from streampose.errors import SinkError, UsageError, describe

TIME_FORMAT = "%Y%m%d-%H%M%S"
"""Format of `{time}`, in UTC. Names sort by time, and no hour repeats when daylight saving time ends."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def name_of(target: str | os.PathLike[str]) -> str:
    """Return `target` for messages: as the user wrote it, credentials redacted, unprintable characters escaped."""
    text = redact_address(os.fspath(target))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_file(path: Path, *, overwrite: bool, source_path: str | None) -> None:
    """Check that `path` can become an output file. Nothing on disk changes.

    Raises:
        UsageError: `path` is a folder or the source itself, is below a file, or exists and `overwrite` is False.
        SinkError: writing there is not permitted.
    """
    name = name_of(path)
    kind = _kind(path, name)
    if kind == stat.S_IFDIR:
        raise UsageError(f"{name} is a folder: name a file in it, or write {name}/ for a folder of stills")
    if kind is not None:
        if is_same(path, source_path):
            raise UsageError(f"{name} is the source itself: choose another file")
        if not overwrite:
            raise UsageError(f"{name} exists: choose another file, or replace it with `overwrite`")
        if not os.access(path, os.W_OK):
            raise SinkError(f"cannot write {name}: permission denied")
    check_folder(path.parent, name)


def check_folder(folder: Path, name: str) -> None:
    """Check that `folder` exists or can be created, and can hold the output `name`.

    Raises:
        UsageError: a part of the path is a file.
        SinkError: writing to the nearest existing folder is not permitted.
    """
    try:
        nearest = folder.absolute()
    except OSError as error:  # the current folder is gone
        raise failed(name, error) from error
    while (kind := _kind(nearest, name)) is None:
        nearest = nearest.parent
    if kind != stat.S_IFDIR:
        raise UsageError(f"cannot write {name}: {name_of(nearest)} is a file, not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise SinkError(f"cannot write {name}: permission denied in {name_of(nearest)}")


def _kind(path: Path, name: str) -> int | None:
    """Return the file type (`stat.S_IF...`) of `path`; None if it does not exist. Raises `SinkError`."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise failed(name, error) from error
    except ValueError as error:  # a null byte
        raise SinkError(f"cannot write {name}: {describe(error)}") from error


def is_same(path: Path, source_path: str | None) -> bool:
    """Return whether `path` is the same file or folder that the run reads."""
    if source_path is None:
        return False
    try:
        return path.samefile(source_path)
    except OSError:
        return False


Identity = tuple[int, int]
"""Device and inode number of a file. They are the same for all its names."""


def identities(files: Iterable[str | os.PathLike[str]]) -> frozenset[Identity]:
    """Return the identities of the `files` that exist."""
    found = set()
    for file in files:
        with suppress(OSError):
            status = Path(file).stat()
            found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def check_replaceable(path: Path, sources: frozenset[Identity]) -> None:
    """Raise `SinkError` if `path` is one of the files that the run reads, under any name."""
    if not sources.isdisjoint(identities([path])):
        raise SinkError(f"{name_of(path)} is the source itself: choose another path")


def with_time(template: str) -> Path:
    """Return the path with `{time}` replaced by the machine's time now, in UTC."""
    return Path(template.replace("{time}", datetime.now(UTC).strftime(TIME_FORMAT)))


def unused(path: Path) -> Path:
    """Return the path if nothing exists there; otherwise with the first free number, such as `-2`, after its stem."""
    free, numbers = path, count(2)
    while free.exists():
        free = path.with_name(f"{path.stem}-{next(numbers)}{path.suffix}")
    return free


def make_folder(folder: Path, name: str) -> None:
    """Create `folder` and its parents. Raises `SinkError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise failed(name, error) from error


def create(path: Path, *, overwrite: bool) -> int:
    """Return a descriptor for writing `path` from its start. Raises `SinkError`.

    Without `overwrite`, a file that appeared after the checks is not replaced.
    """
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if overwrite else os.O_EXCL), 0o666)
    except FileExistsError as error:
        raise SinkError(f"{name_of(path)} was created after the run started: replace it with `overwrite`") from error
    except OSError as error:
        raise failed(name_of(path), error) from error


def sync(path: Path) -> int:
    """Bring a file or a folder to the disk. Return its size in bytes. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size_bytes = os.fstat(descriptor).st_size
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return size_bytes


def settle(path: Path) -> int:
    """Return the size of the file at `path` in bytes. Remove it if it is empty, because nothing could be written.

    Raises `SinkError`.
    """
    try:
        size_bytes = path.stat().st_size
        if size_bytes == 0 and path.is_file():
            path.unlink()
    except OSError as error:
        raise failed(name_of(path), error) from error
    return size_bytes


def failed(name: str, error: OSError) -> SinkError:
    """Return the error for a failed write to `name`."""
    if error.errno in _FULL:
        return SinkError(f"cannot write {name}: no space left ({describe(error)}); free space or choose another path")
    return SinkError(f"cannot write {name}: {describe(error)}")


def frames_and_size(name: str, frames: int, size_bytes: int, *, broken_off: bool = False) -> str:
    """Return the summary of a file, such as `out/demo.mp4: 200 frames, 2.1 MB` or `out/demo.mp4: cut off after ...`."""
    count = f"{frames} {'frame' if frames == 1 else 'frames'}"
    return f"{name}: {'cut off after ' if broken_off else ''}{count}, {size_text(size_bytes)}"


def size_text(size_bytes: int) -> str:
    """Return a size such as `2.1 MB`."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"
