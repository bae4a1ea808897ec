"""Builds the channels, starts and joins the threads, and raises the first error.

    for every source     capture -> [slot] -.
    for all together                         `-> detect -> [detected] -> pose -.
    for every source                                     .- [posed] <----------'
                                                         `-> annotate -> one channel a sink, one for the caller

Each step has a thread, given by the list in `Pipeline._steps`; the caller's thread runs the last loop, because
windows and signals need it. Where people are followed between detections, detect and pose are one step: the boxes of
a frame come from the poses of the one before. Frames and endings flow down the channels, closing flows up. A recorded
source waits where a channel is full; of a live one the oldest frame makes room, counted by cause. Knows no model, no
file format and no flag.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Literal, NoReturn, Protocol, TypeVar

import torch

from streampose.channel import Channel, Closed, Empty, Ending, Finished, Merge
from streampose.errors import (
    AnnotateError,
    ModelError,
    SinkError,
    SourceError,
    StalledError,
    StreamposeError,
    describe,
)
from streampose.frames import (
    Boxes,
    Detected,
    Float32,
    Frame,
    Image,
    People,
    Result,
    RunInfo,
    Shrink,
    Skeleton,
    SourceInfo,
)
from streampose.meter import Drop, Meter, SourceMeter
from streampose.networks.device import own_stream, upload
from streampose.networks.workers import use_cores, worker_count
from streampose.pipeline.follow import Follower
from streampose.pipeline.pace import Pace
from streampose.pipeline.schedule import Budget, EveryNth, Spending
from streampose.sinks.sink import Sink

log = logging.getLogger("streampose")

In = TypeVar("In")
Out = TypeVar("Out")

CHANNEL_DEPTH = 8
"""Frames that may wait between two steps: enough to hide one step's hiccup behind its neighbour, a few frames of
memory."""
LIVE_SLOT_DEPTH = 1
"""Frames of a live source that wait for the networks: only the newest, because depth is latency."""
LIVE_DEPTH = 3
"""Frames of a live source that may wait behind the networks: what a sink may need to catch up after a keyframe."""
BATCH_FRAMES = 64
"""A pose batch is filled over at most so many frames, so that a recording with few people still moves on."""
LOOK_EVERY_S = 0.1
"""How often the caller's thread, while it waits, looks after its windows and for a step that does not come back."""


class FrameSource(Protocol):
    """What the pipeline needs of a source."""

    info: SourceInfo
    meter: SourceMeter

    def frames(self) -> Iterator[Frame]: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...


class Detector(Protocol):
    """What the pipeline needs of a detector."""

    name: str
    label_of: dict[int, str]

    def detect(self, images: Sequence[torch.Tensor], shrinks: Sequence[Shrink | None] | None = None) -> list[Boxes]: ...


class Pose(Protocol):
    """What the pipeline needs of a pose network."""

    name: str
    skeleton: Skeleton

    def begin(
        self, images: Sequence[torch.Tensor], boxes: Sequence[Boxes]
    ) -> Callable[[], Sequence[tuple[Float32, Float32]]]: ...


class Drawer(Protocol):
    """What the pipeline needs of an annotator."""

    def annotate(self, image: Image, people: People) -> Image: ...


@dataclass(frozen=True)
class Feed:
    """One source and where its results go."""

    source: FrameSource
    sinks: Sequence[Sink] = ()


