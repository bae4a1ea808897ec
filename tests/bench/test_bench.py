"""The bench: what it makes of numbers, the reference loop, and that it tells no speed of results that differ."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import supervision as sv
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.vitpose.image_processing_pil_vitpose import VitPoseImageProcessorPil

import streampose
from streampose.bench.agreement import AGREEMENT, Agreement, Comparison, Differences
from streampose.bench.bench import QUICK, Effort, fit_cost, measure
from streampose.bench.measure import batches_of, frame_groups
from streampose.bench.reference import ReferenceLoop
from streampose.bench.report import Report, table
from streampose.bench.stand_ins import make_up
from streampose.channel import Channel, Finished
from streampose.cli.main import main
from streampose.errors import ModelError
from streampose.frames import Boxes, Float32, People
from streampose.networks.checkpoints import resolve
from streampose.networks.detectors import default_threshold, load_detector
from streampose.networks.known import DEFAULT_DETECTOR, DEFAULT_POSE
from streampose.networks.pose import PoseEstimator
from streampose.pipeline.networks import BATCH_FRAMES
from tests import tiny as networks
from tests.cli.helpers import run, run_child
from tools.docs_bench import PAGE, SECTION

CPU = torch.device("cpu")
BRIEF: Effort = replace(QUICK, rounds=1, run_s=0.1, first_frames=4, reference_frames=2, sample_frames=2)


def boxes(*xyxy: tuple[float, float, float, float]) -> Float32:
    return np.array(xyxy, np.float32).reshape(-1, 4)


def people(xyxy: Float32, shift: float = 0.0, score: float = 0.9) -> People:
    """17 keypoints in the middle of each box, shifted to the right."""
    xy = np.repeat((xyxy[:, None, :2] + xyxy[:, None, 2:]) / 2, 17, axis=1) + np.array([shift, 0])
    found = Boxes(xyxy, np.full(len(xyxy), 0.5, np.float32), np.zeros(len(xyxy), np.int64))
    return People.of(found, xy.astype(np.float32), np.full((len(xyxy), 17), score, np.float32))


def triples(of: People) -> Float32:
    return np.concatenate([of.keypoints_xy, of.keypoint_scores[..., None]], axis=-1)


def compared(ours: People, theirs: People, given_ours: People) -> Comparison:
    return Comparison().with_frame(ours, (theirs.boxes_xyxy, triples(theirs)), triples(given_ours), 47)


def test_the_fit_finds_the_cost_of_a_frame_and_of_a_person() -> None:
    counts = (0, 1, 2, 5, 10, 20, 50)
    assert fit_cost(counts, [0.002 + 0.0005 * count for count in counts]) == pytest.approx((0.002, 0.0005))
    # What goes wrong at 50 people does not make frames without people dear.
    offset, slope = fit_cost(counts, [0.002 + 0.0005 * count * (1.2 if count == 50 else 1) for count in counts])
    assert offset == pytest.approx(0.002, rel=0.03)
    assert 0.0005 < slope < 0.0006


def test_distances_in_pixels_and_in_heatmap_cells() -> None:
    box = boxes((100, 100, 175, 200))  # of the network's shape: its region is a quarter larger
    ours, theirs = people(box, shift=3.0), people(box)
    differences = Differences.between(triples(ours), triples(theirs), box, 47)
    assert differences.px == pytest.approx(np.full(17, 3.0))
    assert differences.cells == pytest.approx(np.full(17, 3.0 * 47 / (75 * 1.25)))
    assert (differences.percentile_px(99), Differences.none().percentile_px(99)) == (pytest.approx(3.0), None)
    unsure = Differences.between(triples(ours), triples(people(box, score=0.29)), box, 47)
    assert len(unsure.px) == 0


def test_results_that_differ_are_refused() -> None:
    float32, bfloat16 = AGREEMENT[torch.float32], AGREEMENT[torch.bfloat16]
    some = boxes((0, 0, 75, 100), (200, 0, 275, 100), (400, 0, 475, 100), (600, 0, 675, 100))
    same = compared(people(some), people(some), people(some))
    same.check(float32, "x")
    compared(people(some, 0.09), people(some), people(some)).check(float32, "x")
    with pytest.raises(
        ModelError, match=r"^x: 1 % of the keypoints are 0\.20 px .*\(limit 0\.1 px\); no speed is reported"
    ):
        compared(people(some, 0.2), people(some), people(some)).check(float32, "x")
    compared(people(some, 0.2), people(some), people(some)).check(bfloat16, "x")
    with pytest.raises(ModelError, match=r"5 % of the keypoints are 0\.50 heatmap cells"):
        compared(people(some, 75 * 1.25 / 47 / 2), people(some), people(some)).check(bfloat16, "x")
    undefined = people(some)
    undefined.keypoints_xy[0, 0] = np.nan
    for limit in (float32, bfloat16):
        with pytest.raises(ModelError, match="no speed"):
            compared(undefined, people(some), people(some)).check(limit, "x")
    # One person may be missing, not two; nor may all be when nobody is there to be compared.
    compared(people(some[:3]), people(some), people(some[:3])).check(float32, "x")
    for left in (some[:2], some[:0]):
        with pytest.raises(ModelError, match="of the people match the reference"):
            compared(people(left), people(some), people(left)).check(float32, "x")
    compared(people(some[:0]), people(some[:0]), people(some[:0])).check(Agreement(0.0, 0.0, 1.0), "x")


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=150), st.integers(1, 32))
def test_the_networks_alone_get_the_pipelines_batches(counts: list[int], limit: int) -> None:
    channel: Channel[tuple[int, int]] = Channel(len(counts))
    for item in enumerate(counts):
        channel.put(item)
    channel.finish()
    taken = []
    while True:
        try:
            batch = channel.take_batch(limit, weigh=lambda item: item[1], most=BATCH_FRAMES)
        except Finished:
            break
        taken.append([index for index, _ in batch])
    assert frame_groups(counts, limit) == taken


def test_batches_of_a_number_of_things() -> None:
    assert [batches_of(count, 4) for count in (0, 1, 4, 9)] == [[], [1], [4], [4, 4, 1]]


def test_made_up_people_begin_with_the_real_ones_and_stay_in_the_picture() -> None:
    real = boxes((10, 20, 30, 80), (100, 50, 140, 150))
    made = make_up(real, 50, 320, 240)
    np.testing.assert_array_equal(made.xyxy[:2], real)
    assert (made.xyxy >= 0).all()
    assert (made.xyxy <= [320, 240, 320, 240]).all()
    sizes = made.xyxy[:, 2:] - made.xyxy[:, :2]
    np.testing.assert_allclose(sizes, np.tile([[20, 60], [40, 100]], (25, 1)), atol=1e-3)
    assert len({tuple(box) for box in made.xyxy.round().tolist()}) > 40
    assert len(make_up(real, 0, 320, 240)) == 0


def test_the_bench_takes_the_boxes_that_a_run_takes() -> None:
    with streampose.stream("demo") as pipeline:
        threshold = default_threshold(resolve(DEFAULT_DETECTOR))
        assert pipeline._finder._finder._networks._detector._threshold == threshold  # type: ignore[attr-defined]


def photo(width: int, height: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (9, 16, 3), np.uint8), (width, height))


def reference_of(detector: Path | str, pose: Path | str, threshold: float) -> ReferenceLoop:
    return ReferenceLoop(resolve(detector), resolve(pose), device=CPU, threshold=threshold, labels=[0])


def save_pose(folder: Path, **shape: Any) -> Path:
    """A pose network with random weights and its image processor."""
    networks.save_pose(folder, networks.vitpose(**shape))
    VitPoseImageProcessorPil(size={"height": 64, "width": 48}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("size", [(320, 180), (40, 60)])
@pytest.mark.parametrize("kind", ["bundled", "rt_detr"])
def test_the_reference_finds_the_boxes_that_we_find(tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    """The reference shares nothing with our detectors but the weights, so each checks the other."""
    save: dict[str, Callable[[Path], Path]] = {
        "bundled": networks.save_dense_detector,
        "rt_detr": lambda folder: networks.save_rt_detr(folder, ["person", "dog"]),
    }
    folder = save[kind](tmp_path / "detector")
    threshold = 0.1 if kind == "rt_detr" else 0.01  # so many boxes that some overlap
    ours = load_detector(folder, device=CPU, dtype=torch.float32, threshold=threshold)
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 16, 3), np.uint8), size)
    found = ours.detect([torch.from_numpy(image)])[0].xyxy
    expected = reference_of(folder, save_pose(tmp_path / "pose"), threshold).detect(
        np.ascontiguousarray(image[..., ::-1])
    )
    expected = np.clip(expected, 0, np.array([*size, *size], np.float32))  # a hub's detector leaves the picture
    expected = expected[(expected[:, 2:] > expected[:, :2]).all(axis=1)]
    assert len(found) > 2
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], atol=0.02)


@pytest.mark.parametrize("experts", [1, 3])
@pytest.mark.parametrize("simple", [True, False])
def test_the_reference_finds_the_keypoints_that_we_find(tmp_path: Path, experts: int, simple: bool) -> None:
    folder = save_pose(tmp_path / "pose", experts=experts, simple=simple)
    reference = reference_of(networks.save_dense_detector(tmp_path / "detector"), folder, 0.1)
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 16, 3), np.uint8), (320, 180))
    made = make_up(boxes((20, 20, 80, 150), (100, 50, 160, 170)), 5, 320, 180)
    ours = PoseEstimator(folder, device=CPU, dtype=torch.float32, blur="hf")
    xy, scores, _ = ours.estimate([torch.from_numpy(image)], [made])[0]
    theirs = reference.estimate(np.ascontiguousarray(image[..., ::-1]), made.xyxy)
    np.testing.assert_allclose(scores, theirs[..., 2], rtol=0.02, atol=0.1)  # heights of up to 200
    # Where a heatmap of random weights is hardly positive the refinement of its peak amplifies what is rounded.
    assert np.median(np.linalg.norm(xy - theirs[..., :2], axis=-1)) < 0.01
    assert reference.estimate(image, boxes()).shape == (0, 17, 3)


def test_the_reference_draws_what_the_documentation_draws(tmp_path: Path) -> None:
    """Green edges, red points, onto a copy."""
    reference = reference_of(networks.save_dense_detector(tmp_path / "detector"), save_pose(tmp_path / "pose"), 0.1)
    image = np.zeros((100, 200, 3), np.uint8)
    drawn = reference.draw(image, triples(people(boxes((20, 20, 60, 60), (100, 20, 140, 60)))))
    assert not image.any()
    assert set(map(tuple, drawn.reshape(-1, 3).tolist())) == {(0, 0, 0), sv.Color.RED.as_bgr()}
    assert drawn[40, 40].any()
    assert drawn[40, 120].any()


class Shifted(PoseEstimator):
    """The real one, whose keypoints come out a little to the right."""

    def decode(self, heatmaps: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
        return super().decode(heatmaps, regions) + torch.tensor([0.25, 0, 0, 0, 0, 0])


def test_no_speed_is_told_of_keypoints_that_differ() -> None:
    with pytest.raises(ModelError, match=r"1 % of the keypoints are 0\.\d+ px .*\(limit 0\.1 px\)"):
        measured(Shifted(DEFAULT_POSE, device=CPU, dtype=torch.float32, blur="hf"))


def test_no_speed_is_told_of_people_that_are_not_found() -> None:
    with pytest.raises(ModelError, match=r"of the people match the reference \(minimum 98%\)"):
        measured(PoseEstimator(DEFAULT_POSE, device=CPU, dtype=torch.float32, blur="hf"), threshold=0.5)


def measured(estimator: PoseEstimator, threshold: float = 0.25) -> None:
    """Measure an estimator, and a detector with a threshold that need not be the reference's."""
    measure(
        "demo",
        load_detector(DEFAULT_DETECTOR, device=CPU, dtype=torch.float32, threshold=threshold),
        estimator,
        dtype=torch.float32,
        threshold=0.25,
        detect_batch=4,
        pose_batch=16,
        effort=replace(BRIEF, first_frames=2, reference_frames=1, sample_frames=1),
    )


