"""Decides whether and from where a run continues an interrupted one. Does no work of the run itself."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streampose._version import __version__
from streampose.archive.journal import Journal, folder_of
from streampose.errors import NothingToDo, SourceError, UsageError, describe
from streampose.frames import SourceInfo
from streampose.inputs import Input
from streampose.pipeline.parts import Feed
from streampose.pipeline.savepoints import Saved
from streampose.sinks.open import fill_in
from streampose.sinks.poses import KeypointsSink
from streampose.sinks.records import RecordsSink
from streampose.sinks.sink import Sink
from streampose.sinks.target import name_of
from streampose.sources.recorded import Recorded
from streampose.sources.source import Source

ENDS_BYTES = 1 << 20
"""How many bytes at the beginning and at the end of a file are compared."""
_OF_SOURCES = ("start_s", "end_s", "every", "stream", "max_height")
"""The options of a source that the outputs depend on."""
_START_AGAIN = "start again with `overwrite`"


def refuse_half_done(sources: Sequence[SourceInfo], wanted: Sequence[Sequence[object]]) -> None:
    """Raise `UsageError` if an interrupted run has left one of the outputs, which are `wanted` of each source."""
    for source, some in zip(sources, wanted, strict=True):
        for target in some:
            if isinstance(target, str | os.PathLike) and "://" not in (text := os.fspath(target)):
                path = Path(fill_in(text, source.source_id))
                if path.name and folder_of(path).is_dir():
                    raise UsageError(f"{name_of(path)} is half done: continue it with `resume`, or {_START_AGAIN}")


def resumptions(
    sources: Sequence[Source],
    sinks: Sequence[Sequence[Sink]],
    inputs: Sequence[Input],
    options: dict[str, Any],
    *,
    resume: bool,
) -> list[Resumption]:
    """Return how each source's run begins. Those that are complete are left out. See `Resumption`.

    Args:
        sources, sinks: of each run.
        inputs: the options of each source.
        options: the options of all.
        resume: whether interrupted runs are to be continued.
    """
    found: list[Resumption] = []
    done: list[NothingToDo] = []
    for source, some, one in zip(sources, sinks, inputs, strict=True):
        own = {name: getattr(one, name) for name in _OF_SOURCES}
        try:
            found.append(Resumption(source, some, options | own, resume=resume))
        except NothingToDo as error:
            done.append(error)
            source.close()
    if done and not found:
        raise done[0] if len(done) == 1 else NothingToDo("nothing to do: all outputs are complete")
    return found


class Resumption:
    """The beginning of one source's run: whether it continues an interrupted one, and its journal."""

    def __init__(self, source: Source, sinks: Sequence[Sink], options: dict[str, Any], *, resume: bool) -> None:
        """Look at the disk. Change nothing.

        Args:
            source: what is read.
            sinks: all its sinks.
            options: the values of the options that the outputs depend on.
            resume: whether an interrupted run is to be continued.

        Raises:
            NothingToDo: the run is complete.
            UsageError: it cannot be continued.
            SourceError: the source cannot be read.
        """
        self.source, self.sinks = source, sinks
        info = source.info
        self._outputs = [sink for sink in sinks if sink.path is not None]
        self._journal: Journal | None = None
        self._was: Journal | None = None
        reason = _unsuited(info, sinks)
        if reason is not None:
            if resume:
                raise UsageError(f"{reason}: `resume` continues recordings that are files, into files")
            return
        paths = [sink.path for sink in self._outputs if sink.path is not None]
        folders = [folder for folder in map(folder_of, paths) if folder.is_dir()]
        folder = folders[0] if resume and folders else folder_of(paths[0])
        self._run = _described(info, paths, folder.parent, options)
        if resume and folders:
            self._was = Journal.read(folders[0])
            if self._was is not None:
                _refuse_other(self._was.run, self._run, paths[0])
        elif resume:
            _refuse_foreign(paths)
        for found in folders:
            Journal(found, {}).check_free()
        self._journal = Journal(folder, self._run, folders)
        self._give_lines()

    def _give_lines(self) -> None:
        """Tell the outputs that a later run has to write anew where the frames are kept."""
        assert self._journal is not None
        lines = next((sink.path for sink in self._outputs if isinstance(sink, KeypointsSink)), None)
        for sink in self._outputs:
            if isinstance(sink, RecordsSink):
                sink.writes_lines = lines is None
                lines = sink.lines = lines or self._journal.lines

    def continued(self, feed: Feed, networks: dict[str, Any]) -> Feed:
        """Return the feed with its journal, continued from the latest savepoint of the interrupted run.

        Args:
            networks: what tells the networks of this run from others, as JSON values.

        Raises:
            UsageError: the interrupted run had other networks.
        """
        if self._journal is None:
            return feed
        self._journal.run["networks"] = networks
        if self._was is None:
            return _with(feed, self._journal, None)
        _refuse_other(self._was.run, self._journal.run, Path(self._outputs[0].text))
        self._was.hold()
        saved = next(filter(self._holds, self._was.savepoints()), None)
        if saved is None:  # it was interrupted before its first savepoint
            self._was.release()
            return _with(feed, self._journal, None)
        for sink, state in zip(self._ordered(), saved.sinks, strict=True):
            sink.resume(state)
        for number, step in enumerate([*feed.steps, feed.tracker]):
            if str(number) in saved.state["steps"]:
                step.restore(saved.state["steps"][str(number)])  # type: ignore[union-attr]
        assert isinstance(feed.source, Recorded)
        feed.source.resume_after(saved.place)
        return _with(feed, self._was, saved)

    def _holds(self, saved: Saved) -> bool:
        sinks = self._ordered()
        return len(sinks) == len(saved.sinks) and all(
            sink.holds(state) for sink, state in zip(sinks, saved.sinks, strict=True)
        )

    def _ordered(self) -> list[Sink]:
        """Return the outputs in the order of the interrupted run."""
        assert self._was is not None
        names: list[str] = self._was.run["outputs"]
        folder = self._was.folder.parent
        return sorted(self._outputs, key=lambda sink: names.index(_beside(folder, sink.path or Path())))