class Pipeline:
    """Sources through the networks into their sinks.

    Iterate over it once for the results, each source's in its order, or over its `ticks`; use it as a context manager
    or close it.

    A step that fails ends its source: every frame before the failure is delivered first, then its error is raised, a
    `StreamposeError` whose `__cause__` is the library's own. Where several sources run, the error is logged, the others
    go on, and it is raised at the end. A failing sink ends alone as long as its source has another one (or, with
    `results_wanted`, the caller); its error, too, is raised at the end.
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
        """Take ownership of sources and sinks; nothing runs before the iteration.

        Args:
            feeds: sources with different `source_id`s.
            annotator: draws `Result.picture` when a sink needs it or `draw` asks for it; None leaves it None.
            device: where the networks run; each frame's pixels go there once.
            detect_every: the detector looks at every so many frames of a source, and people are followed between;
                `auto` spends on detection what the poses leave of the sources' frame times. Pictures are no video:
                nobody is followed there.
            max_people: most people a frame where people are followed; the detector keeps to it by itself.
            detect_batch: most frames a detector call, over all sources.
            pose_batch: most people a pose call, over all sources.
            fill_s: how long a batch waits to be filled when all sources are recorded; else it takes what is there.
            draw: whether every result carries its drawn picture even when no sink needs it.
            results_wanted: whether the caller's loop is itself a reason to go on when every sink has failed.
            stall_after_s: a step at one piece of work for longer ends the run with `StalledError`.
            join_within_s: how long the end of the run waits for a step that has been told to stop.
        """
        self.meter = Meter()
        self._detector = detector
        self._pose = pose
        self._device = device or torch.device("cpu")
        self._detect_batch = detect_batch
        self._pose_batch = pose_batch
        self._stall_after_s = stall_after_s
        self._join_within_s = join_within_s

        self._captured: Merge[Frame] = Merge()
        self._any_live = any(feed.source.info.is_live for feed in feeds)
        self._detected: Channel[tuple[_Lane, Detected | Ending]] = Channel(CHANNEL_DEPTH)
        self._fill_s = 0.0 if self._any_live else fill_s
        self._results: Merge[Result] = Merge()
        models = {"detector": detector.name, "pose": pose.name}
        self._follows = detect_every != 1 and not all(feed.source.info.pictures for feed in feeds)
        ahead = detect_batch * (1 if detect_every == "auto" else detect_every)
        self._ahead = max(len(feeds), min(BATCH_FRAMES, ahead))
        budget = Budget(len(feeds))
        self._budget = budget if detect_every == "auto" else None

        self._lanes = [
            _Lane(
                feed,
                RunInfo(feed.source.info, pose.skeleton, models),
                Follower(
                    len(pose.skeleton.names),
                    Spending(budget, number) if detect_every == "auto" else EveryNth(detect_every),
                    is_video=not feed.source.info.pictures,
                    max_people=max_people,
                ),
                self.meter,
                annotator if draw or any(sink.needs_picture for sink in feed.sinks) else None,
                self._captured,
                self._results,
                prefix=f"{feed.source.info.source_id}: " if len(feeds) > 1 else "",
                results_wanted=results_wanted or not feed.sinks,
            )
            for number, feed in enumerate(feeds)
        ]
        self._threads: list[threading.Thread] = []
        self._first_failure: StreamposeError | None = None
        self._started = False
        self._stopping = False
        self._stop_asked = threading.Event()
        # On two cores the networks only slow each other down. One after the other, the demo clip played live is out
        # after 133 ms instead of 216, at the same 9 frames a second (two runs of the bench, one behind the other).
        has_room = self._device.type != "cpu" or worker_count() > 2
        self._pace = Pace(detections_beside_poses=1.1 if has_room else 0.0)
        self._ended = False

    @property
    def sources(self) -> list[FrameSource]:
        """The sources, in the order given; their `info` and `meter` may be read at any time."""
        return [lane.source for lane in self._lanes]

    def __iter__(self) -> Iterator[Result]:
        with closing(self.ticks()) as ticks:
            for result in ticks:
                if result is not None:
                    yield result

    def ticks(self) -> Generator[Result | None]:
        """Yield what the iteration does and, while nothing comes, None every `LOOK_EVERY_S`: for a caller who has
        something to do also when every source is away.
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
        """Ask for a clean finish: no new batch is begun, what is under way is delivered, sinks are closed. From any
        thread.
        """
        self._stopping = True
        self._stop_asked.set()
        for lane in self._lanes:
            lane.stop()

    def close(self) -> None:
        """Give up what is under way, end every thread, close sources and sinks; safe twice. Raises the first error of
        a source or sink that the iteration has not raised.
        """
        self._end(None)

    def summaries(self) -> list[str]:
        """Where the output lies, a line a sink; complete when the run has ended."""
        return [line for lane in self._lanes for run in lane.sinks if (line := run.sink.summary())]

    def stats(self) -> dict[str, Any]:
        """The counts so far as JSON values: `sources` by source id and `sinks` by what the user asked for.

        When the run has ended, every source's frames are accounted for: captured = delivered + dropped by cause. A
        sink's own drops do not count among its source's.
        """
        return {
            "sources": {lane.source.info.source_id: lane.source.meter.stats() for lane in self._lanes},
            "sinks": {run.name: run.stats() for lane in self._lanes for run in lane.sinks},
        }

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(error)

    def _steps(self) -> list[tuple[str, Callable[[], None]]]:
        """Which steps share a thread: none does but the networks where people are followed. Each runs until its inlet
        ends and passes the ending on.
        """
        apart = [("detect", self._run_detect), ("pose", self._run_pose)]
        networks = [("detect and pose", self._run_follow)] if self._follows else apart
        return [
            *((f"{lane.prefix}capture", lane.capture) for lane in self._lanes),
            *((name, self._with_a_device(run)) for name, run in networks),
            *((f"{lane.prefix}annotate", lane.annotate) for lane in self._lanes),
            *((run.step, run.run) for lane in self._lanes for run in lane.sinks_threaded),
        ]

    def _with_a_device(self, run: Callable[[], None]) -> Callable[[], None]:
        """Return `run` for a thread of its own.

        On CUDA it has a stream of its own, so that the networks run beside each other; frames are handed over with
        their boxes, which are fetched from the device behind all that was done to the frames there. On a CPU its small
        operations take one core: the others have the networks' workers.
        """

        def run_with_a_device() -> None:
            if self._device.type == "cpu":
                use_cores(1)
            with own_stream(self._device):
                run()

        return run_with_a_device

    def _run_detect(self) -> None:
        failure: BaseException | None = None
        try:
            while True:
                if self._any_live:
                    # The newest frame is worth more than one found early: the detector runs at most a batch ahead, and
                    # no sooner than it has to.
                    self._detected.wait_until_empty()
                    self._stop_asked.wait(self._pace.wait_s(time.monotonic()))
                # Beside a live source a recording gives one frame a batch: a live frame never waits for many others.
                arrived = self._captured.take_batch(
                    self._detect_batch, most_each=1 if self._any_live else None, fill_s=self._fill_s
                )
                batch = [(self._lanes[number], value) for number, value in arrived if isinstance(value, Frame)]
                with self._pace.detecting():
                    self._each("detect", batch, lambda frame: frame, self._detect, self._put_detected)
                for number, value in arrived:
                    if isinstance(value, Ending):
                        self._detected.put((self._lanes[number], value))
        except (Finished, Closed):
            pass
        except BaseException as error:
            failure = error
        finally:
            for lane in self._lanes:
                lane.slot.close()
            self._detected.finish(failure)

    def _detect(self, frames: Sequence[Frame]) -> list[Detected]:
        pixels = [upload(frame.image, self._device) for frame in frames]
        found = self._detector.detect(pixels, [frame.shrink for frame in frames])
        # The decoder's pictures are done with.
        frames = [replace(frame, shrink=None) for frame in frames]
        return [Detected(*values) for values in zip(frames, pixels, found, strict=True)]

    def _put_detected(self, item: tuple[_Lane, Detected]) -> None:
        self._pace.handing_over()
        self._detected.put(item)

    def _run_pose(self) -> None:
        failure: BaseException | None = None
        begun: Callable[[], None] | None = None
        try:
            while True:
                items = self._take_detected(timeout_s=None if begun is None else 0.0)
                with self._pace.posing():
                    # Begun before the one before is waited for: the network goes from one to the next.
                    before, begun = begun, self._begin_poses(items) if items else None
                    if self._any_live:  # where a frame that waits behind another only gets old
                        before, begun = begun, None
                    if before is not None:
                        before()
        except (Finished, Closed):
            pass
        except BaseException as error:
            failure = error
        finally:
            try:
                if begun is not None:
                    begun()
            except BaseException as error:
                failure = failure or error
            self._detected.close()
            for lane in self._lanes:
                lane.posed.finish(failure)

    def _take_detected(self, timeout_s: float | None) -> list[tuple[_Lane, Detected | Ending]]:
        """Return what fills a pose batch; nothing where nothing has come within `timeout_s`."""
        with suppress(Empty):
            return self._detected.take_batch(
                self._pose_batch,
                weigh=lambda item: 0 if isinstance(item[1], Ending) else len(item[1].boxes),
                most=BATCH_FRAMES,
                fill_s=self._fill_s,
                timeout_s=timeout_s,
            )
        return []

    def _begin_poses(self, items: Sequence[tuple[_Lane, Detected | Ending]]) -> Callable[[], None]:
        """Begin with the people of detected frames; what is returned waits for their poses and hands them on."""
        batch = [(lane, value) for lane, value in items if isinstance(value, Detected)]
        if self._stopping:  # what has not been begun counts as dropped
            batch = []
        finish = self._begin_each("pose", batch, lambda value: value.frame, self._begin_estimate, self._put_posed)

        def finish_and_end() -> None:
            finish()
            for lane, value in items:
                if isinstance(value, Ending):
                    lane.posed.finish(value.error)

        return finish_and_end

    def _run_follow(self) -> None:
        failure: BaseException | None = None
        try:
            while True:
                # Of several frames of a recording that wait, the detections that are due go through together. A live
                # frame does not wait for those of a recording.
                arrived = self._captured.take_batch(self._ahead, most_each=1 if self._any_live else None)
                frames = [(self._lanes[number], value) for number, value in arrived if isinstance(value, Frame)]
                self._look([(lane, frame) for lane, frame in frames if lane.follower.is_due(frame)])
                for turn in _turns(frames):
                    if self._stopping:  # what has not been begun counts as dropped
                        break
                    self._follow(turn)
                for number, value in arrived:
                    if isinstance(value, Ending):
                        self._lanes[number].posed.finish(value.error)
        except (Finished, Closed):
            pass
        except BaseException as error:
            failure = error
        finally:
            for lane in self._lanes:
                lane.slot.close()
                lane.posed.finish(failure)

    def _follow(self, turn: Sequence[tuple[_Lane, Frame]]) -> None:
        """Find the people of one frame each of some sources, whose frames before are done."""
        turn = [(lane, frame) for lane, frame in turn if frame.index < lane.fails_from]
        looking = [(lane, frame) for lane, frame in turn if lane.follower.looks(frame, lane.source.info.fps)]
        self._look([(lane, frame) for lane, frame in looking if frame.index not in lane.detected])
        batch = [(lane, _to_pose(lane, frame)) for lane, frame in turn if frame.index < lane.fails_from]
        self._each("pose", batch, lambda value: value.frame, self._estimate_turn, self._put_learnt)

    def _look(self, frames: Sequence[tuple[_Lane, Frame]]) -> None:
        """Let the detector look at the frames; what it finds is kept with their lanes."""
        if not frames:
            return
        began_s = time.monotonic()
        self._each("detect", frames, lambda frame: frame, self._detect, _keep_detected)
        if self._budget is not None:
            numbers = [self._lanes.index(lane) for lane, _ in frames]
            self._budget.pay_detections(numbers, time.monotonic() - began_s)

    def _estimate_turn(self, batch: Sequence[_ToPose]) -> list[Result]:
        began_s = time.monotonic()
        finish = self._begin_estimate(
            [
                Detected(
                    value.frame,
                    upload(value.frame.image, self._device) if value.pixels is None else value.pixels,
                    value.boxes,
                )
                for value in batch
            ]
        )
        results = finish()
        if self._budget is not None:
            self._budget.pay_poses(time.monotonic() - began_s)
        return results

    def _put_learnt(self, item: tuple[_Lane, Result]) -> None:
        lane, result = item
        self._put_posed((lane, replace(result, people=lane.follower.learn(result.people))))

    def _begin_estimate(self, batch: Sequence[Detected]) -> Callable[[], list[Result]]:
        finish = self._pose.begin([value.pixels for value in batch], [value.boxes for value in batch])
        return lambda: [
            Result(value.frame, People.of(value.boxes, xy, scores, self._detector.label_of), self._pose.skeleton)
            for value, (xy, scores) in zip(batch, finish(), strict=True)
        ]

    def _put_posed(self, item: tuple[_Lane, Result]) -> None:
        lane, result = item
        try:
            lane.posed.put(result)
        except Closed:
            lane.slot.close()

    def _each(
        self,
        step: str,
        batch: Sequence[tuple[_Lane, In]],
        frame_of: Callable[[In], Frame],
        work: Callable[[Sequence[In]], list[Out]],
        put: Callable[[tuple[_Lane, Out]], None],
    ) -> None:
        """Do the batch's work and put what comes out, but for lanes that have failed.

        A batch that fails is done again a frame at a time: the frames before the faulty one are delivered, the error
        names it and ends its lane, and a batch that was merely too large for the memory gets through.
        """
        self._begin_each(step, batch, frame_of, lambda values: partial(work, values), put)()

    def _begin_each(
        self,
        step: str,
        batch: Sequence[tuple[_Lane, In]],
        frame_of: Callable[[In], Frame],
        begin: Callable[[Sequence[In]], Callable[[], list[Out]]],
        put: Callable[[tuple[_Lane, Out]], None],
    ) -> Callable[[], None]:
        """Begin what `_each` does; what is returned waits for it, and for a failure at the beginning, too."""
        batch = [(lane, value) for lane, value in batch if frame_of(value).index < lane.fails_from]
        if not batch:
            return lambda: None
        frames = [f"{lane.prefix}frame {frame_of(value).index}" for lane, value in batch]
        what = frames[0] if len(frames) == 1 else f"{frames[0]} to {frames[-1]}"
        values = [value for _, value in batch]
        try:
            with self.meter.working(step, what):
                finish = begin(values)
        except Exception as error:
            finish = partial(_raise, error)

        def finish_each() -> None:
            try:
                with self.meter.working(step, what):
                    found = finish()
            except Exception as error:
                if len(batch) == 1:
                    lane, value = batch[0]
                    lane.fail(frame_of(value).index, _wrapped(ModelError, f"{step} failed on {what}", error))
                    return
                log.warning("%s failed on %s, trying one at a time: %s", step, what, describe(error))
                for item in batch:
                    self._begin_each(step, [item], frame_of, begin, put)()
            else:
                for (lane, value), out in zip(batch, found, strict=True):
                    if frame_of(value).index < lane.fails_from:
                        put((lane, out))

        return finish_each

    def _over(self) -> bool:
        """Whether a user has quit at a sink, which ends the whole run."""
        return any(run.quit for lane in self._lanes for run in lane.sinks)

    def _look_around(self) -> None:
        """What the caller's thread does while it waits."""
        self._raise_if_stalled()
        for lane in self._lanes:
            for run in lane.sinks_here:
                run.idle()

    def _take_ending(self, lane: _Lane, error: BaseException | None) -> None:
        lane.ended = True
        lane.source.meter.state = "ended"
        if error is None:
            return
        if len(self._lanes) == 1 or not isinstance(error, StreamposeError):
            raise error
        _report(error, "the other sources go on")
        self._first_failure = self._first_failure or error

    def _raise_if_stalled(self) -> None:
        limit_s = min(self._join_within_s, self._stall_after_s) if self._stopping else self._stall_after_s
        resumed_s = {run.step: run.sink.resumed_at_s for lane in self._lanes for run in lane.sinks}
        work = self.meter.longest_work(resumed_s)
        if work is not None and time.monotonic() - work.since_s > limit_s:
            raise StalledError(f"{work.step} has not come back from {work.what} for {limit_s:g} s: gave it up")

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
            self._detected.close()
        stalled = self._join()
        runs = [run for lane in self._lanes for run in lane.sinks]
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

    def _join(self) -> StalledError | None:
        began_s = time.monotonic()
        try:
            while alive := [thread.name for thread in self._threads if thread.is_alive()]:
                self._raise_if_stalled()
                if self._stopping and time.monotonic() - began_s > self._join_within_s:
                    raise StalledError(f"{alive[0]} has not ended within {self._join_within_s:g} s: gave it up")
                for thread in self._threads:
                    thread.join(LOOK_EVERY_S)
        except StalledError as error:
            return error
        return None


