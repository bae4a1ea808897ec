"""Writes drawn frames as stills: one file, or a folder of files. A still is written completely or not at all."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2

from streampose.drawing.annotator import Annotator
from streampose.errors import SinkError, UsageError, describe
from streampose.frames import Frame, Image, Result, RunInfo
from streampose.sinks.controls import Controls
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

STILL_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})

QUALITY = 95
"""JPEG and WebP quality out of 100. It is OpenCV's default for JPEG and keeps the edges of skeleton lines sharp."""
_ENCODING = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, QUALITY],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, QUALITY],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, QUALITY],
}

_PARTIAL, _PARTIAL_SUFFIX = ".streampose-", ".part"
"""Prefix and suffix of an unfinished still. The writer's process ID is between them."""


_WITH_OPACITY = frozenset({".png", ".webp"})


class _Stills(Sink):
    """What both sinks of stills share: what they write of a frame."""

    _annotator: Annotator | None = None

    def take_controls(self, controls: Controls) -> None:
        """Remember how people are drawn without a background."""
        if controls.annotator.hide is not None:
            self._annotator = controls.annotator

    def _picture(self, result: Result, suffix: str) -> Image:
        """Return the picture for a file with this suffix: with a transparent background if there is to be none."""
        if self._annotator is not None and suffix.lower() in _WITH_OPACITY:
            image = self._annotator.cut_out(result.frame.image, result.people)
        else:
            image = result.frame.image if result.drawn is None else result.drawn
        return square_pixels(image, result.frame.pixel_aspect)


class StillSink(_Stills):
    """One still, for sources with a single frame."""

    def __init__(self, path: Path, *, overwrite: bool = False, source_path: str | None = None) -> None:
        """Check `path`, whose suffix is one of `STILL_SUFFIXES`. Raises `UsageError` and `SinkError`."""
        super().__init__(name_of(path))
        check_file(path, overwrite=overwrite, source_path=source_path)
        self.path = self._path = path
        self._overwrite = overwrite
        self._size_bytes = 0

    def open(self, run: RunInfo) -> None:
        """Create the folder. Raises `SinkError`, also if the path is one of the source's stills."""
        check_replaceable(self._path, identities(run.source.stills))
        make_folder(self._path.parent, self.text)
        _sweep(self._path.parent)

    def write(self, result: Result) -> None:
        """Write the still. Raises `SinkError`, also for a second frame."""
        if self._size_bytes:
            raise SinkError(f"{self.text} is a single still, but the source has more frames: give a folder, e.g. out/")
        self._size_bytes = _write(self._path, self._picture(result, self._path.suffix), overwrite=self._overwrite)

    def resume(self, state: dict[str, Any]) -> None:
        """See `Sink`. The still is written again."""

    def close(self) -> None:
        """Do nothing: a written still is already complete."""

    def summary(self) -> str | None:
        """Return name and size; None before the frame."""
        return frames_and_size(self.text, 1, self._size_bytes) if self._size_bytes else None


class StillsSink(_Stills):
    """A folder with one still per frame.

    A frame read from a still keeps its path relative to the source's folder. If OpenCV cannot write the format, `.jpg`
    is appended (`a.gif.jpg`), so the name cannot collide with `a.jpg`. A video frame is named by its index, such as
    `000042.jpg`; without a background, `000042.png`.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False, source_path: str | None = None) -> None:
        """Check `folder`, which need not exist.

        Raises:
            UsageError: the folder already has stills and `overwrite` is False (the output of two runs must not mix),
                it is the source's folder, or it is a file.
            SinkError: writing there is not permitted.
        """
        super().__init__(f"{name_of(folder)}/")
        inside = folder / Path(source_path or "").name
        for place in (folder, inside):
            if is_same(place, source_path):
                raise UsageError(f"{name_of(place)} is the source itself: choose another folder")
        check_folder(folder, self.text)
        if not overwrite and folder.is_dir() and _holds_stills(folder):
            raise UsageError(f"{self.text} already has stills: choose another folder, or replace them with `overwrite`")
        self.path = self._folder = folder
        self._overwrite = overwrite
        self._sources: frozenset[Identity] = frozenset()
        self._swept: set[Path] = set()
        self._frames = 0
        self._size_bytes = 0
        self._failed = False

    def open(self, run: RunInfo) -> None:
        """Create the folder. Raises `SinkError`."""
        self._sources = identities(run.source.stills)
        self._prepare(self._folder)

    def write(self, result: Result) -> None:
        """Write one still. Raises `SinkError`, also if it would replace one of the source's stills."""
        path = self._folder / _name(result.frame, ".jpg" if self._annotator is None else ".png")
        try:
            self._prepare(path.parent)
            check_replaceable(path, self._sources)
            self._size_bytes += _write(path, self._picture(result, path.suffix), overwrite=self._overwrite)
        except SinkError:
            self._failed = True
            raise
        self._frames += 1

    def savepoint(self) -> dict[str, Any]:
        """See `Sink`."""
        return {"frames": self._frames, "size_bytes": self._size_bytes}

    def resume(self, state: dict[str, Any]) -> None:
        """See `Sink`. Stills behind the savepoint are written again."""
        self._frames, self._size_bytes = state["frames"], state["size_bytes"]

    def close(self) -> None:
        """Do nothing: every written still is already complete."""

    def summary(self) -> str | None:
        """Return name, number of frames and size; None before the first frame."""
        if not self._frames:
            return None
        return frames_and_size(self.text, self._frames, self._size_bytes, broken_off=self._failed)

    def _prepare(self, folder: Path) -> None:
        make_folder(folder, self.text)
        if folder not in self._swept:
            self._swept.add(folder)
            _sweep(folder)


def _holds_stills(folder: Path) -> bool:
    try:
        return any(entry.suffix.lower() in STILL_SUFFIXES for entry in folder.iterdir())
    except OSError as error:
        raise failed(name_of(folder), error) from error


def _name(frame: Frame, suffix: str) -> str:
    if frame.file is None:
        return f"{frame.index:06d}{suffix}"
    return frame.file if Path(frame.file).suffix.lower() in STILL_SUFFIXES else f"{frame.file}.jpg"


def _sweep(folder: Path) -> None:
    """Remove unfinished stills that killed runs left in `folder`."""
    with suppress(OSError):  # cleaning up is optional
        for left in folder.glob(f"{_PARTIAL}*{_PARTIAL_SUFFIX}"):
            process_id = left.name.removeprefix(_PARTIAL).partition("-")[0]
            if process_id.isdecimal() and not _is_running(int(process_id)):
                left.unlink(missing_ok=True)


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except OSError:  # the process belongs to another user
        return True
    return True


def _write(path: Path, image: Image, *, overwrite: bool) -> int:
    """Write `image` to `path` and return the file's size in bytes."""
    if not overwrite and path.exists():
        raise SinkError(f"{name_of(path)} exists: choose another path, or replace it with `overwrite`")
    suffix = path.suffix.lower()
    try:
        _, encoded = cv2.imencode(suffix, image, _ENCODING.get(suffix, []))
    except cv2.error as error:
        raise SinkError(f"cannot encode {name_of(path)}: {describe(error)}") from error
    # Do not derive this name from the still's name, which may already have the maximum length.
    partial = path.with_name(f"{_PARTIAL}{os.getpid()}-{threading.get_ident()}{_PARTIAL_SUFFIX}")
    try:
        partial.write_bytes(encoded.data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise failed(name_of(path), error) from error
    return encoded.nbytes
