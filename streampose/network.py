"""A ViTPose network as one function from pixels to dense maps, without the work that transformers' forward could spare.

It computes what `VitPoseForPoseEstimation` computes (transformers/models/vitpose and vitpose_backbone) from the same
weights, for inputs of any number of whole patches. Knows nothing of pictures, boxes or the meaning of a map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampose.errors import ModelError, UsageError
from streampose.models import CONFIG, Checkpoint, check_range, load_network, loading

if TYPE_CHECKING:
    from transformers import VitPoseForPoseEstimation

_Cache = dict[tuple[Any, ...], Tensor]
_CACHE_LIMIT = 32
"""Tensors: more than the shapes of pictures in one run; only a folder of all sorts of pictures exceeds it."""


class DenseMapNetwork(nn.Module):
    """Pixels (N, 3, H, W), N > 0, to maps (N, C, s gh, s gw), for a grid of gh x gw = H/p x W/p patches of p pixels.

    s is the decoder's scale, 4 for every published checkpoint. What differs from transformers' forward, all of it exact
    up to rounding: other grids than the trained one work, their position embeddings resampled; of a mixture of experts
    one chosen expert remains, as a plain layer; stages behind the last one that the decoder reads are left out; the
    simple decoder convolves before it enlarges.
    """

    def __init__(self, model: VitPoseForPoseEstimation, dataset_index: int | None = None) -> None:
        """Take over the weights of `model`, which must not be used any more.

        Args:
            model: an evaluating network of transformers; its device and dtype are kept.
            dataset_index: the expert, 0..n-1; None takes the first, which in published checkpoints answers for COCO.

        Raises:
            UsageError: no such expert.
        """
        super().__init__()
        parts: Any = model
        backbone, config = parts.backbone, parts.backbone.config
        expert_count = int(config.num_experts)
        if dataset_index is not None and dataset_index not in range(expert_count):
            known = f"0..{expert_count - 1}" if expert_count > 1 else "only 0, having no experts"
            raise UsageError(f"no dataset index {dataset_index}: this network knows {known}")
        projection = backbone.embeddings.patch_embeddings.projection
        self.patch_size: tuple[int, int] = tuple(projection.kernel_size)
        """Pixels, (h, w)."""
        height, width = backbone.embeddings.patch_embeddings.image_size
        self.trained_grid = (height // self.patch_size[0], width // self.patch_size[1])
        """Patches (gh, gw) that the position embeddings are for."""
        self.projection = projection
        self.positions = backbone.embeddings.position_embeddings
        last_stage = max(config.stage_names.index(stage) for stage in backbone.out_features)
        self.layers = nn.ModuleList(_Layer(layer, dataset_index or 0) for layer in backbone.encoder.layer[:last_stage])
        self.layernorm = backbone.layernorm
        simple = bool(parts.config.use_simple_decoder)
        self.head: nn.Module = _SimpleDecoder(parts.head) if simple else _ClassicDecoder(parts.head)
        self.scale: int = int(parts.config.scale_factor) if simple else 4
        """Cells of a map to a patch, along each axis."""
        self.map_count = int(parts.config.num_labels)
        """C, the maps of an input."""
        self._positions_of_grid: _Cache = {}
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> Tensor:
        """Return the maps (N, C, s gh, s gw) of `pixels` (N, 3, H, W), both in the network's dtype on its device.

        Raises:
            ValueError: H or W is no whole number of patches.
        """
        height, width = pixels.shape[-2:]
        patch_height, patch_width = self.patch_size
        if height % patch_height or width % patch_width:
            raise ValueError(f"{height}x{width} pixels are no whole number of {patch_height}x{patch_width} patches")
        rows, columns = height // patch_height, width // patch_width
        # The projection pads 2 pixels on every side, which for patches of more than 4 pixels adds no patch.
        tokens = self.projection(pixels).flatten(2).transpose(1, 2) + self._position_embeddings(rows, columns)
        for layer in self.layers:
            tokens = layer(tokens)
        maps: Tensor = self.head(self.layernorm(tokens), rows, columns)
        return maps

    def _position_embeddings(self, rows: int, columns: int) -> Tensor:
        """Return what is added to the (1, rows * columns, channels) patches of a grid.

        Entry 0 belongs to no patch and is added to all of them, as in transformers. Another grid than the trained one
        gets the others resampled bicubically, as in ViT and DINOv2.
        """
        key = (rows, columns, self.positions.device, self.positions.dtype)
        known = self._positions_of_grid.get(key)
        if known is None:
            everywhere, grid = self.positions[:, :1], self.positions[:, 1:]
            if (rows, columns) != self.trained_grid:
                planes = grid.transpose(1, 2).reshape(1, -1, *self.trained_grid)
                # Half precision would round the weights of the resampling as well.
                planes = planes.to(torch.promote_types(planes.dtype, torch.float32))
                resampled = F.interpolate(planes, (rows, columns), mode="bicubic", align_corners=False)
                grid = resampled.flatten(2).transpose(1, 2).to(grid.dtype)
            known = _keep(self._positions_of_grid, key, grid + everywhere)
        return known


def load_dense_map_network(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, *, dataset_index: int | None = None
) -> DenseMapNetwork:
    """Load a ViTPose checkpoint as a `DenseMapNetwork` on `device` in `dtype`.

    Raises:
        ModelError: the checkpoint is of another architecture or damaged, or its weights exceed `dtype`.
        UsageError: no expert answers to `dataset_index`.
    """
    from transformers import VitPoseForPoseEstimation

    if checkpoint.model_type != "vitpose":
        raise ModelError(f"{checkpoint.name} is no ViTPose network but of type {checkpoint.model_type}")
    checkpoint.whole_number(CONFIG, "scale_factor", 4, range(1, 65))
    model = load_network(checkpoint, VitPoseForPoseEstimation, torch.float32)
    with loading(checkpoint, CONFIG):
        # Folded and prepared in float32, so that nothing is rounded twice.
        network = DenseMapNetwork(model, dataset_index)
        network(torch.zeros(1, 3, *network.patch_size))  # some values of a config are only read here
    check_range(checkpoint, network.state_dict(), dtype)
    return network.to(device=device, dtype=dtype)


class _Layer(nn.Module):
    """A layer of the encoder on tokens (N, T, channels): transformers' `VitPoseBackboneLayer` with one product for
    query, key and value, and without the hooks by which transformers collects outputs, which stop torch's compiler.
    """

    def __init__(self, layer: Any, expert: int) -> None:
        super().__init__()
        attention = layer.attention.attention
        self.head_count: int = attention.num_attention_heads
        self.layernorm_before = layer.layernorm_before
        self.query_key_value = _stacked(attention.query, attention.key, attention.value)
        self.attention_output = layer.attention.output.dense
        self.layernorm_after = layer.layernorm_after
        self.mlp = layer.mlp if layer.num_experts == 1 else _chosen_expert(layer.mlp, expert)

    def forward(self, tokens: Tensor) -> Tensor:
        product = self.query_key_value(self.layernorm_before(tokens))
        query, key, value = product.view(*tokens.shape[:2], 3, self.head_count, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(tokens.shape)
        tokens = tokens + self.attention_output(seen)
        changed: Tensor = self.mlp(self.layernorm_after(tokens))
        return tokens + changed


def _chosen_expert(mlp: Any, index: int) -> nn.Module:
    """Return transformers' mixture-of-experts layer with one expert as a plain one: its rows go under those of `fc2`.

    The mixture computes `fc2` (shared) and, of the last channels, every expert; it then zeroes all but the chosen one.
    """
    return nn.Sequential(mlp.fc1, mlp.act, _stacked(mlp.fc2, mlp.experts[index]))


def _stacked(*parts: nn.Linear) -> nn.Linear:
    """Return one linear layer whose outputs are those of all `parts`, one after the other."""
    weight = torch.cat([part.weight for part in parts])
    has_bias = parts[0].bias is not None
    whole = nn.Linear(weight.shape[1], weight.shape[0], bias=has_bias, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        whole.weight.copy_(weight)
        if has_bias:
            whole.bias.copy_(torch.cat([part.bias for part in parts]))
    return whole


def _keep(cache: _Cache, key: tuple[Any, ...], value: Tensor) -> Tensor:
    """Return `value`, which is in the cache from now on."""
    if len(cache) >= _CACHE_LIMIT:
        cache.clear()
    cache[key] = value
    return value


class _ClassicDecoder(nn.Module):
    """Tokens (N, rows * columns, channels) through transformers' two deconvolutions, as they are."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        maps: Tensor = self.head(tokens.transpose(1, 2).reshape(len(tokens), -1, rows, columns))
        return maps


