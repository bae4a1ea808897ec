"""Builds the channels, starts and joins the threads, and raises the first error.

    capture -> [frames] -> detect -> [detected] -> pose -> [posed] -> annotate -> one channel a sink, one for the caller

Each step has a thread, given by the list in `Pipeline._steps`; the caller's thread runs the last loop, because
windows and signals need it. Frames and endings flow down the channels, closing flows up. Knows no model, no file
format and no flag.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Protocol, TypeVar

import torch

from streampose.channel import Channel, Closed, Empty, Finished
from streampose.errors import (
    AnnotateError,
    ModelError,
    SinkError,
    SourceError,
    StalledError,
    StreamposeError,
    describe,
)
from streampose.frames import Boxes, Detected, Float32, Frame, Image, People, Result, RunInfo, Skeleton, SourceInfo
from streampose.meter import Meter
from streampose.sinks import Sink

log = logging.getLogger("streampose")

In = TypeVar("In")
Out = TypeVar("Out")

CHANNEL_DEPTH = 8
"""Frames that may wait between two steps: enough to hide one step's hiccup behind its neighbour, a few frames of
memory.
"""
BATCH_FRAMES = 64
"""A pose batch is filled over at most so many frames, so that a recording with few people still moves on."""
LOOK_EVERY_S = 0.25
"""How often the caller's thread, while it waits, looks for a step that does not come back."""


class FrameSource(Protocol):
    """What the pipeline needs of a source."""

    info: SourceInfo

    def frames(self) -> Iterator[Frame]: ...
    def close(self) -> None: ...


class Detector(Protocol):
    """What the pipeline needs of a detector."""

    name: str
    label_of: dict[int, str]

    def detect(self, images: Sequence[torch.Tensor]) -> list[Boxes]: ...


class Pose(Protocol):
    """What the pipeline needs of a pose network."""

    name: str
    skeleton: Skeleton

    def estimate(self, images: Sequence[torch.Tensor], boxes: Sequence[Boxes]) -> Sequence[tuple[Float32, Float32]]: ...


class Drawer(Protocol):
    """What the pipeline needs of an annotator."""

    def annotate(self, image: Image, people: People) -> Image: ...