Bench = Callable[[Path], tuple[int, str, str]]


def briefly(folder: Path) -> tuple[int, str, str]:
    """Run the command, on few frames and with few people, in this process."""
    with pytest.MonkeyPatch.context() as shorter:
        shorter.setattr(
            "streampose.bench.bench.QUICK",
            replace(BRIEF, rounds=1, first_frames=2, sample_frames=1, batch_sizes=(1, 2)),
        )
        shorter.setattr("streampose.bench.bench.PEOPLE_COUNTS", (0, 2, 10))
        return run(["bench", "demo", "--quick", "--json", "bench.json"], folder)


def as_it_is(folder: Path) -> tuple[int, str, str]:
    return run_child(["bench", "demo", "--quick", "--json", "bench.json"], folder, within_s=600)


@pytest.mark.parametrize(
    ("bench", "counts"),
    [(briefly, [0, 2, 10]), pytest.param(as_it_is, [0, 1, 2, 5, 10, 20, 50], marks=pytest.mark.long)],
)
def test_the_command_prints_a_table_and_writes_the_same_as_data(
    tmp_path: Path, bench: Bench, counts: list[int]
) -> None:
    code, stdout, stderr = bench(tmp_path)
    assert code == 0, stderr
    assert "Traceback" not in stderr
    report = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))

    assert report["device"] == "cpu" if not torch.accelerator.is_available() else report["device"]
    assert report["dtype"] in ("float32", "bfloat16", "float16")
    assert (report["source"], report["width"], report["height"]) == ("demo", 1280, 720)
    assert 3 < report["people_per_frame"] < 6
    assert report["share_of_ceiling"] == pytest.approx(report["pipeline_fps"] / report["ceiling_fps"])
    assert report["ratio_to_reference"] == pytest.approx(report["pipeline_fps"] / report["reference_fps"])
    for name in ("reference", "pipeline", "ceiling"):
        rounds = report["fps_of_rounds"][name]
        assert len(rounds) == report["rounds"]
        assert report[f"{name}_fps"] == pytest.approx(np.median(rounds))
    assert report["keypoints_compared"] > 100
    assert 0 <= report["keypoint_difference_px"] <= report["keypoint_difference_max_px"]
    limit = AGREEMENT[getattr(torch, report["dtype"])]
    if limit.p99_px is not None:
        assert report["keypoint_difference_px"] <= limit.p99_px
    if limit.p95_cells is not None:
        assert report["keypoint_difference_p95_cells"] <= limit.p95_cells
    assert report["people_matched"] > 0.9

    assert [row["people"] for row in report["by_people"]] == counts
    host_ms = [row["host_ms"] for row in report["by_people"]]
    assert host_ms[0] < host_ms[-1]
    assert report["host_ms_per_frame"] == pytest.approx(host_ms[0], rel=0.5)
    assert report["host_ms_per_person"] == pytest.approx((host_ms[-1] - host_ms[0]) / counts[-1], rel=0.5)
    assert [row["sources"] for row in report["by_sources"]] == [1, 2, 4]
    assert all(row["detector_ms"] > 0 and row["pose_ms"] > 0 for row in report["by_batch"])
    assert all(row["ms_per_frame"] > 0 for row in report["stages"])
    of_people = {row["stage"] for row in report["stages"] if row["ms_per_person"] is not None}
    assert of_people == {"crops", "pose network", "keypoints", "drawing"}
    live = report["live"]
    assert live["latency_ms"]["p50"] <= live["latency_ms"]["p95"] <= live["latency_ms"]["p99"]
    assert live["latency_to_stages"] == pytest.approx(live["latency_ms"]["p50"] / live["stages_ms"])
    assert 200 < report["peak_memory_mb"] < (4000 if bench is as_it_is else math.inf)

    assert stdout.rstrip("\n") == table(Report(**report))
    assert f"{report['ratio_to_reference']:.1f} times the reference" in stdout

    section = SECTION.search(PAGE.read_text(encoding="utf-8"))
    assert section is not None
    assert labels(section["table"]) == labels(stdout), "python -m tools.docs_bench FILE"


