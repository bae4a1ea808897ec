"""Recorded poses and keypoints judged by the truth, and `streampose evaluate` with poses files."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from streampose.errors import UsageError
from streampose.frames import Boxes, People
from streampose.networks.pose import COCO_NAMES
from streampose.records.coco_truth import coco_of
from streampose.records.convert import convert
from streampose.records.evaluate import evaluate_poses
from streampose.records.evaluate_coco import CocoFigures, judge_coco
from streampose.records.evaluate_keypoints import CoverageMeter, KeypointMeter
from streampose.records.lines import line_of
from streampose.records.truth import read_truth, truth_of
from tests.cli.helpers import run, the_error
from tests.people.scene import Body

Edit = Callable[[dict[str, Any]], object]
SIZE = {"width": 640, "height": 480}
FRAMES = 40


def people_at(index: int) -> list[tuple[int, Body]]:
    """Two people: one walks to the right at 75 px/s, one stands."""
    return [(1, Body(100.0 + 3 * index)), (2, Body(500.0))]


def true_content(names: Sequence[str] = COCO_NAMES) -> dict[str, Any]:
    frames = [
        {
            "index": index,
            "pts_s": index / 25,
            "people": [
                {"id": number, "box_xyxy": body.xyxy.tolist(), "keypoints": [[*xy, 2] for xy in body.xy.tolist()]}
                for number, body in people_at(index)
            ],
        }
        for index in range(FRAMES)
    ]
    return {**SIZE, "skeleton": {"names": list(names)}, "frames": frames}


def line_at(index: int, *, shift: float = 0.0, ids: Sequence[int | None] = (7, 8)) -> dict[str, Any]:
    people = [
        {
            "id": given,
            "box_xyxy": body.xyxy.tolist(),
            "box_score": 0.9,
            "keypoints": [[x + shift, y, 0.8] for x, y in body.xy.tolist()],
        }
        for (_, body), given in zip(people_at(index), ids, strict=True)
    ]
    return {"source": "clip", "frame": index, "pts_s": index / 25, **SIZE, "people": people}


def write(path: Path, lines: Sequence[dict[str, Any]], names: Sequence[str] = COCO_NAMES) -> Path:
    head = {"streampose": "0.1.0", "format": 2, "source": "clip.mp4", "skeleton": {"names": list(names), "edges": []}}
    path.write_bytes(b"".join(map(line_of, [head, *lines])))
    return path


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(true_content()))
    return path


# --- poses of a recording --------------------------------------------------------------------------------------------


def test_perfect_poses(truth: Path, tmp_path: Path) -> None:
    report = evaluate_poses(write(tmp_path / "poses.jsonl", [*map(line_at, range(FRAMES))]), read_truth(truth))
    assert (report.frames, report.frames_in_truth, report.keypoints_judged) == (FRAMES, FRAMES, 17)
    assert (report.keypoints.people, report.keypoints.found, report.keypoints.pck) == (2 * FRAMES, 1, 1)
    assert report.tracking is not None
    assert (report.tracking.hota, report.tracking.idf1, report.tracking.switches) == (1, 1, 0)
    assert report.smoothness is not None
    assert report.smoothness.moving_error_px == pytest.approx((0, 0), abs=1e-4)
    assert report.smoothness.tremble_px == pytest.approx((0, 0), abs=1e-4)
    assert (report.smoothed, report.coco, report.coverage, report.keypoints.pckh) == (None, None, None, None)


def test_faults_are_counted(truth: Path, tmp_path: Path) -> None:
    """In the second half, the identities are exchanged; 3 px to the left is 0.04 s late for who walks at 75 px/s."""
    half = FRAMES // 2
    lines = [line_at(index, shift=-3, ids=(7, 8) if index < half else (8, 7)) for index in range(FRAMES)]
    lines[5]["people"].pop(0)
    report = evaluate_poses(write(tmp_path / "poses.jsonl", lines), read_truth(truth))
    assert report.keypoints.found == (2 * FRAMES - 1) / (2 * FRAMES)
    assert report.tracking is not None
    assert report.tracking.switches == 2
    assert report.tracking.idf1 == pytest.approx(0.5, abs=0.02)
    assert report.smoothness is not None
    assert report.smoothness.lag_s == pytest.approx((0.04, 0.04), abs=1e-3)
    assert report.smoothness.moving_error_px == pytest.approx((3, 3), abs=1e-3)


def test_people_without_an_identity_are_somebody_else_in_every_frame(truth: Path, tmp_path: Path) -> None:
    lines = [line_at(index, ids=(None, 8)) for index in range(FRAMES)]
    report = evaluate_poses(write(tmp_path / "poses.jsonl", lines), read_truth(truth))
    assert report.tracking is not None
    assert report.tracking.identities == 1
    assert report.tracking.switches == FRAMES - 1
    lines = [line_at(index, ids=(None, None)) for index in range(FRAMES)]
    assert evaluate_poses(write(tmp_path / "poses.jsonl", lines), read_truth(truth)).tracking is None


def test_frames_that_only_one_side_has_are_left_out(truth: Path, tmp_path: Path) -> None:
    content = true_content()
    content["frames"] = content["frames"][::2]
    truth.write_text(json.dumps(content))
    report = evaluate_poses(write(tmp_path / "poses.jsonl", [*map(line_at, range(10))]), read_truth(truth))
    assert (report.frames, report.frames_in_file, report.frames_in_truth) == (5, 10, 20)
    assert report.tracking is not None
    assert report.tracking.hota == 1
    assert report.smoothness is not None
    assert report.smoothness.tremble_px is None, "the frames do not follow each other"


def test_keypoints_are_matched_by_name(truth: Path, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(17)
    names = [COCO_NAMES[number].replace("left_", "L ").replace("right_", "R ").title() for number in order]
    lines = [line_at(index) for index in range(5)]
    for line in lines:
        for person in line["people"]:
            person["keypoints"] = [[0.0, 0.0, 0.9], *(person["keypoints"][number] for number in order[1:])]
    path = write(tmp_path / "poses.jsonl", lines, ["Tail", *names[1:]])
    report = evaluate_poses(path, read_truth(truth))
    assert (report.keypoints_judged, report.keypoints_in_truth, report.keypoints.pck) == (16, 17, 1)
    with pytest.raises(UsageError, match=r"have no keypoint in common: nose, left_eye, right_eye, \.\.\. and Tail"):
        evaluate_poses(write(path, lines, [f"Tail {number}" for number in range(17)]), read_truth(truth))


def test_pck_counts_what_is_within_its_distance() -> None:
    """The box is 200 px high, so 10 px is correct and 10.1 px is wrong; the head has 30 px, so 15 px is correct."""
    names = ("head_top", "neck", "nose", "left_knee", "right_knee")
    points = [[100, 100, 2], [100, 130, 2], [100, 115, 1], [90, 250, 2], [110, 250, 0]]
    person = {"id": 1, "box_xyxy": [50, 100, 150, 300], "keypoints": points}
    far = {**person, "id": 2, "box_xyxy": [400, 100, 500, 300]}
    hidden = {**person, "id": 3, "visible": 0.2}
    content = {"skeleton": {"names": names}, "frames": [{"index": 0, "people": [person, far, hidden]}]}
    true = truth_of(content, "truth.json").frames[0]
    xy = np.array(points, np.float32)[None, :, :2] + np.array([[0, 10.0], [0, 10.1], [14.9, 0], [9.9, 0], [0, 0]])
    meter = KeypointMeter()
    meter.add(true, xy.astype(np.float32), [(0, 0)])
    accuracy = meter.result()
    assert (accuracy.people, accuracy.found) == (2, 0.5)
    assert accuracy.pck == 2 / 4
    assert accuracy.pck_visible == 2 / 3
    assert accuracy.pckh == 1


def test_ellipses_contain_as_many_true_points_as_they_should() -> None:
    rng = np.random.default_rng(1)
    spread = np.array([[9.0, 4.0], [4.0, 4.0]])
    true_xy = rng.uniform(100, 300, (2000, 2))
    points = np.column_stack([true_xy, np.full(2000, 1)]).tolist()
    names = [str(number) for number in range(2000)]
    person = {"box_xyxy": [100, 100, 300, 300], "keypoints": points}
    true = truth_of({"skeleton": {"names": names}, "frames": [{"index": 0, "people": [person]}]}, "t").frames[0]
    found = (true_xy + rng.multivariate_normal([0, 0], spread, 2000))[None].astype(np.float32)
    meter = CoverageMeter()
    meter.add(true, found, np.broadcast_to(spread, (1, 2000, 2, 2)).astype(np.float32), [(0, 0)])
    coverage = meter.result()
    assert coverage is not None
    assert (coverage.inside_50, coverage.inside_90) == pytest.approx((0.5, 0.9), abs=0.03)


def test_our_own_annotations_of_a_recording_are_a_truth(tmp_path: Path) -> None:
    poses = write(tmp_path / "poses.jsonl", [*map(line_at, range(FRAMES))])
    convert(poses, tmp_path / "poses.coco.json")
    code, out, err = run(["evaluate", "poses.jsonl", "--truth", "poses.coco.json", "--json", "figures.json"], tmp_path)
    assert (code, err) == (0, "")
    (report,) = json.loads((tmp_path / "figures.json").read_text())["files"]
    assert report["frames"] == FRAMES
    assert report["coco"]["ap"] == report["keypoints"]["pck"] == report["tracking"]["hota"] == 1
    assert "| AP " in out


def test_the_command_prints_a_column_for_each_file(truth: Path, tmp_path: Path) -> None:
    write(tmp_path / "good.jsonl", [*map(line_at, range(FRAMES))])
    write(tmp_path / "late.jsonl", [line_at(index, shift=-15) for index in range(FRAMES // 2)])
    code, out, err = run(
        ["evaluate", "good.jsonl", "late.jsonl", "--truth", truth.name, "--json", "figures.json"], tmp_path
    )
    assert (code, err) == (0, "")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines()]
    assert rows[0] == ["", "good.jsonl", "late.jsonl"]
    table = {name: cells for name, *cells in rows}
    assert table["frames"] == ["40 of 40", "20 of 40"]
    assert table["PCK@0.05"] == ["1.000", "0.000"]
    assert table["HOTA"] == table["IDF1"] == ["1.000", "1.000"]
    assert table["error of moving joints, mean / median px"] == ["0.00 / 0.00", "15.00 / 15.00"]
    assert not {"AP", "PCKh@0.5", "inside the 50 % ellipse"} & set(table), "nothing of these is known"
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [one["keypoints"]["pck"] for one in figures["files"]] == [1, 0]


# --- COCO ------------------------------------------------------------------------------------------------------------


def noisy_scene(seed: int = 3, names: Sequence[str] = COCO_NAMES) -> tuple[dict[str, Any], dict[int, People]]:
    """COCO annotations of 12 images, one without people and one with a crowd, and people found with errors."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    found = {}
    for image in range(1, 13):
        boxes, points = [], []
        for place in range(0 if image == 4 else 3):
            body = Body(100.0 + 200 * place)
            box, xy = body.xyxy * (1 if place else 0.4), body.xy * (1 if place else 0.4)
            labels = rng.integers(0, 3, 17)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": 5,
                    "bbox": [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
                    "area": float(np.prod(box[2:] - box[:2])),
                    "keypoints": np.column_stack([xy, labels]).ravel().tolist(),
                    "num_keypoints": int((labels > 0).sum()),
                    "iscrowd": int(image == 7 and place == 1),
                }
            )
            boxes.append(box)
            points.append(xy + rng.normal(0, rng.uniform(1, 25) * (box[3] - box[1]) / 200, xy.shape))
        boxes.append(np.array([10, 10, 60, 90], np.float32))  # somebody who is not there
        points.append(rng.uniform(10, 90, (17, 2)))
        scores = rng.uniform(0.2, 0.9, (len(boxes), 17)).astype(np.float32)
        own = Boxes(np.array(boxes, np.float32), scores[:, 0], np.zeros(len(boxes), np.int64))
        found[image] = People.of(own, np.array(points, np.float32), scores)
    content = {
        "images": [{"id": image, "file_name": f"{image}.jpg"} for image in range(1, 13)],
        "annotations": annotations,
        "categories": [
            {"id": 1, "name": "car"},
            {"id": 5, "name": "person", "keypoints": list(names), "skeleton": []},
        ],
    }
    return content, found


