"""Who may end a run: the user at a sink, a reader that goes away, and the caller."""

from __future__ import annotations

import pytest

from tests.fakes import (
    FakeSink,
    FakeSource,
    FakeWindow,
    Fault,
)
from tests.pipeline.helpers import BAD, COUNT, Every, pipeline, run


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


def test_closing_within_the_loop_ends_it(every: Every) -> None:
    pipe = pipeline([FakeSink()], count=None, every=every)
    results = iter(pipe)
    assert next(results).frame.index == 0
    pipe.close()
    assert list(results) == []


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
