"""Maps a text to a sink: the meaning of each keyword, name and suffix."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

from streampose.addresses import redact_address
from streampose.errors import UsageError
from streampose.frames import SourceInfo
from streampose.records.formats import writer_of
from streampose.sinks.desk import WindowSettings
from streampose.sinks.null import NullSink
from streampose.sinks.poses import KeypointsSink
from streampose.sinks.publish import SCHEMES, PublishSink
from streampose.sinks.records import RecordsSink
from streampose.sinks.segments import SegmentsSink
from streampose.sinks.sink import SharedSink, Sink
from streampose.sinks.stills import STILL_SUFFIXES, StillSink, StillsSink
from streampose.sinks.video import VIDEO_FORMATS, VideoFileSink
from streampose.sinks.window import Grid, WindowSink

UNDERSTOOD = (
    "window, null, a video file (.mp4 .m4v .mov .mkv), keypoints (.jsonl, or - for standard output; .csv, .parquet, "
    ".results.json, .coco.json, .openpose, .trc, .mot, .c3d), "
    "a still (.jpg .jpeg .png .webp .bmp), a folder of stills (a name that ends in /), a live stream "
    f"({' '.join(f'{scheme}://' for scheme in SCHEMES)})"
)

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_FIELD = re.compile(r"\{([^{}]*)\}")


_SHARED: dict[str, Callable[[int, WindowSettings], SharedSink]] = {"window": Grid}
"""Keywords whose sink is shared by several sources, each with a function that makes the sink for N sources."""


def open_sinks(
    opened: ExitStack,
    sources: Sequence[SourceInfo],
    wanted: Sequence[Sequence[str | os.PathLike[str] | Sink | SharedSink]],
    *,
    overwrite: bool = False,
    segment_s: float | None = None,
    speed: float = 1.0,
    window: WindowSettings = WindowSettings(),  # noqa: B008 - it is frozen
) -> list[list[Sink]]:
    """Return the sinks of each source, made by `open_sink`. Each target belongs to one source or is shared.

    Args:
        opened: the exit stack that closes the sinks.
        sources: the sources of the run.
        wanted: the requested sinks of each source.
        overwrite, segment_s, speed, window: see `open_sink`.

    Raises:
        UsageError, SinkError: see `open_sink`; also if two sources have the same name or two sinks the same target.
    """
    several = len(sources) > 1
    taken: set[object] = set()
    shared: dict[str, SharedSink] = {}

    def take(what: object, shown: str, remedy: str) -> None:
        if what in taken:
            raise UsageError(f"{redact_address(shown)}: {remedy}")
        taken.add(what)

    def sink_of(source: SourceInfo, sink: str | os.PathLike[str] | Sink | SharedSink, *, is_alone: bool) -> Sink:
        if isinstance(sink, SharedSink):
            return sink.of_source(source)
        if isinstance(sink, Sink):
            take(id(sink), sink.text, "the same sink is given twice")
            return sink
        text = fill_in(os.fspath(sink), source.source_id)
        if "\0" in text:
            raise UsageError(f"cannot write to {text!r}: a name has no null character")
        if text == "window" and speed != 1 and (several or source.is_live):
            raise UsageError("window: `speed` applies only to a single recording: other frames are shown as they come")
        if several and text in _SHARED:
            if text not in shared:
                shared[text] = _SHARED[text](sum(text in some for some in wanted), window)
            return shared[text].of_source(source)
        place = _place(text)
        if text == "-":
            take(place, text, "only one sink can use standard output; write the others to files, e.g. {source}.jsonl")
        elif place is not None:
            take(place, text, "two sinks write to this target; give each its own, e.g. with {source} in the name")
        return open_sink(
            text,
            overwrite=overwrite,
            source_path=source.place,
            segment_s=segment_s,
            speed=speed,
            window=window,
            give_up_after_s=0.0 if is_alone and not several else None,
        )

    found = []
    for source, some in zip(sources, wanted, strict=True):
        take(("source", source.source_id), source.source_id, "two sources have this name; name them with NAME=SOURCE")
        found.append([opened.enter_context(sink_of(source, sink, is_alone=len(some) == 1)) for sink in some])
    return found


def _place(text: str) -> str | None:
    """Return the unique target that a sink's text names; None if several sinks may have the same text."""
    if text in ("window", "null"):
        return None
    return text if "://" in text or text == "-" else os.path.realpath(text)


