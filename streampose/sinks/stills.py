"""Drawn frames as still pictures: one file, or a folder of them. A picture appears whole or not at all."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import cv2

from streampose.errors import SinkError, UsageError, describe
from streampose.frames import Frame, Image, Result, RunInfo
from streampose.sinks.encode import square_pixels
from streampose.sinks.sink import Sink
from streampose.sinks.target import (
    Identity,
    check_file,
    check_folder,
    check_replaceable,
    failed,
    frames_and_size,
    identities,
    is_same,
    make_folder,
    name_of,
)

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})

QUALITY = 95
"""Of 100, for JPEG and WebP: skeleton lines keep their edges; OpenCV's own choice for JPEG."""
_ENCODING = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, QUALITY],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, QUALITY],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, QUALITY],
}

_PARTIAL, _PARTIAL_SUFFIX = ".streampose-", ".part"
"""Around the number of the process that writes: the name of a picture that is not whole yet."""


class PictureSink(Sink):
    """One picture file, for sources of one picture."""

    def __init__(self, path: Path, *, overwrite: bool = False, source_path: str | None = None) -> None:
        """Check `path`, whose ending is one of `PICTURE_SUFFIXES`. Raises `UsageError` and `SinkError`."""
        super().__init__(name_of(path))
        check_file(path, overwrite=overwrite, source_path=source_path)
        self._path = path
        self._overwrite = overwrite
        self._size_bytes = 0

    def open(self, run: RunInfo) -> None:
        """Create the folder. Raises `SinkError`, also when the picture is one of the source's."""
        check_replaceable(self._path, identities(run.source.pictures))
        make_folder(self._path.parent, self.text)
        _sweep(self._path.parent)

    def write(self, result: Result) -> None:
        """Write the picture. Raises `SinkError`, also for a second frame."""
        if self._size_bytes:
            raise SinkError(f"{self.text} is one picture; the source has more frames: name a folder, e.g. out/")
        self._size_bytes = _write(self._path, _drawn(result), overwrite=self._overwrite)

    def close(self) -> None:
        """Nothing is left to finish: a written picture is whole."""

    def summary(self) -> str | None:
        """Name and size; None before the frame."""
        return frames_and_size(self.text, 1, self._size_bytes) if self._size_bytes else None


class PicturesSink(Sink):
    """A folder with a picture a frame.

    A frame of a picture source keeps its name below the source's folder; where OpenCV cannot write its format, `.jpg`
    is appended (`a.gif.jpg`, so that it cannot meet an `a.jpg`). A frame of a video is its index, `000042.jpg`.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False, source_path: str | None = None) -> None:
        """Check `folder`, which need not exist.

        Raises:
            UsageError: it already holds pictures and `overwrite` is False (a mixture of two runs helps nobody), it is
                the source's folder, or it is a file.
            SinkError: nobody lets us write there.
        """
        super().__init__(f"{name_of(folder)}/")
        inside = folder / Path(source_path or "").name
        for place in (folder, inside):
            if is_same(place, source_path):
                raise UsageError(f"{name_of(place)} is the source itself: name another folder")
        check_folder(folder, self.text)
        if not overwrite and folder.is_dir() and _holds_pictures(folder):
            raise UsageError(
                f"{self.text} already holds pictures: name another folder, or replace them with `overwrite`"
            )
        self._folder = folder
        self._overwrite = overwrite
        self._sources: frozenset[Identity] = frozenset()
        self._swept: set[Path] = set()
        self._frames = 0
        self._size_bytes = 0
        self._failed = False

    def open(self, run: RunInfo) -> None:
        """Create the folder. Raises `SinkError`."""
        self._sources = identities(run.source.pictures)
        self._prepare(self._folder)

    def write(self, result: Result) -> None:
        """Write one picture. Raises `SinkError`, also when it would replace one of the source's."""
        path = self._folder / _name(result.frame)
        try:
            self._prepare(path.parent)
            check_replaceable(path, self._sources)
            self._size_bytes += _write(path, _drawn(result), overwrite=self._overwrite)
        except SinkError:
            self._failed = True
            raise
        self._frames += 1

    def close(self) -> None:
        """Nothing is left to finish: every written picture is whole."""

    def summary(self) -> str | None:
        """Name, frames and size; None before the first frame."""
        if not self._frames:
            return None
        return frames_and_size(self.text, self._frames, self._size_bytes, broken_off=self._failed)

    def _prepare(self, folder: Path) -> None:
        make_folder(folder, self.text)
        if folder not in self._swept:
            self._swept.add(folder)
            _sweep(folder)


def _holds_pictures(folder: Path) -> bool:
    try:
        return any(entry.suffix.lower() in PICTURE_SUFFIXES for entry in folder.iterdir())
    except OSError as error:
        raise failed(name_of(folder), error) from error


def _name(frame: Frame) -> str:
    if frame.file is None:
        return f"{frame.index:06d}.jpg"
    return frame.file if Path(frame.file).suffix.lower() in PICTURE_SUFFIXES else f"{frame.file}.jpg"


def _drawn(result: Result) -> Image:
    picture = result.frame.image if result.picture is None else result.picture
    return square_pixels(picture, result.frame.pixel_aspect)


def _sweep(folder: Path) -> None:
    """Remove the unfinished pictures that killed runs have left in `folder`."""
    with suppress(OSError):  # of no use to the run
        for left in folder.glob(f"{_PARTIAL}*{_PARTIAL_SUFFIX}"):
            process_id = left.name.removeprefix(_PARTIAL).partition("-")[0]
            if process_id.isdecimal() and not _is_running(int(process_id)):
                left.unlink(missing_ok=True)


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _write(path: Path, picture: Image, *, overwrite: bool) -> int:
    """Return the size in bytes of the written file."""
    if not overwrite and path.exists():
        raise SinkError(f"{name_of(path)} exists: name another place, or replace it with `overwrite`")
    suffix = path.suffix.lower()
    try:
        _, encoded = cv2.imencode(suffix, picture, _ENCODING.get(suffix, []))
    except cv2.error as error:
        raise SinkError(f"cannot encode {name_of(path)}: {describe(error)}") from error
    # Not made from the picture's name, which may itself be as long as a name can be.
    partial = path.with_name(f"{_PARTIAL}{os.getpid()}-{threading.get_ident()}{_PARTIAL_SUFFIX}")
    try:
        partial.write_bytes(encoded.data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise failed(name_of(path), error) from error
    return encoded.nbytes