def labels(printed: str) -> list[str]:
    """What the lines of a table are about."""
    return [re.split(" {2,}|,", line)[0] for line in printed.strip().splitlines()]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["rtsp://127.0.0.1/x"], 2, "rtsp://127.0.0.1/x can be read only once"),
        (["0"], 2, "0 can be read only once"),
        (["nowhere.mp4"], 1, "nowhere.mp4 does not exist"),
        (["--json", "there.json"], 2, "there.json exists"),
        (["--json", "no/folder.json"], 2, "the folder no does not exist"),
        (["--pose", DEFAULT_DETECTOR], 1, "pass it as --detector"),
        (["--dtype", "int3"], 2, "unknown dtype 'int3'"),
        (["--device", "cpu", "--compile"], 2, "compilation is not supported on a CPU"),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: Sequence[str],
    code: int,
    said: str,
) -> None:
    (tmp_path / "there.json").write_text("kept")
    monkeypatch.chdir(tmp_path)
    returned = main(["bench", *arguments])
    printed = capfd.readouterr()
    lines = [line for line in printed.err.splitlines() if not line.startswith("streampose: bench")]
    assert (returned, len(lines), printed.out) == (code, 1, "")
    assert said in lines[0]
    assert (tmp_path / "there.json").read_text() == "kept"
