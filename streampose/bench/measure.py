"""Measures the parts of a run on a recording's frames: the pipeline, the networks alone, and every stage.

Knows nothing about the reference, the comparison or the format of the report.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from streampose.bench.stand_ins import KnownAnswers, OneFrame, Repeated, make_up
from streampose.bench.stopwatch import WARM_UP, Costs, Stopwatch, finish
from streampose.channel import Channel, Finished
from streampose.drawing.annotator import Annotator
from streampose.frames import Boxes, Captured, Float32, Frame, People
from streampose.networks.detector import PersonDetector
from streampose.networks.device import own_stream, upload
from streampose.networks.pose import PoseEstimator, poses_of
from streampose.pipeline.networks import BATCH_FRAMES
from streampose.pipeline.parts import Feed
from streampose.pipeline.pipeline import Pipeline
from streampose.sinks.null import NullSink
from streampose.sources.open import open_source

STAGES = (
    "read",
    "upload",
    "detector input",
    "detector network",
    "boxes",
    "crops",
    "pose network",
    "keypoints",
    "drawing",
    "hand-over",
)
NETWORKS = ("detector network", "pose network")
OF_PEOPLE = ("crops", "pose network", "keypoints", "drawing")
"""Stages whose cost depends on the people. The cost of the other stages depends on the frame."""


def frame_groups(counts: Sequence[int], limit: int, most: int = BATCH_FRAMES) -> list[list[int]]:
    """Group frame indices in the same way as `Pipeline` groups the frames of a recording.

    A group consists of whole frames: at most `most` frames with at most `limit` people in total, or a single frame with
    more people. `counts` is the number of people in each frame.
    """
    waiting: Channel[tuple[int, int]] = Channel(max(1, len(counts)))
    for numbered in enumerate(counts):
        waiting.put(numbered)
    waiting.finish()
    groups: list[list[int]] = []
    with suppress(Finished):
        while True:
            batch = waiting.take_batch(limit, weigh=lambda numbered: numbered[1], most=most)
            groups.append([index for index, _ in batch])
    return groups


def batches_of(count: int, limit: int) -> list[int]:
    """Return the batch sizes for `count` items, with at most `limit` items per batch."""
    return [min(limit, count - done) for done in range(0, count, limit)]


@dataclass(frozen=True, slots=True)
class _Run:
    """The results of a pipeline run."""

    fps: float
    """Frames per second over all sources, from the start to the last result."""
    people: list[int]
    """Number of people in every frame."""
    kept: dict[int, People]
    stats: dict[str, Any]
    """Statistics of the first source."""


_NETWORK_S = 0.3
"""The measurement of a network on a batch stops once it has taken this time in total."""


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Within the block, let torch operations in this thread use `count` cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Measurer:
    """Measures the parts on one recording with one pair of networks."""

    def __init__(
        self,
        source: str,
        detector: PersonDetector,
        estimator: PoseEstimator,
        *,
        detect_batch: int,
        pose_batch: int,
        repeats: int,
    ) -> None:
        self.name = f"{detector.name} and {estimator.name}"
        self._source = source
        self._detector = detector
        self._estimator = estimator
        self._device = estimator.device
        self._annotator = Annotator(estimator.skeleton)
        self._detect_batch = detect_batch
        self._pose_batch = pose_batch
        self._repeats = repeats
        self._side_by_side = True
        with open_source(source) as opened:
            info = opened.info
        self.source_fps = info.fps or 25.0
        """Frame rate of the recording."""
        blank = np.zeros((info.height, info.width, 3), np.uint8)
        frame = Frame("bench", 0, 0.0, 0.0, blank)
        with torch.inference_mode():
            heatmaps = estimator.forward(self.crops([frame], [Boxes.none()], 1))
        self.cells_across = heatmaps.shape[-1] - 1
        """Distance in heatmap cells from the centre of the first column to the centre of the last column."""

    def read(self, indices: Sequence[int]) -> list[Captured]:
        """Return the frames at `indices` of the endlessly repeated recording.

        Indices are in ascending order and may repeat.
        """
        source = Repeated(self._source, max(indices) + 1)
        try:
            return [one for one in source.captures() for index in indices if one.frame.index == index]
        finally:
            source.close()

    def reading(self, count: int) -> Costs:
        """Measure the cost of reading, over the first `count` frames."""
        source, read = Repeated(self._source, count), 0
        try:
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            for _ in source.captures():
                read += 1
            wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
            return Costs({"read": wall_s / read}, {"read": cpu_s / read})
        finally:
            source.close()

    def run(self, count: int, *, keep: Container[int] = (), sources: int = 1, is_live: bool = False) -> _Run:
        """Run the pipeline on `count` frames of each of `sources` identical sources, with drawing and null sinks."""
        recordings = [Repeated(self._source, count, name=f"bench{i}", is_live=is_live) for i in range(sources)]
        people: list[int] = []
        kept: dict[int, People] = {}
        with Pipeline(
            [Feed(recording, [NullSink()]) for recording in recordings],
            self._detector,
            self._estimator,
            self._annotator,
            device=self._device,
            detect_batch=self._detect_batch,
            pose_batch=self._pose_batch,
            draw=True,
        ) as pipeline:
            began_s = last_s = time.perf_counter()
            for result in pipeline:
                last_s = time.perf_counter()
                people.append(len(result.people))
                if result.frame.index in keep:
                    kept[result.frame.index] = result.people
        fps = len(people) / max(last_s - began_s, 1e-9)
        return _Run(fps, people, kept, recordings[0].meter.stats())

    def networks_alone(self, people: Sequence[int], frames: Sequence[Frame], boxes: Sequence[Boxes]) -> float:
        """Return the frames per second of the two networks alone, in the pipeline's batches.

        `people` is the number of people in each frame. Inputs are prepared in advance from `frames` and their `boxes`.
        As in the pipeline, each network runs in its own thread. If `choose_ceiling` found it faster, the networks run
        one after the other instead.
        """
        detect_sizes = batches_of(len(people), self._detect_batch)
        groups = frame_groups(people, self._pose_batch)
        totals = [sum(people[index] for index in group) for group in groups]
        pose_sizes = [size for total in totals for size in batches_of(total, self._pose_batch)]
        work = [
            (self._detector.forward, {size: self.detector_inputs(frames, size) for size in set(detect_sizes)}),
            (self._estimator.forward, {size: self.crops(frames, boxes, size) for size in set(pose_sizes)}),
        ]

        def go(forward: Callable[[Any], Any], inputs: dict[int, Any], sizes: Sequence[int]) -> None:
            with torch.inference_mode(), own_stream(self._device):
                for size in sizes:
                    forward(inputs[size])
            finish(self._device)

        with ThreadPoolExecutor(2 if self._side_by_side else 1) as threads:
            began_s = time.perf_counter()
            going = [
                threads.submit(go, forward, inputs, sizes)
                for (forward, inputs), sizes in zip(work, (detect_sizes, pose_sizes), strict=True)
            ]
            for one in going:
                one.result()
            return len(people) / (time.perf_counter() - began_s)

    def choose_ceiling(self, people: Sequence[int], frames: Sequence[Frame], boxes: Sequence[Boxes]) -> None:
        """Determine whether the networks alone are faster in parallel or one after the other."""
        rates = {}
        for self._side_by_side in (True, True, False):  # the first run is a warm-up
            rates[self._side_by_side] = self.networks_alone(people, frames, boxes)
        self._side_by_side = max(rates, key=lambda way: rates[way])

    def detect(self, captured: Captured) -> Boxes:
        """Return the people of one frame."""
        return self._detector.detect([self.pixels(captured.frame)], [captured.shrink])[0]

    def pixels(self, frame: Frame) -> torch.Tensor:
        """Return the pixels of a frame on the networks' device."""
        return upload(frame.image, self._device)

    def detector_inputs(self, frames: Sequence[Frame], size: int) -> Any:
        """Return a prepared detector batch of `size` frames."""
        with torch.inference_mode():
            return self._detector.prepare([self.pixels(frames[index % len(frames)]) for index in range(size)])

    def crops(self, frames: Sequence[Frame], boxes: Sequence[Boxes], size: int) -> torch.Tensor:
        """Return a prepared pose batch of `size` people."""
        frame, found = max(zip(frames, boxes, strict=True), key=lambda pair: len(pair[1]))
        height, width = frame.image.shape[:2]
        with torch.inference_mode():
            people = make_up(self.examples(found, width, height), size, width, height)
            return self._estimator.prepare([self.pixels(frame)], [people])[0]

    @staticmethod
    def examples(found: Boxes, width: int, height: int) -> Float32:
        """Return the boxes in `found`, or one box in the middle of the frame if there are none."""
        middle = np.array([[0.4 * width, 0.2 * height, 0.6 * width, 0.8 * height]], np.float32)
        return found.xyxy if len(found) else middle

    def stages(
        self, sample: Sequence[Captured], boxes: Sequence[Boxes] | None = None, *, frame_by_frame: bool = False
    ) -> Costs:
        """Time every stage except reading and hand-over, in the pipeline's batches.

        Args:
            sample: frames of the same size.
            boxes: people to use instead of the detected ones.
            frame_by_frame: batch each frame separately, as in a live run that keeps up.
        """
        watch = Stopwatch(self._device)
        made: dict[Hashable, Any] = {}
        with torch.inference_mode():
            for _ in range(WARM_UP + self._repeats):
                self._walk(sample, boxes, 1 if frame_by_frame else len(sample), watch, made)
        return watch.costs(len(sample))

    def _walk(
        self,
        sample: Sequence[Captured],
        boxes: Sequence[Boxes] | None,
        at_once: int,
        watch: Stopwatch,
        made: dict[Hashable, Any],
    ) -> None:
        """Run all stages once, with at most `at_once` frames per batch.

        If a network has been timed long enough on a batch, its cached output in `made` is used instead.
        """

        def through(stage: str, network: Callable[[Any], Any], inputs: Any, step: Hashable) -> Any:
            if (stage, step) not in made or watch.spent_s(stage, step) < _NETWORK_S:
                with watch(stage, step):
                    made[stage, step] = network(inputs)
            return made[stage, step]

        frames = [one.frame for one in sample]
        height, width = frames[0].image.shape[:2]
        with watch("upload"):
            pixels = [self.pixels(frame) for frame in frames]
        found: list[Boxes] = []
        size = min(at_once, self._detect_batch)
        for start in range(0, len(frames), size):
            with watch("detector input", start):
                some = slice(start, start + size)
                inputs = self._detector.prepare(pixels[some], [one.shrink for one in sample[some]])
            outputs = through("detector network", self._detector.forward, inputs, start)
            with watch("boxes", start):
                found += self._detector.decode(outputs, height, width)
        found = found if boxes is None else list(boxes)
        counts = [len(some) for some in found]
        poses = [np.zeros((0, self._estimator.keypoint_count, 6), np.float32)]
        groups = frame_groups(counts, self._pose_batch, at_once)
        for group in groups:
            if not sum(counts[index] for index in group):
                continue
            with watch("crops", group[0]):
                crops, regions = self._estimator.prepare([pixels[i] for i in group], [found[i] for i in group])
            for start in range(0, len(crops), self._pose_batch):
                some, step = slice(start, start + self._pose_batch), (group[0], start)
                heatmaps = through("pose network", self._estimator.forward, crops[some], step)
                with watch("keypoints", step):
                    poses.append(self._estimator.decode(heatmaps, regions[some]).cpu().numpy())
        of_frames = np.split(np.concatenate(poses), np.cumsum(counts)[:-1])
        with watch("drawing"):
            for frame, some_boxes, pose in zip(frames, found, of_frames, strict=True):
                people = People.of(some_boxes, *poses_of(pose), label_of=self._detector.label_of)
                self._annotator.annotate(frame.image, people)

    def hand_over(self, frame: Frame, people: Boxes) -> Costs:
        """Measure the pipeline's own cost per frame; see the function of the same name."""
        batches = self._detect_batch, self._pose_batch
        return hand_over(frame, people, self._estimator, self._detector.label_of, batches)

    def batch_s(self, frames: Sequence[Frame], boxes: Sequence[Boxes], size: int) -> tuple[float, float]:
        """Return the seconds that a batch of `size` takes in the detector network and in the pose network."""
        inputs = [
            (self._detector.forward, self.detector_inputs(frames, size)),
            (self._estimator.forward, self.crops(frames, boxes, size)),
        ]
        detector_s, pose_s = (self._seconds(forward, batch) for forward, batch in inputs)
        return detector_s, pose_s

    def _seconds(self, forward: Callable[[Any], Any], batch: Any) -> float:
        watch = Stopwatch(self._device)
        with torch.inference_mode():
            for _ in range(WARM_UP + self._repeats):
                with watch("network"):
                    forward(batch)
                if watch.spent_s("network", 0) >= _NETWORK_S:
                    break
        return watch.costs(1).wall_s["network"]


def hand_over(
    frame: Frame, people: Boxes, like: PoseEstimator, label_of: dict[int, str], batches: tuple[int, int]
) -> Costs:
    """Measure the pipeline's own cost per frame: its threads and channels.

    The networks are replaced by stand-ins with fixed answers. Nothing is read or drawn.

    Args:
        frame: the frame that passes through repeatedly.
        people: the stand-in detector's answer.
        like: the pose network that the stand-in imitates.
        label_of: the detector's classes.
        batches: maximum frames per detector call, maximum people per pose call.
    """
    count = 200
    ready = KnownAnswers(like, label_of, people)
    pipeline = Pipeline(
        [Feed(OneFrame(frame, "still", count), [NullSink()])],
        ready,
        ready,
        None,
        device=torch.device("cpu"),
        detect_batch=batches[0],
        pose_batch=batches[1],
    )
    with pipeline:
        began_s, cpu_s = time.perf_counter(), time.process_time()
        for _ in pipeline:
            pass
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    return Costs({"hand-over": wall_s / count}, {"hand-over": cpu_s / count})
