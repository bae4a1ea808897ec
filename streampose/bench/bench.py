"""Measures the speed of a recording with a pair of networks. One run alternates between the pipeline, the loop of the
ViTPose documentation (the reference), and the networks alone. The figures in docs/numbers.md come from this module.

The results of the measured pipeline are compared with the reference's results for the same frames. If they differ by
more than `streampose.bench.agreement` allows, no speed is reported.
"""

from __future__ import annotations

import logging
import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streampose._version import __version__
from streampose.addresses import redact_address
from streampose.bench.agreement import AGREEMENT, Comparison
from streampose.bench.measure import NETWORKS, OF_PEOPLE, STAGES, Measurer, torch_threads
from streampose.bench.reference import ReferenceLoop
from streampose.bench.report import Report
from streampose.bench.stand_ins import make_up
from streampose.bench.stopwatch import Costs
from streampose.errors import UsageError
from streampose.frames import Boxes, Captured, Frame
from streampose.networks.checkpoints import resolve
from streampose.networks.detector import PersonDetector
from streampose.networks.detectors import default_threshold
from streampose.networks.device import pick_device
from streampose.networks.known import DEFAULT_QUALITY
from streampose.networks.pair import load_pair
from streampose.networks.pose import PoseEstimator
from streampose.sources.open import is_live_text

_log = logging.getLogger("streampose")

PEOPLE_COUNTS = (0, 1, 2, 5, 10, 20, 50)
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
SOURCE_COUNTS = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Effort:
    """The amount of work of the benchmark."""

    rounds: int
    """Number of rounds. Each round runs the reference, the pipeline and the networks. Medians are over rounds."""
    run_s: float
    """Approximate duration of the pipeline's run in a round."""
    first_frames: int
    """Number of frames in the warm-up run, and the default minimum for every other run."""
    reference_frames: int
    """Number of frames for the reference, over all rounds."""
    sample_frames: int
    """Number of frames on which the stages are timed."""
    repeats: int
    """Number of repetitions of each stage measurement."""
    batch_sizes: Sequence[int] = BATCH_SIZES


FULL = Effort(rounds=5, run_s=10.0, first_frames=48, reference_frames=20, sample_frames=8, repeats=7)
QUICK = Effort(rounds=2, run_s=1.0, first_frames=8, reference_frames=2, sample_frames=2, repeats=2, batch_sizes=(1, 4))


def fit_cost(people: Sequence[int], cost: Sequence[float]) -> tuple[float, float]:
    """Return a and b of `cost = a + b * people`, fitted by least squares of the relative errors."""
    slope, offset = np.polyfit(people, cost, 1, w=1 / np.asarray(cost))
    return float(offset), float(slope)


def run_bench(
    source: str,
    *,
    quality: str = DEFAULT_QUALITY,
    pose: str | None = None,
    detector: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    detect_batch: int | None = None,
    pose_batch: int | None = None,
    frames: int | None = None,
    reference_frames: int | None = None,
    quick: bool = False,
    compile: bool = False,
) -> Report:
    """Load the networks and measure them on `source`, a recording.

    The arguments not listed here are those of `streampose.stream`.

    Args:
        frames: number of frames per run. A shorter recording is repeated. None selects a number that takes a few
            seconds.
        reference_frames: total number of frames for the reference, which is slow.
        quick: run a short benchmark.
        compile: measure compiled networks; accelerators only.

    Raises:
        UsageError: a value is invalid, or the source is not a recording.
        SourceError: the source cannot be opened or read.
        ModelError: a network cannot be loaded or run, or the results differ from the reference's.
    """
    if is_live_text(source):
        raise UsageError(f"{redact_address(source)} can be read only once: use a file or demo")
    if compile and pick_device(device).type == "cpu":
        raise UsageError("compilation is not supported on a CPU: do not use `compile`")
    networks = load_pair(
        quality=quality,
        pose=pose,
        detector=detector,
        device=device,
        dtype=dtype,
        warm_up=compile,
        heatmap_blur="hf",  # as in the reference
        detect_batch=detect_batch,
        pose_batch=pose_batch,
    )
    return measure(
        source,
        networks.detector,
        networks.pose,
        dtype=networks.dtype,
        threshold=default_threshold(resolve(networks.detector.name)),
        detect_batch=networks.detect_batch,
        pose_batch=networks.pose_batch,
        is_compiled=compile,
        frames=frames,
        reference_frames=reference_frames,
        effort=QUICK if quick else FULL,
    )


