"""Text to sink: which words, names and endings mean what."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from streampose.addresses import redact_address
from streampose.errors import UsageError
from streampose.sinks.null import NullSink
from streampose.sinks.poses import KeypointsSink
from streampose.sinks.publish import SCHEMES, PublishSink
from streampose.sinks.segments import SegmentsSink
from streampose.sinks.sink import Sink
from streampose.sinks.stills import PICTURE_SUFFIXES, PictureSink, PicturesSink
from streampose.sinks.video import VIDEO_FORMATS, VideoFileSink
from streampose.sinks.window import WindowSink

UNDERSTOOD = (
    "window, null, a video file (.mp4 .m4v .mov .mkv), keypoints (.jsonl, or - for standard output), "
    "a picture (.jpg .jpeg .png .webp .bmp), a folder of pictures (a name that ends in /), a live stream "
    f"({' '.join(f'{scheme}://' for scheme in SCHEMES)})"
)

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_FIELD = re.compile(r"\{([^{}]*)\}")


def fill_in(text: str, source_id: str) -> str:
    """Return the sink's `text` with `{source}` replaced by `source_id`; `{time}` is left to the recording.

    Raises:
        UsageError: another word in braces.
    """
    value = quote(source_id, safe="") if _URL.match(text) else source_id

    def value_of(field: re.Match[str]) -> str:
        if field[1] not in {"source", "time"}:
            shown = redact_address(text)
            raise UsageError(f"{shown}: the words in braces are {{source}} and, for video files, {{time}}")
        return value if field[1] == "source" else field[0]

    return _FIELD.sub(value_of, text)


def open_sink(
    text: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    source_path: str | None = None,
    window_title: str = "streampose",
    segment_s: float | None = None,
    give_up_after_s: float | None = None,
) -> Sink:
    """Return the sink that `text` names, checked but not yet opened: nothing on disk is changed.

    Args:
        text: one of `UNDERSTOOD`; `window`, `null` and `-` are words, so a folder of that name is `./window/`.
        overwrite: replace what is there instead of refusing.
        source_path: the file or folder that the run reads, which no sink may replace.
        window_title: of a window.
        segment_s: a video file goes on in a new one every so many seconds; of no meaning to other sinks. With it, or
            with `{time}` in the name, see `SegmentsSink`.
        give_up_after_s: how long a live stream may lack its first connection, see `PublishSink`.

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
    if url := _URL.match(target):
        if url[1].lower() not in SCHEMES:
            streams, shown = ", ".join(f"{scheme}://" for scheme in SCHEMES), redact_address(target)
            raise UsageError(f"cannot write to {shown}: live streams go to {streams}, the rest to files")
        return PublishSink(target, give_up_after_s=give_up_after_s)

    if "://" in target:
        raise UsageError(f"cannot write to {redact_address(target)}: an address begins with its scheme")
    path = Path(target)
    suffix = path.suffix.lower()
    if target.endswith(("/", os.sep)):
        return PicturesSink(path, overwrite=overwrite, source_path=source_path)
    if suffix in VIDEO_FORMATS and (segment_s is not None or "{time}" in target):
        return SegmentsSink(path, segment_s=segment_s)
    if "{time}" in target:
        raise UsageError(f"{target}: {{time}} is for the names of video files ({' '.join(VIDEO_FORMATS)})")
    if suffix in VIDEO_FORMATS:
        return VideoFileSink(path, overwrite=overwrite, source_path=source_path)
    if suffix == ".jsonl":
        return KeypointsSink(path, overwrite=overwrite, source_path=source_path)
    if suffix in PICTURE_SUFFIXES:
        return PictureSink(path, overwrite=overwrite, source_path=source_path)
    if target and os.path.isdir(target):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
        return PicturesSink(path, overwrite=overwrite, source_path=source_path)
    raise UsageError(f"do not know what to write to {target!r}: understood are {UNDERSTOOD}")
