"""`streampose evaluate` with networks, on frames of the demo clip whose truth is exact."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from streampose.networks.checkpoints import assets_folder
from streampose.people.names import COCO_NAMES
from tests import tiny
from tests.cli.helpers import run

SHOWN = (30, 90, 150)
"""The frames of the clip that become images."""
PLACES = [0, 2, 4, *range(5, 17)]
"""The keypoints of the annotations, in an order of their own: without the left eye and ear."""


def annotations() -> dict[str, Any]:
    """COCO annotations of the frames, and of an image without people."""
    truth = json.loads((assets_folder() / "demo_truth.json").read_text())
    people = []
    for number in SHOWN:
        for person in truth["frames"][number]["people"]:
            left, top, right, bottom = person["box_xyxy"]
            points = np.array(person["keypoints"])[PLACES]
            people.append(
                {
                    "id": len(people) + 1,
                    "image_id": number,
                    "category_id": 3,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "keypoints": points.ravel().tolist(),
                    "iscrowd": 0,
                }
            )
    names = [COCO_NAMES[place].replace("left_", "L_").replace("right_", "R_") for place in PLACES]
    size = {"width": truth["width"], "height": truth["height"]}
    return {
        "images": [{"id": number, "file_name": f"shots/{number}.png", **size} for number in (*SHOWN, 999)],
        "annotations": people,
        "categories": [{"id": 3, "name": "person", "keypoints": names, "skeleton": []}],
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with annotations.json, its images in shots/, and a tiny pose network."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "annotations.json").write_text(json.dumps(annotations()))
    (folder / "shots").mkdir()
    with av.open(assets_folder() / "demo.mp4") as clip:
        for index, frame in enumerate(clip.decode(video=0)):
            if index in SHOWN:
                cv2.imwrite(str(folder / "shots" / f"{index}.png"), frame.to_ndarray(format="bgr24"))
    cv2.imwrite(str(folder / "shots" / "999.png"), np.full((720, 1280, 3), 90, np.uint8))
    tiny.save_pose(folder / "tiny")
    return folder


def evaluate(data: Path, *arguments: str, images: str = "shots") -> tuple[dict[str, Any], str, str]:
    """Return the figures, the table and the messages of the command."""
    command = ["evaluate", "--coco", "annotations.json", images, "--json", "figures.json", "--overwrite"]
    code, out, err = run([*command, "--device", "cpu", "--dtype", "float32", *arguments], data)
    assert code == 0, err
    return json.loads((data / "figures.json").read_text()), out, err


def rows_of(table: str) -> dict[str, Sequence[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {name: cells for name, *cells in rows}


def test_two_networks_side_by_side(data: Path) -> None:
    figures, out, err = evaluate(data, "--pose", "vitpose-small-streampose", "--pose", "tiny")
    assert "4 images of annotations.json with" in out
    assert err == ""
    table = rows_of(out)
    assert table[""] == ["vitpose-small-streampose", "tiny"]
    assert table["keypoints judged"] == ["15 of 15", "15 of 15"]
    assert "people found" not in table, "their boxes are given"
    ours, random = figures["checkpoints"]
    print(ours)
    assert ours["coco"]["ap"] > 0.5
    assert ours["keypoints"]["pck_visible"] > 0.85
    assert random["coco"]["ap"] < 0.05
    assert random["keypoints"]["pck"] < 0.2
    assert table["AP"] == [f"{one['coco']['ap']:.3f}" for one in (ours, random)]
    assert ours["pose_ms_per_person"] > random["pose_ms_per_person"] > 0
    assert (figures["images"], figures["boxes"], figures["detector"]) == (4, "given", None)


def test_detected_boxes_give_the_figures_of_a_recorded_run(data: Path) -> None:
    """The same networks in `streampose run`, judged from the poses file, whose numbers are rounded."""
    figures, out, _ = evaluate(data, "--boxes", "detected", "--box-threshold", "0.3", "--detect-batch", "3")
    (ours,) = figures["checkpoints"]
    networks = ["--box-threshold", "0.3", "--device", "cpu", "--dtype", "float32"]
    code, _, err = run(["run", "shots", "--to", "poses.jsonl", "--overwrite", "--quiet", *networks], data)
    assert code == 0, err
    code, _, err = run(
        ["evaluate", "poses.jsonl", "--truth", "annotations.json", "--json", "file.json", "--overwrite"], data
    )
    assert (code, err) == (0, "")
    (recorded,) = json.loads((data / "file.json").read_text())["files"]
    assert recorded["frames"] == 4
    assert recorded["coco"] == pytest.approx(ours["coco"], abs=0.01)
    assert recorded["keypoints"] == pytest.approx(ours["keypoints"], abs=0.01)
    assert recorded["coverage"]["inside_90"] > 0.7
    assert ours["keypoints"]["found"] > 0.6
    assert {"people found", "detector, ms per image"} < set(rows_of(out))
    assert figures["detector_ms_per_image"] > 0


def test_images_that_are_missing_are_left_out_and_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    for number in (90, 999):
        (tmp_path / "some" / f"{number}.png").symlink_to(data / "shots" / f"{number}.png")
    figures, out, err = evaluate(data, "--pose", "tiny", images=str(tmp_path / "some"))
    assert "some lacks 2 of the 4 images of annotations.json; the first is shots/30.png: they are left out" in err
    assert "2 of 4 images of annotations.json" in out
    assert (figures["images"], figures["images_missing"]) == (2, 2)
    assert figures["people"] == sum(one["image_id"] == 90 for one in annotations()["annotations"])


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["empty"], "empty has none of the 4 images of annotations.json", 2),
        (["none"], "none is not a folder: give the folder of the images of annotations.json", 2),
        (["shots", "shots"], "--coco needs one folder of images, not 2", 2),
        (["shots", "--pose", "tiny", "--pose", "nowhere"], "unknown model 'nowhere'", 1),
        (["small", "--pose", "tiny"], "30.png has 640x360 pixels, but annotations.json says 1280x720", 2),
        (["damaged", "--pose", "tiny"], "damaged: 1 of 4 stills cannot be read; the first is shots/90.png", 1),
    ],
)
def test_the_command_refuses(arguments: list[str], message: str, code: int, data: Path) -> None:
    (data / "empty").mkdir(exist_ok=True)
    (data / "small").mkdir(exist_ok=True)
    cv2.imwrite(str(data / "small" / "30.png"), np.zeros((360, 640, 3), np.uint8))
    (data / "damaged" / "shots").mkdir(parents=True, exist_ok=True)
    for path in (data / "shots").iterdir():
        content = path.read_bytes()
        (data / "damaged" / "shots" / path.name).write_bytes(content[:200] if path.stem == "90" else content)
    given, out, err = run(["evaluate", "--coco", "annotations.json", *arguments], data)
    lines = err.splitlines()
    assert given == code
    assert message in lines[-1]
    assert out == ""
    assert len(lines) == 1 or "small" in arguments or "damaged" in arguments, err