def by_pycocotools(content: dict[str, Any], found: dict[int, People]) -> list[float]:
    results = [
        {
            "image_id": image,
            "category_id": 5,
            "keypoints": np.column_stack([xy, scores]).ravel().tolist(),
            "score": float(scores.mean() * box_score),
        }
        for image, people in found.items()
        for xy, scores, box_score in zip(people.keypoints_xy, people.keypoint_scores, people.box_scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps(content))
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def values_of(figures: CocoFigures) -> list[float]:
    return [-1 if value is None else value for value in (getattr(figures, name) for name in figures.__slots__)]


def test_average_precision_is_that_of_pycocotools() -> None:
    content, found = noisy_scene()
    expected = by_pycocotools(content, found)
    assert 0.1 < expected[0] < 0.9
    assert values_of(judge_coco(coco_of(content, "a.json"), found, COCO_NAMES, "net")) == pytest.approx(expected)


def test_average_precision_of_a_skeleton_in_another_order_and_with_more_keypoints() -> None:
    content, found = noisy_scene()
    expected = by_pycocotools(content, found)
    order = np.random.default_rng(0).permutation(17)
    names = ["tail", *(COCO_NAMES[number] for number in order)]
    turned = {}
    for image, people in found.items():
        xy = np.concatenate([people.keypoints_xy[:, :1] + 500, people.keypoints_xy[:, order]], axis=1)
        scores = np.concatenate([people.keypoint_scores[:, :1] * 0, people.keypoint_scores[:, order]], axis=1)
        own = Boxes(people.boxes_xyxy, people.box_scores, people.class_ids)
        turned[image] = People.of(own, xy, scores)
    assert values_of(judge_coco(coco_of(content, "a.json"), turned, names, "net")) == pytest.approx(expected)


def test_average_precision_leaves_out_keypoints_that_the_network_lacks() -> None:
    content, found = noisy_scene()
    kept = np.arange(5, 17)  # no face
    fewer = {}
    for image, people in found.items():
        own = Boxes(people.boxes_xyxy, people.box_scores, people.class_ids)
        scores = np.full_like(people.keypoint_scores, 0.5)
        found[image] = People.of(own, people.keypoints_xy, scores)
        fewer[image] = People.of(own, people.keypoints_xy[:, kept], scores[:, kept])
    figures = judge_coco(coco_of(content, "a.json"), fewer, COCO_NAMES[5:], "net")
    for one in content["annotations"]:
        points = np.array(one["keypoints"]).reshape(17, 3)
        points[:5, 2] = 0
        one |= {"keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
    assert values_of(figures) == pytest.approx(by_pycocotools(content, found))


def test_keypoints_without_a_tolerance_are_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    content, found = noisy_scene(names=["head_top", *COCO_NAMES[1:]])
    figures = judge_coco(coco_of(content, "a.json"), found, ["head_top", *COCO_NAMES[1:]], "net")
    assert figures.ap is not None
    assert figures.ap > 0.1
    assert "AP leaves out head_top: COCO defines no tolerance for it" in caplog.text


def test_only_the_images_that_were_looked_at_count() -> None:
    content, found = noisy_scene()
    some = {image: found[image] for image in (2, 3, 4, 7)}
    figures = judge_coco(coco_of(content, "a.json"), some, COCO_NAMES, "net")
    content["images"] = [one for one in content["images"] if one["id"] in some]
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in some]
    assert values_of(figures) == pytest.approx(by_pycocotools(content, some))


def test_crowds_and_other_categories_are_not_people() -> None:
    content, _ = noisy_scene()
    content["annotations"].append({"id": 99, "image_id": 4, "category_id": 1, "bbox": [0, 0, 9, 9]})
    truth = coco_of(content, "a.json")
    assert [len(truth.frames[image].ids) for image in (4, 6, 7)] == [0, 3, 2]


def test_heads_are_measured_by_their_boxes() -> None:
    content, _ = noisy_scene()
    assert np.isnan(coco_of(content, "a.json").frames[1].head_sizes).all()
    content["annotations"][1]["bbox_head"] = [0, 0, 30, 40]
    assert coco_of(content, "a.json").frames[1].head_sizes.tolist()[1] == pytest.approx(0.6 * 50)


def test_nobody_found_at_all() -> None:
    content, found = noisy_scene()
    nobody = dict.fromkeys(found, People.none(17))
    figures = judge_coco(coco_of(content, "a.json"), nobody, COCO_NAMES, "net")
    assert (figures.ap, figures.ar) == (0, 0)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["poses.jsonl"], "give either --coco, to evaluate networks, or --truth, to evaluate poses files"),
        (["poses.jsonl", "--truth", "none.json"], "cannot read none.json: No such file or directory"),
        (["poses.jsonl", "--truth", "poses.jsonl"], "poses.jsonl is not JSON"),
        (["none.jsonl", "--truth", "truth.json"], "cannot read none.jsonl: No such file or directory"),
        (["poses.jsonl", "--truth", "truth.json", "--pose", "x"], "--pose needs --coco: poses files are evaluated"),
        (["poses.jsonl", "--truth", "truth.json", "--json", "truth.json"], "truth.json exists"),
        (
            ["poses.jsonl", "--truth", "truth.json", "--json", "truth.json", "--overwrite"],
            "truth.json is the source itself",
        ),
        (["two.jsonl", "--truth", "truth.json"], "two.jsonl has frame 3 twice: give the poses of one source"),
        (["late.jsonl", "--truth", "truth.json"], "late.jsonl has no frame of truth.json: give the truth of this"),
        (["small.jsonl", "--truth", "truth.json"], "truth.json is for frames of 640x480 pixels, but frame 0 of the"),
    ],
)
def test_the_command_refuses(arguments: list[str], message: str, truth: Path, tmp_path: Path) -> None:
    assert truth.parent == tmp_path
    write(tmp_path / "poses.jsonl", [line_at(0)])
    write(tmp_path / "two.jsonl", [line_at(3), line_at(3) | {"source": "other"}])
    write(tmp_path / "late.jsonl", [line_at(FRAMES)])
    write(tmp_path / "small.jsonl", [line_at(0) | {"width": 320}])
    code, out, err = run(["evaluate", *arguments], tmp_path)
    assert message in the_error(code, err, 2)
    assert out == ""


