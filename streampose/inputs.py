"""One source of a run with its options, as values. Opens nothing."""

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

_OPTIONS = [option.name for option in options_of("run") if option.of_source]
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9_-]+)=(?P<source>.+)", re.DOTALL)
_BADLY_NAMED = re.compile(r"([^=/:]*)=[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Input:
    """One source of a run."""

    source: str | int | os.PathLike[str]
    """The text, camera number or path that `streampose.sources.open.open_source` takes."""
    name: str | None = None
    """Its `source_id`, which frames and data carry and `{source}` stands for; None derives one from the text."""
    to: Sequence[str | os.PathLike[str] | Sink] | None = None
    """Its own sinks; None takes those of the run."""
    give_up_after_s: float | None = None
    """Give up a live source that stays away for this many seconds; 0 fails on the first attempt. None never gives up,
    except that a run's only source fails on the first attempt."""
    stream: int | None = None
    """The video stream to read, counted from 0; None takes the best."""
    max_height: int | None = None
    """Of several video streams or HLS variants, take the best of at most this many lines; None sets no limit."""
    max_pixels: int = 200_000_000
    """Refuse frames and stills of more pixels; so many take 600 MB."""
    freshness_s: float = 0.5
    """Drop frames of a live source that are older, in seconds."""
    rtsp_transport: str = "tcp"
    """`tcp` or `udp`."""
    size: str | None = None
    """Frame size of a camera, as `1280x720`; None leaves it to the camera."""
    fps: float | None = None
    """Frame rate of a camera; None leaves it to the camera."""
    input_format: str | None = None
    """Pixel or codec format of a camera, as `mjpeg`; None leaves it to the camera."""


def check_name(name: str | None) -> None:
    """Raise `UsageError` when `name` cannot be a `source_id`; None, for one made from the text, can."""
    if name is not None and (not name.isprintable() or not name.strip(" .") or "/" in name):
        raise UsageError(
            f"{redact_address(name)!r} cannot name a source: names become parts of file names; use at least one letter "
            "and no '/'"
        )


def checked(one: Input) -> Input:
    """Return an input with checked options. Raises `UsageError`."""
    check_name(one.name)
    return replace(one, **check({name: getattr(one, name) for name in _OPTIONS}, _OPTIONS))


def parse_input(text: str) -> tuple[str | None, str]:
    """Split `NAME=SOURCE` into both. The name is None if there is none, or if the text is the name of a file.

    Raises:
        UsageError: an address follows an invalid name.
    """
    match = _NAMED.fullmatch(text)
    if match is None and (odd := _BADLY_NAMED.match(text)):
        raise UsageError(f"{odd[1]!r} cannot name a source: use letters, digits, - and _")
    if match is None or Path(text).exists():
        return None, text
    return match["name"], match["source"]
