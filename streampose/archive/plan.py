"""Decides what a batch does: which recordings it has, what their outputs are called, and which of them are to be done.

Reads folders, and nothing in a recording. Changes nothing.
"""

from __future__ import annotations

import glob
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from streampose.archive.entry import Entry, State
from streampose.errors import SourceError, UsageError, describe
from streampose.sinks.open import open_sink
from streampose.sinks.target import name_of

_VIDEO = "3gp asf avi dv f4v flv m2ts m2v m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv"
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEO.split())
"""Endings of the files that are taken from a folder."""


@dataclass(frozen=True, slots=True)
class Found:
    """A recording that was found."""

    name: str
    """The path relative to the input folder, with `/`."""
    path: str
    """The path as the user spelled it."""
    size_bytes: int
    modified_ns: int
    """0 for a file that cannot be looked at, such as a broken link."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The recordings of a batch."""

    root: str
    """The absolute path of the folder to which the names are relative."""
    recordings: tuple[Found, ...]


def find_inputs(inputs: Sequence[str], out: Path) -> Inputs:
    """Return the recordings in a folder, of a glob pattern, in a list of files, or at these paths.

    A folder is searched with all its subfolders, for files with a suffix in `VIDEO_SUFFIXES`. Links to files are taken,
    links to folders are not followed. Hidden files and folders, and the folder `out`, are left out.

    Args:
        inputs: one folder, glob pattern (`**` matches nested folders), or text file with a path per line (`-` is
            standard input); or paths of recordings. Relative paths in a list are relative to the current folder.

    Raises:
        UsageError: there is no recording, or `out` contains the input folder.
        SourceError: a list cannot be read.
    """
    if len(inputs) == 1:
        found = _find_one(inputs[0], out)
    else:
        for text in inputs:
            if Path(text).is_dir():
                raise UsageError(f"{name_of(text)} is a folder: give one folder, or several recordings")
        found = _listed(inputs)
    if not found.recordings:
        raise UsageError(f"{name_of(inputs[0])}: no video files found")
    return found


def _find_one(text: str, out: Path) -> Inputs:
    path = Path(text)
    if text == "-":
        return _listed(_lines(sys.stdin.buffer.read(), "standard input"))
    if path.is_dir():
        _check_apart(path, out)
        return Inputs(os.path.realpath(text), tuple(_found_in(text, _walk(text, out))))
    if path.is_file():
        if path.suffix.lower() in VIDEO_SUFFIXES:
            return _listed([text])
        try:
            return _listed(_lines(path.read_bytes(), name_of(text)))
        except OSError as error:
            raise SourceError(f"cannot read {name_of(text)}: {describe(error)}") from error
    if glob.has_magic(text):
        root = _root_of(text)
        _check_apart(Path(root), out)
        matches = glob.glob(text, recursive=True)  # noqa: PTH207 - Path.glob refuses "/a/*"
        named = glob.has_magic(Path(text).suffix) or not Path(text).suffix
        files = [
            match
            for match in matches
            if not os.path.isdir(match)  # noqa: PTH112 - as spelled
            and (not named or Path(match).suffix.lower() in VIDEO_SUFFIXES)
            and not _is_inside(Path(match), out)
            and not _is_behind_link(root, match)
        ]
        return Inputs(os.path.realpath(root), tuple(_found_in(root, sorted(files, key=_natural))))
    raise SourceError(f"{name_of(text)} does not exist: give a folder, a glob pattern or a list of video files")


def _check_apart(folder: Path, out: Path) -> None:
    """Raise `UsageError` if outputs would be found as recordings by the next start."""
    if _is_inside(folder, out):
        raise UsageError(f"`out` {name_of(out)} holds the recordings: choose another folder, such as one inside it")