@pytest.mark.parametrize(("package", "truth_of_it"), [("trackeval", "truth.json"), ("pycocotools", "poses.coco.json")])
def test_a_missing_package_is_named(
    package: str, truth_of_it: str, truth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert truth.parent == tmp_path
    convert(write(tmp_path / "poses.jsonl", [line_at(0)]), tmp_path / "poses.coco.json")
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = run(["evaluate", "poses.jsonl", "--truth", truth_of_it], tmp_path)
    assert f"{package} is not installed: pip install 'streampose[evaluate]'" in the_error(code, err, 2)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content.pop("frames"), "'frames' is missing"),
        (lambda content: content["frames"][3].pop("index"), "'index' is missing"),
        (lambda content: content["frames"][3]["people"][0].pop("keypoints"), "'keypoints' is missing"),
        (lambda content: content["frames"][3]["people"][0]["keypoints"].pop(), "inhomogeneous"),
        (lambda content: content.update(frames=3), "not iterable"),
    ],
)
def test_a_damaged_truth(edit: Edit, message: str) -> None:
    content = true_content()
    edit(content)
    with pytest.raises(UsageError, match=rf"t\.json is not the truth of a recording \(.*{message}.*\); see docs"):
        truth_of(content, "t.json")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content.pop("images"), "annotations: 'images' is missing"),
        (lambda content: content["annotations"][3].pop("area"), "annotations: 'area' of annotation 4 is missing"),
        (lambda content: content["annotations"][3].update(image_id=99), "image 99 is not listed of annotation 4"),
        (lambda content: content["annotations"][3].update(keypoints=[1, 2]), "cannot reshape .* of annotation 4"),
        (lambda content: content["categories"].pop(), "no category with keypoints: give COCO keypoint annotations"),
    ],
)
def test_damaged_annotations(edit: Edit, message: str) -> None:
    content, _ = noisy_scene()
    edit(content)
    with pytest.raises(UsageError, match=message):
        coco_of(content, "a.json")
