"""The results of a benchmark, as values and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Report:
    """The measured values. Field names contain the units. Values from several rounds are medians."""

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
    """Speed of the reference loop on `reference_frames` evenly spaced frames of the run, without reading."""
    pipeline_fps: float
    """Speed of the pipeline, including reading and drawing."""
    ceiling_fps: float
    """Speed of the two networks alone; see `Measurer.networks_alone`."""
    share_of_ceiling: float
    ratio_to_reference: float
    fps_of_rounds: dict[str, list[float]]
    reference_frames: int
    reference_people_per_frame: float

    keypoint_difference_px: float | None
    """99th percentile of the distance to the reference's keypoints, given the same boxes; None if there were no people.
    """
    keypoint_difference_max_px: float | None
    keypoint_difference_p95_cells: float | None
    """95th percentile of the same distance in heatmap cells of the person."""
    keypoints_compared: int
    chain_difference_px: float | None
    """99th percentile of the keypoint distance when each uses its own boxes, over the people that both found."""
    chain_difference_max_px: float | None
    people_matched: float
    """Share of people, 0..1, that both found: twice the number of pairs divided by the number of boxes of both."""

    stages: list[dict[str, Any]]
    """For each `stage`, in the pipeline's batches: wall-clock `ms_per_frame`; `ms_per_person` (None if the stage's cost
    depends on the frame); and `cpu_ms_per_frame`, the CPU time over all cores.
    """
    host_ms_per_frame: float
    host_ms_per_person: float
    """CPU time of everything except the networks and reading, with one thread: a and b of a + b * people."""
    by_people: list[dict[str, float]]
    """For each number of `people` per frame: `host_ms` per frame on one core, and `networks_ms` per frame."""
    by_batch: list[dict[str, float]]
    """For each `batch` size: `detector_ms` and `pose_ms` for the whole batch."""
    by_sources: list[dict[str, float]]
    """For each number of `sources` that play the same recording in parallel: total `fps`."""

    latency_ms: dict[str, float | None]
    """Latency from capture to output in the pipeline's runs on the recording, with full channels: p50, p95, p99."""
    live: dict[str, Any]
    """Results for the recording played as a live source at its own frame rate.

    `fps` is that frame rate. Further keys: `fps_in`, `fps_out`, `dropped` by cause, `latency_ms`, `stages_ms` (the sum
    of all stage times for a single frame) and `latency_to_stages` (the p50 latency divided by `stages_ms`).
    """
    peak_memory_mb: float
    """Peak resident memory of the process, before the reference was loaded."""
    peak_device_memory_mb: float | None
    """Peak memory that torch allocated on CUDA, before the reference was loaded."""


def table(report: Report) -> str:
    """Return the report as a text table."""
    of = report
    kind = f"{of.dtype}, compiled" if of.is_compiled else of.dtype
    head = [
        ("source", f"{of.source}, {of.width}x{of.height}, {of.people_per_frame:.1f} people per frame"),
        ("machine", f"{of.machine}, {of.cores} cores, {of.torch_threads} torch threads"),
        ("device", of.device if of.device_name == of.machine else f"{of.device}: {of.device_name}"),
        ("networks", f"{of.detector}, {of.pose}"),
        ("run", f"{kind}, batches of {of.detect_batch} frames and {of.pose_batch} people"),
        (
            "",
            f"{of.rounds} rounds of {of.frames_per_run} frames; "
            f"reference: {of.reference_frames} frames in total, float32",
        ),
        ("versions", ", ".join(f"{name} {version}" for name, version in of.versions.items())),
    ]
    speeds = [
        ("speed", "fps", ""),
        ("reference loop", _number(of.reference_fps), "loop of the ViTPose documentation"),
        ("streampose", _number(of.pipeline_fps), f"{of.ratio_to_reference:.1f} times the reference"),
        ("networks alone", _number(of.ceiling_fps), f"streampose reaches {of.share_of_ceiling:.0%} of it"),
        *((f"{row['sources']:.0f} sources", _number(row["fps"]), "in total") for row in of.by_sources[1:]),
    ]
    same = [
        ("keypoints against the reference", "99 %", "max", "unit"),
        ("given the same boxes", *map(_number, (of.keypoint_difference_px, of.keypoint_difference_max_px)), "px"),
        ("each with its own boxes", *map(_number, (of.chain_difference_px, of.chain_difference_max_px)), "px"),
        ("people that both found", f"{of.people_matched:.1%}", "", ""),
    ]
    ratio = of.live["latency_to_stages"]
    times = "-" if ratio is None else f"{ratio:.1f} times this"
    latencies = [
        ("latency", "p50", "p95", "p99", "unit"),
        ("recording", *map(_number, of.latency_ms.values()), "ms"),
        (
            f"live, {of.live['fps_out']:.3g} of {of.live['fps']:.3g} fps",
            *map(_number, of.live["latency_ms"].values()),
            "ms",
        ),
        ("one frame, stage by stage", _number(of.live["stages_ms"]), "", "", f"ms; live p50 is {times}"),
    ]
    stages = [
        ("stage, in batches", "/ frame", "/ person", "cpu", "unit"),
        *(
            (row["stage"], *(_number(row[key]) for key in ("ms_per_frame", "ms_per_person", "cpu_ms_per_frame")), "ms")
            for row in of.stages
        ),
        ("host on one core, a + b * people", _number(of.host_ms_per_frame), _number(of.host_ms_per_person), "", "ms"),
    ]
    people = [
        ("people per frame", *(f"{row['people']:.0f}" for row in of.by_people), "unit"),
        ("host on one core", *(_number(row["host_ms"]) for row in of.by_people), "ms / frame"),
        ("networks", *(_number(row["networks_ms"]) for row in of.by_people), "ms / frame"),
    ]
    batches = [
        ("batch size", *(f"{row['batch']:.0f}" for row in of.by_batch), "unit"),
        ("detector network", *(_number(row["detector_ms"] / row["batch"]) for row in of.by_batch), "ms / frame"),
        ("pose network", *(_number(row["pose_ms"] / row["batch"]) for row in of.by_batch), "ms / person"),
    ]
    memory = [("peak memory", f"{of.peak_memory_mb:.0f}", "MB")]
    if of.peak_device_memory_mb is not None:
        memory.append(("peak device memory", f"{of.peak_device_memory_mb:.0f}", "MB"))
    parts: list[Sequence[Sequence[str]]] = [speeds, same, latencies, stages, people, batches, memory]
    return "\n\n".join(["\n".join(f"{name:10}{text}" for name, text in head), *(_columns(part) for part in parts)])


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Format rows of equal length as lines, with names and units left-aligned and numbers right-aligned."""
    lines = []
    for name, *numbers, unit in rows:
        lines.append(f"{name:32}{''.join(f'{number:>9}' for number in numbers)}  {unit}".rstrip())
    return "\n".join(lines)


def _number(value: float | None) -> str:
    """Format a value with three significant digits; None becomes a dash."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"
