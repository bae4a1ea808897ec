"""The parts of a run measured one by one: the pipeline, the networks alone, every stage, on a recording's own frames.

Knows nothing of the reference, of what is compared with what, or of how a report looks.
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

from streampose.annotate import Annotator
from streampose.bench.stand_ins import KnownAnswers, OneFrame, Repeated, make_up
from streampose.bench.stopwatch import WARM_UP, Costs, Stopwatch, finish
from streampose.channel import Channel, Finished
from streampose.frames import Boxes, Captured, Float32, Frame, People
from streampose.networks.detector import PersonDetector
from streampose.networks.device import own_stream, upload
from streampose.networks.pose import PoseEstimator
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
"""Stages whose work is the people; the others' is the frame."""


def frame_groups(counts: Sequence[int], limit: int, most: int = BATCH_FRAMES) -> list[list[int]]:
    """Return the indices of frames with so many people each in the groups that `Pipeline` makes of a recording: as many
    whole frames, at most `most`, as have at most `limit` people together, or one that has more.
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
    """Return the sizes of the batches that `count` things go through in."""
    return [min(limit, count - done) for done in range(0, count, limit)]


@dataclass(frozen=True, slots=True)
class _Run:
    """What a run of the pipeline gave."""

    fps: float
    """From its beginning to its last result, over all sources."""
    people: list[int]
    """Of every frame."""
    kept: dict[int, People]
    stats: dict[str, Any]
    """Of the first source."""


_NETWORK_S = 0.3
"""A network that has worked for so long on one batch is known well enough."""


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch's operations of this thread use so many cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Measurer:
    """Runs the parts on one recording with one pair of networks."""

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
        """Of the recording."""
        blank = np.zeros((info.height, info.width, 3), np.uint8)
        frame = Frame("bench", 0, 0.0, 0.0, blank)
        with torch.inference_mode():
            heatmaps = estimator.forward(self.crops([frame], [Boxes.none()], 1))
        self.cells_across = heatmaps.shape[-1] - 1
        """Cells of a heatmap from the middle of its first column to that of its last."""

    def read(self, indices: Sequence[int]) -> list[Captured]:
        """Return the frames at `indices` (rising, some may be equal) of the recording played again and again."""
        source = Repeated(self._source, max(indices) + 1)
        try:
            return [one for one in source.captures() for index in indices if one.frame.index == index]
        finally:
            source.close()

    def reading(self, count: int) -> Costs:
        """Return what reading takes, over the first `count` frames."""
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
        """Let `count` frames of each of several equal sources through the pipeline, drawn, to no sink."""
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
        """Return the frames a second at which both networks, and nothing else, go through frames with so many `people`
        each, in the pipeline's batches.

        Their inputs were prepared before, from the pictures of `frames` and their `boxes`; as in the pipeline each
        network is called by a thread of its own, or one after the other where `choose_ceiling` found that faster.
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
        """Find out how the networks alone are fastest: side by side or one after the other."""
        rates = {}
        for self._side_by_side in (True, True, False):  # the first one warms up
            rates[self._side_by_side] = self.networks_alone(people, frames, boxes)
        self._side_by_side = max(rates, key=lambda way: rates[way])

    def detect(self, captured: Captured) -> Boxes:
        """Return the people of one frame."""
        return self._detector.detect([self.pixels(captured.frame)], [captured.shrink])[0]

    def pixels(self, frame: Frame) -> torch.Tensor:
        """Return the picture of a frame on the networks' device."""
        return upload(frame.image, self._device)

    def detector_inputs(self, frames: Sequence[Frame], size: int) -> Any:
        """Return a prepared batch of `size` pictures."""
        with torch.inference_mode():
            return self._detector.prepare([self.pixels(frames[index % len(frames)]) for index in range(size)])

    def crops(self, frames: Sequence[Frame], boxes: Sequence[Boxes], size: int) -> torch.Tensor:
        """Return a prepared batch of `size` people."""
        frame, found = max(zip(frames, boxes, strict=True), key=lambda pair: len(pair[1]))
        height, width = frame.image.shape[:2]
        with torch.inference_mode():
            people = make_up(self.examples(found, width, height), size, width, height)
            return self._estimator.prepare([self.pixels(frame)], [people])[0]

    @staticmethod
    def examples(found: Boxes, width: int, height: int) -> Float32:
        """Return real boxes, or, where there are none, one in the middle of the picture."""
        middle = np.array([[0.4 * width, 0.2 * height, 0.6 * width, 0.8 * height]], np.float32)
        return found.xyxy if len(found) else middle

    def stages(
        self, sample: Sequence[Captured], boxes: Sequence[Boxes] | None = None, *, frame_by_frame: bool = False
    ) -> Costs:
        """Time every stage but reading and the hand-over on frames of one size, in the pipeline's batches.

        Args:
            boxes: people to take instead of those that are found.
            frame_by_frame: no batch over several frames, as in a live run that keeps up.
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
        """Go through all stages once, with at most `at_once` frames in a batch. A network that has worked on a batch
        for long enough is not asked again: its output is in `made`.
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
        poses = [np.zeros((0, self._estimator.keypoint_count, 3), np.float32)]
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
                people = People.of(some_boxes, pose[..., :2], pose[..., 2], self._detector.label_of)
                self._annotator.annotate(frame.image, people)

    def hand_over(self, frame: Frame, people: Boxes) -> Costs:
        """Return what the pipeline itself takes for a frame; see the function of this name."""
        batches = self._detect_batch, self._pose_batch
        return hand_over(frame, people, self._estimator, self._detector.label_of, batches)

    def batch_s(self, frames: Sequence[Frame], boxes: Sequence[Boxes], size: int) -> tuple[float, float]:
        """Return the seconds that a batch of `size` takes through the detector network and the pose network."""
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
    """Return what the pipeline itself takes for a frame: its threads and channels, with networks that know their
    answers, no drawing and no reading.

    Args:
        frame: passes through, again and again.
        people: what is found in it.
        like: the pose network whose keypoints the answers have.
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