def fill_in(text: str, source_id: str) -> str:
    """Return the sink's `text` with `{source}` replaced by `source_id`. `SegmentsSink` fills in `{time}`.

    Raises:
        UsageError: the text has another word in braces.
    """
    value = quote(source_id, safe="") if _URL.match(text) else source_id

    def value_of(field: re.Match[str]) -> str:
        if field[1] not in {"source", "time"}:
            shown = redact_address(text)
            raise UsageError(f"{shown}: only {{source}} and, for video files, {{time}} are supported in braces")
        return value if field[1] == "source" else field[0]

    return _FIELD.sub(value_of, text)


def open_sink(
    text: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    source_path: str | None = None,
    window: WindowSettings = WindowSettings(),  # noqa: B008 - it is frozen
    segment_s: float | None = None,
    speed: float = 1.0,
    give_up_after_s: float | None = None,
) -> Sink:
    """Return the sink that `text` names, checked but not yet opened. Nothing on disk changes.

    Args:
        text: one of `UNDERSTOOD`. `window`, `null` and `-` are keywords; write `./window/` for a folder of that name.
        overwrite: replace existing files instead of refusing.
        source_path: the file or folder that the run reads; no sink may replace it.
        window: how a window opens.
        segment_s: start a new video file every `segment_s` seconds; other sinks ignore it. A video file with this
            option, or with `{time}` in its name, is a `SegmentsSink`.
        speed: speed of the frames of video files, relative to the source. Live streams have no other speed.
        give_up_after_s: how long a live stream may wait for its first connection, see `PublishSink`.

    Raises:
        UsageError: the text names no known sink, the target exists, or the target is invalid.
        SinkError: the system refuses access to the target, or a window has no display.
    """
    target = os.fspath(text)
    if target == "null":
        return NullSink()
    if target == "window":
        return WindowSink(window)
    if target == "-":
        return KeypointsSink(None)
    if url := _URL.match(target):
        if url[1].lower() not in SCHEMES:
            streams, shown = ", ".join(f"{scheme}://" for scheme in SCHEMES), redact_address(target)
            raise UsageError(f"cannot write to {shown}: a live stream needs {streams}; other outputs are files")
        if speed != 1:
            raise UsageError(f"cannot write to {redact_address(target)}: `speed` applies only to files and the window")
        return PublishSink(target, give_up_after_s=give_up_after_s)

    if "://" in target:
        raise UsageError(
            f"cannot write to {redact_address(target)}: an address starts with its scheme, such as rtmp://"
        )
    path = Path(target)
    suffix = path.suffix.lower()
    kind = writer_of(path)
    if target.endswith(("/", os.sep)) and not (kind is not None and kind.is_folder):
        return StillsSink(path, overwrite=overwrite, source_path=source_path)
    if suffix in VIDEO_FORMATS and (segment_s is not None or "{time}" in target):
        return SegmentsSink(path, segment_s=segment_s, speed=speed)
    if "{time}" in target:
        raise UsageError(f"{target}: {{time}} works only in names of video files ({' '.join(VIDEO_FORMATS)})")
    if suffix in VIDEO_FORMATS:
        return VideoFileSink(path, overwrite=overwrite, source_path=source_path, speed=speed)
    if suffix == ".jsonl":
        return KeypointsSink(path, overwrite=overwrite, source_path=source_path)
    if kind is not None:
        return RecordsSink(path, kind, overwrite=overwrite, source_path=source_path)
    if suffix in STILL_SUFFIXES:
        return StillSink(path, overwrite=overwrite, source_path=source_path)
    if target and os.path.isdir(target):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
        return StillsSink(path, overwrite=overwrite, source_path=source_path)
    raise UsageError(f"unknown output {target!r}: give {UNDERSTOOD}")
