"""A run whose sources come and go: a source that ends leaves it, and others are added while it runs.

Knows nothing about where the sources come from and what becomes of their outputs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from streampose.errors import StreamposeError
from streampose.frames import Result
from streampose.pipeline.lane import Lane
from streampose.pipeline.parts import Detector, Drawer, Feed, Pose
from streampose.pipeline.pipeline import Pipeline
from streampose.pipeline.stalls import LOOK_EVERY_S


@dataclass(frozen=True, slots=True)
class Left:
    """A source that has left the run. The source and its sinks are closed."""

    feed: Feed
    is_complete: bool
    """Whether the source was read to its end without an error, and every frame was delivered to all sinks."""
    errors: tuple[StreamposeError, ...]
    """What failed: the source, a network on one of its frames, drawing, or sinks."""
    stats: dict[str, Any]
    """The counts of the source, as in `Run.stats`."""


class RollingPipeline(Pipeline):
    """Takes recordings through the networks, with several at a time in each batch. See `Run`.

    Add sources with `add`, also while it runs, from the thread that iterates; call `seal` after the last one. Sources
    that have ended are handed over by `left`, with their errors. A source or sink that fails or hangs never ends the
    run; the run does not wait for a step that hangs. A network that hangs ends the run.
    """

    _depth = 3
    """With several sources, fewer frames of each fill the batches, and less memory is needed."""

    def __init__(self, detector: Detector, pose: Pose, annotator: Drawer | None, **options: Any) -> None:
        """Start without sources. `options` are those of `Pipeline`."""
        super().__init__([], detector, pose, annotator, **options, results_wanted=False, stays_open=True)
        self._feeds: dict[Lane, Feed] = {}
        self._errors: dict[Lane, StreamposeError] = {}
        self._threads_of: dict[Lane, list[threading.Thread]] = {}
        self._held: set[Lane] = set()
        self._left: list[Left] = []
        self._sealed = False
        self._looked_s = 0.0
        self.abandoned: set[str] = set()
        """The steps that hung. Their threads may still be running, which keeps Python from a normal exit."""

    @property
    def running(self) -> list[Feed]:
        """The sources that have not left yet."""
        return list(self._feeds.values())

    @property
    def reading(self) -> int:
        """The number of sources that have not been read to their end yet. The frames of the others are in progress."""
        return sum(not lane.slot.finished for lane in self._feeds)

    def add(self, feed: Feed) -> None:
        """Take ownership of a recording and its sinks. Its text must differ from those of the other sources.

        After `stop`, the recording leaves again at once, incomplete.
        """
        if self._ended or self._sealed:
            raise RuntimeError("no source can be added to a pipeline that has ended or is sealed")
        if feed.source.info.is_live:
            raise ValueError(f"{feed.source.info.text} is live")
        lane = self._new_lane(feed, prefix=f"{feed.source.info.text}: ")
        self._feeds[lane] = feed
        for run in lane.sinks_here:
            run.open()
        if self._started:
            self._start_lane(lane)
        if self._stop_asked.is_set():  # perhaps just now, by a signal
            lane.stop()
            lane.posed.finish()

    def seal(self) -> None:
        """Add no more sources: the run ends when all have left. Safe to call twice."""
        self._sealed = True
        self._captured.seal()

    def left(self) -> list[Left]:
        """Return the sources that have left since the last call."""
        left, self._left = self._left, []
        return left

    def ticks(self) -> Generator[Result | None]:
        with closing(super().ticks()) as ticks:
            for result in ticks:
                self._see_off()
                yield result

    def stop(self) -> None:
        super().stop()
        self._captured.seal()

    def _start_lane(self, lane: Lane) -> None:
        began = len(self._threads)
        super()._start_lane(lane)
        self._threads_of[lane] = self._threads[began:]

    def _see_off(self) -> None:
        """Let the sources leave whose threads have ended, and look for steps that hang."""
        if time.monotonic() - self._looked_s >= LOOK_EVERY_S:  # results may keep coming from other sources
            self._look_around()
        for number, lane in list(self._lanes.items()):
            # The networks' threads may still ask for a lane by its number until they have passed on its ending.
            if lane.ended and lane.posed.finished and not any(map(threading.Thread.is_alive, self._threads_of[lane])):
                self._leave(number, lane)
        if not self._lanes and (self._sealed or self._stop_asked.is_set()):
            self._results.seal()

    def _leave(self, number: int, lane: Lane) -> None:
        for run in lane.sinks_here:
            run.close()
        if lane not in self._held:  # a thread that hangs is still inside
            lane.source.close()
        self._held.discard(lane)
        lane.settle()
        del self._lanes[number]
        threads = self._threads_of.pop(lane)
        self._threads = [thread for thread in self._threads if thread not in threads]
        for step in [name for name, _ in lane.steps()] + [f"{lane.prefix}steps"]:
            self.meter.forget(step)
        errors = [self._errors.pop(lane, None), *(run.error for run in lane.sinks)]
        failed = tuple(error for error in errors if error is not None)
        is_complete = lane.was_read and not failed and lane.source.meter.under_way == 0
        self._left.append(Left(self._feeds.pop(lane), is_complete, failed, lane.stats()))

    def _look_around(self) -> None:
        self._looked_s = time.monotonic()
        stalled = self._stalls.stalled()
        if stalled is None:
            return
        work, error = stalled
        if work.step in self.abandoned:  # it went on, and hangs again
            self.meter.forget(work.step)
            return
        for lane in self._lanes.values():
            if work.step.startswith(lane.prefix):
                name = _abandon(lane, work.step, error)
                self.abandoned.update((work.step, name))
                (hung,) = (one for one in self._threads_of[lane] if one.name == f"streampose {name}")
                self._threads_of[lane].remove(hung)
                self._threads.remove(hung)
                if name == lane.capture_step:
                    self._held.add(lane)
                self.meter.forget(work.step)
                return
        raise error

    def _take_ending(self, lane: Lane, error: BaseException | None) -> None:
        lane.ended = True
        lane.source.meter.state = "ended"
        if error is None:
            return
        if not isinstance(error, StreamposeError):
            raise error
        self._errors[lane] = error


def _abandon(lane: Lane, step: str, error: StreamposeError) -> str:
    """End the lane, or one of its sinks, because `step` hangs. The other steps end in order, with all frames that have
    passed `step`.

    Returns:
        the name of the thread that hangs, as in `Lane.steps`.
    """
    for run in lane.sinks_threaded:
        if run.step == step:
            run.abandon(error)
            return step
    if step == lane.capture_step:
        lane.slot.finish(error)
        return step
    lane.posed.close()
    lane.slot.close()
    for run in lane.sinks_threaded:
        run.feed.finish()
    lane.results.finish(error)
    return f"{lane.prefix}annotate"
