"""Keeps what a batch knows of its recordings in a file, so that a batch that ended can go on.

The file is an SQLite database. Every change is written at once, as a whole: a program that is killed leaves the last
state. A second file holds a lock, which the operating system releases when the program ends, however it ends. Knows
nothing about recordings, networks and threads.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from streampose._version import __version__
from streampose.archive.entry import Entry, Outcome, Output, State
from streampose.errors import SinkError, UsageError, describe
from streampose.sinks.target import make_folder, name_of

FILE = "batch.sqlite"
LOCK = "batch.lock"
_LAYOUT = 1
"""Version of the tables."""
_TABLES = """
CREATE TABLE batch (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE recordings (
    name TEXT PRIMARY KEY,
    label TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    owns_outputs INTEGER NOT NULL,
    frames INTEGER NOT NULL,
    people INTEGER NOT NULL,
    seconds REAL NOT NULL,
    outputs TEXT NOT NULL,
    error TEXT
) STRICT;
"""
_COLUMNS = tuple(Entry.__dataclass_fields__)
_WAITS_S = 30.0
"""How long a change waits for another program that reads the file."""


class Manifest:
    """The recordings of a batch by name, in a file of its output folder. Use it as a context manager.

    Change recordings from one thread. Every method raises `SinkError` if the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        """Open the manifest in `folder`, and create both if they do not exist.

        Raises:
            UsageError: another program processes this batch, or the file is not a manifest.
            SinkError: the folder or the file cannot be written.
        """
        self._path = folder / FILE
        self._name = name_of(self._path)
        self._files: sqlite3.Connection | None = None
        make_folder(folder, name_of(folder))
        self._lock = _locked(folder)
        try:
            with self._wrapped():
                self._files = sqlite3.connect(self._path, timeout=_WAITS_S, isolation_level=None)
                layout = _layout(self._files, self._name)
                # A commit does not wait for the disk: after a power failure the last changes may be missing.
                self._files.execute("PRAGMA journal_mode = WAL")
                self._files.execute("PRAGMA synchronous = NORMAL")
                if layout == 0:
                    script = f"BEGIN; {_TABLES} PRAGMA user_version = {_LAYOUT}; COMMIT"
                    self._files.executescript(script)
                self._batch, self._entries = _content(self._files)
        except BaseException:
            self.close()
            raise

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The recordings by name, in the order in which they came."""
        return self._entries

    @property
    def settings(self) -> dict[str, Any] | None:
        """The settings of the batch; None if it is new."""
        return _settings(self._batch)

    def keep_settings(self, settings: dict[str, Any]) -> None:
        """Store the settings of the batch, which are JSON values."""
        self._batch |= {"settings": json.dumps(settings), "streampose": __version__}
        with self._transaction() as files:
            files.executemany("INSERT OR REPLACE INTO batch VALUES (?, ?)", self._batch.items())

    def put(self, entries: Iterable[Entry], *, forget: Iterable[str] = ()) -> None:
        """Add or replace recordings, and forget others, all in one step."""
        entries, forget = list(entries), list(forget)
        holes = ", ".join("?" * len(_COLUMNS))
        with self._transaction() as files:
            files.executemany("DELETE FROM recordings WHERE name = ?", [(name,) for name in forget])
            files.executemany(
                f"INSERT INTO recordings ({', '.join(_COLUMNS)}) VALUES ({holes}) ON CONFLICT (name) DO UPDATE SET "
                + ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS),
                map(_row, entries),
            )
        for name in forget:
            self._entries.pop(name, None)
        self._entries |= {entry.name: entry for entry in entries}

    def begin(self, name: str) -> None:
        """Record that the processing of a recording begins."""
        self.put([self._entries[name].begun()])

    def writing(self, name: str) -> None:
        """Record that the outputs of a recording are created next."""
        self.put([self._entries[name].writing()])

    def end(self, name: str, outcome: Outcome) -> None:
        """Record what became of a recording."""
        self.put([self._entries[name].ended(outcome)])

    def release(self) -> None:
        """Let the recordings wait whose processing began and did not end."""
        running = [entry for entry in self._entries.values() if entry.state is State.RUNNING]
        self.put([entry.ended(Outcome(State.WAITING)) for entry in running])

    def close(self) -> None:
        """Close the file and release the lock. Safe to call twice."""
        try:
            if self._files is not None:
                with self._wrapped():
                    self._files.close()
        finally:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        assert self._files is not None
        with self._wrapped():
            self._files.execute("BEGIN IMMEDIATE")
            try:
                yield self._files
                self._files.execute("COMMIT")
            except BaseException:
                if self._files.in_transaction:
                    self._files.execute("ROLLBACK")
                raise

    @contextmanager
    def _wrapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise _failed(self._name, error) from error


def peek(folder: Path) -> tuple[dict[str, Any] | None, dict[str, Entry]]:
    """Return the settings and the recordings of the batch in `folder`, and leave the folder as it is.

    Raises:
        UsageError: the file is not a manifest.
        SinkError: it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None, {}
    try:
        # Reading the file in its place would create files beside it.
        with tempfile.TemporaryDirectory() as copy:
            for file in (path, path.with_name(f"{FILE}-wal")):
                if file.exists():
                    shutil.copyfile(file, Path(copy) / file.name)
            files = sqlite3.connect(Path(copy) / FILE)
            try:
                if _layout(files, name_of(path)) == 0:
                    return None, {}
                batch, entries = _content(files)
            finally:
                files.close()
    except (sqlite3.DatabaseError, OSError) as error:
        raise _failed(name_of(path), error) from error
    return _settings(batch), entries


def _locked(folder: Path) -> sqlite3.Connection:
    """Return a connection that holds the lock of the batch in `folder`."""
    lock = sqlite3.connect(folder / LOCK, timeout=0.0, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.DatabaseError as error:
        lock.close()
        if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            text = f"another program is processing the batch in {name_of(folder)}: wait for it, or use another `out`"
            raise UsageError(text) from error
        raise _failed(name_of(folder / LOCK), error) from error
    return lock


def _layout(files: sqlite3.Connection, name: str) -> int:
    """Return the version of the tables; 0 if there are none."""
    try:
        (layout,) = files.execute("PRAGMA user_version").fetchone()
        count = files.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_NOTADB:
            raise
        raise UsageError(f"{name} is not the manifest of a batch: move it, or use another `out`") from error
    if layout == 0 and count:
        raise UsageError(f"{name} is not the manifest of a batch: move it, or use another `out`")
    if layout > _LAYOUT:
        raise UsageError(f"{name} was written by a newer streampose: update streampose, or use another `out`")
    return int(layout)


def _content(files: sqlite3.Connection) -> tuple[dict[str, str], dict[str, Entry]]:
    batch = dict(files.execute("SELECT key, value FROM batch"))
    rows = files.execute(f"SELECT {', '.join(_COLUMNS)} FROM recordings ORDER BY rowid")
    entries = [_entry(dict(zip(_COLUMNS, row, strict=True))) for row in rows]
    return batch, {entry.name: entry for entry in entries}


def _settings(batch: dict[str, str]) -> dict[str, Any] | None:
    return json.loads(batch["settings"]) if "settings" in batch else None


def _row(entry: Entry) -> list[Any]:
    values = {name: getattr(entry, name) for name in _COLUMNS}
    values |= {"state": entry.state.value, "outputs": json.dumps([asdict(output) for output in entry.outputs])}
    return list(values.values())


def _entry(row: dict[str, Any]) -> Entry:
    outputs = tuple(Output(**output) for output in json.loads(row["outputs"]))
    return Entry(**row | {"state": State(row["state"]), "owns_outputs": bool(row["owns_outputs"]), "outputs": outputs})


def _failed(name: str, error: Exception) -> SinkError:
    return SinkError(f"cannot use {name}: {describe(error)}")
