"""What a run keeps beside its first output until it is complete: what it does, and its latest savepoints.

A journal is a folder, `NAME.resume` beside the output `NAME`. Every file in it is either complete or not there. Arrays
are stored without pickles, so that reading a journal runs no code.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

try:
    import fcntl
except ImportError:  # Windows: two runs are not kept apart
    fcntl = None  # type: ignore[assignment]

from streampose.errors import UsageError, describe
from streampose.people import State
from streampose.picker import Place
from streampose.pipeline.savepoints import Saved
from streampose.sinks.sink import SAVEPOINTS_KEPT
from streampose.sinks.target import failed, make_folder, name_of, sync

log = logging.getLogger("streampose")

FORMAT = 1
SUFFIX = ".resume"
_RUN = "run.json"
_LOCK = "lock"
_NEW = ".new"
_ARRAY = "array"
"""The only key of a dictionary that stands for an array; its value is the array's name."""


def folder_of(output: Path) -> Path:
    """Return the folder of the journal that lies beside an output."""
    return output.with_name(output.name + SUFFIX)


class Journal:
    """The journal of one source's run."""

    def __init__(self, folder: Path, run: dict[str, Any], replaced: Sequence[Path] | None = ()) -> None:
        """Change nothing on the disk yet.

        Args:
            folder: where the journal is.
            run: describes the run, as JSON values.
            replaced: journals of earlier runs, which are removed when this one begins. None: this one continues.
        """
        self.folder = folder
        self.run = {"format": FORMAT, **run}
        self._replaced = replaced
        self._has_failed = False
        self._lock: BinaryIO | None = None

    @classmethod
    def read(cls, folder: Path) -> Journal | None:
        """Return the journal of an interrupted run; None if there is none, or none that can be read."""
        try:
            run = json.loads((folder / _RUN).read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(run, dict) or run.pop("format", None) != FORMAT:
            return None
        return cls(folder, run, None)

    @property
    def lines(self) -> Path:
        """A poses file of the run, for outputs that have to be written anew."""
        return self.folder / "poses.jsonl"

    def begin(self) -> None:
        """See `streampose.pipeline.savepoints.Journal`. Raises `SinkError`."""
        if self._replaced is None:
            return
        new = self.folder.with_name(self.folder.name + _NEW)
        make_folder(self.folder.parent, name_of(self.folder))
        try:
            for old in {*self._replaced, self.folder, new}:
                if old.exists():
                    shutil.rmtree(old)
            new.mkdir()
            _write(new / _RUN, json.dumps(self.run, indent=1).encode())
            new.replace(self.folder)
            sync(self.folder.parent)
        except OSError as error:
            raise failed(name_of(self.folder), error) from error
        self.hold()

    def save(self, savepoint: Saved) -> None:
        """See `streampose.pipeline.savepoints.Journal`."""
        try:
            _write_npz(self.folder / f"{savepoint.frames:012d}.npz", _record_of(savepoint))
            for old in self._files()[SAVEPOINTS_KEPT:]:
                old.unlink()
        except OSError as error:
            if not self._has_failed:
                log.warning("%s: an interruption would cost more than usual: %s", self.folder, describe(error))
            self._has_failed = True

    def savepoints(self) -> Iterator[Saved]:
        """Yield the savepoints, the latest one first. Those that cannot be read are left out."""
        for file in self._files():
            with suppress(OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
                yield _saved_of(_read_npz(file))

    def finish(self) -> None:
        """See `streampose.pipeline.savepoints.Journal`."""
        gone = self.folder.with_name(self.folder.name + _NEW)
        with suppress(OSError):
            if gone.exists():
                shutil.rmtree(gone)
            self.folder.replace(gone)  # at once: half a journal would say that the run is half done
            shutil.rmtree(gone)
        self.release()

    def hold(self) -> None:
        """Keep other runs away from the outputs, until `release` or the end of the process. Safe to call twice.

        Raises:
            UsageError: another run has not ended.
        """
        if self._lock is not None:
            return
        try:
            self._lock = (self.folder / _LOCK).open("ab")
            if fcntl is not None:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise UsageError(
                f"{name_of(str(self.folder).removesuffix(SUFFIX))} is being written by another run: wait until it ends"
            ) from error
        except OSError as error:
            raise failed(name_of(self.folder), error) from error

    def check_free(self) -> None:
        """Raise `UsageError` if a run that has not ended holds it."""
        self.hold()
        self.release()

    def release(self) -> None:
        """See `streampose.pipeline.savepoints.Journal`."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.npz"), reverse=True)


def _record_of(savepoint: Saved) -> State:
    place = {"index": savepoint.place.index, "pts_s": savepoint.place.pts_s}
    return {
        "place": place,
        "frames": savepoint.frames,
        "people": savepoint.people,
        "state": savepoint.state,
        "sinks": list(savepoint.sinks),
    }


def _saved_of(record: State) -> Saved:
    place = Place(**record["place"])
    return Saved(place, record["frames"], record["people"], record["state"], record["sinks"])


def _write(file: Path, content: bytes) -> None:
    """Write a file that is either complete or not there, and bring it to the disk."""
    new = file.with_name(file.name + _NEW)
    new.write_bytes(content)
    sync(new)
    new.replace(file)
    sync(file.parent)


def _write_npz(file: Path, record: State) -> None:
    arrays: dict[str, np.ndarray] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays[f"a{len(arrays)}"] = value
            return {_ARRAY: f"a{len(arrays) - 1}"}
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        return [plain(one) for one in value] if isinstance(value, list | tuple) else value

    text = np.frombuffer(json.dumps(plain(record)).encode(), np.uint8)
    new = file.with_name(file.name + _NEW)
    with new.open("wb") as opened:
        np.savez(opened, allow_pickle=False, record=text, **arrays)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)
    sync(file.parent)


def _read_npz(file: Path) -> State:
    # A damaged file must be closed as well, so numpy does not open it.
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:

        def whole(value: Any) -> Any:
            if isinstance(value, dict):
                return arrays[value[_ARRAY]] if set(value) == {_ARRAY} else {k: whole(one) for k, one in value.items()}
            return [whole(one) for one in value] if isinstance(value, list) else value

        record: State = whole(json.loads(arrays["record"].tobytes()))
    return record
