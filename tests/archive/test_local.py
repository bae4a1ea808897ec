"""A batch whose recordings, networks or disk hang or fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streampose.archive import tasks
from streampose.archive.batch import Batch
from streampose.archive.entry import State
from streampose.archive.report import Snapshot
from streampose.errors import ModelError, StalledError
from streampose.inputs import Input
from streampose.networks.pose import PoseEstimator
from streampose.sources.recorded import VideoFile
from streampose.sources.source import Source
from tests.archive.helpers import good_clips

WITHIN_S = 60.0


@pytest.fixture
def batch(tiny: dict[str, Any], tmp_path: Path) -> Callable[..., Batch]:
    """Return a function that makes a batch of the folder `in` with these options."""

    def make(**options: Any) -> Batch:
        files = {"out": str(tmp_path / "out"), "targets": ["{name}.jsonl"]}
        return Batch([str(tmp_path / "in")], tiny | files | options)

    return make


def run(batch: Batch, after: Callable[[Snapshot], None] = lambda _: None) -> dict[str, State]:
    deadline_s = time.monotonic() + WITHIN_S
    with batch:
        batch.open()
        batch.load(lambda: None)
        try:
            for _ in batch.ticks():
                after(batch.snapshot())
                assert time.monotonic() < deadline_s
        finally:
            states = {entry.name: entry.state for entry in batch._entries()}
            batch.report()
    return states


def test_a_recording_that_hangs_as_it_is_opened_is_given_up(
    batch: Callable[..., Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good_clips(tmp_path / "in", 5)
    released = threading.Event()
    opened = tasks.open_source

    def hangs_at_one(source: Input) -> Source:
        if "clip1" in str(source.source):
            assert released.wait(WITHIN_S)
        return opened(source)

    monkeypatch.setattr(tasks, "open_source", hangs_at_one)
    one = batch(stall_after_s=1.0)
    try:
        states = run(one)
        assert states.pop("clip1.mkv") is State.FAILED
        assert set(states.values()) == {State.DONE}
        assert one.leaves_threads
        ((name, reason),) = one.summary().failures
        assert name == "clip1.mkv"
        assert reason == "clip1.mkv: opening made no progress for 1 s"
    finally:
        released.set()


def test_a_recording_that_hangs_in_the_middle_is_given_up(
    batch: Callable[..., Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good_clips(tmp_path / "in", 5, frames=30)
    released = threading.Event()
    captures = VideoFile.captures

    def hanging(self: VideoFile) -> Any:
        for one in captures(self):
            if "clip1" in self.info.text and one.frame.index == 12:
                assert released.wait(WITHIN_S)
            yield one

    monkeypatch.setattr(VideoFile, "captures", hanging)
    one = batch(stall_after_s=1.0)
    try:
        states = run(one)
        assert states.pop("clip1.mkv") is State.FAILED
        assert set(states.values()) == {State.DONE}
        ((_, reason),) = one.summary().failures
        assert reason == "clip1.mkv: capture made no progress on frame 12 for 1 s: aborted"
        assert (tmp_path / "out" / "clip1.jsonl").read_bytes().count(b"\n") == 13, "the frames before are kept"
        assert one.leaves_threads
    finally:
        released.set()


def test_networks_that_hang_end_the_batch(
    batch: Callable[..., Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good_clips(tmp_path / "in", 3)
    released = threading.Event()
    begin = PoseEstimator.begin

    def hanging(self: PoseEstimator, *arguments: Any) -> Any:
        assert released.wait(WITHIN_S)
        return begin(self, *arguments)

    monkeypatch.setattr(PoseEstimator, "begin", hanging)
    one = batch(stall_after_s=1.0)
    try:
        with pytest.raises(StalledError, match="pose made no progress"):
            run(one)
    finally:
        released.set()
    monkeypatch.undo()
    assert set(run(batch()).values()) == {State.DONE}


@pytest.mark.logs_errors
def test_networks_that_fail_on_every_recording_end_the_batch(
    batch: Callable[..., Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good_clips(tmp_path / "in", 12)

    def failing(*_: Any) -> Any:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(PoseEstimator, "begin", failing)
    one = batch(files_at_once=2)
    states: dict[str, State] = {}
    with pytest.raises(ModelError, match="the device is gone"):
        states = run(one)
    assert states == {}
    summary = one.summary()
    assert summary.failed == 3
    assert summary.left == 9
    monkeypatch.undo()
    assert set(run(batch(retry_failed=True)).values()) == {State.DONE}


def test_snapshots_say_how_far_it_is(batch: Callable[..., Batch], tmp_path: Path) -> None:
    good_clips(tmp_path / "in", 9, frames=20)
    (tmp_path / "in" / "empty.mp4").touch()
    seen: list[Snapshot] = []
    one = batch(files_at_once=3)
    run(one, seen.append)
    last = one.snapshot()
    assert (last.files_total, last.files_done, last.files_failed, last.frames, last.running) == (10, 9, 1, 180, ())
    assert last.people == one.summary().people == 540
    assert last.left_s == 0
    frames = [snapshot.frames for snapshot in seen]
    assert frames == sorted(frames)
    assert all(snapshot.left_s is None or snapshot.left_s >= 0 for snapshot in seen)
    assert max(len(snapshot.running) for snapshot in seen) > 1
    assert all(0 <= one.frames <= 20 for snapshot in seen for one in snapshot.running)
    assert {one.total for snapshot in seen for one in snapshot.running} == {20}
    assert {one.name for snapshot in seen for one in snapshot.running} <= {entry.name for entry in one._entries()}