def _with(feed: Feed, journal: Journal, saved: Saved | None) -> Feed:
    return Feed(feed.source, feed.sinks, feed.tracker, feed.steps, journal, saved)


def _unsuited(info: SourceInfo, sinks: Sequence[Sink]) -> str | None:
    """Return why a run cannot be continued; None if it can."""
    if info.is_live or info.place is None:
        return f"{info.text} is not a file"
    for sink in sinks:
        if sink.path is None and not sink.leaves_nothing:
            return f"cannot continue {sink.text}"
    return None if any(sink.path for sink in sinks) else "no sink makes a file"


def _described(info: SourceInfo, outputs: Sequence[Path], folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Return what must be the same in a run that continues another one, as JSON values. Outputs are named as seen from
    `folder`.
    """
    run = {
        "streampose": __version__,
        "source": _source(info),
        "outputs": [_beside(folder, output) for output in outputs],
        "options": {"name": info.source_id, **options},
    }
    described: dict[str, Any] = json.loads(json.dumps(run, default=str))
    return described


def _beside(folder: Path, output: Path) -> str:
    return os.path.relpath(output, folder)


def _source(info: SourceInfo) -> dict[str, Any]:
    files = [Path(file) for file in info.stills or (info.path or "",)]
    try:
        if len(files) == 1:
            return {"bytes": files[0].stat().st_size, "sha256": fingerprint(files[0])}
        sizes = [(file.name, file.stat().st_size) for file in files]
    except OSError as error:
        raise SourceError(f"{info.text} cannot be read: {describe(error)}") from error
    return {"files": len(files), "sha256": hashlib.sha256(repr(sizes).encode()).hexdigest()}


def fingerprint(file: Path) -> str:
    """Return the SHA-256 of the beginning and the end of a file, in hexadecimal. Raises `OSError`."""
    found = hashlib.sha256()
    with file.open("rb") as opened:
        found.update(opened.read(ENDS_BYTES))
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(ENDS_BYTES, size - ENDS_BYTES) if size > ENDS_BYTES else size)
        found.update(opened.read())
    return found.hexdigest()


def _refuse_other(was: dict[str, Any], now: dict[str, Any], output: Path) -> None:
    """Raise `UsageError` if the run is not the one that was interrupted."""
    begun = f"{name_of(output)} was begun"
    if was["streampose"] != now["streampose"]:
        raise UsageError(
            f"{begun} by streampose {was['streampose']}, and this is {now['streampose']}: use that version, or "
            f"{_START_AGAIN}"
        )
    if was["source"] != now["source"]:
        raise UsageError(f"{begun} with another source: name the same recording, or {_START_AGAIN}")
    if sorted(was["outputs"]) != sorted(now["outputs"]):
        raise UsageError(f"{begun} with `to` {' and '.join(was['outputs'])}: name the same, or {_START_AGAIN}")
    for name in sorted(was["options"].keys() | now["options"].keys()):
        before, value = was["options"].get(name), now["options"].get(name)
        if before != value:
            raise UsageError(
                f"{begun} with `{name}` {_shown(before)}, not {_shown(value)}: use the same, or {_START_AGAIN}"
            )
    for name, value in now.get("networks", {}).items():
        before = was.get("networks", {}).get(name)
        if before != value:
            raise UsageError(
                f"{begun} with another {name} ({_shown(before)}, not {_shown(value)}): use the same, or {_START_AGAIN}"
            )


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _refuse_foreign(outputs: Sequence[Path]) -> None:
    """Raise `NothingToDo` if all outputs are there, and `UsageError` if only some are."""
    there = [output for output in outputs if output.exists()]
    if there and len(there) == len(outputs):
        names = " and ".join(name_of(output) for output in outputs)
        raise NothingToDo(f"nothing to do: {names} {'is' if len(outputs) == 1 else 'are'} complete")
    if there:
        raise UsageError(f"{name_of(there[0])} exists, but not by a run that was interrupted: {_START_AGAIN}")
