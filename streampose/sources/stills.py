"""Stills: image files in a given order, one frame each."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Generator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import PIL.Image

from streampose.errors import SourceError, describe
from streampose.frames import Image, SourceInfo
from streampose.picker import Picker, nothing_in, picked_count, starts_behind
from streampose.sources.animation import frame_count
from streampose.sources.convert import TooLarge, check_size, hdr_to_bgr
from streampose.sources.recorded import STILLS_PER_S, Recorded, Shot
from streampose.sources.source import Reading

_log = logging.getLogger("streampose")

_HEIF_SUFFIXES = frozenset([".heic", ".heif", ".hif"])
STILL_SUFFIXES = _HEIF_SUFFIXES | frozenset(
    [".bmp", ".dib", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"]
)
"""Lowercase suffixes of files that are read as stills. Any other file is read as a video, except HEIF photographs."""
_HEIF_BRANDS = frozenset([b"heic", b"heix", b"heim", b"heis", b"mif1"])
"""Brands of HEIF photographs (ISO/IEC 23008-12). Sequences have other brands, and so has AVIF."""


class _BadStill(NamedTuple):
    file: str
    reason: str
    cause: Exception


class Stills(Recorded):
    """Stills in a given order, with EXIF orientation applied, alpha dropped and 16-bit values scaled to 8 bits.

    Only the first frame of a file with several frames is read.
    """

    def __init__(self, files: Sequence[Path], folder: Path, text: str, source_id: str, reading: Reading) -> None:
        self._reading = reading
        self._files = files
        self._folder = folder
        self._text = text
        self._source_id = source_id
        super().__init__()

    def _read(self) -> Generator[Shot]:
        first_bad: _BadStill | None = None
        bad = count = 0
        part = self._reading.part
        picker = Picker(part)
        has_begun = False
        for path in self._files:
            pts_s = count / STILLS_PER_S
            if picker.is_over(pts_s):
                break
            if not picker.wants(pts_s):  # it counts as a frame, and is not read
                picker.takes(pts_s)
                count += 1
                continue
            file = path.relative_to(self._folder).as_posix()
            try:
                image = _read_still(path, self._reading.max_pixels)
            except _UNREADABLE as error:
                reason = _reason(error)
                first_bad = first_bad or _BadStill(file, reason, error)
                bad += 1
                if len(self._files) > 1:  # for a single file, the error below reports it
                    _log.warning("%s: %s", path, reason)
                continue
            frames = frame_count(path)
            if frames > 1:
                _log.warning("%s: only the first of %d frames is read; open this file alone to read all", path, frames)
            if not has_begun:
                self.info = self._describe(image, pts_s)
            has_begun = picker.takes(pts_s)
            yield Shot(count, pts_s, image, file)
            count += 1
        if first_bad:
            which, reason, cause = first_bad
            if len(self._files) == 1:
                raise SourceError(f"{self._text} cannot be read: {reason}") from cause
            what = f"{bad} of {len(self._files)} stills cannot be read; the first is {which} ({reason})"
            raise SourceError(f"{self._text}: {what}") from cause
        if not has_begun:
            if count < len(self._files):
                raise nothing_in(part, self._text, count / STILLS_PER_S)
            raise starts_behind(part, self._text, (count - 1) / STILLS_PER_S)

    def _describe(self, first: Image, first_s: float) -> SourceInfo:
        height, width = first.shape[:2]
        part = self._reading.part
        left = len(self._files) - round(first_s * STILLS_PER_S)
        return SourceInfo(
            source_id=self._source_id,
            text=self._text,
            width=width,
            height=height,
            fps=STILLS_PER_S / part.every,
            time_base=Fraction(1, STILLS_PER_S),
            frame_count=picked_count(part, left, first_s, Fraction(STILLS_PER_S)),
            is_live=False,
            stills=tuple(str(path) for path in self._files),
            part=part,
            begins_s=first_s if part.start_s > 0 else 0.0,
        )


def load_still(path: Path, max_pixels: int) -> Image:
    """Return one still as `Stills` reads it. Raises `SourceError`."""
    try:
        return _read_still(path, max_pixels)
    except _UNREADABLE as error:
        raise SourceError(f"{path} cannot be read: {_reason(error)}") from error


_UNREADABLE = (OSError, ValueError, RuntimeError, SyntaxError, cv2.error)


def _reason(error: Exception) -> str:
    is_ours = isinstance(error, OSError | TooLarge)
    return describe(error) if is_ours else "damaged or not a still"


def is_heif(path: Path) -> bool:
    """Return whether a file is a HEIF photograph, whatever its name. Raises `OSError`."""
    return _brand(path) in _HEIF_BRANDS


def _brand(path: Path) -> bytes:
    """Return the major brand of a file in ISO's base media format; b"" for another file."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[8:] if head[4:8] == b"ftyp" else b""


def _read_still(path: Path, max_pixels: int) -> Image:
    brand = _brand(path)
    is_sequence = path.suffix.lower() in _HEIF_SUFFIXES and brand not in (b"", b"avif", b"avis")
    if brand in _HEIF_BRANDS or is_sequence:
        return _read_heif(path, max_pixels)
    with contextlib.suppress(OSError, SyntaxError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damaged headers and PIL's own size limit
        try:
            with PIL.Image.open(path) as still:  # reads only the header
                size = still.size
        except PIL.Image.DecompressionBombError as error:
            # PIL's limit is lower than ours. Its message gives the size, as in "Image size (196000000 pixels) exceeds".
            found = re.search("[0-9]+", str(error))
            size = int(found[0]) if found else max_pixels + 1, 1
        check_size(*size, max_pixels)
    # Use imdecode: imread cannot open every file name on every system.
    # OpenCV reports damaged files on stderr, and our warnings already name them, so silence it. The log level belongs
    # to the host program and is restored.
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if image is None:
        raise ValueError(f"OpenCV cannot decode {path}")
    return np.asarray(image, np.uint8)


def _read_heif(path: Path, max_pixels: int) -> Image:
    """Return the complete photograph. Phones store it as tiles, which FFmpeg treats as separate images."""
    import pillow_heif  # takes 0.5 s, so import it only when needed

    still = pillow_heif.open_heif(path)
    width, height = still.size
    check_size(width, height, max_pixels)
    if still.info["bit_depth"] > 8:
        deep = pillow_heif.open_heif(path, convert_hdr_to_8bit=False)
        transfer = deep.info.get("nclx_profile", {}).get("transfer_characteristics", 0)
        sdr = hdr_to_bgr(np.asarray(deep, np.uint16), transfer)
        if sdr is not None:
            return sdr
    rgb = np.asarray(still.to_pillow().convert("RGB"))
    return np.ascontiguousarray(rgb[..., ::-1])
