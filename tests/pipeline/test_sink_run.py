"""What a run tells its sinks and counts of them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

from streampose.frames import Captured, Result, RunInfo
from streampose.pipeline.parts import Feed
from streampose.pipeline.pipeline import Pipeline
from streampose.sinks.sink import Sink
from tests.fakes import (
    HEIGHT,
    WIDTH,
    FakeAnnotator,
    FakeDetector,
    FakePose,
    FakeSink,
    FakeSource,
)


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
