"""One source in a run: its channels, its capture and annotate threads, and its sinks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import Any

from streampose.channel import Channel, Closed, Merge
from streampose.errors import AnnotateError, SourceError, StreamposeError, wrapped
from streampose.frames import Captured, Result, RunInfo
from streampose.meter import Drop, Meter
from streampose.picker import Place
from streampose.pipeline.parts import Drawer, Feed
from streampose.pipeline.savepoints import SAVEPOINT_FRAMES, Keeper, Mark, Savepoint, state_of
from streampose.pipeline.sink_run import Marked, SinkRun, told_apart

CHANNEL_DEPTH = 8
"""Maximum frames between two steps: enough to bridge a short delay of one step, at little memory."""
LIVE_SLOT_DEPTH = 1
"""Only the newest frame of a live source waits for the networks, because older ones would add latency."""
LIVE_DEPTH = 3
"""Maximum frames of a live source between two later steps: enough for a sink to catch up after a keyframe."""


class Lane:
    """One source in a run: its channels, its capture and annotate threads, and its sinks."""

    def __init__(
        self,
        feed: Feed,
        run_info: RunInfo,
        meter: Meter,
        annotator: Drawer | None,
        captured: Merge[Captured],
        results: Merge[Result],
        *,
        prefix: str,
        results_wanted: bool,
        depth: int = CHANNEL_DEPTH,
    ) -> None:
        """Take ownership of the feed's source and sinks.

        Args:
            run_info: description of the run before the source's first frame.
            annotator: draws every result; None draws nothing.
            captured, results: get an inlet for this source.
            prefix: precedes the names of the lane's steps and sinks; empty for a run's only source.
            results_wanted: whether the caller takes results after all sinks have failed.
            depth: maximum frames of a recording between two steps.
        """
        self.source = feed.source
        self._described = run_info
        self.prefix = prefix
        self.capture_step = f"{prefix}capture"
        self.failure: StreamposeError | None = None
        """The failure of a network on a frame of this source, which ends the source."""
        self.fails_from: float = float("inf")
        """The index of the frame that failed."""
        self._failing = threading.Lock()
        self.ended = False
        """Whether the caller has received the last result and the ending."""
        is_live = feed.source.info.is_live
        drops = feed.source.meter.dropped

        def counted(cause: str) -> Callable[[object], None] | None:
            return (lambda _: drops(cause)) if is_live else None

        self.slot = captured.inlet(LIVE_SLOT_DEPTH if is_live else depth, on_drop=counted(Drop.BUSY))
        depth = LIVE_DEPTH if is_live else depth
        self.posed: Channel[Result | Mark] = Channel(depth, on_drop=counted(Drop.OUTPUT))
        self.results = results.inlet(depth, on_drop=counted(Drop.OUTPUT))
        self.sinks = [
            SinkRun(
                sink,
                self._run_info,
                meter,
                f"{prefix}sink {number}",
                name=prefix + name,
                is_alone=len(feed.sinks) == 1,
                depth=depth,
                is_live=is_live,
            )
            for number, (sink, name) in enumerate(zip(feed.sinks, told_apart(feed.sinks), strict=True), 1)
        ]
        self.sinks_here = [run for run in self.sinks if run.sink.on_main_thread]
        self.sinks_threaded = [run for run in self.sinks if not run.sink.on_main_thread]
        self._meter = meter
        self.tracker = feed.tracker
        self.tracks_in_turn = feed.tracker is not None
        """Whether the tracker runs here, and not already between the networks."""
        self._steps = feed.steps
        self.follower: Keeper | None = None
        """What follows people before their poses are found; set if the tracker does not run here."""
        self.saved = feed.saved
        if feed.saved is not None:
            feed.source.meter.resume(feed.saved.frames, feed.saved.people)
        self._journal = feed.journal
        self._handed_on, self._people = (feed.saved.frames, feed.saved.people) if feed.saved is not None else (0, 0)
        self._has_begun = False
        self.is_half_done = False
        """Whether a later run can continue this one, which has ended."""
        self.was_read = False
        """Whether the source was read to its end."""
        self._annotator = annotator
        self._results_wanted = results_wanted

    def _run_info(self) -> RunInfo:
        """Describe the run as known now. The size and rate of a live source are known from its first frame on."""
        return replace(self._described, source=self.source.info)

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        """Return the names and functions of its threads."""
        steps = [(self.capture_step, self.capture), (f"{self.prefix}annotate", self.annotate)]
        return steps + [(run.step, run.run) for run in self.sinks_threaded]

    def stats(self) -> dict[str, Any]:
        """Return the counts of the source and of its people so far."""
        stats = self.source.meter.stats()
        return stats if self.tracker is None else stats | {"tracks": self.tracker.stats()}

    def stop(self) -> None:
        """Stop capturing frames, and make waiting sinks continue."""
        self.source.interrupt()
        self.slot.close()
        for run in self.sinks:
            run.sink.interrupt()

    def fail(self, index: int, error: StreamposeError) -> None:
        """End this source before frame `index`.

        Called from the threads of both networks. The pose network may fail on an earlier frame than the detector.
        """
        with self._failing:
            if index < self.fails_from:
                self.fails_from, self.failure = index, error
        self.slot.close()

    def hand_on(self, result: Result) -> None:
        """Take a result for drawing, and mark a savepoint if one is due. If no more are wanted, stop the capture."""
        try:
            self.posed.put(result)
            self._handed_on += 1
            if not self.source.info.is_live and self._handed_on % SAVEPOINT_FRAMES == 0:
                place = Place(result.frame.index, result.frame.pts_s)
                state = {} if self.follower is None else deepcopy(self.follower.state())
                self.posed.put(Mark(place, self._handed_on, state))
        except Closed:
            self.slot.close()

    def settle(self) -> None:
        """Forget the savepoints if the run of this source is complete. Called when its threads have ended."""
        is_whole = self.ended and self.was_read and not self.source.meter.under_way and self.failure is None
        if self._journal is None:
            return
        has_begun = self._has_begun or self.saved is not None
        self.is_half_done = has_begun and not (is_whole and all(run.error is None for run in self.sinks))
        if self.is_half_done or not has_begun:
            self._journal.release()
        else:
            for run in self.sinks:
                run.sink.discard_kept()
            self._journal.finish()

    def capture(self) -> None:
        """Read frames until the source ends or is stopped. Runs in the capture thread."""
        ending: BaseException | None = None
        info, step = self.source.info, self.capture_step
        try:
            captures = self.source.captures()
            count = 0
            while True:
                # Do not report a live source as stalled: it may wait for its camera for hours.
                with nullcontext() if info.is_live else self._meter.working(step, f"frame {count}"):
                    captured = next(captures, None)
                if captured is None:
                    self.was_read = True
                    break
                if not info.is_live:
                    self.source.meter.captured()
                    self.source.meter.state = "running"
                self.slot.put(captured)
                count += 1
        except Closed:
            pass
        except BaseException as error:
            ending = wrapped(SourceError, f"{info.text}: reading failed", error)
            self.was_read = isinstance(ending, SourceError) and ending.is_at_end
        finally:
            self.slot.finish(ending)

    def annotate(self) -> None:
        """Run the custom steps, draw, and pass each result to the sinks and to the caller.

        Ends at the ending, or when no more results are wanted. Runs in the annotate thread.
        """
        ending: BaseException | None = None
        try:
            for value in self.posed:
                if isinstance(value, Mark):
                    self._mark(value)
                    continue
                self._begin()
                drawn = self._draw(self._stepped(value))
                self._people += len(drawn.people)
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

    def _begin(self) -> None:
        """Prepare the journal before the first frame."""
        if self._journal is not None and not self._has_begun:
            self._journal.begin()
        self._has_begun = True

    def _mark(self, mark: Mark) -> None:
        """Send a savepoint to the sinks that make files, behind the frames before it."""
        keepers = [*self._steps, self.tracker] if self.tracks_in_turn else self._steps
        runs = [run for run in self.sinks_threaded if run.sink.path is not None]
        state = state_of(keepers, mark.state)
        savepoint = Savepoint(mark.place, mark.frames, self._people, state, self._journal, len(runs))
        for number, run in enumerate(runs):
            run.put(Marked(savepoint, number))

    def _stepped(self, result: Result) -> Result:
        what = f"frame {result.frame.index}"
        try:
            with self._meter.working(f"{self.prefix}steps", what):
                if self.tracker is not None and self.tracks_in_turn:
                    tracked = self.tracker.update(result.people, result.frame.image, result.frame.pts_s)
                    result = replace(result, people=tracked)
                for step in self._steps:
                    result = step(result)
        except Exception as error:
            raise wrapped(StreamposeError, f"{self.prefix}a custom step failed on {what}", error) from error
        return result

    def _draw(self, result: Result) -> Result:
        if self._annotator is None:
            return result
        what = f"frame {result.frame.index}"
        try:
            with self._meter.working(f"{self.prefix}annotate", what):
                return result.with_drawn(self._annotator.annotate(result.frame.image, result.people))
        except Exception as error:
            raise wrapped(AnnotateError, f"{self.prefix}drawing failed on {what}", error) from error

    def _nobody_wants_more(self) -> bool:
        return any(run.quit for run in self.sinks) or (
            not self._results_wanted and bool(self.sinks) and all(run.gone for run in self.sinks)
        )