class _Lane:
    """What belongs to one source: its channels, its capture and annotate steps, its sinks."""

    def __init__(
        self,
        feed: Feed,
        run_info: RunInfo,
        follower: Follower,
        meter: Meter,
        annotator: Drawer | None,
        captured: Merge[Frame],
        results: Merge[Result],
        *,
        prefix: str,
        results_wanted: bool,
    ) -> None:
        self.source = feed.source
        self._described = run_info
        self.prefix = prefix
        self.follower = follower
        self.detected: dict[int, Detected] = {}
        """By index, the frames at which the detector has looked before their turn."""
        self.failure: StreamposeError | None = None
        """Why the networks give nothing more of this source."""
        self.fails_from: float = float("inf")
        """The index of the frame that failed."""
        self._failing = threading.Lock()
        self.ended = False
        """Whether the caller has been given everything."""
        is_live = feed.source.info.is_live
        drops = feed.source.meter.dropped

        def counted(cause: str) -> Callable[[object], None] | None:
            return (lambda _: drops(cause)) if is_live else None

        self.slot = captured.inlet(LIVE_SLOT_DEPTH if is_live else CHANNEL_DEPTH, on_drop=counted(Drop.BUSY))
        depth = LIVE_DEPTH if is_live else CHANNEL_DEPTH
        self.posed: Channel[Result] = Channel(depth, on_drop=counted(Drop.OUTPUT))
        self.results = results.inlet(depth, on_drop=counted(Drop.OUTPUT))
        self.sinks = [
            _SinkRun(
                sink,
                self._run_info,
                meter,
                f"{prefix}sink {number}",
                name=prefix + name,
                is_alone=len(feed.sinks) == 1,
                is_live=is_live,
            )
            for number, (sink, name) in enumerate(zip(feed.sinks, _told_apart(feed.sinks), strict=True), 1)
        ]
        self.sinks_here = [run for run in self.sinks if run.sink.on_main_thread]
        self.sinks_threaded = [run for run in self.sinks if not run.sink.on_main_thread]
        self._meter = meter
        self._annotator = annotator
        self._results_wanted = results_wanted

    def _run_info(self) -> RunInfo:
        """Return what there is to say of the run now: a live source knows its size and rate with its first frame."""
        return replace(self._described, source=self.source.info)

    def stop(self) -> None:
        """Take no new frame; sinks wait for nothing any more."""
        self.source.interrupt()
        self.slot.close()
        for run in self.sinks:
            run.sink.interrupt()

    def fail(self, index: int, error: StreamposeError) -> None:
        """End this source behind the frames before `index`. Called from the threads of both networks: pose may fail at
        an earlier frame than detect has.
        """
        with self._failing:
            if index < self.fails_from:
                self.fails_from, self.failure = index, error
        self.slot.close()

    def capture(self) -> None:
        """The body of the capture thread."""
        ending: BaseException | None = None
        info, step = self.source.info, f"{self.prefix}capture"
        try:
            frames = self.source.frames()
            count = 0
            while True:
                # A live source may wait for hours for its camera, and comes back when it is interrupted.
                with nullcontext() if info.is_live else self._meter.working(step, f"frame {count}"):
                    frame = next(frames, None)
                if frame is None:
                    break
                if not info.is_live:
                    self.source.meter.captured()
                    self.source.meter.state = "running"
                self.slot.put(frame)
                count += 1
        except Closed:
            pass
        except BaseException as error:
            ending = _wrapped(SourceError, f"{info.text}: reading failed", error)
        finally:
            self.slot.finish(ending)

    def annotate(self) -> None:
        """Draw, and hand every result to each sink and to the caller, until the ending or until nobody wants more; the
        body of the annotate thread.
        """
        ending: BaseException | None = None
        try:
            for result in self.posed:
                drawn = self._draw(result)
                for run in self.sinks_threaded:
                    run.put(drawn)
                if self._nobody_wants_more():
                    break
                self.results.put(drawn)
            ending = self.failure
        except Closed:
            pass
        except BaseException as error:
            ending = error
        finally:
            self.posed.close()
            self.slot.close()
            for run in self.sinks_threaded:
                run.feed.finish()
            self.results.finish(ending)

    def _draw(self, result: Result) -> Result:
        if self._annotator is None:
            return result
        what = f"frame {result.frame.index}"
        try:
            with self._meter.working(f"{self.prefix}annotate", what):
                return result.drawn(self._annotator.annotate(result.frame.image, result.people))
        except Exception as error:
            raise _wrapped(AnnotateError, f"{self.prefix}drawing failed on {what}", error) from error

    def _nobody_wants_more(self) -> bool:
        return any(run.quit for run in self.sinks) or (
            not self._results_wanted and bool(self.sinks) and all(run.gone for run in self.sinks)
        )


