"""The failure matrix: every step raises, every step stalls, the user stops, a sink ends early.

Each time: the right error with its cause, everything before it delivered in order, no thread left (conftest looks).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pytest
import torch

from streampose.errors import AnnotateError, ModelError, SinkError, SourceError, StalledError, StreamposeError
from streampose.frames import Boxes, Captured, Float32, Result, RunInfo
from streampose.pipeline.parts import Feed
from streampose.pipeline.pipeline import Pipeline
from streampose.sinks.sink import Sink
from tests.fakes import (
    HEIGHT,
    NO_FAULT,
    WIDTH,
    Boom,
    FakeAnnotator,
    FakeDataSink,
    FakeDetector,
    FakeEstimate,
    FakePose,
    FakeSink,
    FakeSource,
    FakeWindow,
    Fault,
    index_of,
)

COUNT = 40
BAD = 11
STEPS = ("capture", "detect", "pose", "annotate")
Every = int | Literal["auto"]


@pytest.fixture(params=[1, BAD, "auto"], ids=lambda every: f"every {every}")
def every(request: pytest.FixtureRequest) -> Every:
    """How often the detector looks: the networks in two steps, or in one that follows people between detections."""
    chosen: Every = request.param
    return chosen


def pipeline(
    sinks: Sequence[Sink] = (),
    *,
    at: str = "",
    fault: Fault = NO_FAULT,
    count: int | None = COUNT,
    draw: bool = False,
    results_wanted: bool = True,
    stall_after_s: float = 300.0,
    join_within_s: float = 30.0,
    every: Every = 1,
) -> Pipeline:
    def faulty(step: str) -> Fault:
        return fault if step == at else NO_FAULT

    return Pipeline(
        [Feed(FakeSource(count, faulty("capture")), sinks)],
        FakeDetector(faulty("detect")),
        FakePose(faulty("pose")),
        FakeAnnotator(faulty("annotate")),
        detect_every=every,
        fill_s=0.1,
        draw=draw,
        results_wanted=results_wanted,
        stall_after_s=stall_after_s,
        join_within_s=join_within_s,
    )


def run(pipe: Pipeline) -> tuple[list[int], StreamposeError | None]:
    """The indices that came and the error behind them."""
    indices = []
    try:
        for result in pipe:
            indices.append(result.frame.index)
    except StreamposeError as error:
        return indices, error
    return indices, None


def test_every_frame_reaches_the_caller_and_every_sink_in_order() -> None:
    sinks = [FakeSink(), FakeWindow(), FakeDataSink()]
    pipe = pipeline(sinks)
    indices, error = run(pipe)
    assert error is None
    assert indices == list(range(COUNT))
    for sink in sinks:
        assert sink.indices == indices
        assert sink.calls == ["open", "close"]
    assert all(sinks[0].drawn)
    assert sinks[1].threads == {threading.current_thread().name}
    assert sinks[0].threads != sinks[2].threads
    assert isinstance(pipe.sources[0], FakeSource)
    assert pipe.sources[0].closed >= 1
    assert pipe.meter.frames == COUNT
    assert pipe.meter.people == sum(index % 4 for index in range(COUNT))
    assert {"capture", "detect", "pose", "annotate"} <= set(pipe.meter.busy_s)


def test_people_and_keypoints_belong_to_their_frame() -> None:
    for result in pipeline(draw=True):
        assert len(result.people) == result.frame.index % 4
        assert (result.people.keypoints_xy == result.frame.index).all()
        assert result.drawn is not None


def test_nothing_is_drawn_when_nobody_looks() -> None:
    sink = FakeDataSink()
    annotator = FakeAnnotator()
    pipe = Pipeline([Feed(FakeSource(), [sink])], FakeDetector(), FakePose(), annotator)
    assert [result.drawn for result in pipe] == [None] * COUNT
    assert annotator.drawn == 0


def test_crops_of_several_frames_go_through_together() -> None:
    detector, pose = FakeDetector(), FakePose()
    for _ in Pipeline([Feed(FakeSource())], detector, pose, None, detect_batch=5, pose_batch=9, fill_s=10):
        pass
    assert detector.batches == [5] * 8
    assert sum(pose.batches) == sum(index % 4 for index in range(COUNT))
    assert max(pose.batches) <= 9
    assert np.mean(pose.batches[:-1]) >= 6, "a recorded source's batches are filled"


def test_a_source_without_frames(every: Every) -> None:
    sink = FakeSink()
    assert run(pipeline([sink], count=0, every=every)) == ([], None)
    assert sink.calls == ["open", "close"]


KINDS = {"capture": SourceError, "detect": ModelError, "pose": ModelError, "annotate": AnnotateError}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_raises_ends_the_run_behind_the_frames_before_it(step: str, every: Every) -> None:
    sink, window = FakeSink(), FakeWindow()
    pipe = pipeline([sink, window], at=step, fault=Fault(BAD), every=every)
    indices, error = run(pipe)
    assert indices == list(range(BAD))
    assert sink.indices == window.indices == indices
    assert sink.calls == window.calls == ["open", "close"]
    assert type(error) is KINDS[step]
    assert isinstance(error.__cause__, Boom)
    assert f"at {BAD}" in str(error)
    assert "\n" not in str(error)
    assert isinstance(pipe.sources[0], FakeSource)
    assert pipe.sources[0].closed >= 1


class WatchedPose(FakePose):
    """Tells when a batch is begun and when it is waited for."""

    def __init__(self, bad: int | None = None) -> None:
        super().__init__()
        self.bad = bad
        self.begun = 0
        self.order: list[tuple[str, int]] = []

    def begin(self, images: Sequence[torch.Tensor], boxes: Sequence[Boxes]) -> Watched:  # type: ignore[override]
        if self.bad in map(index_of, images):
            raise Boom(f"at {self.bad}")
        number, self.begun = self.begun, self.begun + 1
        self.order.append(("begin", number))
        time.sleep(0.01)  # meanwhile frames gather
        return Watched(self, number, super().begin(images, boxes))


@dataclass
class Watched:
    pose: WatchedPose
    number: int
    begun: FakeEstimate

    def result(self) -> list[tuple[Float32, Float32]]:
        self.pose.order.append(("finish", self.number))
        return self.begun.result()


def test_a_batch_of_a_recording_is_begun_before_the_one_before_is_waited_for() -> None:
    pose = WatchedPose()
    assert run(Pipeline([Feed(FakeSource())], FakeDetector(), pose, None, pose_batch=4)) == (list(range(COUNT)), None)
    place = {step: pose.order.index(step) for step in pose.order}
    last = pose.begun - 1
    assert [number for step, number in pose.order if step == "finish"] == list(range(last + 1))
    overlapping = sum(place["begin", number + 1] < place["finish", number] for number in range(last))
    assert overlapping > last / 2 > 2
    assert all(place["begin", number + 2] > place["finish", number] for number in range(last - 1)), "and no further"


def test_a_live_frame_does_not_wait_behind_another() -> None:
    pose = WatchedPose()
    with Pipeline([Feed(FakeSource(is_live=True))], FakeDetector(), pose, None) as pipe:
        assert sum(1 for _ in pipe) > 0
    assert pose.order == [(step, number) for number in range(pose.begun) for step in ("begin", "finish")]


def test_a_batch_that_cannot_be_begun_fails_behind_the_one_before() -> None:
    pipe = Pipeline([Feed(FakeSource())], FakeDetector(), WatchedPose(bad=BAD), None, pose_batch=4)
    indices, error = run(pipe)
    assert indices == list(range(BAD))
    assert isinstance(error, ModelError)
    assert f"at {BAD}" in str(error)


class OutOfMemoryPose(FakePose):
    """Has memory for one frame only."""

    def estimate(self, images: Sequence[torch.Tensor], boxes: Sequence[Boxes]) -> list[tuple[np.ndarray, np.ndarray]]:  # type: ignore[type-arg]
        if len(images) > 1:
            raise ModelError("out of memory")
        return super().estimate(images, boxes)


def test_a_batch_too_large_for_the_memory_is_done_a_frame_at_a_time() -> None:
    pose = OutOfMemoryPose()
    pipe = Pipeline([Feed(FakeSource())], FakeDetector(), pose, None)
    assert run(pipe) == (list(range(COUNT)), None)
    assert sum(pose.batches) == sum(index % 4 for index in range(COUNT))


@pytest.mark.parametrize("sink_class", [FakeSink, FakeWindow, FakeDataSink])
@pytest.mark.logs_errors
def test_the_only_sink_failing_ends_even_an_endless_run(sink_class: type[FakeSink], every: Every) -> None:
    sink = sink_class(Fault(BAD))
    indices, error = run(pipeline([sink], count=None, results_wanted=False, every=every))
    assert sink.indices == list(range(BAD))
    assert sink.calls == ["open", "close"]
    assert indices == list(range(len(indices)))
    assert type(error) is SinkError
    assert isinstance(error.__cause__, Boom)
    assert "fake-sink" in str(error)


@pytest.mark.parametrize("sink_class", [FakeSink, FakeWindow, FakeDataSink])
@pytest.mark.logs_errors
def test_one_sink_failing_leaves_its_siblings_alone(sink_class: type[FakeSink], every: Every) -> None:
    bad, good, window = sink_class(Fault(BAD), text="bad"), FakeSink(), FakeWindow()
    indices, error = run(pipeline([bad, good, window], results_wanted=False, every=every))
    assert bad.indices == list(range(BAD))
    assert good.indices == window.indices == indices == list(range(COUNT))
    assert [sink.calls for sink in (bad, good, window)] == [["open", "close"]] * 3
    assert type(error) is SinkError
    assert "bad" in str(error)


@pytest.mark.logs_errors
def test_a_caller_who_wants_results_gets_them_all_although_the_sink_failed(every: Every) -> None:
    indices, error = run(pipeline([FakeSink(Fault(BAD))], every=every))
    assert indices == list(range(COUNT))
    assert type(error) is SinkError


@pytest.mark.parametrize("sink_class", [FakeSink, FakeWindow])
@pytest.mark.parametrize("when", ["opening", "closing"])
@pytest.mark.logs_errors
def test_a_sink_that_fails_to_open_or_close(sink_class: type[FakeSink], when: str, every: Every) -> None:
    bad = sink_class(text="bad", **{when: Fault(0)})
    good = FakeSink()
    indices, error = run(pipeline([bad, good], results_wanted=False, every=every))
    assert good.indices == indices == list(range(COUNT))
    assert bad.indices == ([] if when == "opening" else indices)
    assert bad.calls == ["open", "close"]
    assert type(error) is SinkError
    assert isinstance(error.__cause__, Boom)


@pytest.mark.logs_errors
def test_a_failing_step_outranks_a_failing_sink(every: Every) -> None:
    _, error = run(pipeline([FakeSink(Fault(3)), FakeSink()], at="pose", fault=Fault(BAD), every=every))
    assert type(error) is ModelError


@pytest.mark.parametrize("sink_class", [FakeSink, FakeWindow])
def test_a_user_who_quits_at_a_sink_ends_the_run_without_an_error(sink_class: type[FakeSink], every: Every) -> None:
    quitter, other = sink_class(Fault(BAD, "quit")), FakeSink()
    indices, error = run(pipeline([quitter, other], count=None, every=every))
    assert error is None
    assert quitter.indices == list(range(BAD + 1))
    assert indices == list(range(len(indices)))
    assert other.indices == list(range(len(other.indices)))
    assert len(other.indices) >= BAD
    assert quitter.calls == other.calls == ["open", "close"]


class Pipe(FakeSink):
    """A sink whose reader may go away."""

    quits_run = False


def test_a_reader_that_goes_away_ends_its_own_sink_only(every: Every) -> None:
    pipe, other = Pipe(Fault(BAD, "quit")), FakeSink()
    indices, error = run(pipeline([pipe, other], results_wanted=False, every=every))
    assert error is None
    assert pipe.indices == list(range(BAD + 1))
    assert other.indices == indices == list(range(COUNT))


def test_the_only_reader_going_away_ends_the_run(every: Every) -> None:
    pipe = Pipe(Fault(BAD, "quit"))
    _, error = run(pipeline([pipe], count=None, results_wanted=False, every=every))
    assert error is None
    assert pipe.indices == list(range(BAD + 1))
    assert pipe.calls == ["open", "close"]


class Exiting(FakeSink):
    def write(self, _result: Result) -> bool | None:
        raise SystemExit(3)


@pytest.mark.logs_errors
def test_a_sink_that_exits_ends_itself_and_not_the_program(every: Every) -> None:
    exiting, other = Exiting(text="exiting"), FakeSink()
    indices, error = run(pipeline([exiting, other], results_wanted=False, every=every))
    assert type(error) is SinkError
    assert "exiting" in str(error)
    assert error.is_reported
    assert other.indices == indices == list(range(COUNT))
    assert exiting.calls == ["open", "close"]


def test_closing_within_the_loop_ends_it(every: Every) -> None:
    pipe = pipeline([FakeSink()], count=None, every=every)
    results = iter(pipe)
    assert next(results).frame.index == 0
    pipe.close()
    assert list(results) == []


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_stalls_is_named_and_given_up(step: str, every: Every) -> None:
    fault = Fault(BAD, "stall")
    sink = FakeSink()
    indices, error = run(pipeline([sink], at=step, fault=fault, stall_after_s=0.6, join_within_s=0.3, every=every))
    assert type(error) is StalledError
    assert step in str(error)
    assert indices == sink.indices == list(range(len(indices)))
    assert BAD - 8 <= len(indices) <= BAD, "what was finished before the stall is delivered"
    fault.released.set()


@pytest.mark.logs_errors
def test_a_sink_that_stalls_is_named_and_given_up(every: Every) -> None:
    fault = Fault(BAD, "stall")
    stuck, good = FakeSink(fault, text="stuck"), FakeSink()
    indices, error = run(pipeline([stuck, good], count=None, stall_after_s=0.6, join_within_s=0.3, every=every))
    assert type(error) is StalledError
    assert "stuck" in str(error)
    assert good.indices[: len(indices)] == indices == list(range(len(indices)))
    assert stuck.indices == list(range(BAD))
    fault.released.set()


@pytest.mark.parametrize("step", STEPS)
def test_stopping_a_run_with_a_stalled_step_does_not_hang(step: str, every: Every) -> None:
    fault = Fault(BAD, "stall")
    pipe = pipeline([FakeSink()], at=step, fault=fault, join_within_s=0.3, every=every)
    timer = threading.Timer(0.3, pipe.stop)
    timer.start()
    indices, error = run(pipe)
    assert type(error) is StalledError
    assert indices == list(range(len(indices)))
    fault.released.set()
    timer.join()


def test_a_slow_sink_holds_the_source_back(every: Every) -> None:
    fault = Fault(0, "stall")
    pipe = pipeline([FakeSink(fault)], count=None, every=every)
    timer = threading.Timer(0.5, fault.released.set)
    timer.start()
    results = iter(pipe)
    next(results)  # handed over while the sink still holds its first frame
    assert isinstance(pipe.sources[0], FakeSource)
    assert pipe.sources[0].captured < 150, "channels are bounded"
    timer.join()
    results.close()  # type: ignore[attr-defined]  # a generator


@pytest.mark.parametrize("after", [0, 1, BAD])
def test_stop_ends_an_endless_run_cleanly(after: int, every: Every) -> None:
    sink, window = FakeSink(), FakeWindow()
    pipe = pipeline([sink, window], count=None, every=every)
    indices = []
    for result in pipe:
        indices.append(result.frame.index)
        if len(indices) > after:
            pipe.stop()
    assert indices == list(range(len(indices)))
    assert sink.indices == window.indices == indices
    assert sink.calls == window.calls == ["open", "close"]


def test_stop_before_the_start_gives_nothing(every: Every) -> None:
    sink = FakeSink()
    pipe = pipeline([sink], count=None, every=every)
    pipe.stop()
    assert run(pipe) == ([], None)
    assert sink.calls == ["open", "close"]


def test_a_caller_who_breaks_off(every: Every) -> None:
    sink = FakeSink()
    with pipeline([sink], count=None, every=every) as pipe:
        for result in pipe:
            if result.frame.index == BAD:
                break
    assert sink.indices == list(range(len(sink.indices)))
    assert sink.indices[: BAD + 1] == list(range(BAD + 1))
    assert sink.calls == ["open", "close"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_a_caller_who_raises(kind: type[BaseException], every: Every) -> None:
    sink = FakeSink()

    def consume() -> None:
        with pipeline([sink], count=None, every=every) as pipe:
            for result in pipe:
                if result.frame.index == BAD:
                    raise kind("caller")

    with pytest.raises(kind, match="caller"):
        consume()
    assert sink.calls == ["open", "close"]


def test_closing_without_running_closes_source_and_sinks() -> None:
    sink = FakeSink()
    pipe = pipeline([sink])
    pipe.close()
    pipe.close()
    assert sink.calls == ["close"]
    assert isinstance(pipe.sources[0], FakeSource)
    assert pipe.sources[0].closed == 1
    with pytest.raises(RuntimeError, match="once"):
        next(iter(pipe))


def test_a_pipeline_runs_once() -> None:
    pipe = pipeline()
    run(pipe)
    with pytest.raises(RuntimeError, match="once"):
        next(iter(pipe))


def test_a_run_over_its_context_manager_raises_the_first_error_only(every: Every) -> None:
    def consume() -> None:
        with pipeline(at="pose", fault=Fault(BAD), every=every) as pipe:
            for _ in pipe:
                pass

    with pytest.raises(ModelError, match=f"frame {BAD}"):
        consume()


def run_of(source: FakeSource, *sinks: Sink, stall_after_s: float = 300.0) -> Pipeline:
    return Pipeline([Feed(source, sinks)], FakeDetector(), FakePose(), FakeAnnotator(), stall_after_s=stall_after_s)


class TestSinksOfARun:
    def test_a_sink_of_a_live_source_is_told_what_its_first_frame_shows(self) -> None:
        class Late(FakeSource):
            def captures(self) -> Iterator[Captured]:
                for captured in super().captures():
                    self.info = replace(self.info, width=WIDTH, height=HEIGHT, fps=60.0)
                    yield captured

        class Curious(FakeSink):
            def open(self, run: RunInfo) -> None:
                super().open(run)
                self.told = run.source

        source, sink = Late(5, is_live=True), Curious()
        source.info = replace(source.info, width=0, height=0, fps=None)
        with run_of(source, sink) as running:
            for _ in running:
                pass
        assert (sink.told.width, sink.told.height, sink.told.fps) == (WIDTH, HEIGHT, 60.0)

    def test_two_sinks_with_one_text_are_counted_apart(self) -> None:
        with run_of(FakeSource(5), FakeSink(text="null"), FakeSink(text="null")) as running:
            for _ in running:
                pass
        assert [counts["written"] for counts in running.stats()["sinks"].values()] == [5, 5]

    def test_the_statistics_leave_a_sinks_own_as_they_are(self) -> None:
        class Kept(FakeSink):
            def __init__(self) -> None:
                super().__init__()
                self.own: dict[str, int | float | str] = {"dropped": 3}

            def status(self) -> dict[str, int | float | str]:
                return self.own

        running = run_of(FakeSource(1), Kept())
        for _ in range(2):
            assert running.stats()["sinks"]["fake-sink"]["dropped"] == {"disconnected": 3}
        running.close()

    def test_a_sink_that_waits_for_a_frames_time_is_not_stalled(self) -> None:
        class Paced(FakeSink):
            def write(self, result: Result) -> bool | None:
                self.resumed_at_s = math.inf
                time.sleep(1.0)
                self.resumed_at_s = time.monotonic()
                return super().write(result)

        sink = Paced()
        with run_of(FakeSource(1), sink, stall_after_s=0.3) as running:
            assert len(list(running)) == 1
        assert sink.indices == [0]

    def test_a_recording_is_running_until_it_ends(self) -> None:
        source, states = FakeSource(40), set()
        with run_of(source) as running:
            for _ in running:
                states.add(source.meter.state)
        assert "running" in states
        assert source.meter.state == "ended"


def test_a_recording_does_not_fill_the_batches_of_a_live_source() -> None:
    recording, camera = FakeSource(40), FakeSource(4, is_live=True)
    recording.info = replace(recording.info, source_id="recording")
    camera.info = replace(camera.info, source_id="camera")
    detector = FakeDetector()
    feeds = [Feed(recording, [FakeSink()]), Feed(camera, [FakeSink()])]
    with Pipeline(feeds, detector, FakePose(), None, detect_batch=8) as running:
        for _ in running:
            pass
    assert max(detector.batches) <= 2
