"""The manifest of a batch: what it keeps, who may open it, and what a killed program leaves."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from streampose.archive.entry import MOST_CRASHES, Entry, Outcome, Output, State
from streampose.archive.manifest import FILE, Manifest, peek
from streampose.errors import SinkError, UsageError
from tests.archive.helpers import state_of

PROJECT = Path(__file__).resolve().parents[2]
ENTRY = Entry("sub/a.mp4", "a", 1000, 2**62)
DONE = Outcome(State.DONE, 12, 30, 1.25, (Output("sub/a.jsonl", 99, "0" * 64), Output("sub/a/", 5, "1" * 64)))


def test_what_is_put_is_there_again(tmp_path: Path) -> None:
    other = Entry("b \N{SNOWMAN}\n.mp4", "b", 5, 7)
    with Manifest(tmp_path / "new" / "out") as manifest:
        assert manifest.settings is None
        manifest.keep_settings({"quality": "bundled", "only": None})
        manifest.put([ENTRY, other, replace(ENTRY, name="gone")])
        manifest.put([], forget=["gone"])
        manifest.begin(ENTRY.name)
        manifest.writing(ENTRY.name)
        manifest.end(ENTRY.name, DONE)
        manifest.begin(other.name)
        manifest.end(other.name, Outcome(State.FAILED, error="it is broken"))
        kept = dict(manifest.entries)
    with Manifest(tmp_path / "new" / "out") as manifest:
        assert manifest.settings == {"quality": "bundled", "only": None}
        assert manifest.entries == kept
    assert list(kept) == [ENTRY.name, other.name]
    done = kept[ENTRY.name]
    assert (done.state, done.attempts, done.frames, done.outputs) == (State.DONE, 1, 12, DONE.outputs)
    assert kept[other.name].error == "it is broken"


def test_what_was_running_may_wait_again(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.put([ENTRY, replace(ENTRY, name="b")])
        manifest.begin("b")
        manifest.release()
        assert manifest.entries["b"].state is State.WAITING
        assert (manifest.entries["b"].attempts, manifest.entries["b"].crashes) == (1, 0)
        assert manifest.entries[ENTRY.name] == ENTRY


def test_a_recording_during_which_the_program_ends_too_often_is_given_up() -> None:
    entry = ENTRY
    for crashes in range(1, MOST_CRASHES):
        entry = entry.begun().recovered()
        assert (entry.state, entry.crashes, entry.attempts) == (State.WAITING, crashes, crashes)
    given_up = entry.begun().recovered()
    assert given_up.state is State.FAILED
    assert given_up.error == "the program ended 3 times while it was processed"
    assert given_up.again(1, 2).crashes == 0
    assert entry.begun().ended(DONE).crashes == 0
    assert ENTRY.recovered() == ENTRY


def test_one_program_at_a_time(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.put([ENTRY])
        with pytest.raises(UsageError, match="another program is processing the batch in"):
            Manifest(tmp_path)
        assert peek(tmp_path)[1] == {ENTRY.name: ENTRY}, "anybody may look"
        manifest.begin(ENTRY.name)
    Manifest(tmp_path).close()


def test_a_look_leaves_the_folder_as_it_is(tmp_path: Path) -> None:
    assert peek(tmp_path / "none") == (None, {})
    with Manifest(tmp_path) as manifest:
        manifest.keep_settings({"a": 1})
        manifest.put([ENTRY])
        before = state_of(tmp_path)
        assert peek(tmp_path) == ({"a": 1}, {ENTRY.name: ENTRY})
        assert state_of(tmp_path) == before
    before = state_of(tmp_path)
    assert peek(tmp_path) == ({"a": 1}, {ENTRY.name: ENTRY})
    assert state_of(tmp_path) == before


def test_other_files_of_that_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("This is no database, and it is longer than the header of one. " * 20)
    with pytest.raises(UsageError, match="is not the manifest of a batch"):
        Manifest(tmp_path)
    with pytest.raises(UsageError, match="is not the manifest of a batch"):
        peek(tmp_path)
    (tmp_path / FILE).unlink()
    other = sqlite3.connect(tmp_path / FILE)
    other.execute("CREATE TABLE people (name TEXT)")
    other.close()
    with pytest.raises(UsageError, match="is not the manifest of a batch"):
        Manifest(tmp_path)
    (tmp_path / FILE).unlink()
    Manifest(tmp_path).close()
    newer = sqlite3.connect(tmp_path / FILE)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(UsageError, match="written by a newer streampose"):
        Manifest(tmp_path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="file"):
        Manifest(tmp_path / "file" / "out")


CHANGES = """
import sys
from pathlib import Path
from streampose.archive.entry import Entry, Outcome, Output, State
from streampose.archive.manifest import Manifest
with Manifest(Path(sys.argv[1])) as manifest:
    start = len(manifest.entries)
    names = [f"{number}.mp4" for number in range(start, start + 5000)]
    for first in range(0, 5000, 10):
        manifest.put([Entry(name, name, 1, 2) for name in names[first : first + 10]])
        for name in names[first : first + 10]:
            manifest.begin(name)
            manifest.writing(name)
            manifest.end(name, Outcome(State.DONE, 3, 4, 0.5, (Output(name, 5, "0" * 64),)))
        print(first + 10, flush=True)
"""


def test_a_killed_program_leaves_the_last_state_as_a_whole(tmp_path: Path) -> None:
    """Whenever it is killed: tens come together, what was told is there, and at most one recording is in between."""
    before = 0
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", CHANGES, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.02 + before % 70 / 1000)
        process.send_signal(signal.SIGKILL)
        told = [int(line) for line in process.stdout.read().split()]
        process.wait()
        process.stdout.close()
        with Manifest(tmp_path) as manifest:
            entries = list(manifest.entries.values())
            assert len(entries) % 10 == 0
            assert len(entries) >= before + max(told, default=10)
            assert sum(entry.state is State.RUNNING for entry in entries[before:]) <= 1
            for entry in entries:
                assert (entry.state is State.DONE) == bool(entry.outputs)
            manifest.release()
            before = len(entries)
