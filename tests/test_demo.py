"""The main job, as `make demo` runs it: an installed program, offline and from any folder, on the bundled clip.

It is judged by the clip's exact keypoints.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
import supervision as sv
import torch

import streampose
from streampose._version import __version__
from streampose.networks.checkpoints import assets_folder, demo_clip
from streampose.networks.device import pick_dtype
from streampose.people.angles import AngleMeter
from streampose.records.evaluate_tracking import judge, read_identified
from streampose.records.lines import read_lines
from streampose.records.truth import read_truth

LEAST_FOUND = 0.94
"""Of the people with 12 or more visible joints, at IoU 0.5. The Hugging Face reference chain: 0.969."""
MOST_ANGLE_ERROR = 6.0
"""Of knees and elbows whose joints are all visible: the median, in degrees. Measured: 5.4, and 98 % in the band."""
LEAST_NEAR = 0.89
"""Of those people's visible joints, within 5 % of the box's height. The reference chain: 0.905."""


class Demo(NamedTuple):
    folder: Path
    stdout: str
    stderr: str


CPU = torch.device("cpu")
DTYPES = ["auto"]
# Full precision takes four times as long where there is half; tests/test_labelled.py looks at it there.
if pick_dtype("auto", CPU) != torch.float32:
    DTYPES += [pytest.param("float32", marks=pytest.mark.long)]


@pytest.fixture(scope="session", params=DTYPES)
def demo(request: pytest.FixtureRequest, installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo's output, at the precision that the machine picks and at full precision."""
    folder = tmp_path_factory.mktemp("demo")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [str(installed / "bin" / "streampose"), "run", "demo", "--to", "demo.mp4", "--to", "poses.jsonl"]
        + ["--device", "cpu", "--dtype", request.param],
        cwd=folder,
        env={**environment, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    return Demo(folder, run.stdout, run.stderr)


def truth() -> list[dict[str, Any]]:
    path = assets_folder() / "demo_truth.json"
    frames: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["frames"]
    return frames


def test_people_are_found_and_their_joints_are_near_the_truth(demo: Demo) -> None:
    _, lines = read_lines(demo.folder / "poses.jsonl")
    people = found = joints = near = 0
    for line, frame in zip(lines, truth(), strict=True):
        assert line["frame"] == frame["index"]
        assert line["pts_s"] == pytest.approx(frame["pts_s"], abs=1e-6)
        wanted = [
            person for person in frame["people"] if sum(visible == 2 for *_, visible in person["keypoints"]) >= 12
        ]
        people += len(wanted)
        if not wanted or not line["people"]:
            continue
        wanted_boxes = np.array([person["box_xyxy"] for person in wanted])
        boxes = np.array([person["box_xyxy"] for person in line["people"]])
        overlap = sv.box_iou_batch(wanted_boxes, boxes)
        for person, overlaps in zip(wanted, overlap, strict=True):
            best = int(overlaps.argmax())
            if overlaps[best] < 0.5:
                continue
            found += 1
            true_points = np.array(person["keypoints"])
            points = np.array(line["people"][best]["keypoints"])
            height = person["box_xyxy"][3] - person["box_xyxy"][1]
            distance = np.hypot(*(points[:, :2] - true_points[:, :2]).T)[true_points[:, 2] == 2]
            joints += len(distance)
            near += int((distance <= 0.05 * height).sum())
    print(f"found {found / people:.3f} of {people} people, near {near / joints:.3f} of {joints} joints")
    assert found / people >= LEAST_FOUND
    assert near / joints >= LEAST_NEAR


def test_identities_last(demo: Demo) -> None:
    tracking = judge(read_truth(assets_folder() / "demo_truth.json"), read_identified(demo.folder / "poses.jsonl"))
    print(tracking)
    # Measured: 0.80. An oracle that knows the identities reaches 0.91: the clip's people hide each other for long.
    assert tracking.idf1 >= 0.74


def test_knees_and_elbows_bend_as_in_truth(demo: Demo) -> None:
    names = read_lines(demo.folder / "poses.jsonl")[0]["skeleton"]["names"]
    meter = AngleMeter(names, ["knee", "elbow"])
    errors, inside = [], []
    for frame, true in zip(streampose.read_poses(demo.folder / "poses.jsonl"), truth(), strict=True):
        if not len(frame.people) or not true["people"]:
            continue
        true_boxes = np.array([person["box_xyxy"] for person in true["people"]], np.float32)
        overlap = sv.box_iou_batch(true_boxes, frame.people.boxes_xyxy)
        angles = meter.measure(frame.people)
        for person, overlaps in zip(true["people"], overlap, strict=True):
            points = np.array(person["keypoints"], np.float64)
            points[points[:, 2] != 2] = np.nan
            if overlaps.max() >= 0.5:
                found = int(overlaps.argmax())
                error = np.abs(meter.measure_points(points[None, :, :2], None).degrees[0] - angles.degrees[found])
                is_known = np.isfinite(error)
                errors.extend(error[is_known])
                inside.extend((error <= 1.645 * angles.deviations[found])[is_known])
    print(f"{len(errors)} angles: median error {np.median(errors):.2f} degrees, {np.mean(inside):.3f} in the 90 % band")
    assert np.median(errors) < MOST_ANGLE_ERROR
    assert np.mean(inside) >= 0.9


def test_smoothed_joints_rest_where_the_true_ones_do_and_move_with_them(demo: Demo) -> None:
    tremble: dict[str, list[float]] = {"keypoints": [], "smoothed": []}
    error: dict[str, list[float]] = {"keypoints": [], "smoothed": []}
    before: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
    for line, frame in zip(read_lines(demo.folder / "poses.jsonl")[1], truth(), strict=True):
        now = {}
        for true in frame["people"]:
            boxes = np.array([person["box_xyxy"] for person in line["people"]]).reshape(-1, 4)
            overlaps = sv.box_iou_batch(np.array([true["box_xyxy"]]), boxes)[0]
            if not len(overlaps) or overlaps.max() < 0.5:
                continue
            person = now[true["id"]] = line["people"][int(overlaps.argmax())], true
            if true["id"] not in before or before[true["id"]][0]["id"] != person[0]["id"]:
                continue
            points = np.array([true["keypoints"], before[true["id"]][1]["keypoints"]])
            speed = np.hypot(*(points[0] - points[1])[:, :2].T) * 25
            is_seen = (points[..., 2] == 2).all(axis=0) & (np.array(person[0]["keypoints"])[:, 2] > 0.3)
            for name in tremble:
                xy, last = (np.array(one[name])[:, :2] for one in (person[0], before[true["id"]][0]))
                tremble[name] += np.hypot(*(xy - last).T)[is_seen & (speed < 2)].tolist()
                error[name] += np.hypot(*(xy - points[0, :, :2]).T)[is_seen & (speed > 40)].tolist()
        before = now
    print({name: (np.mean(tremble[name]), np.mean(error[name]), len(tremble[name])) for name in tremble})
    assert len(tremble["smoothed"]) > 100
    assert np.mean(tremble["smoothed"]) < 0.42 * np.mean(tremble["keypoints"])  # measured: 0.32 to 0.38
    assert np.mean(error["smoothed"]) < np.mean(error["keypoints"])


def test_the_video_shows_every_frame_at_its_own_time_with_something_drawn(demo: Demo) -> None:
    with av.open(demo_clip()) as before, av.open(demo.folder / "demo.mp4") as after:
        assert after.streams.video[0].codec_context.name == "h264"
        sources = list(before.decode(video=0))
        drawn = list(after.decode(video=0))
        assert len(drawn) == len(sources) == 200

        def time_of(frame: av.VideoFrame) -> Fraction:
            assert frame.pts is not None
            assert frame.time_base is not None
            return frame.pts * frame.time_base

        assert [time_of(frame) for frame in drawn] == [time_of(frame) for frame in sources]
        middle = drawn[100].to_ndarray(format="bgr24").astype(int)
        original = sources[100].to_ndarray(format="bgr24").astype(int)
        changed = np.abs(middle - original).max(axis=2) > 60
        assert 0.002 < changed.mean() < 0.2


def test_the_header_says_what_made_the_data(demo: Demo) -> None:
    head, _ = read_lines(demo.folder / "poses.jsonl")
    assert head["streampose"] == __version__
    assert head["source"] == "demo"
    assert len(head["skeleton"]["names"]) == 17
    assert len(head["skeleton"]["edges"]) == 19
    assert head["models"] == {"detector": "person-detector-streampose", "pose": "vitpose-small-streampose"}


def test_the_run_ends_with_a_short_table_and_nothing_on_standard_output(demo: Demo) -> None:
    assert demo.stdout == ""
    assert re.search(r"^frames +200 in [\d.]+ s, [\d.]+ fps$", demo.stderr, re.MULTILINE)
    assert re.search(r"^people +\d+, [\d.]+ per frame$", demo.stderr, re.MULTILINE)
    assert re.search(r"^written +demo\.mp4: 200 frames, [\d.]+ MB$", demo.stderr, re.MULTILINE)
    assert "Traceback" not in demo.stderr
    assert "arning" not in demo.stderr
