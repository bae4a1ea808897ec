"""Runs the two networks on batches of frames of all sources, and handles batches that fail.

`detect_then_pose` and `detect_and_follow` decide when each network runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch

from streampose.channel import Ending
from streampose.errors import ModelError, describe, wrapped
from streampose.frames import Captured, Detected, Frame, People, Poses, Result, Skeleton
from streampose.meter import Meter
from streampose.networks.device import own_stream, upload
from streampose.networks.pending import Pending, Ready
from streampose.networks.workers import use_cores, worker_count
from streampose.pipeline.lane import Lane
from streampose.pipeline.parts import Detector, Pose

log = logging.getLogger("streampose")

BATCH_FRAMES = 64
"""Maximum frames in a pose batch, so that frames with few people do not wait too long."""


class _HasFrame(Protocol):
    @property
    def frame(self) -> Frame: ...


In = TypeVar("In", bound=_HasFrame)
Out = TypeVar("Out")
Begin = Callable[[Sequence[In]], Pending[list[Out]]]
Put = Callable[[Lane, Out], None]


class Networks:
    """The detector and the pose network. Batches may contain frames of several sources."""

    def __init__(self, detector: Detector, pose: Pose, device: torch.device, meter: Meter) -> None:
        self.device = device
        self.meter = meter
        self._detector = detector
        self._pose = pose

    @property
    def skeleton(self) -> Skeleton:
        """The skeleton of every pose."""
        return self._pose.skeleton

    @property
    def run_side_by_side(self) -> bool:
        """Whether both networks should run at the same time.

        On two cores, they would only slow each other down. For the demo clip played live, running them one after the
        other reduces the latency from 216 ms to 133 ms, at the same 9 frames per second (two runs of the bench).
        """
        return self.device.type != "cpu" or worker_count() > 2

    def detect(self, captured: Sequence[Captured]) -> Ready[list[Detected]]:
        """Find the people in a batch of frames."""
        pixels = [upload(one.frame.image, self.device) for one in captured]
        found = self._detector.detect(pixels, [one.shrink for one in captured])
        frames = [one.frame for one in captured]
        return Ready([Detected(*values) for values in zip(frames, pixels, found, strict=True)])

    def begin_estimate(self, detected: Sequence[Detected]) -> Pending[list[Result]]:
        """Start estimating the poses in the boxes of a batch of frames. Return a handle."""
        poses = self._pose.begin([one.pixels for one in detected], [one.boxes for one in detected])
        return _Results(detected, poses, self._detector, self._pose)


@dataclass(frozen=True, slots=True)
class _Results:
    """A handle for the results of a batch."""

    detected: Sequence[Detected]
    poses: Pending[Sequence[Poses]]
    detector: Detector
    pose: Pose

    def result(self) -> list[Result]:
        """Wait for the poses. Return one result per frame."""
        results = []
        for one, poses in zip(self.detected, self.poses.result(), strict=True):
            people = People.of(one.boxes, *poses, label_of=self.detector.label_of)
            results.append(Result(one.frame, people, self.pose.skeleton))
        return results


class Batch(Generic[In, Out]):
    """A batch of frames in progress on one network.

    If a batch fails, its frames are processed again one at a time. The error of a frame that fails again names the
    frame and ends its lane; earlier frames of the lane are delivered. A batch that only exceeded the memory succeeds
    this way.
    """

    def __init__(
        self, meter: Meter, step: str, items: Sequence[tuple[Lane, In]], begin: Begin[In, Out], put: Put[Out]
    ) -> None:
        """Start the work.

        Args:
            meter: records the work while it runs.
            step: name of the step.
            items: frames with their lanes. Frames from a lane's failure on are skipped.
            begin: starts the work and returns a handle.
            put: receives the output for each frame.
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
        """Wait for the work and pass its output on. Handles all failures, including those at the start of the work."""
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


def sorted_out(
    lanes: Mapping[int, Lane], arrived: Sequence[tuple[int, Captured | Ending]]
) -> tuple[list[tuple[Lane, Captured]], list[tuple[Lane, Ending]]]:
    """Separate frames from endings, and replace lane numbers by lanes."""
    frames: list[tuple[Lane, Captured]] = []
    endings: list[tuple[Lane, Ending]] = []
    for number, value in arrived:
        lane = lanes.get(number)
        if lane is None:  # it was added as the run was stopped, and has left at once
            continue
        if isinstance(value, Ending):
            endings.append((lane, value))
        else:
            frames.append((lane, value))
    return frames, endings


def on_device(device: torch.device, run: Callable[[], None]) -> Callable[[], None]:
    """Return a function that runs `run` with the torch settings for a network's thread.

    On CUDA, the thread gets its own stream, so that both networks can run at the same time. Handing a frame to the
    other thread is safe: its boxes are fetched last, so all earlier work on the frame is complete. On a CPU, torch
    operations in the thread use one core; the workers of the networks use the other cores.
    """

    def run_on_device() -> None:
        if device.type == "cpu":
            use_cores(1)
        with own_stream(device):
            run()

    return run_on_device
