"""A run whose people are known before: from a poses file, or from networks that ran elsewhere. It needs no networks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from streampose.channel import Closed, Ending, Finished, Merge
from streampose.frames import Captured, Float32, Frame, People, Result, Skeleton
from streampose.meter import Drop, Meter
from streampose.pipeline.lane import Lane
from streampose.pipeline.parts import Drawer, Feed
from streampose.pipeline.run import Run

log = logging.getLogger("streampose")


class Known(Protocol):
    """What is known of a frame."""

    @property
    def people(self) -> People: ...
    @property
    def faces_xyxy(self) -> Float32 | None: ...


class Lookup(Protocol):
    """The known people of a recording."""

    missing: int
    """Frames so far of which nothing is known."""

    def find(self, frame: Frame) -> Known | None:
        """Return what is known of a frame; None leaves it out. Called for each frame, in order."""
        ...

    def finish(self, frames: int) -> None:
        """Check that nothing is left over. Called after the last frame; `frames` is the number after its index."""
        ...


class RecalledRun(Run):
    """Takes a recording and its known people into sinks. See `Run`."""

    def __init__(
        self,
        feed: Feed,
        recall: Lookup,
        skeleton: Skeleton,
        models: dict[str, str],
        annotator: Drawer | None,
        *,
        draw: bool = False,
        results_wanted: bool = True,
        stall_after_s: float = 300.0,
        join_within_s: float = 30.0,
    ) -> None:
        """Take ownership of the source and the sinks. Work starts with the iteration.

        Args:
            feed: the recording with its sinks.
            recall: the people in its frames.
            skeleton, models, annotator, draw, results_wanted, stall_after_s, join_within_s: see `Run`.
        """
        super().__init__(
            [feed],
            skeleton,
            models,
            annotator,
            draw=draw,
            results_wanted=results_wanted,
            stall_after_s=stall_after_s,
            join_within_s=join_within_s,
        )
        (lane,) = self._lanes.values()
        self._finder = _LookUp(recall, skeleton, lane, self._captured, self._stop_asked, self.meter)


class _LookUp:
    """Looks up the people of each frame. Leaves out frames that the poses file does not have."""

    def __init__(
        self,
        recall: Lookup,
        skeleton: Skeleton,
        lane: Lane,
        captured: Merge[Captured],
        stop_asked: threading.Event,
        meter: Meter,
    ) -> None:
        self._recall = recall
        self._skeleton = skeleton
        self._lane = lane
        self._captured = captured
        self._stop_asked = stop_asked
        self._meter = meter
        self._frames = 0

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        return [("recall", self._run)]

    def close(self) -> None:
        """Do nothing: no frames wait here."""

    def _run(self) -> None:
        ending: BaseException | None = None
        try:
            while True:
                _, value = self._captured.take()
                if isinstance(value, Ending):
                    ending = value.error
                    if ending is None and not self._stop_asked.is_set():
                        self._recall.finish(self._frames)
                elif not self._stop_asked.is_set():  # frames that have not started count as dropped
                    self._take(value.frame)
        except (Finished, Closed):
            pass
        except BaseException as error:
            ending = error
        finally:
            self._lane.slot.close()
            self._lane.posed.finish(ending)
        if self._recall.missing:
            log.info("%d frames were left out: the poses file does not have them", self._recall.missing)

    def _take(self, frame: Frame) -> None:
        with self._meter.working("recall", f"frame {frame.index}"):
            found = self._recall.find(frame)
        self._frames = frame.index + 1
        if found is None:
            self._lane.source.meter.dropped(Drop.UNRECORDED)
        else:
            self._lane.hand_on(Result(replace(frame, faces_xyxy=found.faces_xyxy), found.people, self._skeleton))
