"""Both sorts of detector: the bundled one against the truth of the demo clip, others against transformers itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import RTDetrForObjectDetection, RTDetrImageProcessorPil, YolosForObjectDetection
from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

from streampose.errors import ModelError, UsageError
from streampose.frames import Boxes
from streampose.networks.checkpoints import assets_folder, demo_clip
from streampose.networks.dense_detector import choose_grid, decode_dense_maps, resize_image, suppress_overlaps
from streampose.networks.dense_detector import resize_on_device as resize_by_tensors
from streampose.networks.detector import PersonDetector
from streampose.networks.detectors import load_detector
from streampose.networks.known import DEFAULT_DETECTOR, DEFAULT_POSE
from tests.tiny import edit_json, save_dense_detector, save_pose, save_rt_detr, save_yolos, vitpose

CPU = torch.device("cpu")
LABELS = ["Person", "dog", "person", "cat"]


def load(name: str | Path, **options) -> PersonDetector:
    return load_detector(str(name), **{"device": CPU, "dtype": torch.float32, **options})


@pytest.fixture(scope="module")
def bundled() -> PersonDetector:
    return load(DEFAULT_DETECTOR, max_batch=3)


@pytest.fixture(scope="module")
def demo() -> list[tuple[torch.Tensor, list[dict]]]:
    """Every 25th frame of the demo clip, with its people."""
    truth = json.loads((assets_folder() / "demo_truth.json").read_text())["frames"]
    with av.open(demo_clip()) as clip:
        return [
            (torch.from_numpy(frame.to_ndarray(format="bgr24")), truth[index]["people"])
            for index, frame in enumerate(clip.decode(video=0))
            if index % 25 == 0
        ]


def overlap(boxes_xyxy: np.ndarray, box_xyxy: Sequence[float]) -> np.ndarray:
    box = np.asarray(box_xyxy)
    sides = np.minimum(boxes_xyxy[:, 2:], box[2:]) - np.maximum(boxes_xyxy[:, :2], box[:2])
    shared = sides.clip(0).prod(1)
    return shared / ((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - shared)


def assert_same(found: Boxes, expected: Boxes, pixels: float = 1e-3) -> None:
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=pixels)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)


def test_bundled_detector_finds_the_people_of_the_demo_clip(bundled, demo) -> None:
    best = []
    false_count = 0
    for boxes, (_, people) in zip(bundled.detect([image for image, _ in demo]), demo, strict=True):
        assert boxes.xyxy.dtype == boxes.scores.dtype == np.float32
        assert (boxes.xyxy >= 0).all()
        assert (boxes.xyxy <= [1280, 720, 1280, 720]).all()
        assert (np.diff(boxes.scores) <= 0).all()
        assert (boxes.scores > 0.25).all()
        everyone = np.max([overlap(boxes.xyxy, person["box_xyxy"]) for person in people], axis=0)
        false_count += int((everyone < 0.3).sum())
        for person in people:
            if sum(visibility == 2 for *_, visibility in person["keypoints"]) >= 12:
                best.append(overlap(boxes.xyxy, person["box_xyxy"]).max(initial=0))
    found = [value for value in best if value >= 0.5]
    assert len(best) > 20
    assert len(found) / len(best) >= 0.9
    assert np.mean(found) > 0.72, "a shift or a wrong scale costs more than that"
    assert false_count <= len(demo) / 2


def test_pictures_of_several_sizes_as_one_by_one(bundled, demo) -> None:
    frames = [image for image, _ in demo]
    pictures = [frames[0], frames[1][:500, :300], frames[2], frames[3], frames[4]]
    together = bundled.detect(pictures)
    assert sum(len(boxes) for boxes in together) > 10
    for boxes, picture in zip(together, pictures, strict=True):
        assert_same(boxes, bundled.detect([picture])[0])


def test_enlarging_a_picture_enlarges_its_boxes(bundled, demo) -> None:
    small = demo[0][0][::4, ::4].contiguous()
    large = torch.from_numpy(cv2.resize(small.numpy(), (1280, 720), interpolation=cv2.INTER_NEAREST))
    found, expected = bundled.detect([small])[0], bundled.detect([large])[0]
    assert len(found) == len(expected) > 2
    np.testing.assert_allclose(found.xyxy * 4, expected.xyxy, atol=6)


def test_nobody_and_nothing_are_ordinary(bundled) -> None:
    assert bundled.detect([]) == []
    (boxes,) = bundled.detect([torch.zeros(200, 300, 3, dtype=torch.uint8)])
    assert len(boxes) == 0
    assert boxes.xyxy.shape == (0, 4)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (7, 9)])
def test_odd_sizes_of_pictures(size, tmp_path) -> None:
    detector = load(save_dense_detector(tmp_path / "net"), threshold=0.0)
    image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8)
    (boxes,) = detector.detect([image])
    assert np.isfinite(boxes.xyxy).all()
    assert (boxes.xyxy <= [size[1], size[0]] * 2).all()


def test_threshold_and_most_people(demo) -> None:
    frame = demo[0][0]
    everybody = load(DEFAULT_DETECTOR).detect([frame])[0]
    assert len(everybody) > 2
    between = float(everybody.scores[1] + everybody.scores[2]) / 2
    for fewer in (load(DEFAULT_DETECTOR, max_people=2), load(DEFAULT_DETECTOR, threshold=between)):
        assert_same(fewer.detect([frame])[0], everybody[:2])


@pytest.mark.parametrize(
    ("size", "grid"),
    [((720, 1280), (14, 25)), ((480, 640), (17, 22)), ((1000, 1000), (19, 19)), ((10, 2000), (4, 270))],
)
def test_grid_has_the_pictures_shape(size, grid) -> None:
    assert choose_grid(*size, 364) == grid


@pytest.mark.parametrize("resize", [resize_image, resize_by_tensors])
@pytest.mark.parametrize(
    ("size", "new_size"),
    [((720, 1280), (224, 398)), ((480, 640), (240, 320)), ((97, 61), (97, 60)), ((40, 50), (93, 117))],
)
def test_resizing_equals_opencv(resize, size, new_size) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    shrinks = new_size[0] < size[0] or new_size[1] < size[1]
    expected = cv2.resize(image, new_size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    options = (shrinks,) if resize is resize_by_tensors else ()
    found = resize(torch.from_numpy(image), *new_size, *options)
    difference = np.abs(found.numpy().astype(int) - expected)
    assert found.dtype == torch.uint8
    assert difference.max() <= 1
    assert difference.mean() < (0.01 if shrinks else 0.2), "OpenCV enlarges with 11 bits and cuts off the rest"


def test_a_frame_is_shrunk_by_what_it_brings_where_that_suits_the_network(bundled, demo) -> None:
    image = demo[0][0]
    asked: list[tuple[int, int]] = []

    def shrink(height: int, width: int) -> np.ndarray:
        asked.append((height, width))
        return cv2.resize(image.numpy(), (width, height), interpolation=cv2.INTER_AREA)

    (expected,), (found,) = bundled.detect([image]), bundled.detect([image], [shrink])
    assert asked == [(224, 398)]
    np.testing.assert_array_equal(found.xyxy, expected.xyxy)
    bundled.detect([image[:250, :440].contiguous()], [shrink])
    assert len(asked) == 1, "to hardly less, or to more, OpenCV does it"
    first, _ = bundled.detect([image, image], [None, shrink])
    np.testing.assert_array_equal(first.xyxy, expected.xyxy)


def test_maps_are_decoded_as_documented() -> None:
    maps = torch.zeros(2, 5, 6, 8)
    maps[:, 0] = -9
    maps[0, 0, 2, 3] = 0.0  # score 0.5 at the cell whose centre is (14, 10)
    maps[0, 1:, 2, 3] = torch.tensor([1.0, 2.0, 3.0, 4.0]).log()
    maps[0, 0, 2, 4] = -0.1  # its neighbour, lower: not a peak
    maps[0, 0, 5, 7] = math.log(3)  # score 0.75 at (30, 22), its sides beyond the limits of -4 and 6
    maps[0, 1:, 5, 7] = torch.tensor([-9.0, 9.0, -9.0, 9.0])
    maps[1, 0, 0, 0] = math.log(0.25 / 0.75)  # exactly the threshold: not above it
    maps[1, 0, 3, 3] = 1.0
    maps[1, 2, 3, 3] = math.nan
    maps[1, 0, 3, 6] = math.nan
    (boxes, scores), (none, _) = decode_dense_maps(maps, 4, 0.25)
    near, far = 4 * math.exp(-4), 4 * math.exp(6)
    np.testing.assert_allclose(boxes, [[10, 2, 26, 26], [30 - near, 22 - far, 30 + near, 22 + far]], rtol=1e-5)
    np.testing.assert_allclose(scores, [0.5, 0.75], rtol=1e-6)
    assert len(none) == 0


def test_of_boxes_that_overlap_much_the_best_remains() -> None:
    wide, half, most = [0, 0, 100, 100], [0, 0, 100, 58], [0, 0, 100, 62]
    kept = suppress_overlaps(np.array([most, half, wide], np.float32), np.array([0.5, 0.4, 0.9], np.float32))
    np.testing.assert_array_equal(kept, [False, True, True])


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    with av.open(demo_clip()) as clip:
        frame = next(clip.decode(video=0)).to_ndarray(format="rgb24")
    return np.ascontiguousarray(frame[:500, :700])


@pytest.mark.parametrize(
    ("save", "processor_class", "model_class"),
    [
        (save_rt_detr, RTDetrImageProcessorPil, RTDetrForObjectDetection),
        (save_yolos, YolosImageProcessorPil, YolosForObjectDetection),
    ],
)
def test_hub_detectors_equal_transformers_documented_way(
    save: Callable, processor_class, model_class, picture, tmp_path
):
    folder = save(tmp_path / "net", LABELS)
    processor, model = processor_class.from_pretrained(folder), model_class.from_pretrained(folder)
    image = Image.fromarray(picture)
    with torch.no_grad():
        outputs = model(**processor(images=image, return_tensors="pt"))
    (result,) = processor.post_process_object_detection(
        outputs, target_sizes=torch.tensor([(image.height, image.width)]), threshold=0.1
    )
    labels = result["labels"].numpy()
    wanted = np.isin(labels, [0, 2])  # both are called person, in any case
    order = np.argsort(-result["scores"].numpy()[wanted], kind="stable")
    expected = result["boxes"].numpy()[wanted][order].clip(0, [700, 500, 700, 500])
    assert 1 < wanted.sum() < len(wanted)

    detector = load(folder, threshold=0.1)
    assert detector.label_of == {0: "Person", 2: "person"}
    bgr = torch.from_numpy(picture[..., ::-1].copy())
    (found,) = detector.detect([bgr])
    np.testing.assert_allclose(found.xyxy, expected, atol=1e-2)
    np.testing.assert_allclose(found.scores, result["scores"].numpy()[wanted][order], atol=1e-5)
    np.testing.assert_array_equal(found.class_ids, labels[wanted][order])

    smaller = bgr[:300, :320].contiguous()
    together = load(folder, threshold=0.1, max_batch=2).detect([bgr, smaller, bgr, bgr])
    for boxes, one in zip(together, [found, detector.detect([smaller])[0], found, found], strict=True):
        assert_same(boxes, one, pixels=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_hub_detectors_in_half_precision(dtype, picture, tmp_path) -> None:
    folder = save_yolos(tmp_path / "net", LABELS)
    image = torch.from_numpy(picture)
    expected, found = (load(folder, threshold=0.1, dtype=of).detect([image])[0] for of in (torch.float32, dtype))
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=20)
    assert not np.array_equal(found.xyxy, expected.xyxy), "it is half precision"


def test_default_threshold_of_hub_detectors(picture, tmp_path) -> None:
    folder, image = save_yolos(tmp_path / "net", LABELS), torch.from_numpy(picture)
    every, better = (load(folder, threshold=threshold).detect([image])[0] for threshold in (0.0, None))
    assert 0 < len(better) < len(every)
    assert_same(better, every[every.scores > 0.3])


def test_classes_by_name_and_number(tmp_path) -> None:
    folder = save_rt_detr(tmp_path / "net", LABELS)
    assert load(folder, classes=["CAT", "1"]).label_of == {3: "cat", 1: "dog"}
    with pytest.raises(UsageError, match=r"has no class 'dogs': choose from dog$"):
        load(folder, classes=["dogs"])
    with pytest.raises(UsageError, match=r"has no class '4': choose from Person, dog, person, cat$"):
        load(folder, classes=["4"])
    with pytest.raises(UsageError, match=r"person-detector-streampose has no class 'horse': choose from person$"):
        load(DEFAULT_DETECTOR, classes=["horse"])
    assert load(DEFAULT_DETECTOR, classes=["Person"]).label_of == {0: "person"}


def test_classes_as_one_text_and_as_numbers(tmp_path) -> None:
    folder = save_rt_detr(tmp_path / "net", LABELS)
    assert load(folder, classes="person").label_of == {0: "Person", 2: "person"}
    assert load(folder, classes="cat, 1").label_of == {3: "cat", 1: "dog"}
    assert load(folder, classes=[3, "dog"]).label_of == {3: "cat", 1: "dog"}
    for wrong in (4, -1):
        with pytest.raises(UsageError, match=rf"has no class '{wrong}': choose from Person, dog, person, cat$"):
            load(folder, classes=[wrong])
    with pytest.raises(UsageError, match=r"no classes given for .*net: choose from Person, dog, person, cat$"):
        load(folder, classes=[])


@pytest.mark.parametrize(
    ("option", "values", "text"),
    [
        ("threshold", [-0.1, 1.1, math.nan, "0.5"], "invalid box threshold .*: expected a number from 0 to 1"),
        ("max_people", [0, -1, 1.5], "invalid people limit .*: expected an integer of at least 1, or none"),
        ("max_batch", [0, -1, 1.5, "8"], "invalid detector batch size .*: expected an integer of at least 1"),
    ],
)
def test_wrong_options_are_refused(option, values, text) -> None:
    for value in values:
        with pytest.raises(UsageError, match=f"^{text}$"):
            load(DEFAULT_DETECTOR, **{option: value})


def test_name_may_be_a_path(tmp_path) -> None:
    for folder in (save_rt_detr(tmp_path / "hub", ["person"]), save_dense_detector(tmp_path / "dense")):
        assert load_detector(folder, device=CPU, dtype=torch.float32).name == str(folder)


@pytest.mark.parametrize(
    ("file", "key", "value", "text"),
    [
        ("config.json", "streampose_tokens", "x", "'x', expected an integer from 1 to 65536"),
        ("config.json", "streampose_tokens", 0, "0, expected an integer from 1 to 65536"),
        ("config.json", "scale_factor", 0, "0, expected an integer from 1 to 64"),
        ("preprocessor_config.json", "pad_value", "x", "'x', expected an integer from 0 to 255"),
        ("preprocessor_config.json", "pad_value", 999, "999, expected an integer from 0 to 255"),
        ("preprocessor_config.json", "image_mean", [1, 2], "[1, 2], expected three numbers"),
    ],
)
def test_wrong_values_of_the_bundled_sort_of_detector(file, key, value, text, tmp_path) -> None:
    folder = save_dense_detector(tmp_path / "net")
    edit_json(folder / file, {key: value})
    with pytest.raises(ModelError, match=re.escape(f"net: '{key}' in {file} is {text}") + "$"):
        load(folder)


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"image_std": [0, 0, 0]}, "net: 'image_std' in preprocessor_config.json is [0, 0, 0], expected three numbers"),
        ({"size": {"shortest_edge": "x"}}, "net/preprocessor_config.json: "),
    ],
)
def test_wrong_values_of_other_detectors(entries, text, tmp_path) -> None:
    folder = save_yolos(tmp_path / "net", LABELS)
    edit_json(folder / "preprocessor_config.json", entries)
    with pytest.raises(ModelError, match=re.escape(text)):
        load(folder)


def test_weights_of_detectors_are_finite_in_their_dtype(tmp_path) -> None:
    folder = save_yolos(tmp_path / "net", LABELS)
    model = YolosForObjectDetection.from_pretrained(folder)
    for value, dtype, text in (
        (1e5, torch.float16, "exceeds the range of torch.float16"),
        (math.nan, torch.float32, "are damaged"),
    ):
        model.class_labels_classifier.layers[-1].bias.data[0] = value
        model.save_pretrained(folder)
        with pytest.raises(ModelError, match=text):
            load(folder, dtype=dtype)
    dense = vitpose(maps=5, image_size=(96, 96))
    dense.head.conv.bias.data[0] = math.nan
    with pytest.raises(ModelError, match=r"net: the weights are damaged: head\.conv\.bias contains"):
        load(save_dense_detector(tmp_path / "dense-net", dense))


def test_without_a_class_called_person(tmp_path) -> None:
    folder = save_rt_detr(tmp_path / "net", ["boat", "duck"])
    with pytest.raises(UsageError, match=r"no class called person: choose `classes` from boat, duck$"):
        load(folder)
    assert load(folder, classes=["duck"]).label_of == {1: "duck"}


def test_networks_that_are_no_detectors(tmp_path) -> None:
    with pytest.raises(ModelError, match="is a pose network, not a detector: pass it as `pose`"):
        load(DEFAULT_POSE)
    folder = save_pose(tmp_path / "net")
    edit_json(folder / "config.json", {"model_type": "bert"})
    with pytest.raises(ModelError, match="has type bert; transformers has no object detector of this type"):
        load(folder)
    with pytest.raises(ModelError, match="a person detector needs 5 output maps, this network has 17"):
        load(save_dense_detector(tmp_path / "maps", vitpose(maps=17)))


def test_detector_without_its_image_processor(tmp_path) -> None:
    folder = save_rt_detr(tmp_path / "net", ["person"])
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"cannot load .*preprocessor_config\.json"):
        load(folder)


class Broken(PersonDetector):
    """A detector whose network does what a test says."""

    def __init__(self, answer: Callable[[], Boxes]) -> None:
        super().__init__("broken", {0: "person"}, device=CPU, max_people=None, max_batch=1)
        self.answer = answer

    def prepare(self, images: Sequence[torch.Tensor], *_: object) -> int:
        return len(images)

    def forward(self, inputs: int) -> list[Boxes]:
        return [self.answer() for _ in range(inputs)]

    def _boxes(self, outputs: list[Boxes], _height: int, _width: int) -> list[Boxes]:
        return outputs


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB\n"),
            "out of memory on cpu: .* `detect_batch` .*`dtype`",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory on cpu"),
        (MemoryError(), "out of memory on cpu"),
        (RuntimeError("no kernel\nfor Half"), "broken failed on cpu: no kernel for Half; try `dtype` float32"),
    ],
)
def test_failing_networks_end_in_one_line(error, text) -> None:
    def fail() -> Boxes:
        raise error

    with pytest.raises(ModelError, match=text) as caught:
        Broken(fail).detect([torch.zeros(4, 4, 3, dtype=torch.uint8)])
    assert caught.value.__cause__ is error


def test_undefined_and_empty_boxes_never_leave() -> None:
    nan = math.nan
    rows = [[0, 0, 9, 9, 0.5], [nan, 0, 9, 9, 0.9], [5, 5, 5, 8, 0.9], [20, 0, 30, 9, 0.9], [-9, -9, 99, 99, 0.7]]
    values = np.array([*rows, [0, 0, 9, 9, nan]], np.float32)
    broken = Broken(lambda: Boxes(values[:, :4], values[:, 4], np.arange(6)))
    (boxes,) = broken.detect([torch.zeros(10, 12, 3, dtype=torch.uint8)])
    np.testing.assert_array_equal(boxes.xyxy, np.array([[0, 0, 12, 10], [0, 0, 9, 9]], np.float32))
    np.testing.assert_array_equal(boxes.class_ids, [4, 0])
