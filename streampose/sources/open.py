"""Maps a text to a source. This is the only module that decides which inputs are valid and which of them are live."""

from __future__ import annotations

import contextlib
import difflib
import glob
import os
import re
import stat
import threading
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path

from streampose.addresses import redact_address
from streampose.errors import SourceError, UsageError, describe
from streampose.inputs import Input, checked
from streampose.picker import part_of
from streampose.sources.animation import Animation, frame_count
from streampose.sources.connection import Connection
from streampose.sources.decode import Lost
from streampose.sources.endpoint import address, camera
from streampose.sources.live import OPEN_TIMEOUT_S, LiveSource
from streampose.sources.recorded import VideoFile
from streampose.sources.remote import RemoteRecording, is_finite
from streampose.sources.source import Reading, Source, file_safe
from streampose.sources.stdin import StandardInput
from streampose.sources.stills import STILL_SUFFIXES, Stills, is_heif

DEMO = "demo"
"""The text that selects the bundled clip. To read a file of that name, write `./demo`."""
_LIVE = re.compile(r"-|[0-9]+|/dev/video[0-9]+|[A-Za-z][A-Za-z0-9+.-]*://.*", re.DOTALL)


def is_live_text(text: str) -> bool:
    """Return whether `text` names a camera, a network address or standard input rather than a file."""
    return _LIVE.fullmatch(text) is not None


def open_source(source: str | os.PathLike[str] | Input, *, name: str | None = None, is_alone: bool = True) -> Source:
    """Open a source. For a recording, this reads the first frame.

    Args:
        source: a video file, a still, a folder or glob pattern of stills (`**` matches nested folders), `demo`, a
            camera (`0`, `/dev/video2`), an address (see `streampose.sources.endpoint.address`) or `-` for a container
            on standard input; or an `Input`, which carries its own options. A path object always means a file or
            folder.
        name: the `source_id` of its frames if `source` is not an `Input`; None derives it from the text.
        is_alone: whether the run has no other source. A live source that is alone fails if its first attempt fails.

    Raises:
        UsageError: a value is invalid, or the text names no source.
        SourceError: the source is missing, unreadable, damaged at its first frame, or has no frame.
    """
    one = checked(source if isinstance(source, Input) else Input(source, name))
    if one.give_up_after_s is None and is_alone:
        one = replace(one, give_up_after_s=0.0)
    if isinstance(one.source, int | Integral):
        if isinstance(one.source, bool) or int(one.source) < 0:
            raise UsageError(f"`source`: {one.source!r} is not a camera number: use 0 for the first camera")
        spelled = str(int(one.source))
    else:
        spelled = os.fspath(one.source)
    if not spelled:
        raise UsageError(f"an empty source: give {_READABLE}")
    reading = reading_of(one)
    if not isinstance(one.source, os.PathLike):
        if spelled == DEMO:
            from streampose.networks.checkpoints import demo_clip

            return VideoFile(demo_clip(), spelled, one.name or DEMO, reading)
        if is_live_text(spelled):
            return _open_stream(spelled, one, reading)
    try:
        return _open_path(spelled, one.name, reading)
    except OSError as error:
        raise SourceError(f"{spelled} cannot be opened: {describe(error)}") from error


def reading_of(one: Input) -> Reading:
    """Return what is read of a source. Raises `UsageError` if the part is empty."""
    return Reading(one.stream, one.max_height, one.max_pixels, part_of(one.start_s, one.end_s, one.every))


