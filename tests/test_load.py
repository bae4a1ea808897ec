"""Poses of images in memory: the results are those of a run, whatever the image comes as, and wrong values are told."""

from __future__ import annotations

import base64
import json
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import supervision as sv
import torch

import streampose
from streampose.bench.reference import ReferenceLoop
from streampose.drawing.notebook import SHOWN_BYTES, SHOWN_EDGE, SHOWN_PEOPLE
from streampose.estimator import Estimator
from streampose.frames import NO_TRACK, Frame, Image, People, Result
from streampose.networks.checkpoints import assets_folder, resolve
from streampose.networks.known import DEFAULT_DETECTOR, DEFAULT_POSE
from streampose.networks.workers import part_sizes, worker_count
from streampose.records.truth import read_truth
from tests import tiny as networks
from tests.clips import make_clip, numbered_image

ARRAYS = ("boxes_xyxy", "box_scores", "keypoints_xy", "keypoint_scores", "keypoint_covariances", "class_ids")
OPTIONS: dict[str, Any] = {"box_threshold": 0.0, "max_people": 3}


def equal(ones: People, others: People) -> bool:
    return all(np.array_equal(getattr(ones, name), getattr(others, name), equal_nan=True) for name in ARRAYS)


def picture_in(html: str) -> Image:
    """Return the picture in the HTML of a result."""
    data = re.search(r'src="data:image/jpeg;base64,([^"]+)"', html)
    assert data is not None
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data[1]), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image, np.uint8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A detector and a pose network with random weights."""
    folder = tmp_path_factory.mktemp("networks")
    return OPTIONS | {
        "detector": str(networks.save_dense_detector(folder / "detector")),
        "pose": str(networks.save_pose(folder / "pose")),
    }


@pytest.fixture(scope="module")
def estimator(tiny: dict[str, Any]) -> Iterator[Estimator]:
    with streampose.load(**tiny) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def demo_frames() -> list[Result]:
    """The first frames of the demo clip with their people, from a run."""
    with streampose.stream("demo", track=False) as run:
        return [result for _, result in zip(range(2), run, strict=False)]


@pytest.fixture(scope="module")
def bundled() -> Iterator[Estimator]:
    with streampose.load() as loaded:
        yield loaded


class TestTheResultsAreThoseOfARun:
    @pytest.mark.parametrize("device_batch", [None, 2])
    def test_of_a_clip(self, tmp_path: Path, tiny: dict[str, Any], device_batch: int | None) -> None:
        """The pixels of an RGB clip reach the detector in the same way."""
        clip = make_clip(tmp_path / "clip.mkv", frames=12, codec="ffv1", pix_fmt="bgr0", grain=60)
        batches: dict[str, Any] = {"detect_batch": device_batch, "pose_batch": device_batch}
        run = list(streampose.stream(clip, **tiny, **batches, track=False))
        with streampose.load(**tiny, **batches) as estimator:
            results = estimator([result.frame.image for result in run])
        assert [result.frame.index for result in results] == list(range(12))
        assert all(len(result.people) == 3 for result in results)
        assert all(equal(one.people, other.people) for one, other in zip(run, results, strict=True))

    def test_of_stills_of_several_sizes(self, tmp_path: Path, tiny: dict[str, Any], estimator: Estimator) -> None:
        sizes = ((192, 120), (96, 200), (192, 120), (40, 30))
        files = [str(tmp_path / f"{number}.png") for number in range(len(sizes))]
        for number, (file, size) in enumerate(zip(files, sizes, strict=True)):
            cv2.imwrite(file, numbered_image(number, size))
        run = list(streampose.stream(tmp_path, **tiny))
        images = [result.frame.image for result in run]
        together, alone = estimator(images), [estimator(image) for image in images]
        from_files = estimator(files)
        for first, *others in zip(run, together, alone, from_files, strict=True):
            assert all(equal(first.people, other.people) for other in others)
            assert all(other.frame.image.shape == first.frame.image.shape for other in others)
        assert [result.frame.file for result in from_files] == files

    def test_of_the_demo(self, demo_frames: list[Result], bundled: Estimator) -> None:
        """A run shrinks the decoded pixels for the detector, so its boxes differ slightly; the poses in them do not."""
        images = [result.frame.image for result in demo_frames]
        given = bundled(images, boxes=[result.people.boxes_xyxy for result in demo_frames])
        for wanted, result, found in zip(demo_frames, given, bundled(images), strict=True):
            for name in ("boxes_xyxy", "keypoints_xy", "keypoint_scores", "keypoint_covariances"):
                np.testing.assert_array_equal(getattr(result.people, name), getattr(wanted.people, name), name)
            overlaps = sv.box_iou_batch(wanted.people.boxes_xyxy, found.people.boxes_xyxy)
            assert len(found.people) == len(wanted.people) >= 3
            assert overlaps.max(axis=1).min() > 0.95

    def test_of_hugging_face(self, demo_frames: list[Result]) -> None:
        image = demo_frames[0].frame.image
        boxes = read_truth(assets_folder() / "demo_truth.json").frames[0].boxes_xyxy[:3]
        with streampose.load(heatmap_blur="hf", dtype="float32", device="cpu") as estimator:
            people = estimator(image, boxes=boxes).people
        cpu = torch.device("cpu")
        reference = ReferenceLoop(
            resolve(DEFAULT_DETECTOR), resolve(DEFAULT_POSE), device=cpu, threshold=0.1, labels=[0]
        )
        wanted = reference.estimate(np.ascontiguousarray(image[..., ::-1]), boxes)
        assert len(people) == len(boxes) == 3
        assert np.abs(people.keypoints_xy - wanted[..., :2]).max() <= 0.1, "pixels"
        assert np.abs(people.keypoint_scores - wanted[..., 2]).max() <= 1e-3


class TestOneAndSeveral:
    def test_one_image_gives_one_result(self, estimator: Estimator) -> None:
        image = numbered_image(7)
        result = estimator(image)
        assert isinstance(result, Result)
        assert result.frame.image is image
        assert np.isnan(result.frame.pts_s)
        assert len(result.people) == 3
        assert set(result.people.track_ids.tolist()) == {NO_TRACK}

    def test_an_empty_list(self, estimator: Estimator) -> None:
        assert estimator([]) == []
        assert estimator([], boxes=[]) == []
        assert estimator(iter(())) == []

    def test_lists_beyond_a_group(self, estimator: Estimator, monkeypatch: pytest.MonkeyPatch) -> None:
        images = [numbered_image(number) for number in range(7)]
        boxes = [[[5, 5, 60 + number, 90]] * (number % 3) for number in range(7)]
        whole, given = estimator(images), estimator(images, boxes=boxes)
        monkeypatch.setattr("streampose.estimator.GROUP_IMAGES", 3)
        for one, other in zip([*whole, *given], [*estimator(images), *estimator(images, boxes=boxes)], strict=True):
            assert equal(one.people, other.people)
        assert [len(result.people) for result in given] == [0, 1, 2, 0, 1, 2, 0]

    def test_people_of_several_images_share_batches(
        self, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Three images with three people each, in batches of up to five; the workers of a CPU have smaller ones."""
        with streampose.load(**tiny, pose_batch=5) as estimator:
            assert estimator._networks is not None
            network, sizes = estimator._networks.pose._network, []
            forward = type(network).__call__

            def counted(self: Any, crops: torch.Tensor) -> torch.Tensor:
                sizes.append(len(crops))
                return forward(self, crops)

            monkeypatch.setattr(type(network), "__call__", counted)
            estimator([numbered_image(number) for number in range(3)], boxes=[[[5, 5, 60, 90]] * 3] * 3)
        limit = min(5, part_sizes(9)[0])
        assert sorted(sizes, reverse=True) == [limit] * (9 // limit) + [9 % limit] * (9 % limit > 0)

    def test_nothing_but_the_workers_runs_beside_the_caller(self, estimator: Estimator) -> None:
        worker_count()
        estimator([numbered_image(1)] * 20)
        before = threading.active_count()
        estimator([numbered_image(1)] * 20)
        assert threading.active_count() == before

    def test_several_threads_may_call_and_take_turns(
        self, estimator: Estimator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert estimator._networks is not None
        detector = estimator._networks.detector
        detect, inside, most_inside = detector.detect, [0], [0]

        def watched(pixels: Any) -> Any:
            inside[0] += 1
            most_inside[0] = max(most_inside[0], inside[0])
            found = detect(pixels)
            inside[0] -= 1
            return found

        monkeypatch.setattr(detector, "detect", watched)
        images = [numbered_image(number) for number in range(8)]
        wanted = [estimator(image) for image in images]
        found: dict[int, Result] = {}

        def work(number: int) -> None:
            found[number] = estimator(images[number])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(equal(found[number].people, wanted[number].people) for number in range(8))
        assert most_inside == [1], "capture graphs serve one call at a time"

    def test_after_the_end(self, tiny: dict[str, Any]) -> None:
        estimator = streampose.load(**tiny)
        assert "pose=" in repr(estimator)
        with estimator:
            estimator(numbered_image(1))
        estimator.close()
        assert "closed" in repr(estimator)
        with pytest.raises(streampose.UsageError, match="the estimator is closed"):
            estimator(numbered_image(1))

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"box_threshold": 2}, "`box_threshold`: 2 is not a number from 0 to 1"),
            ({"pose_batch": 0}, "`pose_batch`: 0 is not a whole number from 1 up"),
            ({"device": "tpu"}, "unknown device 'tpu'"),
            ({"dtype": "float8"}, "unknown dtype 'float8'"),
            ({"quality": "great"}, "`quality`: 'great' is not bundled or fast or balanced or best"),
            ({"max_pixels": -1}, "`max_pixels`: -1 is not"),
        ],
    )
    def test_wrong_options(self, options: dict[str, Any], says: str) -> None:
        with pytest.raises(streampose.UsageError, match=says):
            streampose.load(**options)