class Pipeline:
    """One source through the networks into its sinks.

    Iterate over it once for the results, in the order of the source; use it as a context manager or close it. A failing
    step ends the run: every frame before the failure is delivered first, then its error is raised, a
    `StreamposeError` whose `__cause__` is the library's own. A failing sink ends alone as long as another sink is
    left (or, with `results_wanted`, the caller); its error is raised at the end of the run.
    """

    def __init__(
        self,
        source: FrameSource,
        detector: Detector,
        pose: Pose,
        annotator: Drawer | None,
        sinks: Sequence[Sink] = (),
        *,
        device: torch.device | None = None,
        detect_batch: int = 4,
        pose_batch: int = 16,
        fill_s: float = 1.0,
        draw: bool = False,
        results_wanted: bool = True,
        stall_after_s: float = 300.0,
        join_within_s: float = 30.0,
    ) -> None:
        """Take ownership of `source` and `sinks`; nothing runs before the iteration.

        Args:
            annotator: draws `Result.picture` when a sink needs it or `draw` asks for it; None leaves it None.
            device: where the networks run; each frame's pixels go there once.
            detect_batch: most frames a detector call.
            pose_batch: most people a pose call; a batch is filled over the frames that follow.
            fill_s: how long a batch of a recorded source waits to be filled; one of a live source takes what is there.
            draw: whether every result carries its drawn picture even when no sink needs it.
            results_wanted: whether the caller's loop is itself a reason to go on when every sink has failed.
            stall_after_s: a step at one piece of work for longer ends the run with `StalledError`.
            join_within_s: how long the end of the run waits for a step that has been told to stop.
        """
        self.source = source
        self.meter = Meter()
        self.run_info = RunInfo(source.info, pose.skeleton, {"detector": detector.name, "pose": pose.name})
        self._detector = detector
        self._pose = pose
        self._annotator = annotator if draw or any(sink.needs_picture for sink in sinks) else None
        self._device = device or torch.device("cpu")
        self._pose_batch = pose_batch
        self._detect_batch = detect_batch
        self._fill_s = 0.0 if source.info.is_live else fill_s
        self._results_wanted = results_wanted or not sinks
        self._stall_after_s = stall_after_s
        self._join_within_s = join_within_s

        self._frames: Channel[Frame] = Channel(CHANNEL_DEPTH)
        self._detected: Channel[Detected] = Channel(CHANNEL_DEPTH)
        self._posed: Channel[Result] = Channel(CHANNEL_DEPTH)
        self._results: Channel[Result] = Channel(CHANNEL_DEPTH)
        runs = [_SinkRun(sink, self.run_info, self.meter, f"sink {number}") for number, sink in enumerate(sinks, 1)]
        for run in runs:
            run.alone = len(runs) == 1
        self._sinks_here = [run for run in runs if run.sink.on_main_thread]
        self._sinks_threaded = [run for run in runs if not run.sink.on_main_thread]
        self._threads: list[threading.Thread] = []
        self._started = False
        self._stopping = False
        self._ended = False

    def __iter__(self) -> Iterator[Result]:
        if self._started or self._ended:
            raise RuntimeError("a pipeline runs once")
        self._started = True
        self.meter.start()
        failure: BaseException | None = None
        try:
            for run in self._sinks_here:
                run.open()
            for name, work in self._steps():
                thread = threading.Thread(target=work, name=f"streampose {name}", daemon=True)
                self._threads.append(thread)
                thread.start()
            while not self._over():
                result = self._next_result()
                for run in self._sinks_here:
                    run.write(result)
                self.meter.finished(len(result.people))
                yield result
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
        self._frames.close()
        self._detected.close()
        for run in self._sinks_here + self._sinks_threaded:
            run.sink.interrupt()

    def close(self) -> None:
        """Give up what is under way, end every thread, close source and sinks; safe twice. Raises a sink's
        `SinkError`.
        """
        self._end(None)

    def summaries(self) -> list[str]:
        """Where the output lies, a line a sink; complete when the run has ended."""
        runs = self._sinks_here + self._sinks_threaded
        return [line for run in runs if (line := run.sink.summary())]

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(error)

    def _steps(self) -> list[tuple[str, Callable[[], None]]]:
        """Which steps share a thread: none does. Each runs until its inlet ends and passes the ending on."""
        return [
            ("capture", self._run_capture),
            ("detect", lambda: self._run_batches(self._detect, self._frames, self._detected)),
            ("pose", lambda: self._run_batches(self._estimate, self._detected, self._posed)),
            ("annotate", self._run_annotate),
            *((run.step, run.run) for run in self._sinks_threaded),
        ]

    def _run_capture(self) -> None:
        ending: BaseException | None = None
        try:
            frames = self.source.frames()
            count = 0
            while True:
                with self.meter.working("capture", f"frame {count}"):
                    frame = next(frames, None)
                if frame is None:
                    break
                self._frames.put(frame)
                count += 1
        except Closed:
            pass
        except BaseException as error:
            ending = _wrapped(SourceError, f"{self.source.info.text}: reading failed", error)
        finally:
            self._frames.finish(ending)

    def _run_batches(
        self,
        work: Callable[[Channel[In], Channel[Out]], None],
        inlet: Channel[In],
        outlet: Channel[Out],
    ) -> None:
        """Work until the inlet ends; its ending, or the error of the work, goes on behind the last value."""
        ending: BaseException | None = None
        try:
            while True:
                work(inlet, outlet)
        except (Finished, Closed):
            pass
        except BaseException as error:
            ending = error
        finally:
            inlet.close()
            outlet.finish(ending)

    def _detect(self, inlet: Channel[Frame], outlet: Channel[Detected]) -> None:
        frames = inlet.take_batch(self._detect_batch, fill_s=self._fill_s)

        def detect(some: Sequence[Frame]) -> list[Detected]:
            pixels = [torch.from_numpy(frame.image).to(self._device) for frame in some]
            found = self._detector.detect(pixels)
            return [Detected(*values) for values in zip(some, pixels, found, strict=True)]

        self._put_each("detect", frames, lambda frame: frame, detect, outlet)

    def _estimate(self, inlet: Channel[Detected], outlet: Channel[Result]) -> None:
        batch = inlet.take_batch(
            self._pose_batch, weigh=lambda value: len(value.boxes), most=BATCH_FRAMES, fill_s=self._fill_s
        )

        def estimate(some: Sequence[Detected]) -> list[Result]:
            poses = self._pose.estimate([value.pixels for value in some], [value.boxes for value in some])
            return [
                Result(value.frame, People.of(value.boxes, xy, scores, self._detector.label_of), self._pose.skeleton)
                for value, (xy, scores) in zip(some, poses, strict=True)
            ]

        self._put_each("pose", batch, lambda value: value.frame, estimate, outlet)

    def _put_each(
        self,
        step: str,
        batch: Sequence[In],
        frame_of: Callable[[In], Frame],
        work: Callable[[Sequence[In]], list[Out]],
        outlet: Channel[Out],
    ) -> None:
        """Do the batch's work and put what comes out.

        A batch that fails is done again a frame at a time: the frames before the faulty one are delivered, the error
        names it, and a batch that was merely too large for the memory gets through.
        """
        first, last = frame_of(batch[0]).index, frame_of(batch[-1]).index
        what = f"frame {first}" if len(batch) == 1 else f"frames {first} to {last}"
        try:
            with self.meter.working(step, what):
                values = work(batch)
        except Exception as error:
            if len(batch) == 1:
                raise _wrapped(ModelError, f"{step} failed on {what}", error) from error
            log.warning("%s failed on %s, trying one at a time: %s", step, what, describe(error))
            for value in batch:
                self._put_each(step, [value], frame_of, work, outlet)
        else:
            for out in values:
                outlet.put(out)

    def _run_annotate(self) -> None:
        """Draw, and hand every result to each sink and to the caller, until the ending or until nobody wants more."""
        ending: BaseException | None = None
        try:
            for result in self._posed:
                drawn = self._draw(result)
                for run in self._sinks_threaded:
                    run.put(drawn)
                if self._over():
                    break
                self._results.put(drawn)
        except Closed:
            pass
        except BaseException as error:
            ending = error
        finally:
            self._posed.close()
            for run in self._sinks_threaded:
                run.feed.finish()
            self._results.finish(ending)

    def _draw(self, result: Result) -> Result:
        if self._annotator is None:
            return result
        what = f"frame {result.frame.index}"
        try:
            with self.meter.working("annotate", what):
                return result.drawn(self._annotator.annotate(result.frame.image, result.people))
        except Exception as error:
            raise _wrapped(AnnotateError, f"drawing failed on {what}", error) from error

    def _over(self) -> bool:
        """Whether nobody wants more: a user has quit at a sink, or every sink has failed and the caller only
        watches.
        """
        runs = self._sinks_here + self._sinks_threaded
        return any(run.quit for run in runs) or (
            not self._results_wanted and bool(runs) and all(run.gone for run in runs)
        )

    def _next_result(self) -> Result:
        while True:
            try:
                return self._results.take(timeout_s=LOOK_EVERY_S)
            except Empty:
                self._raise_if_stalled()

    def _raise_if_stalled(self) -> None:
        limit_s = self._join_within_s if self._stopping else self._stall_after_s
        work = self.meter.longest_work()
        if work is not None and time.monotonic() - work.since_s > limit_s:
            raise StalledError(f"{work.step} has not come back from {work.what} for {limit_s:g} s: gave it up")

    def _end(self, failure: BaseException | None) -> None:
        if self._ended:
            return
        self._ended = True
        runs = self._sinks_here + self._sinks_threaded
        over = failure is None and not self._results.closed  # came to its end: sinks may take their time
        self._stopping = self._stopping or not over or self._over()
        for channel in (self._frames, self._detected, self._posed, self._results):
            channel.close()
        stalled: StalledError | None = None
        while any(thread.is_alive() for thread in self._threads) and stalled is None:
            try:
                for thread in self._threads:
                    thread.join(LOOK_EVERY_S)
                self._raise_if_stalled()
            except StalledError as error:
                stalled = error
        for run in runs if not self._threads else self._sinks_here:
            run.close()
        if stalled is None:
            self.source.close()
        if failure is None or isinstance(failure, GeneratorExit):
            errors = [error for error in (stalled, *(run.error for run in runs)) if error is not None]
            if errors:
                raise errors[0]