class _SimpleDecoder(nn.Module):
    """ReLU, bilinear enlarging by s and a 3x3 convolution, in another order with the same result.

    A 3x3 convolution is nine 1x1 convolutions, shifted by up to a cell with zeros moving in, and added. A 1x1
    convolution commutes with the enlarging (one mixes channels, the other places), so it is done first, on 1/s^2 of the
    places. Enlarging and shifting together are one small matrix for each axis:
    `maps = sum over dy, dx of A[dy] low[dy, dx] A[dx]^T`.
    """

    def __init__(self, head: Any) -> None:
        super().__init__()
        weight = head.conv.weight  # (maps, channels, 3, 3)
        self.map_count: int = weight.shape[0]
        channels: int = weight.shape[1]
        self.scale = int(head.upsampling.scale_factor)
        self.pointwise = nn.Linear(channels, 9 * self.map_count, bias=False, device=weight.device, dtype=weight.dtype)
        self.bias = nn.Parameter(head.conv.bias.detach()[:, None, None].clone())
        with torch.no_grad():
            self.pointwise.weight.copy_(weight.permute(2, 3, 0, 1).reshape(-1, channels))
        self._matrices: _Cache = {}

    def forward(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        low = self.pointwise(F.relu(tokens)).view(-1, rows, columns, 3, 3, self.map_count)
        low = low.permute(0, 5, 3, 1, 4, 2)  # (N, map, dy, row, dx, column)
        wide = low.reshape(-1, self.map_count, 3 * rows, 3 * columns) @ self._enlarging(columns, low).mT
        maps: Tensor = self._enlarging(rows, low) @ wide + self.bias
        return maps

    def _enlarging(self, size: int, like: Tensor) -> Tensor:
        """Return the matrix (s size, 3 size) that takes three rows of `size` cells, one after the other, to their sum
        after bilinear enlarging and shifting by 1, 0 and -1 cells. Its entries are exact in any dtype where s is 4.
        """
        key = (size, like.device, like.dtype)
        known = self._matrices.get(key)
        if known is None:
            cells = torch.eye(size, dtype=torch.float64)[None]
            enlarged = F.interpolate(cells, scale_factor=self.scale, mode="linear", align_corners=False)[0].T
            bordered = F.pad(enlarged, (0, 0, 1, 1))
            shifted = torch.cat([bordered[shift : shift + self.scale * size] for shift in range(3)], dim=1)
            known = _keep(self._matrices, key, shifted.to(like))
        return known
