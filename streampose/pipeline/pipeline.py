"""Builds the channels, starts and joins the threads, and raises the first error.

    for every source     capture -> [slot] -.
    for all together                         `-> detect -> [detected] -> pose -.
    for every source                                     .- [posed] <----------'
                                                         `-> annotate -> one channel a sink, one for the caller

Each step has a thread; `Pipeline._steps` lists them. The caller's thread runs the last loop, because windows and
signals need it. Frames and endings flow down the channels; closing flows up. When a channel is full, a recording waits
and a live source drops its oldest frame. Knows no model, no file format and no flag.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Literal

import torch

from streampose.channel import Empty, Ending, Finished, Merge
from streampose.errors import StreamposeError
from streampose.frames import Captured, Result, RunInfo
from streampose.meter import Drop, Meter
from streampose.pipeline.detect_and_follow import DetectAndFollow
from streampose.pipeline.detect_then_pose import DetectThenPose
from streampose.pipeline.lane import Lane
from streampose.pipeline.networks import Networks, on_device
from streampose.pipeline.parts import Detector, Drawer, Feed, FrameSource, Pose
from streampose.pipeline.sink_run import SinkRun, report
from streampose.pipeline.stalls import LOOK_EVERY_S, Stalls


class Pipeline:
    """Runs sources through the networks into their sinks.

    Iterate over it once to get the results, in order for each source, or iterate over `ticks`. Use it as a context
    manager, or close it.

    A failing step ends its source. Every frame before the failure is delivered first; then a `StreamposeError` is
    raised, whose `__cause__` is the library's error. With several sources, the error is logged, the others go on, and
    it is raised at the end. A failing sink ends alone if its source has another sink or, with `results_wanted`, the
    caller; its error is raised at the end as well.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        detector: Detector,
        pose: Pose,
        annotator: Drawer | None,
        *,
        device: torch.device | None = None,
        detect_every: int | Literal["auto"] = 1,
        max_people: int | None = None,
        detect_batch: int = 4,
        pose_batch: int = 16,
        fill_s: float = 1.0,
        draw: bool = False,
        results_wanted: bool = True,
        stall_after_s: float = 300.0,
        join_within_s: float = 30.0,
    ) -> None:
        """Take ownership of sources and sinks. The work starts with the iteration.

        Args:
            feeds: sources with different `source_id`s.
            annotator: draws `Result.picture` if a sink needs it or `draw` is set; None never draws.
            device: where the networks run. The pixels of each frame are uploaded once.
            detect_every: run the detector on every Nth frame of a source and follow people in between; `auto` runs it
                as often as the poses leave time. Stills are always detected.
            max_people: maximum people per frame while people are followed; the detector applies its own limit.
            detect_batch: maximum frames per detector call, over all sources.
            pose_batch: maximum people per pose call, over all sources.
            fill_s: maximum time that a batch waits to be filled if all sources are recorded; otherwise it never waits.
            draw: draw every result, even if no sink needs it.
            results_wanted: keep going for the caller when every sink has failed.
            stall_after_s: abort with `StalledError` if one piece of work takes longer.
            join_within_s: maximum time that the end of the run waits for a step to stop.
        """
        self.meter = Meter()
        self._device = device or torch.device("cpu")
        self._captured: Merge[Captured] = Merge()
        self._results: Merge[Result] = Merge()
        models = {"detector": detector.name, "pose": pose.name}
        self._lanes = [
            Lane(
                feed,
                RunInfo(feed.source.info, pose.skeleton, models),
                self.meter,
                annotator if draw or any(sink.needs_picture for sink in feed.sinks) else None,
                self._captured,
                self._results,
                prefix=f"{feed.source.info.source_id}: " if len(feeds) > 1 else "",
                results_wanted=results_wanted or not feed.sinks,
            )
            for feed in feeds
        ]
        self._stop_asked = threading.Event()
        networks = Networks(detector, pose, self._device, self.meter)
        self._networks: DetectAndFollow | DetectThenPose
        if detect_every != 1 and not all(feed.source.info.pictures for feed in feeds):
            self._networks = DetectAndFollow(
                networks,
                self._lanes,
                self._captured,
                self._stop_asked,
                detect_every=detect_every,
                detect_batch=detect_batch,
                max_people=max_people,
            )
        else:
            self._networks = DetectThenPose(
                networks,
                self._lanes,
                self._captured,
                self._stop_asked,
                detect_batch=detect_batch,
                pose_batch=pose_batch,
                fill_s=0.0 if any(feed.source.info.is_live for feed in feeds) else fill_s,
            )
        self._threads: list[threading.Thread] = []
        self._stalls = Stalls(self.meter, self._sink_runs(), self._stop_asked, stall_after_s, join_within_s)
        self._first_failure: StreamposeError | None = None
        self._started = False
        self._ended = False

    @property
    def sources(self) -> list[FrameSource]:
        """The sources in the given order. Their `info` and `meter` can be read at any time."""
        return [lane.source for lane in self._lanes]

    def __iter__(self) -> Iterator[Result]:
        with closing(self.ticks()) as ticks:
            for result in ticks:
                if result is not None:
                    yield result

    def ticks(self) -> Generator[Result | None]:
        """Yield results as the iteration does, and None every `LOOK_EVERY_S` while there are none, for callers with
        other work to do.
        """
        if self._started or self._ended:
            raise RuntimeError("a pipeline runs once")
        self._started = True
        self.meter.start()
        failure: BaseException | None = None
        try:
            for lane in self._lanes:
                for run in lane.sinks_here:
                    run.open()
            for name, work in self._steps():
                thread = threading.Thread(target=work, name=f"streampose {name}", daemon=True)
                self._threads.append(thread)
                thread.start()
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
        """Finish cleanly: start no new batch, deliver the frames in progress, close the sinks. From any thread."""
        self._stop_asked.set()
        for lane in self._lanes:
            lane.stop()

    def close(self) -> None:
        """Discard the frames in progress, end every thread, close sources and sinks. Safe twice. Raises the first error
        of a source or sink that the iteration has not raised.
        """
        self._end(None)

    def summaries(self) -> list[str]:
        """Return one line per sink that says where its output is; complete when the run has ended."""
        lines = [run.sink.summary() for run in self._sink_runs()]
        return [line for line in lines if line is not None]

    def stats(self) -> dict[str, Any]:
        """Return the counts so far as JSON values: `sources` by source id and `sinks` by the user's text. Sources whose
        people are tracked have `tracks`; see `Tracker.stats`.

        When the run has ended, captured = delivered + dropped for every source. Drops of a sink count with the sink.
        """
        return {
            "sources": {lane.source.info.source_id: lane.stats() for lane in self._lanes},
            "sinks": {run.name: run.stats() for run in self._sink_runs()},
        }

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(error)

    def _steps(self) -> list[tuple[str, Callable[[], None]]]:
        """Return the names and bodies of all threads. Each runs until its input ends and passes the ending on."""
        steps = [(f"{lane.prefix}capture", lane.capture) for lane in self._lanes]
        steps += [(name, on_device(self._device, run)) for name, run in self._networks.steps()]
        steps += [(f"{lane.prefix}annotate", lane.annotate) for lane in self._lanes]
        steps += [(run.step, run.run) for run in self._sink_runs() if not run.sink.on_main_thread]
        return steps

    def _sink_runs(self) -> list[SinkRun]:
        return [run for lane in self._lanes for run in lane.sinks]

    def _over(self) -> bool:
        """Whether the user has quit at a sink, which ends the whole run."""
        return any(run.quit for run in self._sink_runs())

    def _look_around(self) -> None:
        """Do the work of the caller's thread while it waits."""
        self._stalls.check()
        for lane in self._lanes:
            for run in lane.sinks_here:
                run.idle()

    def _take_ending(self, lane: Lane, error: BaseException | None) -> None:
        lane.ended = True
        lane.source.meter.state = "ended"
        if error is None:
            return
        if len(self._lanes) == 1 or not isinstance(error, StreamposeError):
            raise error
        report(error, "the other sources go on")
        self._first_failure = self._first_failure or error

    def _end(self, failure: BaseException | None) -> None:
        if self._ended:
            return
        self._ended = True
        came_to_its_end = all(lane.ended for lane in self._lanes)
        if failure is not None or not came_to_its_end:
            self.stop()
        for lane in self._lanes:
            for channel in (lane.slot, lane.posed, lane.results):
                channel.close()
        if not came_to_its_end:
            self._networks.close()
        stalled = self._stalls.join(self._threads)
        runs = self._sink_runs()
        for run in runs:
            if not self._threads or run.sink.on_main_thread:
                run.close()
        for lane in self._lanes:
            if stalled is None:
                lane.source.close()
            lane.source.meter.dropped(Drop.STOPPED, lane.source.meter.under_way)
        if failure is None or isinstance(failure, GeneratorExit):
            errors = [stalled, self._first_failure, *(run.error for run in runs)]
            for error in errors:
                if error is not None:
                    raise error
