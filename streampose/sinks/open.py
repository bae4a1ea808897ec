"""Text to sink: which words, names and endings mean what."""

from __future__ import annotations

import os
import re
from pathlib import Path

from streampose.errors import UsageError, redact
from streampose.sinks import Sink
from streampose.sinks.keypoints import KeypointsSink
from streampose.sinks.null import NullSink
from streampose.sinks.pictures import PICTURE_SUFFIXES, PictureSink, PicturesSink
from streampose.sinks.video import VIDEO_FORMATS, VideoFileSink
from streampose.sinks.window import WindowSink

UNDERSTOOD = (
    "window, null, a video file (.mp4 .m4v .mov .mkv), keypoints (.jsonl, or - for standard output), "
    "a picture (.jpg .jpeg .png .webp .bmp), a folder of pictures (a name that ends in /)"
)

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def open_sink(
    text: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    source_path: str | None = None,
    window_title: str = "streampose",
) -> Sink:
    """Return the sink that `text` names, checked but not yet opened: nothing on disk is changed.

    Args:
        text: one of `UNDERSTOOD`; `window`, `null` and `-` are words, so a folder of that name is `./window/`.
        overwrite: replace what is there instead of refusing.
        source_path: the file or folder that the run reads, which no sink may replace.

    Raises:
        UsageError: nothing of ours, something that exists, or a target that cannot be right.
        SinkError: a target that the system does not let us write, or no display for a window.
    """
    target = os.fspath(text)
    if target == "null":
        return NullSink()
    if target == "window":
        return WindowSink(window_title)
    if target == "-":
        return KeypointsSink(None)
    if _URL.match(target):
        raise UsageError(
            f"cannot write to {redact(target)}: this version writes files, folders and windows, no URLs yet"
        )

    path = Path(target)
    suffix = path.suffix.lower()
    if target.endswith(("/", os.sep)):
        return PicturesSink(path, overwrite=overwrite, source_path=source_path)
    if suffix in VIDEO_FORMATS:
        return VideoFileSink(path, overwrite=overwrite, source_path=source_path)
    if suffix == ".jsonl":
        return KeypointsSink(path, overwrite=overwrite, source_path=source_path)
    if suffix in PICTURE_SUFFIXES:
        return PictureSink(path, overwrite=overwrite, source_path=source_path)
    if target and path.is_dir():
        return PicturesSink(path, overwrite=overwrite, source_path=source_path)
    raise UsageError(f"do not know what to write to {target!r}: understood are {UNDERSTOOD}")