class _SinkRun:
    """One sink in a run: after its failure or the user's quitting it takes nothing more; its first error is kept."""

    def __init__(
        self,
        sink: Sink,
        run_info: Callable[[], RunInfo],
        meter: Meter,
        step: str,
        *,
        name: str,
        is_alone: bool,
        is_live: bool,
    ) -> None:
        self.sink = sink
        self.step = step
        self.name = name
        self.error: StreamposeError | None = None
        self.quit = False
        self.gone = False
        self._written = 0
        self._dropped = 0
        depth = LIVE_DEPTH if is_live else CHANNEL_DEPTH
        self.feed: Channel[Result] = Channel(depth, on_drop=self._drop if is_live else None)
        self._run_info = run_info
        self._opens_late = is_live
        self._opened = False
        self._meter = meter
        self._is_alone = is_alone

    def run(self) -> None:
        """Serve the feed to its end; the body of the sink's thread."""
        try:
            self.open()
            while not self.gone:
                try:
                    self.write(self.feed.take(self.sink.idle_every_s))
                except Empty:
                    self.idle()
        except Finished:
            pass
        except BaseException as error:  # such as SystemExit: it ends this thread, not the program
            self._fail("running", error)
        finally:
            self.feed.close()
            self.close()

    def put(self, result: Result) -> None:
        """Hand over a result; one that nobody takes any more is let go."""
        with suppress(Closed):
            self.feed.put(result)

    def open(self) -> None:
        """Open the sink, but for one of a live source: that is opened with its first frame, which tells the size."""
        if not self._opens_late:
            self._open()

    def _open(self) -> None:
        self._opened = True
        self._attempt("opening", lambda: self.sink.open(self._run_info()))

    def write(self, result: Result) -> None:
        if not self._opened:
            self._open()
        if self.gone:
            return
        self._obey(self._attempt(f"frame {result.frame.index}", lambda: self.sink.write(result)))
        if self.error is None:
            self._written += 1

    def idle(self) -> None:
        if self._opened and not self.gone:
            self._obey(self._attempt("idle", self.sink.idle))

    def close(self) -> None:
        self._attempt("closing", self.sink.close)

    def stats(self) -> dict[str, Any]:
        """Counts of the sink and what it says of itself; `error` is None as long as all is well."""
        status = self.sink.status()
        own = {key: value for key, value in status.items() if key != "dropped"}
        drops = {Drop.BUSY: self._dropped, Drop.DISCONNECTED: status.get("dropped", 0)}
        return {
            "written": self._written,
            "dropped": {cause: count for cause, count in drops.items() if count},
            "error": None if self.error is None else str(self.error),
            **own,
        }

    def _obey(self, wanted: bool | None) -> None:
        if wanted is False:
            self.gone = True
            self.quit = self.sink.quits_run

    def _drop(self, _result: Result) -> None:
        self._dropped += 1

    def _attempt(self, what: str, call: Callable[[], bool | None]) -> bool | None:
        try:
            with self._meter.working(self.step, f"{self.sink.text} ({what})"):
                return call()
        except Exception as error:
            self._fail(what, error)
            return None

    def _fail(self, what: str, error: BaseException) -> None:
        self.gone = True
        if self.error is None:
            self.error = _wrapped(SinkError, f"{self.sink.text}: {what} failed", error)
            if not self._is_alone:
                _report(self.error, "the other sinks go on")


