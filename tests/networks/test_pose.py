"""The pose estimator as a whole, and what it reads from a checkpoint about skeleton and input."""

from __future__ import annotations

import json
import math
import re

import av
import numpy as np
import pytest
import torch
from transformers import VitPoseForPoseEstimation
from transformers.models.vitpose.image_processing_pil_vitpose import VitPoseImageProcessorPil

from streampose.errors import ModelError, UsageError
from streampose.frames import Boxes
from streampose.networks.checkpoints import assets_folder, demo_clip, resolve
from streampose.networks.device import fetch
from streampose.networks.known import DEFAULT_DETECTOR, DEFAULT_POSE
from streampose.networks.pose import COCO_EDGES, COCO_NAMES, PoseEstimator, skeleton_of
from tests.tiny import edit_json, save_pose, save_rt_detr, vitpose

CPU = torch.device("cpu")


def load(name: object, **options) -> PoseEstimator:
    return PoseEstimator(str(name), **{"device": CPU, "dtype": torch.float32, **options})


def boxes_of(xyxy: object) -> Boxes:
    values = np.array(xyxy, np.float32).reshape(-1, 4)
    return Boxes(values, np.ones(len(values), np.float32), np.zeros(len(values), np.int64))


@pytest.fixture(scope="module")
def demo() -> list[tuple[torch.Tensor, Boxes, np.ndarray]]:
    """Three frames of the demo clip, the true boxes of their people, and the true keypoints (N, 17, 3)."""
    truth = json.loads((assets_folder() / "demo_truth.json").read_text())["frames"]
    with av.open(demo_clip()) as clip:
        frames = {index: frame.to_ndarray(format="bgr24") for index, frame in enumerate(clip.decode(video=0))}
    return [
        (
            torch.from_numpy(frames[index]),
            boxes_of([person["box_xyxy"] for person in truth[index]["people"]]),
            np.array([person["keypoints"] for person in truth[index]["people"]], np.float32),
        )
        for index in (0, 80, 160)
    ]


@pytest.fixture(scope="module")
def bundled() -> PoseEstimator:
    return load(DEFAULT_POSE, max_batch=3)


@pytest.mark.parametrize("blur", ["hf", "paper"])
def test_bundled_network_on_the_demo_clip(blur, demo) -> None:
    found = load(DEFAULT_POSE, blur=blur).estimate([image for image, *_ in demo], [boxes for _, boxes, _ in demo])
    near = []
    for (keypoints, scores, _), (_, boxes, truth) in zip(found, demo, strict=True):
        assert keypoints.dtype == scores.dtype == np.float32
        assert keypoints.shape == (*scores.shape, 2) == (len(boxes), 17, 2)
        distances = np.linalg.norm(keypoints - truth[..., :2], axis=-1)
        height = boxes.xyxy[:, 3:] - boxes.xyxy[:, 1:2]
        seen = truth[..., 2] == 2
        seen[seen.sum(1) < 12] = False  # as its model card counts: people hidden by others are left out
        near.append((distances < 0.05 * height)[seen])
    assert np.concatenate(near).mean() > 0.85


def test_equals_transformers_reference_chain(demo) -> None:
    image, boxes, _ = demo[1]
    folder = assets_folder() / "models" / DEFAULT_POSE
    processor, model = (
        VitPoseImageProcessorPil.from_pretrained(folder),
        VitPoseForPoseEstimation.from_pretrained(folder),
    )
    xywh = np.concatenate([boxes.xyxy[:, :2], boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]], axis=1)
    inputs = processor(image.numpy()[..., ::-1], boxes=[xywh], return_tensors="pt")
    with torch.no_grad():
        outputs = model.float()(**inputs)
    (people,) = processor.post_process_pose_estimation(outputs, boxes=[xywh], kernel_size=11)
    ((keypoints, scores, _),) = load(DEFAULT_POSE, blur="hf").estimate([image], [boxes])
    np.testing.assert_allclose(keypoints, np.stack([person["keypoints"] for person in people]), atol=0.3)
    np.testing.assert_allclose(scores, np.stack([person["scores"] for person in people]), atol=0.01)


