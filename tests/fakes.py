"""Hand-written steps that do next to nothing, count what they do, and fail, stall or quit where a test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import torch

from streampose.frames import Boxes, Captured, Float32, Frame, Image, People, Result, RunInfo, Skeleton, SourceInfo
from streampose.meter import SourceMeter
from streampose.sinks.sink import Sink

SKELETON = Skeleton(("head", "hand", "foot"), ((0, 1), (0, 2)), ())
WIDTH, HEIGHT = 32, 24


class Boom(Exception):
    """What a faulty step raises."""


@dataclass
class Fault:
    """Raises, stalls or quits when a step comes to frame `at`."""

    at: int
    how: str = "raise"
    released: threading.Event = field(default_factory=threading.Event)

    def meet(self, index: int) -> bool:
        """Act if `index` is the faulty frame; return whether to quit."""
        if index != self.at:
            return False
        if self.how == "raise":
            raise Boom(f"at {index}")
        if self.how == "stall":
            assert self.released.wait(60), "the test never released the stall"
        return self.how == "quit"


NO_FAULT = Fault(-1)


def picture(index: int) -> Image:
    """A picture from whose first pixel `index_of` reads the index back."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[0, 0] = index % 256, index // 256 % 256, index // 65536
    return image


def index_of(image: torch.Tensor | Image) -> int:
    blue, green, red = (int(value) for value in image[0, 0])
    return blue + 256 * green + 65536 * red


class FakeSource:
    """`count` small frames at 25 a second (None: without end)."""

    def __init__(self, count: int | None = 40, fault: Fault = NO_FAULT, *, is_live: bool = False) -> None:
        self.info = SourceInfo("fake", "fake", WIDTH, HEIGHT, 25.0, Fraction(1, 25), count, is_live)
        self.meter = SourceMeter()
        self.count = count
        self.fault = fault
        self.captured = 0
        self.closed = 0
        self.interrupted = threading.Event()

    def captures(self) -> Iterator[Captured]:
        index = 0
        while self.count is None or index < self.count:
            self.fault.meet(index)
            self.captured += 1
            yield Captured(Frame(self.info.source_id, index, index / 25, time.monotonic(), picture(index)))
            index += 1

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None:
        self.closed += 1


class FakeDetector:
    """Finds `index % 4` people in frame `index`."""

    name = "fake-detector"
    label_of = {0: "person"}  # noqa: RUF012 - read only

    def __init__(self, fault: Fault = NO_FAULT) -> None:
        self.fault = fault
        self.batches: list[int] = []

    def detect(self, images: Sequence[torch.Tensor], *_: object) -> list[Boxes]:
        self.batches.append(len(images))
        return [self._people(index_of(image)) for image in images]

    def _people(self, index: int) -> Boxes:
        self.fault.meet(index)
        count = index % 4
        return Boxes(
            np.tile(np.array([1, 2, 11, 22], np.float32), (count, 1)),
            np.full(count, 0.5, np.float32),
            np.zeros(count, np.int64),
        )


@dataclass
class FakeEstimate:
    """Does its work when its result is asked for."""

    pose: FakePose
    images: Sequence[torch.Tensor]
    boxes: Sequence[Boxes]

    def result(self) -> list[tuple[Float32, Float32]]:
        return self.pose.estimate(self.images, self.boxes)


class FakePose:
    """Puts every keypoint at x = the frame's index."""

    name = "fake-pose"
    skeleton = SKELETON

    def __init__(self, fault: Fault = NO_FAULT) -> None:
        self.fault = fault
        self.batches: list[int] = []

    def begin(self, images: Sequence[torch.Tensor], boxes: Sequence[Boxes]) -> FakeEstimate:
        return FakeEstimate(self, images, boxes)

    def estimate(self, images: Sequence[torch.Tensor], boxes: Sequence[Boxes]) -> list[tuple[Float32, Float32]]:
        self.batches.append(sum(len(some) for some in boxes))
        return [self._points(index_of(image), len(some)) for image, some in zip(images, boxes, strict=True)]

    def _points(self, index: int, count: int) -> tuple[Float32, Float32]:
        self.fault.meet(index)
        return np.full((count, 3, 2), index, np.float32), np.full((count, 3), 0.9, np.float32)


class FakeAnnotator:
    """Copies the picture and marks one pixel."""

    def __init__(self, fault: Fault = NO_FAULT) -> None:
        self.fault = fault
        self.drawn = 0

    def annotate(self, image: Image, people: People) -> Image:
        self.fault.meet(index_of(image))
        self.drawn += 1
        drawn = image.copy()
        drawn[-1, -1] = len(people)
        return drawn


class FakeSink(Sink):
    """Keeps the indices that it was given."""

    quits_run = True

    def __init__(
        self, fault: Fault = NO_FAULT, *, text: str = "fake-sink", opening: Fault = NO_FAULT, closing: Fault = NO_FAULT
    ) -> None:
        super().__init__(text)
        self.fault, self.opening, self.closing = fault, opening, closing
        self.calls: list[str] = []
        self.indices: list[int] = []
        self.drawn: list[bool] = []
        self.threads: set[str] = set()

    def open(self, run: RunInfo) -> None:
        assert run.models == {"detector": "fake-detector", "pose": "fake-pose"}
        self.calls.append("open")
        self.opening.meet(0)

    def write(self, result: Result) -> bool | None:
        self.threads.add(threading.current_thread().name)
        quits = self.fault.meet(result.frame.index)
        self.indices.append(result.frame.index)
        self.drawn.append(result.drawn is not None and int(result.drawn[-1, -1, 0]) == len(result.people))
        return False if quits else None

    def close(self) -> None:
        self.calls.append("close")
        self.closing.meet(0)


class FakeWindow(FakeSink):
    """The same, on the thread that runs the program."""

    on_main_thread = True


class FakeDataSink(FakeSink):
    """The same, without a use for the drawn picture."""

    needs_drawn = False
