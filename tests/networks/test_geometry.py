"""Crops and keypoints against transformers' own processor, against mmpose's blur, and against the truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import VitPoseForPoseEstimation
from transformers.models.vitpose.image_processing_pil_vitpose import (
    VitPoseImageProcessorPil,
    box_to_center_and_scale,
    get_keypoint_predictions,
    get_warp_matrix,
    scipy_warp_affine,
)
from transformers.models.vitpose.modeling_vitpose import VitPoseEstimatorOutput
from transformers.models.vitpose.modeling_vitpose import flip_back as hf_flip_back

from streampose.networks.geometry import (
    Blur,
    crop_on_device,
    crop_people,
    crop_regions,
    decode_heatmaps,
    flip_back,
    to_frame,
)

Array = npt.NDArray[np.float64]

ASSETS = Path(__file__).resolve().parents[2] / "assets"
HEIGHT, WIDTH = 256, 192
CELLS_HIGH, CELLS_WIDE = 64, 48
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BOXES = ["inside", "across", "outside", "tiny", "huge", "extreme aspect"]
FRAMES = [(720, 1280), (480, 640), (333, 517), (1080, 1920)]


class Reference(NamedTuple):
    """transformers' processor on numpy, which takes RGB frames and boxes as left, top, width, height."""

    processor: VitPoseImageProcessorPil

    def crops(self, image: npt.NDArray[np.uint8], boxes_xyxy: Array) -> torch.Tensor:
        rgb = np.ascontiguousarray(image[..., ::-1])
        crops: torch.Tensor = self.processor(rgb, boxes=[to_xywh(boxes_xyxy)], return_tensors="pt")["pixel_values"]
        return crops

    def keypoints(self, heatmaps: torch.Tensor, boxes_xyxy: Array) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = VitPoseEstimatorOutput(heatmaps=heatmaps)
        people = self.processor.post_process_pose_estimation(outputs, boxes=[to_xywh(boxes_xyxy)])[0]
        return torch.stack([p["keypoints"] for p in people]), torch.stack([p["scores"] for p in people])


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(VitPoseImageProcessorPil())


def to_xywh(boxes_xyxy: Array) -> Array:
    return np.concatenate([boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]], axis=1)


def some_boxes(kind: str, count: int, frame: tuple[int, int]) -> Array:
    """Boxes (count, 4), left, top, right, bottom, whose numbers float32 holds exactly."""
    rng = np.random.default_rng([count, *frame, len(kind)])
    frame_size = np.array(frame[::-1])
    lowest, highest, place = {
        "inside": (0.05, 0.4, (0.25, 0.75)),
        "across": (0.3, 0.6, (0.0, 0.05)),
        "outside": (0.05, 0.4, (1.6, 2.0)),
        "tiny": (0.5 / frame[0], 6.0 / frame[0], (0.1, 0.9)),
        "huge": (1.0, 4.0, (0.2, 0.8)),
        "extreme aspect": (0.004, 0.02, (0.2, 0.8)),
    }[kind]
    size = rng.uniform(lowest, highest, (count, 2)) * frame_size
    centre = rng.uniform(*place, (count, 2)) * frame_size
    if kind == "across":
        centre = np.where(rng.random((count, 2)) < 0.5, centre, frame_size - centre)
    if kind == "extreme aspect":
        wide = rng.random(count) < 0.5
        size = np.where(np.stack([wide, ~wide], axis=-1), size * 50, size)
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32).astype(np.float64)