class TestImages:
    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
    def test_of_pillow(self, estimator: Estimator, mode: str) -> None:
        rgb = PIL.Image.fromarray(np.ascontiguousarray(numbered_image(5)[..., ::-1]))
        if mode == "I;16":
            image = PIL.Image.fromarray(np.asarray(rgb.convert("L"), np.uint16) * 257)
            wanted = rgb.convert("L").convert("RGB")
        else:
            image = rgb.convert(mode)
            wanted = image.convert("RGB")
        assert image.mode == mode
        np.testing.assert_array_equal(estimator(image).frame.image, np.asarray(wanted)[..., ::-1])

    def test_a_palette_with_transparency(self, tmp_path: Path, estimator: Estimator) -> None:
        image = PIL.Image.fromarray(numbered_image(5)).convert("P")
        image.save(tmp_path / "a.png", transparency=bytes(range(256)))
        with PIL.Image.open(tmp_path / "a.png") as opened, warnings.catch_warnings():
            warnings.simplefilter("error")
            result = estimator(opened)
        np.testing.assert_array_equal(result.frame.image, np.asarray(image.convert("RGB"))[..., ::-1])

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_turns_it_upright(self, tmp_path: Path, estimator: Estimator, orientation: int) -> None:
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        file = tmp_path / "a.png"
        PIL.Image.fromarray(numbered_image(5)[..., ::-1].copy()).save(file, exif=exif)
        with PIL.Image.open(file) as opened:
            found = estimator(opened)
            upright = np.asarray(PIL.ImageOps.exif_transpose(opened))[..., ::-1]
        np.testing.assert_array_equal(found.frame.image, upright)
        assert (found.frame.image.shape == (192, 120, 3)) == (orientation >= 5)
        assert equal(found.people, estimator(str(file)).people)
        assert equal(found.people, estimator(file).people)

    def test_arrays_in_any_layout(self, estimator: Estimator) -> None:
        image = numbered_image(5)
        frozen = image.copy()
        frozen.flags.writeable = False
        rgb = np.ascontiguousarray(image[..., ::-1])
        wide = np.zeros((120, 400, 3), np.uint8)
        wide[:, 100:292] = image
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            results = estimator([image, frozen, rgb[..., ::-1], wide[:, 100:292], np.asfortranarray(image)])
            results.append(estimator(rgb, rgb=True))
            results += estimator([rgb, PIL.Image.fromarray(rgb)], rgb=True)
        for result in results:
            np.testing.assert_array_equal(result.frame.image, image)
            assert equal(result.people, results[0].people)

    def test_small_ones(self, estimator: Estimator) -> None:
        for result in estimator([np.zeros((1, 1, 3), np.uint8), np.zeros((1, 900, 3), np.uint8)]):
            assert np.isfinite(result.people.boxes_xyxy).all()

    @pytest.mark.parametrize(
        ("image", "says"),
        [
            (np.zeros((4, 4, 3)), r"`images`: float64 \(4, 4, 3\) is not an image: give an array \(H, W, 3\) uint8"),
            (np.zeros((4, 4, 4), np.uint8), r"`images`: uint8 \(4, 4, 4\) is not"),
            (np.zeros((4, 4), np.uint8), r"`images`: uint8 \(4, 4\) is not"),
            (np.zeros((2, 4, 4, 3), np.uint8), r"`images`: uint8 \(2, 4, 4, 3\) is not"),
            (np.zeros((0, 4, 3), np.uint8), r"`images`: uint8 \(0, 4, 3\) is not"),
            (None, "`images`: NoneType is not an image"),
            (7, "`images`: int is not an image"),
            ([numbered_image(1), 3.5], r"`images`\[1\]: float is not an image"),
            (torch.zeros(2, 4, 3, dtype=torch.uint8), r"`images`\[0\]: Tensor is not an image"),
            (PIL.Image.new("F", (4, 4)), "`images`: an image of Pillow with mode F has no range: convert it to RGB"),
        ],
    )
    def test_what_is_none(self, estimator: Estimator, image: Any, says: str) -> None:
        with pytest.raises(streampose.UsageError, match=says):
            estimator(image)

    def test_files_that_cannot_be_read(self, tmp_path: Path, tiny: dict[str, Any], estimator: Estimator) -> None:
        (tmp_path / "text.png").write_text("no picture")
        cv2.imwrite(str(tmp_path / "good.png"), numbered_image(1))
        with pytest.raises(streampose.SourceError, match=r"nowhere\.png cannot be read: No such file"):
            estimator(tmp_path / "nowhere.png")
        with pytest.raises(streampose.SourceError, match=r"text\.png cannot be read: damaged or not a still"):
            estimator([tmp_path / "good.png", tmp_path / "text.png"])
        whole = (tmp_path / "good.png").read_bytes()
        (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
        with (
            PIL.Image.open(tmp_path / "half.png") as half,
            pytest.raises(streampose.UsageError, match="cannot be read"),
        ):
            estimator(half)
        careful = streampose.load(**tiny, max_pixels=100)
        with pytest.raises(streampose.SourceError, match=r"192 x 120 pixels exceed `max_pixels` \(100\)"):
            careful(tmp_path / "good.png")


class TestBoxes:
    def test_given_boxes_are_used_as_they_are(self, estimator: Estimator) -> None:
        image = numbered_image(5)
        boxes = [[-10, -5, 60, 90], [20.5, 30.25, 100, 119], [100, 20, 400, 200]]
        people = estimator(image, boxes=boxes).people
        np.testing.assert_array_equal(people.boxes_xyxy, np.array(boxes, np.float32))
        assert people.boxes_xyxy.dtype == np.float32
        assert people.box_scores.tolist() == [1, 1, 1]
        assert list(people.to_detections().data["class_name"]) == ["person"] * 3
        assert np.isfinite(people.keypoints_xy).all()
        (several,) = estimator([image], boxes=[np.array(boxes)])
        assert equal(several.people, people)

    @pytest.mark.parametrize("nobody", [[], np.zeros((0, 4)), np.zeros((0, 4), np.float32), [[]]])
    def test_nobody(self, estimator: Estimator, nobody: Any) -> None:
        result = estimator(numbered_image(5), boxes=nobody)
        assert result.people.keypoints_xy.shape == (0, 17, 2)
        assert estimator([numbered_image(5)], boxes=[nobody])[0].people.boxes_xyxy.shape == (0, 4)

    @pytest.mark.parametrize(
        ("boxes", "says"),
        [
            ([1, 2, 3, 4], r"`boxes`: expected boxes in shape \(N, 4\), not \(4,\)"),
            (np.zeros((2, 5)), r"`boxes`: expected boxes in shape \(N, 4\), not \(2, 5\)"),
            ([[1, 2, 3], [1, 2, 3, 4]], "`boxes`: expected N boxes with 4 numbers each"),
            ("people", "`boxes`: expected N boxes with 4 numbers each"),
            ([[1, 2, 30, 40], [1, np.nan, 3, 4]], r"`boxes`: box 1 \(1, nan, 3, 4\) is not finite"),
            ([[1, 2, 1e300, 40]], r"`boxes`: box 0 \(1, 2, inf, 40\) is not finite"),
            ([[10, 2, 10, 40]], r"`boxes`: box 0 .* is empty: the order is left, top, right, bottom"),
            ([[10, 40, 20, 2]], "`boxes`: box 0 .* is empty"),
            ([[192, 2, 300, 40]], r"`boxes`: box 0 \(192, 2, 300, 40\) is outside the image \(192x120\)"),
            ([[-9, -9, 0, 0]], "`boxes`: box 0 .* is outside the image"),
        ],
    )
    def test_wrong_ones(self, estimator: Estimator, boxes: Any, says: str) -> None:
        with pytest.raises(streampose.UsageError, match=says) as caught:
            estimator(numbered_image(5), boxes=boxes)
        assert "\n" not in str(caught.value)
        with pytest.raises(streampose.UsageError, match=re.escape("`boxes`[1]") + says.removeprefix("`boxes`")):
            estimator([numbered_image(5)] * 2, boxes=[[], boxes])

    @pytest.mark.parametrize("boxes", [[], [[[1, 2, 3, 4]]], np.zeros((3, 1, 4)), 5])
    def test_one_array_for_each_image(self, estimator: Estimator, boxes: Any) -> None:
        with pytest.raises(streampose.UsageError, match=r"`boxes`: \d arrays for 2 images: give one array for each"):
            estimator([numbered_image(5)] * 2, boxes=boxes)

    def test_huge_ones(self, estimator: Estimator) -> None:
        result = estimator(numbered_image(5), boxes=[[-1e9, -1e9, 1e9, 1e9], [0, 0, 1e-3, 1e-3]])
        assert result.people.keypoints_xy.shape == (2, 17, 2)


@pytest.fixture(scope="module")
def shown(estimator: Estimator) -> Result:
    return estimator(numbered_image(5))


class TestShowing:
    def test_in_words(self, shown: Result, estimator: Estimator, tmp_path: Path) -> None:
        assert repr(shown) == "Result(image 0, 192x120, 3 people)"
        cv2.imwrite(str(tmp_path / "a.png"), numbered_image(5))
        named = repr(estimator(tmp_path / "a.png", boxes=[[1, 2, 30, 40]]))
        assert named == f"Result({tmp_path / 'a.png'}, 192x120, 1 person)"
        run = Result(Frame("cam", 3, 0.12, 0.0, numbered_image(3)), shown.people, shown.skeleton)
        assert repr(run) == "Result(cam 3 at 0.120 s, 192x120, 3 people)"

    def test_in_a_notebook(self, shown: Result) -> None:
        html = shown._repr_html_()
        assert html.count("<tr>") == 4
        image = picture_in(html)
        assert image.shape == (120, 192, 3)
        drawn, undrawn = (np.abs(image.astype(float) - one).mean() for one in (shown.draw(), shown.frame.image))
        assert drawn < undrawn / 2

    def test_large_noisy_frames_and_crowds_stay_small(self, estimator: Estimator) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (1500, 2400, 3), np.uint8)
        crowd = estimator(noise, boxes=[[5, 5, 60, 90]] * (SHOWN_PEOPLE + 4))
        html = crowd._repr_html_()
        assert len(html) < SHOWN_BYTES * 4 / 3 + 10_000
        assert max(picture_in(html).shape) == SHOWN_EDGE
        assert html.count("<tr>") == SHOWN_PEOPLE + 1
        assert "and 4 more" in html

    def test_names_are_no_markup(self, shown: Result) -> None:
        people = People.of(
            streampose.Boxes(shown.people.boxes_xyxy, shown.people.box_scores, shown.people.class_ids),
            shown.people.keypoints_xy,
            shown.people.keypoint_scores,
            label_of=dict.fromkeys(range(9), "<b>cat"),
        )
        html = Result(Frame("<i>", 0, 0.0, 0.0, numbered_image(3)), people, shown.skeleton)._repr_html_()
        assert "<b>" not in html
        assert "<i>" not in html
        assert html.count("&lt;b&gt;cat") == 3

    def test_nobody(self, estimator: Estimator) -> None:
        html = estimator(numbered_image(5), boxes=[])._repr_html_()
        assert "0 people" in html
        assert "<table" not in html

    def test_drawing(self, shown: Result) -> None:
        plain, rgb = shown.draw(), shown.draw(rgb=True)
        np.testing.assert_array_equal(plain[..., ::-1], rgb)
        assert rgb.flags.c_contiguous
        assert not np.array_equal(plain, shown.frame.image)
        assert np.array_equal(shown.frame.image, numbered_image(5)), "the image itself is not drawn on"
        assert not np.array_equal(plain, shown.draw(style="weighted", boxes=True, labels=True))
        with pytest.raises(streampose.UsageError, match="`colour` is not a drawing setting: choose from style, "):
            shown.draw(colour="red")
        with pytest.raises(streampose.UsageError, match="`style`: 'fancy' is not lines or weighted"):
            shown.draw(style="fancy")

    def test_it_is_drawn_as_in_a_run(self, tmp_path: Path, tiny: dict[str, Any]) -> None:
        clip = make_clip(tmp_path / "clip.mkv", frames=3)
        for result in streampose.stream(clip, **tiny, draw=True, style="weighted", boxes=True):
            assert result.drawn is not None
            np.testing.assert_array_equal(result.draw(style="weighted", boxes=True), result.drawn)


class TestConverting:
    def test_to_supervision(self, estimator: Estimator) -> None:
        detections, key_points = estimator(numbered_image(5)).to_supervision(0.3)
        assert isinstance(detections, sv.Detections)
        assert isinstance(key_points, sv.KeyPoints)
        assert key_points.xy.shape == (3, 17, 2)

    def test_tables_and_coco_are_those_of_a_recording(self, tmp_path: Path, tiny: dict[str, Any]) -> None:
        cv2.imwrite(str(tmp_path / "a.png"), numbered_image(5))
        poses, coco = tmp_path / "poses.jsonl", tmp_path / "a.results.json"
        (result,) = streampose.stream(tmp_path / "a.png", to=[poses, coco], **tiny)
        recorded = streampose.read_poses(poses)
        for rows in ("keypoints", "people", "angles"):
            assert result.to_dataframe(rows).equals(recorded.to_dataframe(rows))
        with pytest.raises(streampose.UsageError, match="unknown rows 'all'"):
            result.to_dataframe("all")  # type: ignore[arg-type]
        assert [one["image_id"] for one in result.to_coco(42)] == [42] * 3
        assert result.to_coco(0) == json.loads(coco.read_text())
