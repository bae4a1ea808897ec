"""Several sources through one detector and one pose network, and live ones that nobody may hold up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch

from streampose.errors import ModelError, SourceError
from streampose.frames import Boxes, Captured, Float32, Frame, SourceInfo
from streampose.meter import Drop, SourceMeter
from streampose.pipeline.pace import Pace
from streampose.pipeline.parts import Feed
from streampose.pipeline.pipeline import Pipeline
from tests.fakes import (
    HEIGHT,
    NO_FAULT,
    WIDTH,
    FakeAnnotator,
    FakeDetector,
    FakePose,
    FakeSink,
    FakeSource,
    Fault,
    picture,
)


def named(source: FakeSource, name: str) -> FakeSource:
    info = source.info
    source.info = SourceInfo(name, name, WIDTH, HEIGHT, 25.0, Fraction(1, 25), info.frame_count, info.is_live)
    return source


class LiveFake(FakeSource):
    """Frames at a rate of its own until it is interrupted; hangs where a test says."""

    def __init__(self, name: str, fps: float, *, count: int | None = None, hangs_at: int = -1) -> None:
        super().__init__(count, is_live=True)
        named(self, name)
        self.fps = fps
        self.hangs_at = hangs_at

    def captures(self) -> Iterator[Captured]:
        began_s = time.monotonic()
        index = 0
        while self.count is None or index < self.count:
            if index == self.hangs_at:
                self.interrupted.wait(60)
            if self.interrupted.wait(max(0.0, began_s + index / self.fps - time.monotonic())):
                return
            self.meter.captured()
            self.captured += 1
            yield Captured(Frame(self.info.source_id, index, index / self.fps, time.monotonic(), picture(index)))
            index += 1


class SlowPose(FakePose):
    """Takes its time for a batch, whatever is in it."""

    def __init__(self, batch_s: float) -> None:
        super().__init__()
        self.batch_s = batch_s

    def estimate(self, images: Sequence[torch.Tensor], boxes: Sequence[Boxes]) -> list[tuple[Float32, Float32]]:
        time.sleep(self.batch_s)
        return super().estimate(images, boxes)


def accounted(meter: SourceMeter) -> dict[str, int]:
    """The drops of a source of an ended run, whose counts add up."""
    stats = meter.stats()
    assert stats["captured"] == stats["delivered"] + sum(stats["dropped"].values())
    dropped: dict[str, int] = stats["dropped"]
    return dropped


def collect(pipe: Pipeline, until: float | None = None) -> dict[str, list[int]]:
    """The indices of every source's results; the run is stopped after `until` seconds."""
    indices: dict[str, list[int]] = {source.info.source_id: [] for source in pipe.sources}
    timer = threading.Timer(until or 60, pipe.stop)
    timer.start()
    try:
        for result in pipe:
            indices[result.frame.source_id].append(result.frame.index)
    finally:
        timer.cancel()
        timer.join()
    return indices


def test_recordings_share_the_networks_and_keep_their_order() -> None:
    sinks = {name: FakeSink(text=name) for name in "abc"}
    counts = {"a": 30, "b": 7, "c": 50}
    detector, pose = FakeDetector(), FakePose()
    feeds = [Feed(named(FakeSource(counts[name]), name), [sinks[name]]) for name in "abc"]
    pipe = Pipeline(feeds, detector, pose, FakeAnnotator(), detect_batch=6)
    indices = collect(pipe)
    for name, count in counts.items():
        assert indices[name] == sinks[name].indices == list(range(count))
        assert sinks[name].calls == ["open", "close"]
    assert all(accounted(source.meter) == {} for source in pipe.sources), "a recording drops nothing"
    assert len(detector.batches) < sum(counts.values()) / 4, "frames of all sources go through together"
    assert set(pipe.stats()["sources"]) == set("abc")
    assert pipe.stats()["sinks"]["a: a"]["written"] == 30