def test_pictures_of_several_sizes_as_one_by_one(bundled, demo) -> None:
    (first, boxes, _), (second, more, _), _ = demo
    images = [first, first[:500, :600], second, second[::2, ::2]]
    people = [boxes[:2], Boxes.none(), more, boxes_of(more.xyxy[:1] / 2)]
    together = bundled.estimate(images, people)
    assert [len(keypoints) for keypoints, *_ in together] == [2, 0, len(more), 1]
    for image, some, (keypoints, scores, covariances) in zip(images, people, together, strict=True):
        for person in range(len(some)):
            ((alone, its_scores, its_covariances),) = bundled.estimate([image], [some[person : person + 1]])
            np.testing.assert_allclose(keypoints[person], alone[0], atol=0.02)
            np.testing.assert_allclose(scores[person], its_scores[0], atol=1e-3)
            np.testing.assert_allclose(covariances[person], its_covariances[0], rtol=0.05, atol=0.05)


def test_more_may_be_begun_before_the_first_is_waited_for(bundled, demo) -> None:
    (first, boxes, _), (second, more, _), _ = demo
    expected = [bundled.estimate([first], [boxes]), bundled.estimate([second], [more])]
    begun_first, begun_second = bundled.begin([first], [boxes]), bundled.begin([second], [more])
    for found, ((keypoints, scores, _),) in zip((begun_first.result(), begun_second.result()), expected, strict=True):
        np.testing.assert_allclose(found[0][0], keypoints, atol=0.02)
        np.testing.assert_allclose(found[0][1], scores, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_what_is_fetched_is_what_was_there_when_it_was_asked_for() -> None:
    numbers = torch.arange(1 << 20, dtype=torch.float32, device="cuda")
    first = fetch(numbers * 2)
    numbers.add_(1)
    second = fetch(numbers)
    np.testing.assert_array_equal(second.result(), np.arange(1, (1 << 20) + 1))
    np.testing.assert_array_equal(first.result(), np.arange(1 << 20) * 2)


def test_nobody_and_nothing_are_ordinary(bundled, demo) -> None:
    assert bundled.estimate([], []) == []
    for keypoints, scores, covariances in bundled.estimate([demo[0][0]] * 2, [Boxes.none()] * 2):
        assert keypoints.shape == (0, 17, 2)
        assert scores.shape == (0, 17)
        assert covariances.shape == (0, 17, 2, 2)


def test_flip_test_sees_no_difference_between_left_and_right(demo) -> None:
    image, boxes, _ = demo[2]
    estimator = load(DEFAULT_POSE, flip_test=True)
    mirrored = boxes_of(
        np.stack([1279 - boxes.xyxy[:, 2], boxes.xyxy[:, 1], 1279 - boxes.xyxy[:, 0], boxes.xyxy[:, 3]], 1)
    )
    (straight, scores, covariances), (turned, its_scores, its_covariances) = estimator.estimate(
        [image, image.flip(1)], [boxes, mirrored]
    )
    order = np.arange(17)
    for left, right in estimator.skeleton.flip_pairs:
        order[[left, right]] = right, left
    np.testing.assert_allclose(its_scores[:, order], scores, atol=0.01)
    sure = scores > 0.5
    assert sure.mean() > 0.5
    turned_back = turned[:, order] * [-1, 1] + [1279, 0]
    np.testing.assert_allclose(turned_back[sure], straight[sure], atol=0.5)
    turned_covariances = its_covariances[:, order] * [[1, -1], [-1, 1]]
    sizes = np.trace(covariances, axis1=-2, axis2=-1)[..., None, None]
    assert np.quantile(np.abs(turned_covariances - covariances)[sure] / sizes[sure], 0.95) < 0.1
    ((once, *_),) = load(DEFAULT_POSE).estimate([image], [boxes])
    assert np.abs(once - straight)[sure].max() > 0.5, "the flip test changes something"


def test_keypoints_without_a_finite_heatmap_have_no_place_and_score_zero(tmp_path, demo) -> None:
    estimator = load(save_pose(tmp_path / "net"))
    estimator._network.head.bias.data[3] = math.nan
    ((keypoints, scores, covariances),) = estimator.estimate([demo[0][0]], [demo[0][1]])
    assert np.isnan(keypoints[:, 3]).all()
    assert np.isfinite(np.delete(keypoints, 3, axis=1)).all()
    assert (scores[:, 3] == 0).all()
    assert (np.delete(scores, 3, axis=1) != 0).all()
    assert np.isnan(covariances[:, 3]).all()
    assert np.isfinite(np.delete(covariances, 3, axis=1)).all()


def test_weights_too_large_for_the_dtype_are_refused(tmp_path) -> None:
    model = vitpose()
    model.head.conv.bias.data[3] = 1e5
    folder = save_pose(tmp_path / "net", model)
    for dtype in (torch.float32, torch.bfloat16):
        load(folder, dtype=dtype)
    text = r"net: head\.bias in the weights exceeds the range of torch\.float16: use `dtype` float32 or bfloat16$"
    with pytest.raises(ModelError, match=text):
        load(folder, dtype=torch.float16)


@pytest.mark.parametrize("max_batch", [0, -1, 1.5, "8"])
def test_wrong_batches_are_refused(max_batch) -> None:
    with pytest.raises(UsageError, match=r"^invalid pose batch size .*: expected an integer of at least 1$"):
        load(DEFAULT_POSE, max_batch=max_batch)


def test_name_may_be_a_path(tmp_path) -> None:
    folder = save_pose(tmp_path / "net")
    assert PoseEstimator(folder, device=CPU, dtype=torch.float32).name == str(folder)


def test_failing_network_ends_in_one_line(tmp_path, demo) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    estimator = load(save_pose(tmp_path / "net"))
    estimator._network.register_forward_pre_hook(fail)
    with pytest.raises(ModelError, match="out of memory on cpu: use a smaller `pose_batch` or another `dtype`"):
        estimator.estimate([demo[0][0]], [demo[0][1]])


def test_experts_and_their_validation(tmp_path, demo) -> None:
    folder = save_pose(tmp_path / "net", vitpose(experts=3))
    scores = [load(folder, dataset_index=index).estimate([demo[0][0]], [demo[0][1]])[0][1] for index in (None, 0, 2)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert np.abs(scores[1] - scores[2]).max() > 1e-3
    for wrong in (3, -1, "coco"):
        with pytest.raises(UsageError, match=rf"invalid dataset index {wrong}: expected 0\.\.2"):
            load(folder, dataset_index=wrong)


def test_bundled_skeleton(bundled) -> None:
    skeleton = bundled.skeleton
    assert bundled.keypoint_count == len(skeleton.names) == 17
    assert skeleton.names[:3] == ("Nose", "L_Eye", "R_Eye")
    assert skeleton.edges == COCO_EDGES
    assert skeleton.flip_pairs == tuple((index, index + 1) for index in range(1, 17, 2))


def skeleton_from(folder, count: int = 17, **config):
    save_pose(folder, vitpose(maps=count), **config)
    return skeleton_of(resolve(str(folder)), count)


def labels(*names: str) -> dict[str, str]:
    return {str(index): name for index, name in enumerate(names)}


COCO_PAIRS = tuple((index, index + 1) for index in range(1, 17, 2))


def test_seventeen_points_without_names_are_coco(tmp_path) -> None:
    for number, names in enumerate([labels(*(f"LABEL_{index}" for index in range(17))), None]):
        skeleton = skeleton_from(tmp_path / str(number), id2label=names)
        assert (skeleton.names, skeleton.edges, skeleton.flip_pairs) == (COCO_NAMES, COCO_EDGES, COCO_PAIRS)


def test_cocos_names_in_any_spelling_have_cocos_edges(tmp_path) -> None:
    names = [name.replace("left_", "L ").replace("right_", "R ").title() for name in COCO_NAMES]
    skeleton = skeleton_from(tmp_path / "net", id2label=labels(*names))
    assert skeleton.names == tuple(names)
    assert (skeleton.edges, skeleton.flip_pairs) == (COCO_EDGES, COCO_PAIRS)


def test_other_points_have_no_edges_but_pairs_by_name(tmp_path) -> None:
    names = ["Right Hand", "Head", "Left Hand", "left_toe_2", "right_toe_1", "right_toe_2"]
    skeleton = skeleton_from(tmp_path / "net", 6, id2label=labels(*names))
    assert skeleton.names == tuple(names)
    assert skeleton.edges == ()
    assert skeleton.flip_pairs == ((2, 0), (3, 5))
    animal = [f"point {index}" for index in range(17)]
    assert skeleton_from(tmp_path / "animal", id2label=labels(*animal)).edges == ()


def test_written_edges_and_pairs_rule(tmp_path) -> None:
    skeleton = skeleton_from(tmp_path / "net", edges=[[0, 16], [3, 4]], flip_pairs=[])
    assert skeleton.edges == ((0, 16), (3, 4))
    assert skeleton.flip_pairs == ()


@pytest.mark.parametrize("key", ["edges", "flip_pairs"])
@pytest.mark.parametrize("value", [[[0, 17]], [[-1, 2]], [[1, 2, 3]], [["a", "b"]], 7])
def test_wrong_edges_and_pairs_are_refused(key, value, tmp_path) -> None:
    text = rf"net: '{key}' in config\.json is {re.escape(str(value))}, expected pairs of keypoint indices from 0 to 16$"
    with pytest.raises(ModelError, match=text):
        load(save_pose(tmp_path / "net", **{key: value}))


def test_flip_test_needs_pairs(tmp_path) -> None:
    with pytest.raises(UsageError, match="does not define left and right keypoints: do not use `flip_test`"):
        load(save_pose(tmp_path / "net", flip_pairs=[]), flip_test=True)


def test_size_and_colours_come_from_the_preprocessor(tmp_path, demo) -> None:
    image, boxes, _ = demo[0]
    folder = save_pose(tmp_path / "net")

    def scores(**preprocessing: object) -> np.ndarray:
        (folder / "preprocessor_config.json").unlink(missing_ok=True)
        if preprocessing:
            edit_json(folder / "preprocessor_config.json", preprocessing)
        return load(folder).estimate([image], [boxes])[0][1]

    default = scores()
    np.testing.assert_array_equal(default, scores(size={"height": 64, "width": 48}))
    np.testing.assert_array_equal(default, scores(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]))
    assert np.abs(default - scores(size={"height": 128, "width": 96})).max() > 1e-3
    assert np.abs(default - scores(image_mean=[0.5] * 3)).max() > 1e-3
    raw = scores(do_normalize=False)
    assert np.abs(default - raw).max() > 1e-3
    # 2 x: the same input as (x - 0) / 0.5.
    np.testing.assert_allclose(
        scores(do_normalize=False, rescale_factor=2 / 255), scores(image_mean=[0] * 3, image_std=[0.5] * 3), rtol=1e-4
    )


@pytest.mark.parametrize(
    "size",
    [{"height": 60, "width": 48}, {"height": 0, "width": 48}, {"height": "64", "width": 48}, {"longest_edge": 9}, 64],
)
def test_wrong_input_sizes_are_refused(size, tmp_path) -> None:
    folder = save_pose(tmp_path / "net")
    edit_json(folder / "preprocessor_config.json", {"size": size})
    with pytest.raises(
        ModelError,
        match=r"net: 'size' in preprocessor_config\.json is .*, expected `height` and `width` in multiples of the 16",
    ):
        load(folder)


def test_wrong_values_are_found_before_the_first_frame(tmp_path) -> None:
    folder = save_pose(tmp_path / "net")
    edit_json(folder / "preprocessor_config.json", {"image_mean": [1, 2]})
    with pytest.raises(ModelError, match=r"net: 'image_mean' in preprocessor_config\.json is \[1, 2\], expected three"):
        load(folder)
    with pytest.raises(
        ModelError, match=r"bad: 'scale_factor' in config\.json is 0, expected an integer from 1 to 64$"
    ):
        load(save_pose(tmp_path / "bad", scale_factor=0))


@pytest.mark.parametrize(
    "entry", [{"num_attention_heads": 0}, {"num_attention_heads": 5}, {"out_indices": [9]}, {"layer_norm_eps": "x"}]
)
def test_wrong_values_inside_the_network_are_found_before_the_first_frame(entry, tmp_path) -> None:
    folder = save_pose(tmp_path / "net")
    backbone = json.loads((folder / "config.json").read_text())["backbone_config"]
    edit_json(folder / "config.json", {"backbone_config": backbone | entry})
    with pytest.raises(ModelError, match=r"^cannot load .*net from .*net(/config\.json)?: .+"):
        load(folder)


def test_networks_for_more_than_three_colours_are_refused(tmp_path) -> None:
    config = vitpose().config
    config.backbone_config.num_channels = 4
    folder = save_pose(tmp_path / "net", VitPoseForPoseEstimation(config))
    with pytest.raises(ModelError, match=r"^cannot load .*net/config\.json: it needs 4 colour channels, not 3"):
        load(folder)


def test_networks_that_are_not_for_poses(tmp_path) -> None:
    with pytest.raises(ModelError, match="is a network for person-detection, not for poses: pass it as `detector`"):
        load(DEFAULT_DETECTOR)
    with pytest.raises(ModelError, match="is not a ViTPose network; its type is rt_detr"):
        load(save_rt_detr(tmp_path / "net", ["person"]))


def test_unknown_blur_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown blur 'none': choose one of hf, paper"):
        load(DEFAULT_POSE, blur="none")