def _open_stream(text: str, one: Input, reading: Reading) -> Source:
    """Open an input that is neither a file nor a folder. A finite input is a recording; any other is live."""
    if text == "-":
        return StandardInput(one.name or "stdin", reading)
    if "://" in text:
        if (one.size, one.fps, one.input_format) != (None, None, None):
            shown = redact_address(text)
            raise UsageError(f"{shown}: `size`, `fps` and `input_format` apply only to cameras: remove them")
        endpoint = address(text, one.rtsp_transport)
    else:
        endpoint = camera(text, one.size, one.fps, one.input_format)
    source_id = one.name or endpoint.source_id

    def live(connection: Connection | None = None) -> LiveSource:
        if reading.part.start_s > 0:
            if connection is not None:
                connection.release()
            raise UsageError(f"{endpoint.text} is live: `start_s` applies only to recordings")
        return LiveSource(
            endpoint,
            source_id,
            reading,
            give_up_after_s=one.give_up_after_s,
            freshness_s=one.freshness_s,
            connection=connection,
        )

    if not endpoint.may_be_recorded:
        return live()
    connection = Connection(endpoint, reading, OPEN_TIMEOUT_S, endpoint.read_timeout_s, source_id)
    try:
        container = connection.container(threading.Event())
    except Lost:
        connection.release()
        return live()  # it retries and reports the reason
    assert container is not None  # the event is never set
    if is_finite(container):
        return RemoteRecording(connection, endpoint.text, source_id, reading)
    if container.format.name == "hls":
        # Reconnect when frames are requested: a playlist plays at its own pace from where it was opened.
        connection.release()
        return live()
    return live(connection)


_READABLE = "a video file, a still, a folder or glob pattern of stills, a camera, a stream address, or 'demo'"


def _open_path(spelled: str, name: str | None, reading: Reading) -> Source:
    path = Path(spelled)
    try:
        status = path.stat()
    except FileNotFoundError:
        if glob.has_magic(spelled):
            found = [Path(match) for match in glob.glob(spelled, recursive=True)]  # noqa: PTH207 Path.glob refuses "/a/*"
            return _open_stills([p for p in found if _is_still(p)], None, spelled, name, reading)
        if path.is_symlink():
            raise SourceError(f"{spelled} is a broken link: {path.readlink()} does not exist") from None
        hint = f": an address starts with its scheme; give {_READABLE}" if "://" in spelled else _suggestion(path)
        raise SourceError(f"{redact_address(spelled)} does not exist{hint}") from None
    except ValueError as error:  # a null byte
        raise SourceError(f"{spelled!r} cannot be opened: {describe(error)}") from error
    if stat.S_ISDIR(status.st_mode):
        inside = [p for p in path.iterdir() if _is_still(p) and not p.name.startswith(".")]
        return _open_stills(inside, path, spelled, name, reading)
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{spelled} is neither a file nor a folder")
    if status.st_size == 0:
        raise SourceError(f"{spelled} is empty (0 bytes)")
    source_id = name or file_safe(path.stem)
    if path.suffix.lower() in STILL_SUFFIXES or is_heif(path):
        if frame_count(path) > 1:
            return Animation(path, spelled, source_id, reading)
        return Stills([path], path.parent, spelled, source_id, reading)
    return VideoFile(path, spelled, source_id, reading)


def _open_stills(
    files: Sequence[Path], folder: Path | None, spelled: str, name: str | None, reading: Reading
) -> Source:
    if not files:
        raise SourceError(f"{spelled}: no stills found (recognized by suffix: {' '.join(sorted(STILL_SUFFIXES))})")
    folder = folder or Path(os.path.commonpath([p.parent for p in files]))
    return Stills(sorted(files, key=_natural), folder, spelled, name or file_safe(folder.resolve().name), reading)


def _is_still(path: Path) -> bool:
    return path.suffix.lower() in STILL_SUFFIXES and path.is_file()


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Return a sort key that orders img2 before img10 and still distinguishes A01 from a1."""
    text = path.as_posix()
    parts = re.split(r"([0-9]+)", text.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], text


def _suggestion(path: Path) -> str:
    if not path.parent.is_dir():
        return f": the folder {path.parent} does not exist"
    names: list[str] = []
    with contextlib.suppress(OSError):  # the folder may be entered but not listed
        names = [beside.name for beside in path.parent.iterdir()]
    close = difflib.get_close_matches(path.name, names, n=3)
    return f"; did you mean {' or '.join(str(path.with_name(match)) for match in close)}?" if close else ""