class _SinkRun:
    """One sink in a run: after its failure or the user's quitting it takes nothing more; its first error is kept."""

    def __init__(self, sink: Sink, run_info: RunInfo, meter: Meter, step: str) -> None:
        self.sink = sink
        self.step = step
        self.feed: Channel[Result] = Channel(CHANNEL_DEPTH)
        self.error: StreamposeError | None = None
        self.alone = False
        self.quit = False
        self.gone = False
        self._run_info = run_info
        self._meter = meter

    def run(self) -> None:
        """Serve the feed to its end; the body of the sink's thread."""
        self.open()
        for result in self.feed:
            self.write(result)
            if self.gone:
                break
        self.feed.close()
        self.close()

    def put(self, result: Result) -> None:
        """Hand over a result, waiting for room; one that nobody takes any more is let go."""
        with suppress(Closed):
            self.feed.put(result)

    def open(self) -> None:
        self._attempt("opening", lambda: self.sink.open(self._run_info))

    def write(self, result: Result) -> None:
        if not self.gone:
            wanted = self._attempt(f"frame {result.frame.index}", lambda: self.sink.write(result))
            if wanted is False:
                self.quit = self.gone = True

    def close(self) -> None:
        self._attempt("closing", self.sink.close)

    def _attempt(self, what: str, call: Callable[[], bool | None]) -> bool | None:
        try:
            with self._meter.working(self.step, f"{self.sink.text} ({what})"):
                return call()
        except Exception as error:
            if self.error is None:
                self.error = _wrapped(SinkError, f"{self.sink.text}: {what} failed", error)
                if not self.alone:
                    log.error("%s (the other sinks go on)", self.error)
            self.gone = True
            return None


def _wrapped(kind: type[StreamposeError], message: str, error: BaseException) -> StreamposeError:
    """Return `error` itself when it speaks to the user already, else a `kind` that does, caused by it."""
    if isinstance(error, StreamposeError):
        return error
    wrapped = kind(f"{message}: {describe(error)}")
    wrapped.__cause__ = error
    return wrapped