def some_picture(frame: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Half noise, the hardest thing to resample, half smooth."""
    noise = np.random.default_rng(0).integers(0, 256, (*frame, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    noise[:, frame[1] // 2 :] = cv2.normalize(smooth, np.empty(0), 0, 255, cv2.NORM_MINMAX)[:, frame[1] // 2 :]
    return noise


def regions_of(boxes_xyxy: Array) -> torch.Tensor:
    return crop_regions(torch.from_numpy(boxes_xyxy).float(), height=HEIGHT, width=WIDTH)


def crops_of(image: npt.NDArray[np.uint8], boxes_xyxy: Array) -> torch.Tensor:
    return crop_people(torch.from_numpy(image), regions_of(boxes_xyxy), height=HEIGHT, width=WIDTH)


def crops_by_tensors_of(image: npt.NDArray[np.uint8], boxes_xyxy: Array) -> torch.Tensor:
    out = torch.full((len(boxes_xyxy), HEIGHT, WIDTH, 3), 9, dtype=torch.uint8)
    return crop_on_device(torch.from_numpy(image), regions_of(boxes_xyxy), out)


CROPPERS = pytest.mark.parametrize("cropper", [crops_of, crops_by_tensors_of])
Cropper = Callable[[npt.NDArray[np.uint8], Array], torch.Tensor]


def normalised(crops: torch.Tensor) -> torch.Tensor:
    """BGR bytes (N, H, W, 3) as transformers gives them out: (N, 3, H, W) RGB."""
    rgb = crops.flip(-1).permute(0, 3, 1, 2) / 255
    return (rgb - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def keypoints_of(heatmaps: torch.Tensor, boxes_xyxy: Array, blur: Blur) -> tuple[torch.Tensor, torch.Tensor]:
    xy, scores = decode_heatmaps(heatmaps, blur)
    return to_frame(xy, regions_of(boxes_xyxy), height=CELLS_HIGH, width=CELLS_WIDE), scores


def grey_levels(difference: torch.Tensor) -> torch.Tensor:
    """A difference of normalised crops as one of values in 0..1."""
    return difference.abs() * torch.tensor(STD)[:, None, None]


def some_heatmaps(people: int, *, where: str = "anywhere", noise: float = 0.02) -> torch.Tensor:
    """Heatmaps (people, 17, 64, 48) with a peak of sigma 2 each, of heights 0.1 to 1, and noise relative to it."""
    rng = np.random.default_rng([people, len(where)])
    x = rng.uniform(0, CELLS_WIDE - 1, (people, 17))
    y = rng.uniform(0, CELLS_HIGH - 1, (people, 17))
    if where == "borders and corners":
        x = np.where(rng.random(x.shape) < 0.7, rng.choice([-0.6, 0, 0.4, 1.3, 45.6, 46.6, 47, 47.7], x.shape), x)
        y = np.where(rng.random(y.shape) < 0.7, rng.choice([-0.6, 0, 0.4, 1.3, 61.6, 62.6, 63, 63.7], y.shape), y)
    heatmaps = gaussians(x, y)
    heatmaps += rng.normal(0, noise, heatmaps.shape)
    return torch.from_numpy(heatmaps * rng.uniform(0.1, 1.0, (people, 17, 1, 1))).float()


def gaussians(x: Array, y: Array, height: int = CELLS_HIGH, width: int = CELLS_WIDE) -> Array:
    """Heatmaps (..., height, width) of sigma 2 cells around (...) places."""
    across = np.exp(-((np.arange(width) - x[..., None]) ** 2) / 8)
    down = np.exp(-((np.arange(height) - y[..., None]) ** 2) / 8)
    return down[..., :, None] * across[..., None, :]


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("kind", BOXES)
@CROPPERS
def test_crops_are_those_of_transformers(
    reference: Reference, kind: str, frame: tuple[int, int], cropper: Cropper
) -> None:
    """Asked for: a mean difference of 1/255. Seen: a mean of 0.005/255, as one value in 600 rounds the other way."""
    image, boxes = some_picture(frame), some_boxes(kind, 8, frame)
    difference = grey_levels(normalised(cropper(image, boxes)) - reference.crops(image, boxes))
    assert difference.mean((1, 2, 3)).max() < 0.02 / 255
    assert difference.max() < 1.001 / 255


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (2, 2), (2, 40), (40, 2)])
@CROPPERS
def test_crops_of_the_smallest_frames_are_those_of_transformers(size: tuple[int, int], cropper: Cropper) -> None:
    """By its functions: the processor itself takes so small a picture for one with its channels in another place."""
    image = some_picture((40, 80))[: size[0], : size[1]]
    box = np.array([[-1.0, -1.5, size[1] + 0.5, size[0] + 1.0]])
    centre, scale = box_to_center_and_scale(to_xywh(box)[0], WIDTH, HEIGHT)
    matrix = get_warp_matrix(0, centre * 2.0, np.array([WIDTH, HEIGHT]) - 1.0, scale * 200.0)
    warped = scipy_warp_affine(image[..., ::-1], matrix, (HEIGHT, WIDTH))  # type: ignore[no-untyped-call]  # as above
    expected = (warped / 255 - MEAN) / STD
    difference = grey_levels(normalised(cropper(image, box))[0] - torch.from_numpy(expected.transpose(2, 0, 1)))
    assert (warped > 0).any() == (min(size) > 1)  # no sample falls exactly on a single row or column
    assert difference.max() < 1.001 / 255


def test_two_hundred_people(reference: Reference) -> None:
    image, boxes = some_picture((720, 1280)), some_boxes("inside", 200, (720, 1280))
    difference = grey_levels(normalised(crops_of(image, boxes)) - reference.crops(image, boxes))
    assert difference.mean((1, 2, 3)).max() < 0.02 / 255
    heatmaps = some_heatmaps(200)
    keypoints, scores = keypoints_of(heatmaps, boxes, "hf")
    expected, expected_scores = reference.keypoints(heatmaps, boxes)
    assert (keypoints - expected).abs().max() < 0.01
    assert torch.equal(scores, expected_scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nobody_is_an_ordinary_value(dtype: torch.dtype) -> None:
    nobody = np.zeros((0, 4))
    assert crops_of(some_picture((48, 64)), nobody).shape == (0, HEIGHT, WIDTH, 3)
    heatmaps = torch.zeros(0, 17, CELLS_HIGH, CELLS_WIDE, dtype=dtype)
    for blur in ("hf", "paper"):
        keypoints, scores = keypoints_of(flip_back(heatmaps, [(1, 2)]), nobody, blur)
        assert keypoints.shape == (0, 17, 2)
        assert scores.shape == (0, 17)
        assert keypoints.dtype == scores.dtype == torch.float32


def test_crops_go_into_a_slice_of_a_larger_batch() -> None:
    image, boxes = some_picture((480, 640)), some_boxes("across", 5, (480, 640))
    expected = crops_of(image, boxes)
    batch = torch.full((7, HEIGHT, WIDTH, 3), 9, dtype=torch.uint8)
    given_back = crop_people(torch.from_numpy(image), regions_of(boxes), height=HEIGHT, width=WIDTH, out=batch[1:6])
    assert given_back.data_ptr() == batch[1].data_ptr()
    assert torch.equal(batch[1:6], expected)
    assert (batch[0] == 9).all()
    assert (batch[6] == 9).all()
    with pytest.raises(ValueError, match=r"must have shape \(5, 256, 192, 3\), not \(6, 256, 192, 3\)"):
        crop_people(torch.from_numpy(image), regions_of(boxes), height=HEIGHT, width=WIDTH, out=batch[1:])


def test_a_frame_too_large_for_opencv_is_cropped_all_the_same() -> None:
    image = np.zeros((8, 40_000, 3), np.uint8)
    image[:, 35_000:] = 200
    (crop,) = crops_of(image, np.array([[34_996.0, 0, 35_004, 8]]))
    assert (crop[128, :70] == 0).all()
    assert (crop[128, 100:] == 200).all()


coordinate = st.floats(-5000, 5000, width=32)
extent = st.floats(0.125, 8000, width=32)


@settings(deadline=None, max_examples=100)
@given(coordinate, coordinate, extent, extent)
def test_regions_are_those_of_transformers(left: float, top: float, box_width: float, box_height: float) -> None:
    box = np.array([left, top, left + box_width, top + box_height]).astype(np.float32).astype(np.float64)
    assume(box[2] > box[0] and box[3] > box[1])
    centre, scale = box_to_center_and_scale(to_xywh(box[None])[0], WIDTH, HEIGHT)
    region = regions_of(box[None])[0].numpy()
    np.testing.assert_allclose(region[:2], centre, rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(region[2:], scale * 200, rtol=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.tuples(coordinate, coordinate, coordinate, coordinate), st.sampled_from([0, 1, 2, 3]))
def test_no_box_gives_numbers_that_are_none(corners: tuple[float, ...], same: int) -> None:
    left, top, right, bottom = corners
    box = np.array([[left, top, left if same & 1 else right, top if same & 2 else bottom]])
    regions = regions_of(box)
    assert (regions[:, 2:] > 0).all()
    assert torch.allclose(regions[:, 2] * HEIGHT, regions[:, 3] * WIDTH, rtol=1e-5)
    assert set(crops_of(np.full((9, 12, 3), 200, np.uint8), box).unique().tolist()) <= {0, 200}
    xy = to_frame(torch.tensor([[[0.0, 0.0], [47.0, 63.0]]]), regions, height=CELLS_HIGH, width=CELLS_WIDE)
    assert xy.isfinite().all()


def test_boxes_without_extent() -> None:
    boxes = np.array([[5, 5, 5, 45], [5, 5, 35, 5], [35, 5, 5, 45], [7, 8, 7, 8], [9, 9, 1, 1]])
    regions = regions_of(boxes)
    tall = (40 * 0.75 * 1.25, 40 * 1.25)
    wide = (30 * 1.25, 30 / 0.75 * 1.25)
    point = (1.25e-3, 1.25e-3 / 0.75)
    assert torch.allclose(regions[:, 2:], torch.tensor([tall, wide, tall, point, point]))
    assert torch.allclose(regions[:, :2], torch.tensor([[5, 25], [20, 5], [20, 25], [7, 8], [5, 5]]).float())


@CROPPERS
def test_a_box_that_is_not_a_number_gives_a_black_crop_and_spares_the_others(cropper: Cropper) -> None:
    image, boxes = some_picture((480, 640)), some_boxes("inside", 3, (480, 640))
    expected = cropper(image, boxes)
    boxes[1] = np.nan
    crops = cropper(image, boxes)
    assert torch.equal(crops[[0, 2]], expected[[0, 2]])
    assert (crops[1] == 0).all()


@pytest.mark.parametrize("where", ["anywhere", "borders and corners"])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_keypoints_are_those_of_transformers(
    reference: Reference, where: str, noise: float, dtype: torch.dtype
) -> None:
    """Asked for: 0.01 px and equal scores. Seen: 0.001 px, in regions of up to 6000 px."""
    heatmaps = some_heatmaps(24, where=where, noise=noise).to(dtype)
    for kind in ("inside", "huge"):
        boxes = some_boxes(kind, 24, (720, 1280))
        keypoints, scores = keypoints_of(heatmaps, boxes, "hf")
        expected, expected_scores = reference.keypoints(heatmaps.float(), boxes)
        assert (keypoints - expected).abs().max() < 0.01
        assert torch.equal(scores, expected_scores)


def dark(heatmap: Array) -> Array:
    """The peak of one heatmap as mmpose's `post_dark_udp` refines it: in float64, with OpenCV's blur."""
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    blurred = cv2.GaussianBlur(heatmap, (11, 11), 0)
    logs = np.pad(np.log(np.clip(blurred, 0.001, 50)), 1, mode="edge")[y : y + 3, x : x + 3]
    gradient = np.array([logs[1, 2] - logs[1, 0], logs[2, 1] - logs[0, 1]]) / 2
    dxx, dyy = logs[1, 2] - 2 * logs[1, 1] + logs[1, 0], logs[2, 1] - 2 * logs[1, 1] + logs[0, 1]
    dxy = (logs[2, 2] - logs[1, 2] - logs[2, 1] + 2 * logs[1, 1] - logs[1, 0] - logs[0, 1] + logs[0, 0]) / 2
    hessian = np.array([[dxx, dxy], [dxy, dyy]]) + np.finfo(np.float32).eps * np.eye(2)
    refined: Array = np.array([x, y]) - np.linalg.solve(hessian, gradient)
    return refined


@pytest.mark.parametrize("where", ["anywhere", "borders and corners"])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_the_blur_of_the_paper_is_that_of_opencv(where: str, noise: float) -> None:
    heatmaps = some_heatmaps(24, where=where, noise=noise)
    xy, scores = decode_heatmaps(heatmaps, "paper")
    expected = np.array([[dark(heatmap) for heatmap in person] for person in heatmaps.double().numpy()])
    np.testing.assert_allclose(xy, expected, atol=5e-4)
    assert torch.equal(scores, heatmaps.amax((2, 3)))


@pytest.mark.parametrize("size", [(3, 5), (6, 6), (7, 12), (13, 14), (96, 72)])
def test_heatmaps_of_any_size(reference: Reference, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform(-0.5, size[1] - 0.5, (2, 9)), rng.uniform(-0.5, size[0] - 0.5, (2, 9))
    heatmaps = torch.from_numpy(gaussians(*places, *size)).float()
    boxes = some_boxes("inside", 2, (480, 640))
    xy, _ = decode_heatmaps(heatmaps, "hf")
    expected, _ = reference.keypoints(heatmaps, boxes)
    assert (to_frame(xy, regions_of(boxes), height=size[0], width=size[1]) - expected).abs().max() < 0.01
    xy, _ = decode_heatmaps(heatmaps, "paper")
    np.testing.assert_allclose(xy, [[dark(h) for h in person] for person in heatmaps.double().numpy()], atol=5e-4)


@settings(deadline=None, max_examples=50)
@given(st.floats(8, CELLS_WIDE - 9), st.floats(8, CELLS_HIGH - 9), st.floats(0.3, 1))
def test_a_known_place_between_the_cells_is_found(x: float, y: float, peak: float) -> None:
    heatmap = torch.from_numpy(gaussians(np.array([[x]]), np.array([[y]])) * peak).float()
    for blur in ("hf", "paper"):
        xy, scores = decode_heatmaps(heatmap, blur)
        assert xy[0, 0].tolist() == pytest.approx([x, y], abs=0.005)
        assert 0.88 * peak < scores.item() <= peak * 1.000001


@pytest.mark.parametrize("blur", ["hf", "paper"])
def test_a_heatmap_without_a_peak(blur: Blur) -> None:
    heatmaps = torch.zeros(1, 4, CELLS_HIGH, CELLS_WIDE)
    heatmaps[0, 1] = -1
    heatmaps[0, 2] = 0.0005
    heatmaps[0, 3] = torch.nan
    xy, scores = decode_heatmaps(heatmaps, blur)
    assert xy.tolist() == [[[-1, -1], [-1, -1], [0, 0], [-1, -1]]]
    assert scores[0, :3].tolist() == pytest.approx([0, -1, 0.0005])
    assert scores[0, 3].isnan()


@pytest.mark.parametrize("blur", ["hf", "paper"])
def test_a_peak_that_overflowed_is_found_unrefined(blur: Blur) -> None:
    heatmap = torch.zeros(1, 1, CELLS_HIGH, CELLS_WIDE, dtype=torch.float16)
    heatmap[0, 0, 20, [10, 16]] = torch.inf  # the second meets a weight of 0: not a number
    xy, scores = decode_heatmaps(heatmap, blur)
    assert xy.tolist() == [[[10, 20]]]
    assert scores.tolist() == [[torch.inf]]


def test_the_first_of_equal_peaks_wins_as_in_transformers() -> None:
    """Heights under the 0.001 to which blurred heatmaps are clipped, so that no step follows."""
    heights = np.random.default_rng(0).integers(0, 4, (3, 17, CELLS_HIGH, CELLS_WIDE)) / 4096
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        heatmaps = torch.from_numpy(heights).to(dtype)
        expected, expected_scores = get_keypoint_predictions(heatmaps.float().numpy())
        xy, scores = decode_heatmaps(heatmaps, "hf")
        assert torch.equal(xy, torch.from_numpy(expected))
        assert torch.equal(scores, torch.from_numpy(expected_scores[..., 0]))


def test_decoding_neither_needs_nor_keeps_gradients() -> None:
    with torch.inference_mode():
        decode_heatmaps(some_heatmaps(1), "hf")
    xy, scores = decode_heatmaps(some_heatmaps(1).requires_grad_(), "hf")
    assert not xy.requires_grad
    assert not scores.requires_grad


@pytest.mark.parametrize("box", [(60, 30, 140, 170), (-40, 20, 90, 120), (100, 100, 108, 106)])
def test_from_the_frame_to_the_crop_to_the_cells_and_back(box: tuple[float, ...]) -> None:
    """A frame whose blue and green tell where each pixel is: the crop shows which place each of its pixels is from."""
    frame = np.zeros((200, 250, 3), np.uint8)
    frame[..., 0], frame[..., 1], frame[..., 2] = np.arange(250), np.arange(200)[:, None], 255
    crop = crops_of(frame, np.array([box], np.float64))[0]
    blue, green, red = crop.float().unbind(-1)
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    in_cells = torch.stack([columns * (CELLS_WIDE - 1) / (WIDTH - 1), rows * (CELLS_HIGH - 1) / (HEIGHT - 1)], dim=-1)
    regions = regions_of(np.array([box], np.float64))
    in_frame = to_frame(in_cells.flatten(0, 1)[None], regions, height=CELLS_HIGH, width=CELLS_WIDE)[0]
    shown = red.flatten() > 254
    assert shown.float().mean() > 0.3
    read = torch.stack([blue, green], dim=-1).flatten(0, 1)
    assert (read - in_frame)[shown].abs().max() < 0.51  # crops hold whole grey levels

    person_x, person_y = in_cells[130, 100].double().numpy()
    heatmap = torch.from_numpy(gaussians(np.array([[person_x]]), np.array([[person_y]]))).float()
    xy, _ = decode_heatmaps(heatmap, "paper")
    found = to_frame(xy, regions, height=CELLS_HIGH, width=CELLS_WIDE)[0, 0]
    cell_px = float(regions[0, 2]) / (CELLS_WIDE - 1)
    assert (found - in_frame[130 * WIDTH + 100]).abs().max() < 0.005 * cell_px


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(8)), st.integers(0, 4))
def test_flip_back_is_that_of_transformers(order: list[int], pairs: int) -> None:
    flip_pairs = [(order[2 * i], order[2 * i + 1]) for i in range(pairs)]
    heatmaps = torch.rand(2, 8, 7, 6)
    pairs_tensor = torch.tensor(flip_pairs, dtype=torch.long).view(-1, 2)
    expected = hf_flip_back(heatmaps, pairs_tensor)  # type: ignore[no-untyped-call]  # transformers does not type it
    before = heatmaps.clone()
    flipped = flip_back(heatmaps, flip_pairs)
    assert torch.equal(flipped, expected)
    assert torch.equal(heatmaps, before)
    assert torch.equal(flip_back(flipped, flip_pairs), heatmaps)


def chain(device: str, image: npt.NDArray[np.uint8], boxes: Array, heatmaps: torch.Tensor) -> list[torch.Tensor]:
    """Crops, keypoints by both blurs and scores, computed on a device."""
    regions = crop_regions(torch.from_numpy(boxes).float().to(device), height=HEIGHT, width=WIDTH)
    frame = torch.from_numpy(image).to(device)
    crops = crop_people(frame, regions, height=HEIGHT, width=WIDTH)
    results = [crops]
    for blur in ("hf", "paper"):
        xy, scores = decode_heatmaps(flip_back(heatmaps.to(device), [(1, 2)]), blur)
        results += [to_frame(xy, regions, height=CELLS_HIGH, width=CELLS_WIDE), scores]
    assert all(result.device.type == device for result in results)
    return results


def test_other_devices_are_never_waited_for() -> None:
    """On `meta`, whose tensors have no values, whatever asks for one raises."""
    boxes = some_boxes("inside", 6, (480, 640))
    results = chain("meta", some_picture((480, 640)), boxes, some_heatmaps(6))
    assert [tuple(r.shape) for r in results] == [(6, HEIGHT, WIDTH, 3), (6, 17, 2), (6, 17), (6, 17, 2), (6, 17)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
def test_an_accelerator_computes_what_the_cpu_does() -> None:
    accelerator = torch.accelerator.current_accelerator()
    assert accelerator is not None
    boxes = some_boxes("across", 20, (720, 1280))
    arguments = some_picture((720, 1280)), boxes, some_heatmaps(20)
    there, here = chain(accelerator.type, *arguments), chain("cpu", *arguments)
    difference = grey_levels(normalised(there[0].cpu()) - normalised(here[0]))
    assert difference.mean() < 0.02 / 255
    assert difference.max() < 1.001 / 255
    for on_device, on_cpu in zip(there[1:], here[1:], strict=True):
        assert torch.allclose(on_device.cpu(), on_cpu, rtol=0, atol=0.01)


def test_the_whole_chain_on_the_demo_gives_the_keypoints_of_transformers(reference: Reference) -> None:
    with av.open(str(ASSETS / "demo.mp4")) as container:
        image = next(container.decode(video=0)).to_ndarray(format="bgr24")
    people = json.loads((ASSETS / "demo_truth.json").read_text(encoding="utf-8"))["frames"][0]["people"]
    boxes = np.array([person["box_xyxy"] for person in people])
    model = VitPoseForPoseEstimation.from_pretrained(
        ASSETS / "models" / "vitpose-small-streampose", dtype=torch.float32
    )
    with torch.inference_mode():
        expected, expected_scores = reference.keypoints(model(reference.crops(image, boxes)).heatmaps, boxes)
        keypoints, scores = keypoints_of(model(normalised(crops_of(image, boxes))).heatmaps, boxes, "hf")
    assert len(people) > 3
    assert (keypoints - expected).abs().max() < 0.1
    assert (scores - expected_scores).abs().max() < 1e-3
