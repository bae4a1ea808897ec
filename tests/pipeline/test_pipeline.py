"""A run without a fault: every frame in order, in batches, and no further ahead than it may be."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from streampose.errors import ModelError
from streampose.frames import Boxes, Float32
from streampose.pipeline.parts import Feed
from streampose.pipeline.pipeline import Pipeline
from tests.fakes import (
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
from tests.pipeline.helpers import BAD, COUNT, Every, pipeline, run


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
