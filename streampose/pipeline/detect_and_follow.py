"""Runs both networks in one thread and follows people between detections."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from streampose.channel import Closed, Finished, Merge
from streampose.frames import Boxes, Captured, Detected, Frame, Result
from streampose.networks.device import upload
from streampose.networks.pending import Ready
from streampose.people.track import Tracker
from streampose.pipeline.follow import Follower
from streampose.pipeline.lane import Lane
from streampose.pipeline.networks import BATCH_FRAMES, Batch, Networks, sorted_out
from streampose.pipeline.schedule import Budget, EveryNth, Schedule, Spending


class _Followed:
    """The people of one lane, and the detections that are ready before their frame's turn."""

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self.detected: dict[int, Detected] = {}
        """By index."""


class DetectAndFollow:
    """One thread for both networks: between detections, boxes come from the poses of the previous frame."""

    def __init__(
        self,
        networks: Networks,
        lanes: Mapping[int, Lane],
        captured: Merge[Captured],
        stop_asked: threading.Event,
        *,
        detect_every: int | Literal["auto"],
        detect_batch: int,
        max_people: int | None,
    ) -> None:
        """Serve all `lanes` with both networks. `DetectThenPose` describes the other arguments.

        Args:
            lanes: the lanes by number. Lanes may come and go if `captured` stays open and `detect_every` is not `auto`.
            detect_every: run the detector on every Nth frame of a source. `auto` runs it as often as the poses leave
                time.
            max_people: maximum people per frame; None for all.
        """
        self._networks = networks
        self._lanes = lanes
        self._captured = captured
        self._stop_asked = stop_asked
        self._any_live = any(lane.source.info.is_live for lane in lanes.values())
        self._detect_every = detect_every
        self._max_people = max_people
        self._budget = Budget(len(lanes)) if detect_every == "auto" else None
        self._at_once = min(BATCH_FRAMES, detect_batch * (1 if detect_every == "auto" else detect_every))
        self._followed = {lane: self._new_followed(number, lane) for number, lane in lanes.items()}

    def _new_followed(self, number: int, lane: Lane) -> _Followed:
        if self._detect_every == "auto":
            assert self._budget is not None
            schedule: Schedule = Spending(self._budget, number)
        else:
            schedule = EveryNth(self._detect_every * lane.source.info.part.every)
        tracker = None if lane.source.info.stills else lane.tracker or Tracker(self._networks.skeleton)
        lane.tracks_in_turn = False
        follower = Follower(tracker, schedule, max_people=self._max_people)
        if lane.saved is not None:
            follower.restore(lane.saved.state["before"])
        lane.follower = follower
        return _Followed(follower)

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        """Return the name and body of the thread. It runs until its input ends and passes the ending on."""
        return [("detect and pose", self._run)]

    def close(self) -> None:
        """Do nothing: no frames wait between the networks."""

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            while True:
                # Batch the detections that are due among the waiting frames of a recording. A live frame does not
                # wait for them.
                ahead = max(len(self._lanes), self._at_once)
                arrived = self._captured.take_batch(ahead, most_each=1 if self._any_live else None)
                frames, endings = sorted_out(self._lanes, arrived)
                for lane, _ in [*frames, *endings]:
                    if lane not in self._followed:
                        # Its number matters only for `auto`, where no lanes come.
                        self._followed[lane] = self._new_followed(0, lane)
                self._look([(lane, one) for lane, one in frames if self._followed[lane].follower.is_due(one.frame)])
                for turn in _turns(frames):
                    if self._stop_asked.is_set():  # frames that have not started count as dropped
                        break
                    self._follow(turn)
                for lane, ending in endings:
                    lane.posed.finish(ending.error)
                    del self._followed[lane]
        except (Finished, Closed):
            pass
        except BaseException as error:
            failure = error
        finally:
            for lane in tuple(self._lanes.values()):
                lane.slot.close()
                lane.posed.finish(failure)

    def _follow(self, turn: Sequence[tuple[Lane, Captured]]) -> None:
        """Process at most one frame of each source. Their earlier frames are done."""
        turn = [(lane, one) for lane, one in turn if one.frame.index < lane.fails_from]
        looking = []
        for lane, one in turn:
            followed = self._followed[lane]
            looks = followed.follower.looks(one.frame, lane.source.info.fps)
            if looks and one.frame.index not in followed.detected:
                looking.append((lane, one))
        self._look(looking)
        batch = [(lane, self._with_boxes(lane, one.frame)) for lane, one in turn if one.frame.index < lane.fails_from]
        Batch(self._networks.meter, "pose", batch, self._estimate, self._put_learnt).result()

    def _look(self, frames: Sequence[tuple[Lane, Captured]]) -> None:
        """Run the detector on the frames and keep the results until their turn."""
        if not frames:
            return
        began_s = time.monotonic()
        Batch(self._networks.meter, "detect", frames, self._networks.detect, self._keep).result()
        if self._budget is not None:
            number_of = {lane: number for number, lane in self._lanes.items()}
            numbers = [number_of[lane] for lane, _ in frames]
            self._budget.pay_detections(numbers, time.monotonic() - began_s)

    def _keep(self, lane: Lane, detected: Detected) -> None:
        self._followed[lane].detected[detected.frame.index] = detected

    def _with_boxes(self, lane: Lane, frame: Frame) -> _ToPose:
        followed = self._followed[lane]
        detected = followed.detected.pop(frame.index, None)
        if detected is None:
            return _ToPose(frame, None, followed.follower.boxes(None))
        return _ToPose(frame, detected.pixels, followed.follower.boxes(detected.boxes))

    def _estimate(self, batch: Sequence[_ToPose]) -> Ready[list[Result]]:
        began_s = time.monotonic()
        detected = []
        for one in batch:
            pixels = upload(one.frame.image, self._networks.device) if one.pixels is None else one.pixels
            detected.append(Detected(one.frame, pixels, one.boxes))
        results = self._networks.begin_estimate(detected).result()
        if self._budget is not None:
            self._budget.pay_poses(time.monotonic() - began_s)
        return Ready(results)

    def _put_learnt(self, lane: Lane, result: Result) -> None:
        people = self._followed[lane].follower.learn(result.people, result.frame)
        if lane.tracker is None:
            people = people.untracked()
        lane.hand_on(replace(result, people=people))


@dataclass(frozen=True, slots=True)
class _ToPose:
    """A frame with the boxes to find poses in."""

    frame: Frame
    pixels: torch.Tensor | None
    """As in `Detected`; None if the detector did not run on the frame."""
    boxes: Boxes


def _turns(frames: Sequence[tuple[Lane, Captured]]) -> Iterator[list[tuple[Lane, Captured]]]:
    """Group frames into turns: the first of each source, then the second of each, and so on."""
    waiting: dict[Lane, deque[Captured]] = {}
    for lane, one in frames:
        waiting.setdefault(lane, deque()).append(one)
    while True:
        turn = [(lane, left.popleft()) for lane, left in waiting.items() if left]
        if not turn:
            return
        yield turn