@pytest.mark.logs_errors
@pytest.mark.parametrize(("step", "kind"), [("capture", SourceError), ("detect", ModelError), ("pose", ModelError)])
def test_a_failing_source_leaves_the_others_alone(step: str, kind: type[Exception]) -> None:
    fault = Fault(111)  # only the bad source has so many frames
    bad = named(FakeSource(200, fault if step == "capture" else NO_FAULT), "bad")
    good = named(FakeSource(100), "good")
    sinks = [FakeSink(text="bad"), FakeSink(text="good")]
    pipe = Pipeline(
        [Feed(bad, [sinks[0]]), Feed(good, [sinks[1]])],
        FakeDetector(fault if step == "detect" else NO_FAULT),
        FakePose(fault if step == "pose" else NO_FAULT),
        None,
    )
    indices: dict[str, list[int]] = {"bad": [], "good": []}

    def consume() -> None:
        for result in pipe:
            indices[result.frame.source_id].append(result.frame.index)

    with pytest.raises(kind, match="111"):
        consume()
    assert indices["good"] == sinks[1].indices == list(range(100))
    assert indices["bad"] == sinks[0].indices == list(range(111))
    accounted(bad.meter)


def test_a_live_source_too_fast_for_the_networks_drops_and_stays_fresh() -> None:
    source = LiveFake("cam", fps=200)
    pipe = Pipeline([Feed(source)], FakeDetector(), SlowPose(0.1), None)
    ages_s = []
    timer = threading.Timer(2.0, pipe.stop)
    timer.start()
    indices = []
    for result in pipe:
        ages_s.append(time.monotonic() - result.frame.captured_at_s)
        indices.append(result.frame.index)
    timer.join()
    dropped = accounted(source.meter)
    assert dropped[Drop.BUSY] > 200
    assert set(dropped) <= {Drop.BUSY, Drop.STOPPED}
    assert indices == sorted(set(indices))
    assert len(indices) >= 10


class SlowDetector(FakeDetector):
    def detect(self, images: Sequence[torch.Tensor], *_: object) -> list[Boxes]:
        time.sleep(0.03)
        return super().detect(images)


def test_people_of_a_live_source_do_not_wait_for_the_pose_network() -> None:
    """Found as early as can be, they would wait for it: 0.2 s from capture to output instead of 0.03 + 0.1."""
    source = LiveFake("cam", fps=200)
    pipe = Pipeline([Feed(source)], SlowDetector(), SlowPose(0.1), None)
    timer = threading.Timer(3.0, pipe.stop)
    timer.start()
    ages_s = [time.monotonic() - result.frame.captured_at_s for result in pipe]
    timer.join()
    assert len(ages_s) >= 20, "the pose network does not wait either"
    assert np.median(ages_s[5:]) < 1.25 * 0.13


@pytest.mark.parametrize(("beside", "wait_s"), [(1.1, 0.078), (0.0, 0.1)])
def test_when_the_detector_begins(beside: float, wait_s: float) -> None:
    pace = Pace(detections_beside_poses=beside)
    assert pace.wait_s(time.monotonic()) == 0, "nothing is known"
    with pace.detecting():
        time.sleep(0.02)
    pace.handing_over()
    with pace.posing():
        time.sleep(0.1)
    assert pace.wait_s(time.monotonic()) == 0, "the pose network is free"
    pace.handing_over()
    assert pace.wait_s(time.monotonic()) == pytest.approx(wait_s, abs=0.02), "it is about to begin"
    with pace.posing():
        assert pace.wait_s(time.monotonic()) == pytest.approx(wait_s, abs=0.02)
        assert pace.wait_s(time.monotonic() + 0.05) == pytest.approx(wait_s - 0.05, abs=0.02)
        assert pace.wait_s(time.monotonic() + 1) == 0, "it takes longer than expected"


def test_a_slow_sink_of_a_live_source_drops_its_own_frames_only() -> None:
    class SlowSink(FakeSink):
        def write(self, result):  # type: ignore[no-untyped-def]
            time.sleep(0.2)
            return super().write(result)

    slow, quick = SlowSink(text="slow"), FakeSink(text="quick")
    source = LiveFake("cam", fps=50)
    pipe = Pipeline([Feed(source, [slow, quick])], FakeDetector(), FakePose(), None)
    indices = collect(pipe, until=2.0)["cam"]
    assert len(indices) >= 60
    assert quick.indices == indices
    assert 5 <= len(slow.indices) <= 20
    stats = pipe.stats()["sinks"]
    assert stats["slow"]["written"] + stats["slow"]["dropped"]["busy"] == len(indices)
    assert stats["quick"]["dropped"] == {}
    assert set(accounted(source.meter)) <= {Drop.STOPPED}


