"""Sources that come and go while a run goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch

from streampose.channel import Channel, Empty, Ending, Finished, Merge
from streampose.errors import ModelError, SinkError, SourceError, StalledError
from streampose.frames import Boxes
from streampose.people.track import Tracker
from streampose.pipeline.parts import Feed
from streampose.pipeline.rolling import Left, RollingPipeline
from tests.fakes import (
    NO_FAULT,
    SKELETON,
    FakeAnnotator,
    FakeDetector,
    FakePose,
    FakeSink,
    FakeSource,
    Fault,
)

WAIT_S = 20.0


def rolling(
    detector: FakeDetector | None = None, pose: FakePose | None = None, *, every: int = 1, stall_after_s: float = 300.0
) -> RollingPipeline:
    return RollingPipeline(
        detector or FakeDetector(),
        pose or FakePose(),
        FakeAnnotator(),
        detect_every=every,
        detect_batch=8,
        pose_batch=16,
        stall_after_s=stall_after_s,
        join_within_s=2.0,
    )


def recording(name: str, frames: int = 5, *, fault: Fault = NO_FAULT, sinks: Sequence[FakeSink] | None = None) -> Feed:
    source = FakeSource(frames, fault)
    source.info = replace(source.info, source_id=name, text=name)
    return Feed(source, [FakeSink()] if sinks is None else sinks)


def run_all(pipe: RollingPipeline, feeds: Sequence[Feed], at_once: int = 3) -> dict[str, Left]:
    """Run the feeds with `at_once` being read, and return by name how each left."""
    waiting = list(feeds)
    left: dict[str, Left] = {}

    def fill() -> None:
        while waiting and pipe.reading < at_once:
            pipe.add(waiting.pop(0))
        if not waiting:
            pipe.seal()

    fill()
    deadline_s = time.monotonic() + WAIT_S
    with pipe:
        for _ in pipe.ticks():
            left |= {one.feed.source.info.text: one for one in pipe.left()}
            fill()
            assert time.monotonic() < deadline_s
    left |= {one.feed.source.info.text: one for one in pipe.left()}
    return left


def indices(feed: Feed) -> list[int]:
    (sink,) = feed.sinks
    assert isinstance(sink, FakeSink)
    return sink.indices


@pytest.mark.parametrize("every", [1, 4])
def test_many_sources_pass_through_few_at_a_time_and_leave_nothing(every: int) -> None:
    detector = FakeDetector()
    pipe = rolling(detector, every=every)
    feeds = [recording(f"clip {number}", frames=number % 7) for number in range(200)]
    threads_before = threading.active_count()
    most_threads = most_running = 0
    waiting = list(feeds)
    left: list[Left] = []
    with pipe:
        pipe.add(waiting.pop(0))
        for _ in pipe.ticks():
            most_threads = max(most_threads, threading.active_count())
            most_running = max(most_running, len(pipe.running))
            left += pipe.left()
            while waiting and pipe.reading < 4 and len(pipe.running) < 8:
                pipe.add(waiting.pop(0))
            if not waiting:
                pipe.seal()
    left += pipe.left()
    assert len(left) == 200
    assert all(one.is_complete and one.errors == () for one in left)
    assert [indices(feed) for feed in feeds] == [list(range(number % 7)) for number in range(200)]
    assert sum(one.stats["delivered"] for one in left) == sum(number % 7 for number in range(200)) == pipe.meter.frames
    assert all(feed.source.closed for feed in feeds if isinstance(feed.source, FakeSource))
    assert most_running <= 8
    assert most_threads <= threads_before + 2 + 8 * 3
    # What is kept does not grow with the number of sources.
    assert pipe.sources == []
    assert pipe.meter.busy_s.keys() <= {"detect", "pose"}
    assert pipe._threads == [] or len(pipe._threads) <= 2
    assert pipe._captured._inlets == {}
    assert pipe._results._inlets == {}


class SlowDetector(FakeDetector):
    """Takes its time for a batch, as a real one does."""

    def detect(self, images: Sequence[torch.Tensor], *others: object) -> list[Boxes]:
        time.sleep(0.02)
        return super().detect(images, *others)


def test_batches_hold_frames_of_several_sources() -> None:
    detector = SlowDetector()
    run_all(rolling(detector), [recording(f"clip {number}", frames=3) for number in range(64)], at_once=4)
    assert sum(detector.batches) == 192
    assert sum(detector.batches) / len(detector.batches) > 3.5, "clips of three frames share batches of eight"


def test_a_source_that_ends_alone_does_not_wait_for_a_full_batch() -> None:
    pipe = rolling()
    began_s = time.monotonic()
    waiting = [recording(f"clip {number}", frames=2) for number in range(10)]
    with pipe:
        pipe.add(waiting.pop())
        for _ in pipe.ticks():
            if not pipe.running:
                if not waiting:
                    pipe.seal()
                else:
                    pipe.add(waiting.pop())
    assert time.monotonic() - began_s < 8.0, "no batch waits a second for frames that cannot come"


@pytest.mark.logs_errors
def test_what_fails_in_one_source_is_its_own_affair() -> None:
    boom = recording("boom", fault=Fault(3))
    sinks = [FakeSink(Fault(2)), FakeSink()]
    half = recording("half", sinks=sinks)
    good = [recording(f"good {number}") for number in range(6)]
    left = run_all(rolling(), [good[0], boom, half, *good[1:]])
    assert indices(boom) == [0, 1, 2]
    assert not left["boom"].is_complete
    (error,) = left["boom"].errors
    assert isinstance(error, SourceError)
    assert "Boom" in str(error) or "at 3" in str(error)
    (error,) = left["half"].errors
    assert isinstance(error, SinkError)
    assert sinks[1].indices == [0, 1, 2, 3, 4]
    assert all(left[f"good {number}"].is_complete for number in range(6))


@pytest.mark.parametrize("every", [1, 4])
def test_a_frame_on_which_a_network_fails_ends_its_source_only(every: int) -> None:
    left = run_all(
        rolling(pose=FakePose(Fault(7)), every=every),
        [recording("short", 5), recording("long", 12), recording("also short", 6)],
    )
    assert [name for name, one in left.items() if one.errors] == ["long"]
    (error,) = left["long"].errors
    assert isinstance(error, ModelError)
    assert left["long"].stats["delivered"] == 7


@pytest.mark.parametrize("step", ["capture", "annotate", "sink"])
def test_a_step_that_hangs_is_given_up_and_the_others_go_on(step: str) -> None:
    fault = Fault(3, "stall")
    sinks = [FakeSink(fault if step == "sink" else NO_FAULT)]
    hung = recording("hung", 9, fault=fault if step == "capture" else NO_FAULT, sinks=sinks)
    if step == "annotate":
        hung = replace(hung, steps=[lambda result: (fault.meet(result.frame.index), result)[1]])
    pipe = rolling(stall_after_s=0.4)
    try:
        feeds = [hung, *(recording(f"good {number}", 30) for number in range(12))]
        left = run_all(pipe, feeds)
        assert all(left[f"good {number}"].is_complete for number in range(12))
        assert not left["hung"].is_complete
        (error,) = left["hung"].errors
        assert isinstance(error, StalledError)
        assert "hung: " in str(error)
        assert "frame 3" in str(error)
        assert pipe.abandoned
        assert sinks[0].indices == [0, 1, 2], "the frames before are delivered"
        assert isinstance(hung.source, FakeSource)
        assert hung.source.closed == (0 if step == "capture" else 1), "no source is closed under its reader"
    finally:
        fault.released.set()


def test_a_network_that_hangs_ends_the_run() -> None:
    fault = Fault(3, "stall")
    pipe = rolling(FakeDetector(fault), stall_after_s=0.4)
    try:
        with pytest.raises(StalledError, match="detect made no progress"):
            run_all(pipe, [recording("a"), recording("b")])
    finally:
        fault.released.set()


def test_a_stop_says_which_sources_are_complete() -> None:
    pipe = rolling()
    endless = recording("endless", 10**6)
    left: list[Left] = []
    with pipe:
        pipe.add(recording("short", 3))
        pipe.add(endless)
        for _ in pipe.ticks():
            left += pipe.left()
            if left and pipe.meter.frames > 50:
                pipe.stop()
                pipe.stop()
    left += pipe.left()
    assert [(one.feed.source.info.text, one.is_complete) for one in left] == [("short", True), ("endless", False)]
    assert left[1].errors == ()
    with pytest.raises(RuntimeError):
        pipe.add(recording("late"))


def test_a_source_that_is_added_as_the_run_is_stopped_leaves_at_once() -> None:
    pipe = rolling()
    left: list[Left] = []
    with pipe:
        pipe.add(recording("first", 10**6))
        for _ in pipe.ticks():
            if pipe.meter.frames > 20 and len(pipe.running) == 1 and not pipe._stop_asked.is_set():
                pipe.stop()
                pipe.add(recording("second", 10**6))
    left = pipe.left()
    assert {one.feed.source.info.text for one in left} == {"first", "second"}
    assert not any(one.is_complete for one in left)


def test_a_run_without_sources_ends_when_it_is_sealed() -> None:
    pipe = rolling()
    pipe.seal()
    assert list(pipe) == []


def test_trackers_are_each_sources_own_while_people_are_followed() -> None:
    trackers = [Tracker(SKELETON) for _ in range(20)]
    feeds = [replace(recording(f"clip {number}", 9), tracker=tracker) for number, tracker in enumerate(trackers)]
    left = run_all(rolling(every=3), feeds)
    people = [one.stats["tracks"]["people"] for one in left.values()]
    assert len(set(people)) == 1
    assert people[0] > 0


def test_a_merge_that_stays_open_waits_for_channels() -> None:
    merge: Merge[int] = Merge(stays_open=True)
    assert merge.is_idle
    with pytest.raises(Empty):
        merge.take(timeout_s=0.01)
    first = merge.inlet(3)
    first.put(1)
    first.finish()
    began_s = time.monotonic()
    assert merge.take_batch(9, fill_s=WAIT_S) == [(0, 1), (0, Ending(None))]
    assert time.monotonic() - began_s < WAIT_S / 2, "nothing can fill the batch"
    second = merge.inlet(3)
    assert not merge.is_idle
    second.finish()
    assert merge.take() == (1, Ending(None)), "numbers are not used again"
    with pytest.raises(Empty):
        merge.take(timeout_s=0.01)
    merge.seal()
    with pytest.raises(Finished):
        merge.take()


def test_a_batch_does_not_wait_after_a_last_value() -> None:
    channel: Channel[int] = Channel(9)
    for value in (1, 2, 3):
        channel.put(value)
    began_s = time.monotonic()
    assert channel.take_batch(9, fill_s=WAIT_S, is_last=lambda value: value == 3) == [1, 2, 3]
    assert time.monotonic() - began_s < WAIT_S / 2


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    """No test of this file takes long."""
    began_s = time.monotonic()
    yield
    assert time.monotonic() - began_s < WAIT_S
