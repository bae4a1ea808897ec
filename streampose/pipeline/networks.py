"""What the two networks are asked in batches, over the frames of all sources, and what becomes of a batch that fails.

How they share time is in `detect_then_pose` and `detect_and_follow`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch

from streampose.channel import Closed, Ending
from streampose.errors import ModelError, describe, wrapped
from streampose.frames import Captured, Detected, Float32, Frame, People, Result
from streampose.meter import Meter
from streampose.networks.device import own_stream, upload
from streampose.networks.pending import Pending, Ready
from streampose.networks.workers import use_cores, worker_count
from streampose.pipeline.lane import Lane
from streampose.pipeline.parts import Detector, Pose

log = logging.getLogger("streampose")

BATCH_FRAMES = 64
"""A pose batch holds at most so many frames, so that a recording with few people still moves on."""


class _HasFrame(Protocol):
    @property
    def frame(self) -> Frame: ...


In = TypeVar("In", bound=_HasFrame)
Out = TypeVar("Out")
Begin = Callable[[Sequence[In]], Pending[list[Out]]]
Put = Callable[[Lane, Out], None]


class Networks:
    """The detector and the pose network, asked in batches over the frames of all sources."""

    def __init__(self, detector: Detector, pose: Pose, device: torch.device, meter: Meter) -> None:
        self.device = device
        self.meter = meter
        self._detector = detector
        self._pose = pose

    @property
    def keypoint_count(self) -> int:
        """K of every pose."""
        return len(self._pose.skeleton.names)

    @property
    def run_side_by_side(self) -> bool:
        """Whether one network leaves the other room to run beside it.

        On two cores they only slow each other down. One after the other, the demo clip played live is out after 133 ms
        instead of 216, at the same 9 frames a second (two runs of the bench, one behind the other).
        """
        return self.device.type != "cpu" or worker_count() > 2

    def detect(self, captured: Sequence[Captured]) -> Ready[list[Detected]]:
        """Find the people of frames."""
        pixels = [upload(one.frame.image, self.device) for one in captured]
        found = self._detector.detect(pixels, [one.shrink for one in captured])
        frames = [one.frame for one in captured]
        return Ready([Detected(*values) for values in zip(frames, pixels, found, strict=True)])

    def begin_estimate(self, detected: Sequence[Detected]) -> Pending[list[Result]]:
        """Begin to find the poses in the boxes of frames."""
        poses = self._pose.begin([one.pixels for one in detected], [one.boxes for one in detected])
        return _Results(detected, poses, self._detector, self._pose)


@dataclass(frozen=True, slots=True)
class _Results:
    """The results of frames whose poses are being found."""

    detected: Sequence[Detected]
    poses: Pending[Sequence[tuple[Float32, Float32]]]
    detector: Detector
    pose: Pose

    def result(self) -> list[Result]:
        """Wait for the poses; the results, a frame each."""
        results = []
        for one, (xy, scores) in zip(self.detected, self.poses.result(), strict=True):
            people = People.of(one.boxes, xy, scores, self.detector.label_of)
            results.append(Result(one.frame, people, self.pose.skeleton))
        return results


class Batch(Generic[In, Out]):
    """A batch of frames that a network has begun with.

    A batch that fails is done again a frame at a time: the frames before the faulty one are delivered, the error names
    it and ends its lane, and a batch that was merely too large for the memory gets through.
    """

    def __init__(
        self, meter: Meter, step: str, items: Sequence[tuple[Lane, In]], begin: Begin[In, Out], put: Put[Out]
    ) -> None:
        """Begin.

        Args:
            meter: told of the work while it goes on.
            step: names the work.
            items: frames with their lanes; those of a lane that failed before them are left out.
            begin: begins the work.
            put: takes what comes out for each frame.
        """
        self._meter = meter
        self._step = step
        self._items = [(lane, value) for lane, value in items if value.frame.index < lane.fails_from]
        self._begin = begin
        self._put = put
        self._begun: Pending[list[Out]] | None = None
        self._error: Exception | None = None
        if self._items:
            names = [f"{lane.prefix}frame {value.frame.index}" for lane, value in self._items]
            self._what = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
            try:
                with meter.working(step, self._what):
                    self._begun = begin([value for _, value in self._items])
            except Exception as error:
                self._error = error

    def result(self) -> None:
        """Wait for the work and put what comes out; a failure, also one at the beginning, is dealt with here."""
        if not self._items:
            return
        found: list[Out] = []
        if self._begun is not None:
            try:
                with self._meter.working(self._step, self._what):
                    found = self._begun.result()
            except Exception as error:
                self._error = error
        if self._error is not None:
            self._fail(self._error)
            return
        for (lane, value), out in zip(self._items, found, strict=True):
            if value.frame.index < lane.fails_from:
                self._put(lane, out)

    def _fail(self, error: Exception) -> None:
        if len(self._items) == 1:
            lane, value = self._items[0]
            lane.fail(value.frame.index, wrapped(ModelError, f"{self._step} failed on {self._what}", error))
            return
        log.warning("%s failed on %s; retrying one frame at a time: %s", self._step, self._what, describe(error))
        for item in self._items:
            Batch(self._meter, self._step, [item], self._begin, self._put).result()


def hand_on(lane: Lane, result: Result) -> None:
    """Give a result to its lane; one that nobody takes any more ends the lane's capture."""
    try:
        lane.posed.put(result)
    except Closed:
        lane.slot.close()


def sorted_out(
    lanes: Sequence[Lane], arrived: Sequence[tuple[int, Captured | Ending]]
) -> tuple[list[tuple[Lane, Captured]], list[tuple[Lane, Ending]]]:
    """Return the frames and the endings among what has arrived from the lanes of these numbers."""
    frames: list[tuple[Lane, Captured]] = []
    endings: list[tuple[Lane, Ending]] = []
    for number, value in arrived:
        if isinstance(value, Ending):
            endings.append((lanes[number], value))
        else:
            frames.append((lanes[number], value))
    return frames, endings


def on_device(device: torch.device, run: Callable[[], None]) -> Callable[[], None]:
    """Return `run` for a thread of its own.

    On CUDA it gets a stream of its own, so that the networks run beside each other; frames are handed over with their
    boxes, which are fetched from the device behind all that was done to the frames there. On a CPU its small operations
    take one core: the others belong to the networks' workers.
    """

    def run_on_device() -> None:
        if device.type == "cpu":
            use_cores(1)
        with own_stream(device):
            run()

    return run_on_device
