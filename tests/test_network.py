"""The fast forward pass against transformers' own, for every sort of checkpoint."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import VitPoseForPoseEstimation

from streampose.errors import ModelError, UsageError
from streampose.models import DEFAULT_POSE, load_network, resolve
from streampose.network import DenseMapNetwork, load_dense_map_network
from tests.networks import save_rt_detr, vitpose

CPU = torch.device("cpu")


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
    model = vitpose(experts=experts, simple=simple, stages=stages).double()
    pixels = torch.randn(2, 3, 64, 48, dtype=torch.float64)
    with torch.inference_mode():
        expected = model(pixels, dataset_index=torch.full((2,), index or 0)).heatmaps
    single = model.float()(pixels.float(), dataset_index=torch.full((2,), index or 0)).heatmaps.detach()
    network = DenseMapNetwork(model, index)
    assert relative_error(network(pixels.float()), single) < 3e-5
    assert relative_error(network.double()(pixels), expected) < 1e-12


def test_experts_differ() -> None:
    pixels = torch.randn(1, 3, 64, 48)
    first, last = (DenseMapNetwork(vitpose(experts=3), index)(pixels) for index in (0, 2))
    assert relative_error(first, last) > 0.01


def test_other_scales_of_the_simple_decoder() -> None:
    model = vitpose(scale=2).double()
    pixels = torch.randn(1, 3, 64, 48, dtype=torch.float64)
    with torch.inference_mode():
        expected = model(pixels).heatmaps
    assert expected.shape[-2:] == (8, 6)
    assert relative_error(DenseMapNetwork(model)(pixels), expected) < 1e-12


def test_bundled_pose_network_equals_transformers() -> None:
    checkpoint = resolve(DEFAULT_POSE)
    model = load_network(checkpoint, VitPoseForPoseEstimation, torch.float32)
    pixels = torch.randn(2, 3, 256, 192)
    with torch.inference_mode():
        expected = model(pixels).heatmaps
    assert relative_error(load_dense_map_network(checkpoint, CPU, torch.float32)(pixels), expected) < 2e-5


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
    pixels = torch.randn(2, 3, 80, 128, dtype=torch.float64)
    with torch.inference_mode():
        expected = large(pixels).heatmaps
    network = DenseMapNetwork(small)
    assert relative_error(network(pixels), expected) < 1e-12
    assert relative_error(network(pixels), expected) < 1e-12, "from the cache"


def test_grids_are_not_kept_for_ever_nor_across_dtypes() -> None:
    network = DenseMapNetwork(vitpose())
    pixels = torch.randn(1, 3, 64, 16)
    before = network(pixels)
    for columns in range(1, 36):
        network(torch.zeros(1, 3, 16, 16 * columns))
    assert len(network._positions_of_grid) <= 32
    assert torch.equal(network(pixels), before)
    assert network.double()(pixels.double()).dtype == torch.float64


def test_an_image_does_not_depend_on_its_batch() -> None:
    network = DenseMapNetwork(vitpose().double())
    pixels = torch.randn(5, 3, 64, 48, dtype=torch.float64)
    assert relative_error(network(pixels), torch.cat([network(one[None]) for one in pixels])) < 1e-12


def test_bfloat16_stays_near_float32() -> None:
    checkpoint = resolve(DEFAULT_POSE)
    pixels = torch.randn(1, 3, 256, 192)
    single = load_dense_map_network(checkpoint, CPU, torch.float32)(pixels)
    half = load_dense_map_network(checkpoint, CPU, torch.bfloat16)(pixels.bfloat16())
    assert half.dtype == torch.bfloat16
    assert relative_error(half.float(), single) < 0.1


@pytest.mark.parametrize("simple", [True, False])
def test_torch_compiles_it_in_one_piece(simple: bool) -> None:
    network = DenseMapNetwork(vitpose(simple=simple, experts=2))
    compiled = torch.compile(network, backend="eager", fullgraph=True, dynamic=False)
    for size in ((64, 48), (32, 80)):
        pixels = torch.randn(2, 3, *size)
        assert torch.equal(compiled(pixels), network(pixels))


def test_part_of_a_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number"):
        DenseMapNetwork(vitpose())(torch.zeros(1, 3, 64, 50))


@pytest.mark.parametrize(("experts", "index", "known"), [(3, 3, r"0\.\.2"), (3, -1, r"0\.\.2"), (1, 1, "only 0")])
def test_unknown_dataset_index_is_refused(experts: int, index: int, known: str) -> None:
    with pytest.raises(UsageError, match=f"no dataset index {index}: .*{known}"):
        DenseMapNetwork(vitpose(experts=experts), index)


def test_another_architecture_is_refused(tmp_path) -> None:
    checkpoint = resolve(str(save_rt_detr(tmp_path / "net", ["person"])))
    with pytest.raises(ModelError, match="is no ViTPose network but of type rt_detr"):
        load_dense_map_network(checkpoint, CPU, torch.float32)