def measure(
    source: str,
    detector: PersonDetector,
    estimator: PoseEstimator,
    *,
    dtype: torch.dtype,
    threshold: float,
    detect_batch: int,
    pose_batch: int,
    effort: Effort,
    is_compiled: bool = False,
    frames: int | None = None,
    reference_frames: int | None = None,
) -> Report:
    """Measure loaded networks. `dtype`, `threshold` and `is_compiled` are the values they were loaded with.

    See `run_bench`.
    """
    device = estimator.device
    measurer = Measurer(
        source, detector, estimator, detect_batch=detect_batch, pose_batch=pose_batch, repeats=effort.repeats
    )
    _log.info("bench: warm-up run")
    first = measurer.run(frames or effort.first_frames)
    peak_mb, peak_device_mb = _peak_memory_mb(device)
    count = frames or max(effort.first_frames, round(first.fps * effort.run_s))
    sample = measurer.read(_spread(count, effort.sample_frames))
    found = [measurer.detect(one) for one in sample]
    frames_in_sample = [one.frame for one in sample]
    if len({frame.image.shape for frame in frames_in_sample}) > 1:
        raise UsageError(f"{source} contains images of several sizes: use images of one size")

    reference = ReferenceLoop(
        resolve(detector.name), resolve(estimator.name), device=device, threshold=threshold, labels=detector.label_of
    )
    reference.run(sample[0].frame.image)  # warm-up: the first call is slower
    wanted = max(effort.rounds, reference_frames or effort.reference_frames)
    rounds = _take_turns(measurer, reference, frames_in_sample, found, count, effort.rounds, wanted, dtype)
    reference_fps, pipeline_fps, ceiling_fps = (float(np.median(fps)) for fps in rounds.fps.values())

    _log.info("bench: stages")
    costs = measurer.reading(min(count, 100)) + measurer.stages(sample)
    costs += measurer.hand_over(sample[0].frame, found[0])
    by_people, (host_frame_s, host_person_s) = _growth_with_people(measurer, sample, found)
    _log.info("bench: batch sizes, multiple sources, live run")
    by_batch = [
        {"batch": size, "detector_ms": detector_s * 1e3, "pose_ms": pose_s * 1e3}
        for size in effort.batch_sizes
        for detector_s, pose_s in [measurer.batch_s(frames_in_sample, found, size)]
    ]
    by_sources = [
        {"sources": sources, "fps": measurer.run(max(1, count // sources), sources=sources).fps}
        for sources in SOURCE_COUNTS
    ]
    height, width = sample[0].frame.image.shape[:2]
    comparison, people_per_frame = rounds.comparison, float(np.mean(rounds.people))
    in_sample = float(np.mean([len(boxes) for boxes in found]))
    return Report(
        source=redact_address(source),
        width=width,
        height=height,
        people_per_frame=people_per_frame,
        frames_per_run=count,
        rounds=effort.rounds,
        machine=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        device=str(device),
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        dtype=_name_of(dtype),
        is_compiled=is_compiled,
        torch_threads=torch.get_num_threads(),
        versions=_versions(),
        detector=detector.name,
        pose=estimator.name,
        detect_batch=detect_batch,
        pose_batch=pose_batch,
        reference_fps=reference_fps,
        pipeline_fps=pipeline_fps,
        ceiling_fps=ceiling_fps,
        share_of_ceiling=pipeline_fps / ceiling_fps,
        ratio_to_reference=pipeline_fps / reference_fps,
        fps_of_rounds=rounds.fps,
        reference_frames=wanted,
        reference_people_per_frame=rounds.reference_people / wanted,
        keypoint_difference_px=comparison.same_boxes.percentile_px(99),
        keypoint_difference_max_px=comparison.same_boxes.percentile_px(100),
        keypoint_difference_p95_cells=comparison.same_boxes.percentile_cells(95),
        keypoints_compared=len(comparison.same_boxes.px),
        chain_difference_px=comparison.chain.percentile_px(99),
        chain_difference_max_px=comparison.chain.percentile_px(100),
        people_matched=comparison.matched,
        stages=[_stage(stage, costs, in_sample) for stage in STAGES],
        host_ms_per_frame=host_frame_s * 1e3,
        host_ms_per_person=host_person_s * 1e3,
        by_people=by_people,
        by_batch=by_batch,
        by_sources=by_sources,
        latency_ms=rounds.latency_ms,
        live=_live(measurer, sample, found, costs, effort),
        peak_memory_mb=peak_mb,
        peak_device_memory_mb=peak_device_mb,
    )


@dataclass(frozen=True, slots=True)
class _Rounds:
    """The results of all rounds."""

    fps: dict[str, list[float]]
    """Frames per second in each round, for `reference`, `pipeline` and `ceiling`."""
    people: list[int]
    """Number of people in each frame of the pipeline."""
    reference_people: int
    """Total number of people in the reference's frames."""
    latency_ms: dict[str, float | None]
    comparison: Comparison


def _take_turns(
    measurer: Measurer,
    reference: ReferenceLoop,
    sample: Sequence[Frame],
    found: Sequence[Boxes],
    count: int,
    rounds: int,
    reference_frames: int,
    dtype: torch.dtype,
) -> _Rounds:
    """Run reference, pipeline and networks alternately, and compare the results after each round.

    Other load on the machine then affects all three equally.

    Raises:
        ModelError: the results differ too much.
    """
    fps: dict[str, list[float]] = {"reference": [], "pipeline": [], "ceiling": []}
    latencies: list[dict[str, float]] = []
    people: list[int] = []
    reference_people, comparison = 0, Comparison()
    compared = _spread(count, reference_frames)
    for number in range(rounds):
        _log.info("bench: round %d of %d", number + 1, rounds)
        frames = [one.frame for one in measurer.read(compared[number::rounds])]
        began_s = time.perf_counter()
        theirs = [reference.run(frame.image) for frame in frames]
        fps["reference"].append(len(theirs) / (time.perf_counter() - began_s))
        run = measurer.run(count, keep={frame.index for frame in frames})
        people = run.people
        fps["pipeline"].append(run.fps)
        latencies.append(run.stats["latency_ms"])
        for frame, of_reference in zip(frames, theirs, strict=True):
            ours = run.kept[frame.index]
            rgb = np.ascontiguousarray(frame.image[..., ::-1])
            with torch.backends.cudnn.flags(allow_tf32=False):  # cuDNN's convolutions use TF32 by default
                given_ours = reference.estimate(rgb, ours.boxes_xyxy)
            comparison = comparison.with_frame(ours, of_reference, given_ours, measurer.cells_across)
            reference_people += len(of_reference[0])
        comparison.check(AGREEMENT[dtype], f"{measurer.name} in {_name_of(dtype)}")
        if number == 0:
            measurer.choose_ceiling(people[: count // 2 + 1], sample, found)
        fps["ceiling"].append(measurer.networks_alone(people, sample, found))
    latency_ms: dict[str, float | None] = {
        name: float(np.median([one[name] for one in latencies])) for name in latencies[0]
    }
    return _Rounds(fps, people, reference_people, latency_ms, comparison)


def _spread(count: int, wanted: int) -> list[int]:
    """Return `wanted` evenly spaced indices from 0..count-1; some repeat if `wanted` exceeds `count`."""
    return [int(index) for index in np.linspace(0, count - 1, wanted).round()]


def _stage(stage: str, costs: Costs, people: float) -> dict[str, Any]:
    frame_ms = costs.wall_s.get(stage, 0.0) * 1e3
    is_of_people = stage in OF_PEOPLE and people > 0
    return {
        "stage": stage,
        "ms_per_frame": frame_ms,
        "ms_per_person": frame_ms / people if is_of_people else None,
        "cpu_ms_per_frame": costs.cpu_s.get(stage, 0.0) * 1e3,
    }


def _growth_with_people(
    measurer: Measurer, sample: Sequence[Captured], found: Sequence[Boxes]
) -> tuple[list[dict[str, float]], tuple[float, float]]:
    """Return `Report.by_people` and the host's seconds per frame and seconds per person."""
    one, boxes = max(zip(sample, found, strict=True), key=lambda pair: len(pair[1]))
    height, width = one.frame.image.shape[:2]
    rows, host_s = [], []
    for count in PEOPLE_COUNTS:
        people = make_up(measurer.examples(boxes, width, height), count, width, height)
        frames = sample[: max(1, min(4, 20 // max(1, count)))]
        with torch_threads(1):
            costs = measurer.stages(frames, [people] * len(frames)) + measurer.hand_over(one.frame, people)
        host_s.append(sum(seconds for stage, seconds in costs.cpu_s.items() if stage not in NETWORKS))
        networks_s = sum(costs.wall_s.get(stage, 0.0) for stage in NETWORKS)
        rows.append({"people": count, "host_ms": host_s[-1] * 1e3, "networks_ms": networks_s * 1e3})
    return rows, fit_cost(PEOPLE_COUNTS, host_s)


def _live(
    measurer: Measurer, sample: Sequence[Captured], found: Sequence[Boxes], costs: Costs, effort: Effort
) -> dict[str, Any]:
    """Return `Report.live`."""
    alone = measurer.stages(sample, found, frame_by_frame=True)
    stages_ms = (sum(alone.wall_s.values()) + costs.wall_s["hand-over"]) * 1e3
    run = measurer.run(round(measurer.source_fps * max(2.0, effort.run_s)), is_live=True)
    p50 = run.stats["latency_ms"]["p50"]
    return {
        "fps": measurer.source_fps,
        **{key: run.stats[key] for key in ("fps_in", "fps_out", "dropped", "latency_ms")},
        "stages_ms": stages_ms,
        "latency_to_stages": None if p50 is None else p50 / stages_ms,
    }


def _peak_memory_mb(device: torch.device) -> tuple[float, float | None]:
    unit = 1 if sys.platform == "darwin" else 1024  # macOS reports bytes, other systems kilobytes
    resident_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    return resident_mb, torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None


def _processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    import supervision
    import transformers

    return {
        "streampose": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "supervision": supervision.__version__,
    }


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
