"""The fast forward pass against transformers' own, for every sort of checkpoint."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import VitPoseForPoseEstimation

from streampose.errors import ModelError, UsageError
from streampose.networks.checkpoints import resolve
from streampose.networks.known import DEFAULT_POSE
from streampose.networks.loading import load_network
from streampose.networks.vitpose import DenseMapNetwork, can_lay_out, load_dense_map_network
from tests.tiny import save_pose, save_rt_detr, vitpose

CPU = torch.device("cpu")
MEAN, STD = (0.45, 0.5, 0.4), (0.2, 0.3, 0.25)
"""No two colours alike."""


def pictures(count: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8)


def normalised(images: torch.Tensor, dtype: torch.dtype, mean=MEAN, std=STD) -> torch.Tensor:
    """What transformers' processors make of BGR bytes."""
    rgb = images.flip(-1).permute(0, 3, 1, 2).to(dtype) / 255
    return (rgb - torch.tensor(mean, dtype=dtype)[:, None, None]) / torch.tensor(std, dtype=dtype)[:, None, None]


def dense(model: VitPoseForPoseEstimation, index: int | None = None) -> DenseMapNetwork:
    return DenseMapNetwork(model, index, mean=MEAN, std=STD)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


CASES = [
    *((1, index, (2,)) for index in (None, 0)),
    *((6, index, (2,)) for index in (None, *range(6))),
    *((experts, 0, stages) for experts in (1, 3) for stages in ((0,), (3,), (1, 2))),
]


@pytest.mark.parametrize("simple", [True, False])
@pytest.mark.parametrize(("experts", "index", "stages"), CASES)
def test_equals_transformers(simple: bool, experts: int, index: int | None, stages: tuple[int, ...]) -> None:
    images = pictures(2, 64, 48)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 3e-5)):
        model = vitpose(experts=experts, simple=simple, stages=stages).to(dtype)
        with torch.inference_mode():
            expected = model(normalised(images, dtype), dataset_index=torch.full((2,), index or 0)).heatmaps
        assert relative_error(dense(model, index)(images), expected) < bound


def test_experts_differ() -> None:
    images = pictures(1, 64, 48)
    first, last = (dense(vitpose(experts=3), index)(images) for index in (0, 2))
    assert relative_error(first, last) > 0.01


def test_other_scales_of_the_simple_decoder() -> None:
    model = vitpose(scale=2).double()
    images = pictures(1, 64, 48)
    with torch.inference_mode():
        expected = model(normalised(images, torch.float64)).heatmaps
    assert expected.shape[-2:] == (8, 6)
    assert relative_error(dense(model)(images), expected) < 1e-12


def test_bundled_pose_network_equals_transformers() -> None:
    checkpoint = resolve(DEFAULT_POSE)
    model = load_network(checkpoint, VitPoseForPoseEstimation, torch.float32)
    images = pictures(2, 256, 192)
    with torch.inference_mode():
        expected = model(normalised(images, torch.float32, *checkpoint.normalisation())).heatmaps
    assert relative_error(load_dense_map_network(checkpoint, CPU, torch.float32)(images), expected) < 2e-5


@pytest.mark.parametrize("simple", [True, False])
def test_other_grids_have_resampled_position_embeddings(simple: bool) -> None:
    small, large = vitpose(simple=simple).double(), vitpose(simple=simple, image_size=(80, 128)).double()
    weights = small.state_dict()
    key = "backbone.embeddings.position_embeddings"
    everywhere, grid = weights[key][:, :1], weights[key][:, 1:]
    planes = grid.reshape(1, 4, 3, 32).permute(0, 3, 1, 2)
    resampled = (
        F.interpolate(planes, (5, 8), mode="bicubic", align_corners=False).permute(0, 2, 3, 1).reshape(1, 40, 32)
    )
    large.load_state_dict({**weights, key: torch.cat([everywhere, resampled], dim=1)})
    images = pictures(2, 80, 128)
    with torch.inference_mode():
        expected = large(normalised(images, torch.float64)).heatmaps
    network = dense(small)
    assert relative_error(network(images), expected) < 1e-12
    assert relative_error(network(images), expected) < 1e-12, "from the cache"


def test_grids_are_not_kept_for_ever_nor_across_dtypes() -> None:
    network = dense(vitpose())
    images = pictures(1, 64, 16)
    before = network(images)
    for columns in range(1, 36):
        network(pictures(1, 16, 16 * columns))
    assert len(network._positions_of_grid) <= 32
    assert torch.equal(network(images), before)
    assert network.double()(images).dtype == torch.float64


def test_an_image_does_not_depend_on_its_batch() -> None:
    network = dense(vitpose().double())
    images = pictures(21, 64, 48)
    assert relative_error(network(images), torch.cat([network(one[None]) for one in images])) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh", "relu"])
def test_weights_laid_out_for_a_cpu_change_nothing(activation: str, dtype: torch.dtype, tmp_path) -> None:
    model = vitpose(experts=2)
    model.config.backbone_config.hidden_act = activation
    folder = save_pose(tmp_path / activation, type(model)(model.config))
    checkpoint = resolve(folder)
    laid_out = load_dense_map_network(checkpoint, CPU, dtype)
    plain = DenseMapNetwork(load_network(checkpoint, VitPoseForPoseEstimation, torch.float32)).to(dtype)
    is_plain = any(isinstance(module, torch.nn.Linear) for module in laid_out.layers.modules())
    assert is_plain != can_lay_out(dtype)
    assert can_lay_out(torch.float32)
    bound = 1e-5 if dtype == torch.float32 else 0.05
    for images in (pictures(3, 64, 48), pictures(2, 64, 64), pictures(2, 80, 208)):
        assert relative_error(laid_out(images).float(), plain(images).float()) < bound


def test_bfloat16_stays_near_float32() -> None:
    checkpoint = resolve(DEFAULT_POSE)
    images = pictures(1, 256, 192)
    single = load_dense_map_network(checkpoint, CPU, torch.float32)(images)
    half = load_dense_map_network(checkpoint, CPU, torch.bfloat16)(images)
    assert half.dtype == torch.float32, "the head computes in it"
    assert relative_error(half.float(), single) < 0.1


def test_part_of_a_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="not a multiple of the patch size"):
        dense(vitpose())(pictures(1, 64, 50))


@pytest.mark.parametrize(
    ("experts", "index", "known"), [(3, 3, r"0\.\.2"), (3, -1, r"0\.\.2"), (1, 1, r"0 \(.* no experts\)")]
)
def test_unknown_dataset_index_is_refused(experts: int, index: int, known: str) -> None:
    with pytest.raises(UsageError, match=f"invalid dataset index {index}: .*{known}"):
        DenseMapNetwork(vitpose(experts=experts), index)


def test_another_architecture_is_refused(tmp_path) -> None:
    checkpoint = resolve(str(save_rt_detr(tmp_path / "net", ["person"])))
    with pytest.raises(ModelError, match="is not a ViTPose network; its type is rt_detr"):
        load_dense_map_network(checkpoint, CPU, torch.float32)