def test_a_slow_caller_of_a_live_source_is_counted() -> None:
    source = LiveFake("cam", fps=100, count=100)
    pipe = Pipeline([Feed(source)], FakeDetector(), FakePose(), None)
    for _ in pipe:
        time.sleep(0.1)
    assert accounted(source.meter)[Drop.OUTPUT] > 50


def test_hung_and_dead_cameras_hold_up_nobody() -> None:
    hung, dead = LiveFake("hung", 30, hangs_at=3), LiveFake("dead", 30, hangs_at=0)
    slow, fast = LiveFake("slow", 5), LiveFake("fast", 30)
    pipe = Pipeline([Feed(source) for source in (hung, dead, slow, fast)], FakeDetector(), FakePose(), None)
    began_s = time.monotonic()
    indices = collect(pipe, until=3.0)
    assert time.monotonic() - began_s < 4.5, "hung sources end when they are interrupted"
    assert indices["hung"] == [0, 1, 2]
    assert indices["dead"] == []
    for source in (slow, fast):
        stats = source.meter.stats()
        assert stats["delivered"] >= stats["captured"] - 1
        assert stats["captured"] >= 0.9 * 3.0 * source.fps
    assert fast.meter.stats()["latency_ms"]["p50"] < 50


def test_the_networks_time_is_dealt_fairly() -> None:
    sources = [LiveFake(name, fps) for name, fps in (("a", 100), ("b", 100), ("c", 10))]
    pipe = Pipeline([Feed(source) for source in sources], FakeDetector(), SlowPose(0.05), None, detect_batch=2)
    indices = collect(pipe, until=3.0)
    a, b, c = (len(indices[name]) for name in "abc")
    assert abs(a - b) <= 0.2 * max(a, b) + 2
    assert min(a, b) >= c >= 25, "who has few frames gets them through"


class IdleSink(FakeSink):
    """Counts how often it is asked to bridge a silence."""

    idle_every_s = 0.05

    def __init__(self, quits_at: int = -1) -> None:
        super().__init__()
        self.idles = 0
        self.quits_at = quits_at

    def idle(self) -> bool | None:
        self.idles += 1
        return False if self.idles == self.quits_at else None


def test_a_sink_is_told_when_no_frame_comes() -> None:
    sink = IdleSink()
    pipe = Pipeline([Feed(LiveFake("cam", 100, hangs_at=10), [sink])], FakeDetector(), FakePose(), None)
    collect(pipe, until=1.0)
    assert sink.indices == list(range(len(sink.indices)))
    assert sink.idles >= 8


class IdleWindow(IdleSink):
    on_main_thread = True


@pytest.mark.parametrize("kind", [IdleSink, IdleWindow])
def test_a_user_can_quit_while_no_frame_comes(kind: type[IdleSink]) -> None:
    sink = kind(quits_at=5)
    pipe = Pipeline([Feed(LiveFake("cam", 100, hangs_at=10), [sink])], FakeDetector(), FakePose(), None)
    began_s = time.monotonic()
    assert collect(pipe, until=20)["cam"] == sink.indices
    assert time.monotonic() - began_s < 10
    assert sink.idles == 5
    assert sink.calls == ["open", "close"]


def test_percentiles_and_rates_are_those_of_the_frames() -> None:
    meter = SourceMeter()
    now_s = time.monotonic()
    for age_ms in range(1, 101):
        meter.captured()
        meter.delivered(2, now_s - age_ms / 1000)
    latency = meter.stats()["latency_ms"]
    elapsed_ms = (time.monotonic() - now_s) * 1000
    assert latency["p50"] == pytest.approx(50.5, abs=elapsed_ms + 1)
    assert latency["p99"] == pytest.approx(99, abs=elapsed_ms + 1)
    assert meter.stats()["people"] == 200
    assert np.isfinite(meter.stats()["fps_in"])