def _is_inside(path: Path, folder: Path) -> bool:
    """Return whether `path` is `folder`, or is inside it."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _is_behind_link(root: str, path: str) -> bool:
    """Return whether a folder between `root` and `path` is a link. Links may lead in circles."""
    between = Path(os.path.relpath(path, root)).parents[:-1]  # the last one is `root` itself
    return any(Path(root, folder).is_symlink() for folder in between)


def _walk(folder: str, out: Path) -> Iterator[str]:
    skipped = os.path.realpath(out)
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(
            (one for one in folders if one[0] != "." and os.path.realpath(os.path.join(where, one)) != skipped),  # noqa: PTH118
            key=_natural,
        )
        for file in sorted(files, key=_natural):
            if file[0] != "." and Path(file).suffix.lower() in VIDEO_SUFFIXES:
                yield os.path.join(where, file)  # noqa: PTH118 - as spelled


def _root_of(pattern: str) -> str:
    """Return the folder that precedes the first special character of a glob pattern."""
    folder = pattern
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)  # noqa: PTH120 - Path would change the spelling
    return folder or "."


def _found_in(root: str, paths: Iterable[str]) -> Iterator[Found]:
    for path in paths:
        yield _found(os.path.relpath(path, root), path)


def _listed(paths: Iterable[str]) -> Inputs:
    """Return the recordings at `paths`. A name is the path as it is spelled; outside the current folder, the absolute
    path without its beginning.
    """
    found: dict[str, Found] = {}
    is_relative = False
    for path in paths:
        name = os.path.normpath(path)
        if os.path.isabs(name) or name.startswith(os.pardir + os.sep):  # noqa: PTH117 - a text
            absolute = Path(os.path.abspath(path))  # noqa: PTH100 - does not follow links
            name = str(absolute.relative_to(absolute.anchor))
        else:
            is_relative = True
        one = _found(name, path)
        found.setdefault(one.name, one)
    root = os.path.realpath(os.curdir) if is_relative else os.path.abspath(os.sep)  # noqa: PTH100
    return Inputs(root, tuple(found.values()))


def _lines(data: bytes, name: str) -> list[str]:
    """Return the paths in a list. They are separated by line ends, or by null characters as `find -print0` does."""
    if re.search(rb"[\x01-\x08\x0e-\x1f]", data[:4096]):
        raise UsageError(f"{name} is neither a video file nor a list of video files")
    separator = b"\0" if b"\0" in data else b"\n"
    lines = [line.rstrip(b"\r") for line in data.removeprefix(b"\xef\xbb\xbf").split(separator)]
    return [os.fsdecode(line) for line in lines if line.strip()]


def _found(name: str, path: str) -> Found:
    # Names in the manifest are text: bytes that are not valid UTF-8 are escaped.
    name = os.fsencode(Path(name).as_posix()).decode("utf-8", "backslashreplace")
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return Found(name, path, 0, 0)
    size_bytes = status.st_size if stat.S_ISREG(status.st_mode) else 0
    return Found(name, path, size_bytes, status.st_mtime_ns)


def _natural(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that orders clip2 before clip10."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def check_targets(targets: Sequence[str], out: Path) -> None:
    """Check the names of the outputs of each recording.

    Raises:
        UsageError: a name is none of a file or folder in `out`, or is not different for each recording.
        SinkError: `out` cannot be written.
    """
    for target in targets:
        shown = name_of(target)
        if target == "null":
            continue
        if target in ("-", "window") or "://" in target:
            raise UsageError(f"{shown}: the outputs of a batch are files, such as {{name}}.jsonl")
        if Path(target).is_absolute() or os.pardir in Path(target).parts:
            raise UsageError(f"{shown}: the outputs of a batch are in its `out` folder: give a name in it")
        if "{name}" not in target:
            raise UsageError(f"{shown}: recordings need names of their own: write {{name}} in it")
        if "{" in target.replace("{name}", ""):
            raise UsageError(f"{shown}: only {{name}} is supported in braces")
        open_sink(target_path(out, target.replace("{name}", "name")), overwrite=True)
    repeated = [target for target, count in Counter(map(os.path.normpath, targets)).items() if count > 1]
    if repeated:
        raise UsageError(f"{name_of(repeated[0])} is given twice")


def target_path(out: Path, target: str) -> str:
    """Return the path of an output; a folder keeps the `/` at its end."""
    return os.path.join(out, target)  # noqa: PTH118 - Path drops the / at the end


def targets_of(entry: Entry, targets: Sequence[str]) -> list[str]:
    """Return the outputs of a recording, relative to the output folder, in the order of `targets`."""
    folder = PurePosixPath(_plain(entry.name)).parent.as_posix()
    inside = "" if folder == "." else f"{folder}/"
    return ["null" if one == "null" else inside + one.replace("{name}", entry.label) for one in targets]


def _plain(text: str) -> str:
    """Return the text without braces, which have a meaning in the names of outputs."""
    return text.translate({ord("{"): "(", ord("}"): ")"})


@dataclass(slots=True)
class Plan:
    """What a batch does in this start."""

    entries: list[Entry] = field(default_factory=list)
    """The recordings whose entry is new or has changed."""
    queue: list[Found] = field(default_factory=list)
    """The recordings to process, in this order."""
    gone: list[str] = field(default_factory=list)
    """The names of recordings that are there no longer and are not done."""
    changed: list[str] = field(default_factory=list)
    """The names of recordings that have changed since they were done or failed."""


def make_plan(found: Sequence[Found], known: Mapping[str, Entry], *, retry_failed: bool) -> Plan:
    """Return what is to be done.

    Args:
        found: the recordings that are there.
        known: the entries of the manifest.
        retry_failed: process failed recordings again.
    """
    plan = Plan()
    here = {one.name for one in found}
    plan.gone = [name for name, entry in known.items() if name not in here and entry.state is not State.DONE]
    labels = _labels([one.name for one in found if one.name not in known], {n: e.label for n, e in known.items()})
    suspects: list[Found] = []
    for one in found:
        before = known.get(one.name)
        entry = before.recovered() if before else Entry(one.name, labels[one.name], one.size_bytes, one.modified_ns)
        has_changed = (entry.size_bytes, entry.modified_ns) != (one.size_bytes, one.modified_ns)
        if has_changed and entry.state in (State.DONE, State.FAILED):
            plan.changed.append(one.name)
        if has_changed or (retry_failed and entry.state is State.FAILED):
            entry = entry.again(one.size_bytes, one.modified_ns)
        if entry != before:
            plan.entries.append(entry)
        if entry.state is State.WAITING:
            (suspects if entry.crashes else plan.queue).append(one)
    # The program ended while these were processed. One of them may be the cause, so all others come first.
    plan.queue += suspects
    return plan


def _labels(new: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of new recordings: the stem, or the whole file name if others would have the same outputs."""

    def place(name: str, label: str) -> tuple[str, str]:
        return str(PurePosixPath(name).parent).casefold(), label.casefold()  # some disks ignore case

    stems = Counter(place(name, PurePosixPath(name).stem) for name in new)
    taken = {place(name, label) for name, label in known.items()}
    labels = {}
    for name in new:
        label = _plain(PurePosixPath(name).stem)
        if stems[place(name, PurePosixPath(name).stem)] > 1 or place(name, label) in taken:
            label = _plain(PurePosixPath(name).name)
        number, first = 2, label
        while place(name, label) in taken:
            label, number = f"{first}-{number}", number + 1
        taken.add(place(name, label))
        labels[name] = label
    return labels
