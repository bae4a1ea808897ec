"""Text to source: what can be named as an input, and whether it is live or recorded. Nothing else decides that."""

from __future__ import annotations

import contextlib
import difflib
import glob
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from streampose.addresses import redact_address
from streampose.errors import SourceError, UsageError, describe
from streampose.inputs import Input, check_name
from streampose.sources.live import open_live
from streampose.sources.recorded import PICTURE_SUFFIXES, Stills, VideoFile
from streampose.sources.source import Source, file_safe

DEMO = "demo"
"""The text that means the bundled clip; a file of that name is `./demo`."""
_LIVE = re.compile(r"-|[0-9]+|/dev/video[0-9]+|[A-Za-z][A-Za-z0-9+.-]*://.*", re.DOTALL)


def is_live_text(text: str) -> bool:
    """Whether `text` names a camera, a network address or standard input, and not a file."""
    return _LIVE.fullmatch(text) is not None


def open_source(source: str | os.PathLike[str] | Input, *, name: str | None = None, is_alone: bool = True) -> Source:
    """Open a source; of a recording the first picture is read.

    Args:
        source: a video file, a picture, a folder or a glob pattern of pictures (`**` goes through folders), `demo`,
            or what `streampose.sources.live.open_live` reads; or an `Input` with options of its own. A path object
            always means a file or folder.
        name: the `source_id` of its frames, for a source that is no `Input`; None makes one from the text.
        is_alone: whether the run has no other source. An only source that is live fails on the first attempt.

    Raises:
        UsageError: no source is named so.
        SourceError: the source is missing, unreadable, damaged from its first picture on, or without pictures.
    """
    one = source if isinstance(source, Input) else Input(source, name)
    if isinstance(one.source, int):  # a camera's number
        one = replace(one, source=str(one.source))
    assert not isinstance(one.source, int)
    spelled = os.fspath(one.source)
    if not spelled:
        raise UsageError(f"an empty source: give {_READABLE}")
    check_name(one.name)
    if isinstance(one.source, str):
        if one.source == DEMO:
            from streampose.networks.checkpoints import demo_clip

            return VideoFile(demo_clip(), spelled, one.name or DEMO)
        if is_live_text(one.source):
            return open_live(
                one.source,
                name=one.name,
                give_up_after_s=0.0 if one.give_up_after_s is None and is_alone else one.give_up_after_s,
                freshness_s=one.freshness_s,
                rtsp_transport=one.rtsp_transport,
                size=one.size,
                fps=one.fps,
                input_format=one.input_format,
            )
    try:
        return _open_path(spelled, one.name)
    except OSError as error:
        raise SourceError(f"{spelled} cannot be opened: {describe(error)}") from error


_READABLE = "a video file, a picture, a folder or glob of pictures, a camera, a stream's address, or 'demo'"


def _open_path(spelled: str, name: str | None) -> Source:
    path = Path(spelled)
    try:
        status = path.stat()
    except FileNotFoundError:
        if glob.has_magic(spelled):
            found = [Path(match) for match in glob.glob(spelled, recursive=True)]  # noqa: PTH207 Path.glob refuses "/a/*"
            return _open_pictures([p for p in found if _is_picture(p)], None, spelled, name)
        if path.is_symlink():
            raise SourceError(f"{spelled} is a broken link: there is no {path.readlink()}") from None
        hint = f": an address begins with its scheme; give {_READABLE}" if "://" in spelled else _suggestion(path)
        raise SourceError(f"{redact_address(spelled)} does not exist{hint}") from None
    except ValueError as error:  # a null byte
        raise SourceError(f"{spelled!r} cannot be opened: {describe(error)}") from error
    if stat.S_ISDIR(status.st_mode):
        inside = [p for p in path.iterdir() if _is_picture(p) and not p.name.startswith(".")]
        return _open_pictures(inside, path, spelled, name)
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{spelled} is neither a file nor a folder")
    if status.st_size == 0:
        raise SourceError(f"{spelled} is empty (0 bytes)")
    source_id = name or file_safe(path.stem)
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return Stills([path], path.parent, spelled, source_id)
    return VideoFile(path, spelled, source_id)


def _open_pictures(files: Sequence[Path], folder: Path | None, spelled: str, name: str | None) -> Source:
    if not files:
        raise SourceError(
            f"{spelled}: no pictures there (known by their endings: {' '.join(sorted(PICTURE_SUFFIXES))})"
        )
    folder = folder or Path(os.path.commonpath([p.parent for p in files]))
    return Stills(sorted(files, key=_natural), folder, spelled, name or file_safe(folder.resolve().name))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Return a sort key that puts img2 before img10 and still tells A01 from a1."""
    text = path.as_posix()
    parts = re.split(r"([0-9]+)", text.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], text


def _suggestion(path: Path) -> str:
    if not path.parent.is_dir():
        return f": there is no folder {path.parent}"
    names: list[str] = []
    with contextlib.suppress(OSError):  # a folder that may be entered but not listed
        names = [beside.name for beside in path.parent.iterdir()]
    close = difflib.get_close_matches(path.name, names, n=3)
    return f"; did you mean {' or '.join(str(path.with_name(match)) for match in close)}?" if close else ""
