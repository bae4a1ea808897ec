"""Describes one source of a run with its options. Opens nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from streampose.addresses import redact_address
from streampose.errors import UsageError
from streampose.options import check, options_of

if TYPE_CHECKING:
    from streampose.sinks.sink import Sink

DEFAULT_MAX_PIXELS = 200_000_000
_OPTIONS = [option.name for option in options_of("run") if option.of_source]
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9_-]+)=(?P<source>.+)", re.DOTALL)
_BADLY_NAMED = re.compile(r"([^=/:]*)=[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Input:
    """One source of a run."""

    source: str | int | os.PathLike[str]
    """A text, camera number or path; see `streampose.sources.open.open_source`."""
    name: str | None = None
    """Its `source_id`, used in frames and data and in place of `{source}`; None derives one from the text."""
    to: Sequence[str | os.PathLike[str] | Sink] | None = None
    """Its own sinks; None uses those of the run."""
    start_s: float | None = None
    """Leave out the frames of a recording before this time in seconds; None leaves out none. Times and numbers of the
    frames stay those in the whole recording."""
    end_s: float | None = None
    """Stop before the first frame at or after this time in seconds. A live source counts from its first frame."""
    every: int = 1
    """Process the first and then every Nth frame. Frames that are left out are not counted as dropped."""
    give_up_after_s: float | None = None
    """Give up on a live source that is unavailable for this many seconds. With 0, the source fails if the first attempt
    fails. With None, the source is retried indefinitely, except that a run's only source behaves as with 0."""
    stream: int | None = None
    """The video stream to read, counted from 0; None selects the best."""
    max_height: int | None = None
    """If there are several video streams or HLS variants, read the best one of at most this many lines; None sets no
    limit."""
    max_pixels: int = DEFAULT_MAX_PIXELS
    """Refuse frames and stills with more pixels. An image of the default size takes 600 MB."""
    freshness_s: float = 0.5
    """Drop frames of a live source that arrive more than this many seconds late."""
    rtsp_transport: str = "tcp"
    """`tcp` or `udp`."""
    size: str | None = None
    """Frame size of a camera, such as `1280x720`; None uses the camera's default."""
    fps: float | None = None
    """Frame rate of a camera; None uses the camera's default."""
    input_format: str | None = None
    """Pixel or codec format of a camera, such as `mjpeg`; None uses the camera's default."""


def check_name(name: str | None) -> None:
    """Raise `UsageError` if `name` is not a valid `source_id`. None is valid: the text then gives the name."""
    if name is not None and (not name.isprintable() or not name.strip(" .") or "/" in name):
        raise UsageError(
            f"{redact_address(name)!r} cannot name a source: names become parts of file names; use at least one letter "
            "or digit, and no '/'"
        )


def checked(one: Input) -> Input:
    """Return `one` with checked and converted options. Raises `UsageError`."""
    check_name(one.name)
    return replace(one, **check({name: getattr(one, name) for name in _OPTIONS}, _OPTIONS))


def parse_input(text: str) -> tuple[str | None, str]:
    """Split `NAME=SOURCE` into name and source. The name is None if there is none, or if the whole text names a file.

    Raises:
        UsageError: the text is an address after an invalid name.
    """
    match = _NAMED.fullmatch(text)
    if match is None and (odd := _BADLY_NAMED.match(text)):
        raise UsageError(f"{odd[1]!r} cannot name a source: use letters, digits, - and _")
    if match is None or Path(text).exists():
        return None, text
    return match["name"], match["source"]
