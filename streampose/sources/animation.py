"""Image files with several frames: animated WebP, animated PNG and multi-page TIFF."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import PIL.Image

from streampose.errors import SourceError, describe
from streampose.frames import Image, SourceInfo
from streampose.picker import Picker, nothing_in, picked_count, starts_behind
from streampose.sources.convert import TooLarge, check_size
from streampose.sources.recorded import STILLS_PER_S, Recorded, Shot
from streampose.sources.source import Reading

_FORMATS = frozenset(["WEBP", "PNG", "TIFF", "GIF"])
"""A GIF file gets here if it has the suffix of another format; otherwise it is read as a video."""
_MS = Fraction(1, 1000)


def frame_count(path: Path) -> int:
    """Return the number of frames in a image file, or 1 if the file cannot be read."""
    with contextlib.suppress(Exception), warnings.catch_warnings():  # PIL raises many exception types on damaged files
        warnings.simplefilter("ignore")
        with PIL.Image.open(path) as opened:
            if opened.format in _FORMATS:
                return int(getattr(opened, "n_frames", 1))
    return 1


class Animation(Recorded):
    """The frames of one image file, timed by its frame durations, or by `STILLS_PER_S` if it stores none."""

    def __init__(self, path: Path, text: str, source_id: str, reading: Reading) -> None:
        """Open `path`. Raises `SourceError`."""
        self._path = path
        self._text = text
        self._source_id = source_id
        self._reading = reading
        super().__init__()

    def _read(self) -> Generator[Shot]:
        pts_ms = count = 0
        pts_s = 0.0
        part = self._reading.part
        picker = Picker(part)
        has_begun = is_over = False
        try:
            with PIL.Image.open(self._path) as opened:
                for image, duration_ms in self._frames(opened):
                    pts_s = pts_ms / 1000
                    is_over = picker.is_over(pts_s)
                    if is_over:
                        break
                    if picker.takes(pts_s):
                        if not has_begun:
                            self.info = self._describe(image, int(getattr(opened, "n_frames", 1)) - count, pts_s)
                        has_begun = True
                        yield Shot(count, pts_s, image)
                    count += 1
                    pts_ms += duration_ms or 1000 // STILLS_PER_S
            if not has_begun:
                raise (nothing_in if is_over else starts_behind)(part, self._text, pts_s)
        except TooLarge as error:
            raise SourceError(f"{self._text}: {describe(error)}") from error
        except (OSError, ValueError, EOFError, SyntaxError, cv2.error, PIL.Image.DecompressionBombError) as error:
            raise SourceError(f"{self._text} is damaged at frame {count}: {describe(error)}") from error

    def _frames(self, opened: PIL.Image.Image) -> Iterator[tuple[Image, int]]:
        """Yield each frame as BGR with its duration in ms (0 if the file stores none)."""
        for number in range(int(getattr(opened, "n_frames", 1))):
            opened.seek(number)
            check_size(*opened.size, self._reading.max_pixels)
            if opened.format == "TIFF":  # OpenCV scales 16-bit values to 8 bits; PIL clips them
                _, pages = cv2.imreadmulti(str(self._path), number, 1, flags=cv2.IMREAD_COLOR)
                yield np.asarray(pages[0], np.uint8), 0
            else:
                rgb = np.asarray(opened.convert("RGB"))
                yield np.ascontiguousarray(rgb[..., ::-1]), round(opened.info.get("duration", 0))

    def _describe(self, first: Image, frames: int, first_s: float) -> SourceInfo:
        height, width = first.shape[:2]
        part = self._reading.part
        return SourceInfo(
            source_id=self._source_id,
            text=self._text,
            width=width,
            height=height,
            fps=None,
            time_base=_MS,
            frame_count=picked_count(part, frames, first_s, None),
            is_live=False,
            part=part,
            begins_s=first_s if part.start_s > 0 else 0.0,
        )
