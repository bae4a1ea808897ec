"""Stand-ins for sources and networks, used to measure other parts in isolation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from threading import Event

import numpy as np
import torch

from streampose.frames import Boxes, Captured, Float32, Frame, Poses, Shrink, SourceInfo
from streampose.meter import SourceMeter
from streampose.networks.pending import Ready
from streampose.networks.pose import PoseEstimator
from streampose.sources.open import open_source


def make_up(boxes_xyxy: Float32, count: int, width: int, height: int) -> Boxes:
    """Return `count` boxes within a frame of this size.

    The given boxes (N, 4), N > 0, come first, unchanged. Further boxes are copies of them at random positions.
    """
    rng = np.random.default_rng(0)
    chosen = boxes_xyxy[np.arange(count) % len(boxes_xyxy)]
    extent = chosen[:, 2:] - chosen[:, :2]
    corner = rng.uniform(0, np.maximum(np.array([width, height]) - extent, 1), (count, 2))
    first = np.arange(count) < len(boxes_xyxy)  # keep the positions of the given boxes
    corner[first] = chosen[first, :2]
    xyxy = np.concatenate([corner, corner + extent], axis=1).astype(np.float32)
    return Boxes(xyxy, np.full(count, 0.5, np.float32), np.zeros(count, np.int64))


class Repeated:
    """A recording that repeats until `count` frames are delivered.

    Frames are delivered as fast as they are consumed, or at the recording's own frame rate if `is_live` is set.
    """

    def __init__(self, text: str, count: int, *, name: str = "bench", is_live: bool = False) -> None:
        self._text = text
        self._count = count
        self._source = open_source(text)
        self.info = replace(self._source.info, source_id=name, is_live=is_live)
        self.meter = SourceMeter()
        self._stopped = Event()

    def captures(self) -> Iterator[Captured]:
        index, offset_s, pts_s, began_s = 0, 0.0, 0.0, time.monotonic()
        while True:
            for frame, shrink in self._source.captures():
                pts_s = offset_s + frame.pts_s
                if self.info.is_live:
                    if self._stopped.wait(max(0.0, began_s + pts_s - time.monotonic())):
                        return
                    self.meter.captured()
                frame = replace(
                    frame, source_id=self.info.source_id, index=index, pts_s=pts_s, captured_at_s=time.monotonic()
                )
                yield Captured(frame, shrink)
                index += 1
                if index == self._count:
                    return
            offset_s = pts_s + 1 / (self.info.fps or 25)
            self._source.close()
            self._source = open_source(self._text)

    def interrupt(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        self._source.close()


class OneFrame:
    """A source that delivers the same frame `count` times, at no reading cost."""

    def __init__(self, frame: Frame, text: str, count: int) -> None:
        height, width = frame.image.shape[:2]
        self.info = SourceInfo("still", text, width, height, 25.0, Fraction(1, 25), count, is_live=False)
        self.meter = SourceMeter()
        self._frames = [replace(frame, index=index, pts_s=index / 25) for index in range(count)]

    def captures(self) -> Iterator[Captured]:
        yield from map(Captured, self._frames)

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        pass


class KnownAnswers:
    """A detector and a pose network with fixed answers. The cost of a run is then only the hand-over."""

    def __init__(self, like: PoseEstimator, label_of: dict[int, str], people: Boxes) -> None:
        self.name, self.skeleton, self.label_of = like.name, like.skeleton, label_of
        self._boxes = people
        shape = (len(people), like.keypoint_count)
        covariances = np.broadcast_to(np.eye(2, dtype=np.float32), (*shape, 2, 2))
        self._poses = Poses(np.zeros((*shape, 2), np.float32), np.zeros(shape, np.float32), covariances)

    def detect(self, images: Sequence[torch.Tensor], shrinks: Sequence[Shrink | None] | None = None) -> list[Boxes]:
        del shrinks
        return [self._boxes] * len(images)

    def begin(self, images: Sequence[torch.Tensor], boxes: Sequence[Boxes]) -> Ready[list[Poses]]:
        del boxes
        return Ready([self._poses] * len(images))
