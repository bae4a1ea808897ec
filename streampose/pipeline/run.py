"""Builds the channels, starts and joins the threads, and raises the first error.

    for each source      capture -> [slot] -.
    for all sources                          `-> find the people -.
    for each source                         .- [posed] <----------'
                                            `-> annotate -> a channel per sink, and one for the caller

Each step has a thread; `Lane.steps` and `Finder.steps` list them. The last loop runs in the caller's thread, because
windows and signals require it. Frames and endings flow down the channels; closing flows up. When a channel is full, a
recording waits and a live source drops its oldest frame. Knows nothing about where people come from, file formats and
flags.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from itertools import count
from types import TracebackType
from typing import Any, Self

from streampose.channel import Empty, Ending, Finished, Merge
from streampose.errors import StreamposeError
from streampose.frames import Captured, Result, RunInfo, Skeleton
from streampose.meter import Drop, Meter
from streampose.pipeline.lane import CHANNEL_DEPTH, Lane
from streampose.pipeline.parts import Drawer, Feed, Finder, FrameSource
from streampose.pipeline.sink_run import SinkRun, report
from streampose.pipeline.stalls import LOOK_EVERY_S, Stalls


class Run:
    """Takes sources through a finder of people into their sinks. Subclasses make the finder.

    Iterate over it once, directly or through `ticks`. The results of each source are in order. Use it as a context
    manager, or call `close`.

    A step that fails ends its source. All frames before the failure are delivered first; then a `StreamposeError` is
    raised, whose `__cause__` is the library's error. With several sources, the error is logged, the other sources
    continue, and the error is raised at the end. A sink that fails does not end its source as long as someone still
    takes its results: another sink or, with `results_wanted`, the caller. The error is raised at the end.
    """

    _finder: Finder
    """Takes `_captured` and gives each lane its results. The constructor of the subclass sets it."""
    _depth = CHANNEL_DEPTH
    """Maximum frames of a recording between two steps."""

    def __init__(
        self,
        feeds: Sequence[Feed],
        skeleton: Skeleton,
        models: dict[str, str],
        annotator: Drawer | None,
        *,
        draw: bool,
        results_wanted: bool,
        stall_after_s: float,
        join_within_s: float,
        stays_open: bool = False,
    ) -> None:
        """Take ownership of sources and sinks. Work starts with the iteration.

        Args:
            feeds: the sources with their sinks; each source has a different `source_id`.
            skeleton: the skeleton of every pose.
            models: see `RunInfo`.
            annotator: draws `Result.drawn` if a sink needs it or `draw` is set; None disables drawing.
            draw: draw every result, even if no sink needs it.
            results_wanted: continue for the caller after all sinks have failed.
            stall_after_s: abort with `StalledError` if a step takes longer for one piece of work.
            join_within_s: maximum time that the end of the run waits for a step to stop.
            stays_open: further sources may come while it runs; see `RollingPipeline`.
        """
        self.meter = Meter()
        self.models = models
        """The names of the networks."""
        self._skeleton, self._annotator = skeleton, annotator
        self._draw, self._results_wanted = draw, results_wanted
        self._captured: Merge[Captured] = Merge(stays_open=stays_open)
        self._results: Merge[Result] = Merge(stays_open=stays_open)
        self._numbers = count()
        self._lanes: dict[int, Lane] = {}
        """By the number of their channels in both merges."""
        for feed in feeds:
            self._new_lane(feed, prefix=f"{feed.source.info.source_id}: " if len(feeds) > 1 else "")
        self._stop_asked = threading.Event()
        self._threads: list[threading.Thread] = []
        self._stalls = Stalls(self.meter, self._sink_runs, self._stop_asked, stall_after_s, join_within_s)
        self._first_failure: StreamposeError | None = None
        self._started = False
        self._ended = False

    @property
    def sources(self) -> list[FrameSource]:
        """The sources in the given order. Their `info` and `meter` can be read at any time."""
        return [lane.source for lane in self._lanes.values()]

    def __iter__(self) -> Iterator[Result]:
        with closing(self.ticks()) as ticks:
            for result in ticks:
                if result is not None:
                    yield result

    def ticks(self) -> Generator[Result | None]:
        """Yield the results, and None every `LOOK_EVERY_S` while no result arrives, so that the caller can do other
        work.
        """
        if self._started or self._ended:
            raise RuntimeError("a pipeline runs once")
        self._started = True
        self.meter.start()
        failure: BaseException | None = None
        try:
            for lane in self._lanes.values():
                for run in lane.sinks_here:
                    run.open()
            self._start(self._finder.steps())
            for lane in self._lanes.values():
                self._start_lane(lane)
            while not self._over():
                try:
                    number, value = self._results.take(timeout_s=LOOK_EVERY_S)
                except Empty:
                    self._look_around()
                    yield None
                    continue
                lane = self._lanes[number]
                if isinstance(value, Ending):
                    self._take_ending(lane, value.error)
                    continue
                for run in lane.sinks_here:
                    run.write(value)
                lane.source.meter.delivered(len(value.people), value.frame.captured_at_s)
                self.meter.finished(len(value.people))
                yield value
        except Finished:
            pass
        except BaseException as error:
            failure = error
            raise
        finally:
            self._end(failure)

    def stop(self) -> None:
        """End cleanly: start no new batch, deliver the frames in progress, close the sinks. Call it from any thread."""
        self._stop_asked.set()
        for lane in tuple(self._lanes.values()):
            lane.stop()

    def close(self) -> None:
        """Discard the frames in progress, end all threads, close sources and sinks. Safe to call twice.

        Raises the first error of a source or sink, unless the iteration has already raised an error.
        """
        self._end(None)

    @property
    def is_half_done(self) -> bool:
        """Whether a later run can continue this one, which has ended."""
        return any(lane.is_half_done for lane in self._lanes.values())

    def summaries(self) -> list[str]:
        """Return one line per sink that describes its output. The lines are complete when the run has ended."""
        lines = [run.sink.summary() for run in self._sink_runs()]
        return [line for line in lines if line is not None]

    def stats(self) -> dict[str, Any]:
        """Return the counts so far as JSON values: `sources` by `source_id`, and `sinks` by their text. Sources whose
        people are tracked have `tracks`; see `Tracker.stats`.

        When the run has ended, captured = delivered + dropped for each source. Drops of a sink are counted separately.
        """
        return {
            "sources": {lane.source.info.source_id: lane.stats() for lane in self._lanes.values()},
            "sinks": {run.name: run.stats() for run in self._sink_runs()},
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(error)

    def _new_lane(self, feed: Feed, prefix: str) -> Lane:
        lane = Lane(
            feed,
            RunInfo(feed.source.info, self._skeleton, self.models),
            self.meter,
            self._annotator if self._draw or any(sink.needs_drawn for sink in feed.sinks) else None,
            self._captured,
            self._results,
            prefix=prefix,
            results_wanted=self._results_wanted or not feed.sinks,
            depth=self._depth,
        )
        self._lanes[next(self._numbers)] = lane
        return lane

    def _start_lane(self, lane: Lane) -> None:
        self._start(lane.steps())

    def _start(self, steps: Sequence[tuple[str, Callable[[], None]]]) -> None:
        for name, work in steps:
            thread = threading.Thread(target=work, name=f"streampose {name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _sink_runs(self) -> list[SinkRun]:
        return [run for lane in self._lanes.values() for run in lane.sinks]

    def _over(self) -> bool:
        """Return whether the user has quit at a sink, which ends the whole run."""
        return any(run.quit for run in self._sink_runs())

    def _look_around(self) -> None:
        """Check for stalls and serve the windows, while the caller's thread waits."""
        self._stalls.check()
        for lane in self._lanes.values():
            for run in lane.sinks_here:
                run.idle()

    def _take_ending(self, lane: Lane, error: BaseException | None) -> None:
        lane.ended = True
        lane.source.meter.state = "ended"
        if error is None:
            return
        if len(self._lanes) == 1 or not isinstance(error, StreamposeError):
            raise error
        report(error, "the other sources continue")
        self._first_failure = self._first_failure or error

    def _end(self, failure: BaseException | None) -> None:
        if self._ended:
            return
        self._ended = True
        came_to_its_end = all(lane.ended for lane in self._lanes.values())
        if failure is not None or not came_to_its_end:
            self.stop()
        for lane in self._lanes.values():
            for channel in (lane.slot, lane.posed, lane.results):
                channel.close()
        if not came_to_its_end:
            self._finder.close()
        stalled = self._stalls.join(self._threads)
        runs = self._sink_runs()
        for run in runs:
            if not self._threads or run.sink.on_main_thread:
                run.close()
        for lane in self._lanes.values():
            if stalled is None:
                lane.source.close()
            lane.settle()
            lane.source.meter.dropped(Drop.STOPPED, lane.source.meter.under_way)
        if failure is None or isinstance(failure, GeneratorExit):
            errors = [stalled, self._first_failure, *(run.error for run in runs)]
            for error in errors:
                if error is not None:
                    raise error
