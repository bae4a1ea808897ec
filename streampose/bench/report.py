"""What a bench measured, as values and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, in the units of the names; medians over the rounds where there are several."""

    source: str
    width: int
    height: int
    people_per_frame: float
    frames_per_run: int
    rounds: int
    machine: str
    """The processor's name."""
    cores: int
    device: str
    device_name: str
    dtype: str
    is_compiled: bool
    torch_threads: int
    versions: dict[str, str]
    detector: str
    pose: str
    detect_batch: int
    pose_batch: int

    reference_fps: float
    """The reference loop on `reference_frames` of the same frames, spread evenly; their pictures were read before."""
    pipeline_fps: float
    """The pipeline, reading and drawing included."""
    ceiling_fps: float
    """The two networks alone; see `Measurer.networks_alone`."""
    share_of_ceiling: float
    ratio_to_reference: float
    fps_of_rounds: dict[str, list[float]]
    reference_frames: int
    reference_people_per_frame: float

    keypoint_difference_px: float | None
    """99th percentile of the distance from the reference's keypoints given the same boxes; None where nobody was there.
    """
    keypoint_difference_max_px: float | None
    keypoint_difference_p95_cells: float | None
    """95th percentile in heatmap cells of the person."""
    keypoints_compared: int
    chain_difference_px: float | None
    """99th percentile for the whole chain, each with its own boxes, over the people that both found."""
    chain_difference_max_px: float | None
    people_matched: float
    """Share of people, 0..1, that both found: twice the pairs over all boxes of both."""

    stages: list[dict[str, Any]]
    """Each `stage`'s own `ms_per_frame` and `ms_per_person` (None where the work is the frame's) in the pipeline's
    batches, by the clock, and `cpu_ms_per_frame`, processor time over all cores."""
    host_ms_per_frame: float
    host_ms_per_person: float
    """Processor time of everything but the networks and reading, with one thread: a + b * people."""
    by_people: list[dict[str, float]]
    """`people` a frame: `host_ms` a frame on one core and `networks_ms` a frame."""
    by_batch: list[dict[str, float]]
    """`batch`: `detector_ms` and `pose_ms` for the whole batch."""
    by_sources: list[dict[str, float]]
    """`sources` of the same recording at once: `fps` over all of them."""

    latency_ms: dict[str, float | None]
    """From capture to output in the pipeline's runs on the recording, whose channels are full: p50, p95, p99."""
    live: dict[str, Any]
    """The recording played as a live source at its own rate, `fps`: `fps_in`, `fps_out`, `dropped` by cause,
    `latency_ms`, `stages_ms`, the sum of the stages' own times for a frame by itself, and `latency_to_stages`, p50 over
    that."""
    peak_memory_mb: float
    """The process's resident memory at most, before the reference was loaded."""
    peak_device_memory_mb: float | None
    """What torch allocated on CUDA at most, likewise."""


def table(report: Report) -> str:
    """Return the report for people to read, in lines."""
    of = report
    kind = f"{of.dtype}, compiled" if of.is_compiled else of.dtype
    head = [
        ("source", f"{of.source}, {of.width}x{of.height}, {of.people_per_frame:.1f} people a frame"),
        ("machine", f"{of.machine}, {of.cores} cores, {of.torch_threads} torch threads"),
        ("device", of.device if of.device_name == of.machine else f"{of.device}: {of.device_name}"),
        ("networks", f"{of.detector}, {of.pose}"),
        ("run", f"{kind}, batches of {of.detect_batch} frames and {of.pose_batch} people"),
        ("", f"{of.rounds} rounds, {of.frames_per_run} frames each; reference: {of.reference_frames} in all, float32"),
        ("versions", ", ".join(f"{name} {version}" for name, version in of.versions.items())),
    ]
    speeds = [
        ("speed", "fps", ""),
        ("reference loop", _number(of.reference_fps), "the ViTPose documentation's"),
        ("streampose", _number(of.pipeline_fps), f"{of.ratio_to_reference:.1f} times the reference"),
        ("networks alone", _number(of.ceiling_fps), f"of which streampose reaches {of.share_of_ceiling:.0%}"),
        *((f"{row['sources']:.0f} sources", _number(row["fps"]), "together") for row in of.by_sources[1:]),
    ]
    same = [
        ("keypoints against the reference", "99 %", "most", "unit"),
        ("given the same boxes", *map(_number, (of.keypoint_difference_px, of.keypoint_difference_max_px)), "px"),
        ("each with its own boxes", *map(_number, (of.chain_difference_px, of.chain_difference_max_px)), "px"),
        ("people that both found", f"{of.people_matched:.1%}", "", ""),
    ]
    ratio = of.live["latency_to_stages"]
    times = "-" if ratio is None else f"{ratio:.1f} times that"
    latencies = [
        ("latency", "p50", "p95", "p99", "unit"),
        ("recording", *map(_number, of.latency_ms.values()), "ms"),
        (
            f"live, {of.live['fps_out']:.3g} of {of.live['fps']:.3g} fps",
            *map(_number, of.live["latency_ms"].values()),
            "ms",
        ),
        ("stages of a frame by itself", _number(of.live["stages_ms"]), "", "", f"ms, live {times}"),
    ]
    stages = [
        ("stage, in batches", "a frame", "a person", "cpu", "unit"),
        *(
            (row["stage"], *(_number(row[key]) for key in ("ms_per_frame", "ms_per_person", "cpu_ms_per_frame")), "ms")
            for row in of.stages
        ),
        ("host on one core, a + b people", _number(of.host_ms_per_frame), _number(of.host_ms_per_person), "", "ms"),
    ]
    people = [
        ("people a frame", *(f"{row['people']:.0f}" for row in of.by_people), "unit"),
        ("host on one core", *(_number(row["host_ms"]) for row in of.by_people), "ms a frame"),
        ("networks", *(_number(row["networks_ms"]) for row in of.by_people), "ms a frame"),
    ]
    batches = [
        ("size of a batch", *(f"{row['batch']:.0f}" for row in of.by_batch), "unit"),
        ("detector network", *(_number(row["detector_ms"] / row["batch"]) for row in of.by_batch), "ms a frame"),
        ("pose network", *(_number(row["pose_ms"] / row["batch"]) for row in of.by_batch), "ms a person"),
    ]
    memory = [("memory at most", f"{of.peak_memory_mb:.0f}", "MB")]
    if of.peak_device_memory_mb is not None:
        memory.append(("of the device", f"{of.peak_device_memory_mb:.0f}", "MB"))
    parts: list[Sequence[Sequence[str]]] = [speeds, same, latencies, stages, people, batches, memory]
    return "\n\n".join(["\n".join(f"{name:10}{text}" for name, text in head), *(_columns(part) for part in parts)])


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of equal length in lines: names and units to the left, numbers to the right."""
    lines = []
    for name, *numbers, unit in rows:
        lines.append(f"{name:32}{''.join(f'{number:>9}' for number in numbers)}  {unit}".rstrip())
    return "\n".join(lines)


def _number(value: float | None) -> str:
    """Return three significant digits, or a dash for none."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"
