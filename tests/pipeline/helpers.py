"""A pipeline of hand-written steps, and a run of it to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from streampose.errors import StreamposeError
from streampose.pipeline.parts import Feed
from streampose.pipeline.pipeline import Pipeline
from streampose.sinks.sink import Sink
from tests.fakes import (
    NO_FAULT,
    FakeAnnotator,
    FakeDetector,
    FakePose,
    FakeSource,
    Fault,
)

COUNT = 40
BAD = 11
STEPS = ("capture", "detect", "pose", "annotate")
Every = int | Literal["auto"]


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