@dataclass(frozen=True)
class _ToPose:
    """A frame with the boxes in which to look for poses."""

    frame: Frame
    pixels: torch.Tensor | None
    """As in `Detected`; None where the detector has not looked."""
    boxes: Boxes


def _to_pose(lane: _Lane, frame: Frame) -> _ToPose:
    detected = lane.detected.pop(frame.index, None)
    if detected is None:
        return _ToPose(replace(frame, shrink=None), None, lane.follower.boxes(None))
    return _ToPose(detected.frame, detected.pixels, lane.follower.boxes(detected.boxes))


def _turns(frames: Sequence[tuple[_Lane, Frame]]) -> Iterator[list[tuple[_Lane, Frame]]]:
    """Deal frames in order into turns: the first of each source, the second of each, ..."""
    waiting: dict[_Lane, deque[Frame]] = {}
    for lane, frame in frames:
        waiting.setdefault(lane, deque()).append(frame)
    while turn := [(lane, left.popleft()) for lane, left in waiting.items() if left]:
        yield turn


def _keep_detected(item: tuple[_Lane, Detected]) -> None:
    lane, detected = item
    lane.detected[detected.frame.index] = detected


def _told_apart(sinks: Sequence[Sink]) -> list[str]:
    """Return the sinks' texts, those that come again with a number behind them."""
    seen: Counter[str] = Counter()
    names = []
    for sink in sinks:
        seen[sink.text] += 1
        names.append(sink.text if seen[sink.text] == 1 else f"{sink.text} {seen[sink.text]}")
    return names


def _raise(error: Exception) -> NoReturn:
    raise error


def _report(error: StreamposeError, consequence: str) -> None:
    """Log an error at once that will be raised at the end of the run."""
    log.error("%s (%s)", error, consequence)
    error.is_reported = True


def _wrapped(kind: type[StreamposeError], message: str, error: BaseException) -> StreamposeError:
    """Return `error` itself when it speaks to the user already, else a `kind` that does, caused by it."""
    if isinstance(error, StreamposeError):
        return error
    wrapped = kind(f"{message}: {describe(error)}")
    wrapped.__cause__ = error
    return wrapped
