"""The failure matrix: every step raises, every step stalls, every sink fails.

Each time: the right error with its cause, everything before it delivered in order, no thread left (conftest looks).
"""

from __future__ import annotations

import threading

import pytest

from streampose.errors import AnnotateError, ModelError, SinkError, SourceError, StalledError
from streampose.frames import Result
from tests.fakes import (
    Boom,
    FakeDataSink,
    FakeSink,
    FakeSource,
    FakeWindow,
    Fault,
)
from tests.pipeline.helpers import BAD, COUNT, STEPS, Every, pipeline, run

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


def test_a_run_over_its_context_manager_raises_the_first_error_only(every: Every) -> None:
    def consume() -> None:
        with pipeline(at="pose", fault=Fault(BAD), every=every) as pipe:
            for _ in pipe:
                pass

    with pytest.raises(ModelError, match=f"frame {BAD}"):
        consume()
