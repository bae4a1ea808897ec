"""A ViTPose network as one function from pixels to dense maps, without the work that transformers' forward could spare.

It computes what `VitPoseForPoseEstimation` computes (transformers/models/vitpose and vitpose_backbone) from the same
weights, for inputs of any number of whole patches. Knows nothing of pictures, boxes or the meaning of a map.

On a CPU it runs as it is, without torch's compiler, from weights laid out as oneDNN's kernels want them. Measured with
the bundled pose network in bfloat16 on a core with AMX, milliseconds a crop at 8 crops, all in one run: these modules
as torch has them 17.1, laid out and in place 12.8, compiled by inductor with frozen weights 12.1. (At 4 crops, in
another run: transformers 22.8, these modules as torch has them 19.1.) For its twentieth the compiler wants a C++
compiler and 8 to 20 s for each size of a batch, keeps nothing of it for the next run where weights are frozen, and its
code holds the interpreter lock: a second core adds a twentieth (68 to 72 crops a second) instead of nearly doubling.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampose.errors import ModelError, UsageError
from streampose.networks.checkpoints import Checkpoint
from streampose.networks.decoders import Cache, ClassicDecoder, SimpleDecoder, keep
from streampose.networks.engine import Engine
from streampose.networks.layout import CONFIG
from streampose.networks.loading import check_range, load_network, loading

if TYPE_CHECKING:
    from transformers import VitPoseForPoseEstimation

_USUAL_ROWS = 8 * 192
"""Tokens that a layout in memory is chosen for; others work as well."""
_ATTENTION_STEP = 16
"""Attention over 352 tokens, two of them filled in, takes 0.8 of the time of attention over 350."""
_CENTRE = 128
"""The grey level that the first layer takes for 0: what is left of a byte is exact in every number format."""
_BORDER = 2
"""Pixels of nothing (0 after normalisation) that transformers' first layer puts around an input."""


class DenseMapNetwork(nn.Module):
    """Pictures (N, H, W, 3) uint8 BGR, N > 0, to maps (N, C, s gh, s gw), for a grid of gh x gw = H/p x W/p patches of
    p pixels.

    s is the decoder's scale, 4 for every published checkpoint. What differs from transformers' forward, all of it exact
    up to rounding: the normalisation of colours is part of the first layer; other grids than the trained one work,
    their position embeddings resampled; of a mixture of experts one chosen expert remains, as a plain layer; stages
    behind the last one that the decoder reads are left out; the simple decoder convolves before it enlarges.
    """

    def __init__(
        self,
        model: VitPoseForPoseEstimation,
        dataset_index: int | None = None,
        *,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        """Take over the weights of `model`, which must not be used any more.

        Args:
            model: an evaluating network of transformers; its device and dtype are kept.
            dataset_index: the expert, 0..n-1; None takes the first, which in published checkpoints answers for COCO.
            mean, std: of the colours in RGB order, for values in 0..1, that `model` was trained with.

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
        self.first: nn.Module
        self.first, self.offsets = _first_layer(projection, mean, std)
        self.positions = backbone.embeddings.position_embeddings
        last_stage = max(config.stage_names.index(stage) for stage in backbone.out_features)
        self.layers = nn.ModuleList(_Layer(layer, dataset_index or 0) for layer in backbone.encoder.layer[:last_stage])
        self.layernorm = backbone.layernorm
        simple = bool(parts.config.use_simple_decoder)
        self.head: nn.Module = SimpleDecoder(parts.head) if simple else ClassicDecoder(parts.head)
        self.scale: int = int(parts.config.scale_factor) if simple else 4
        """Cells of a map to a patch, along each axis."""
        self.map_count = int(parts.config.num_labels)
        """C, the maps of an input."""
        self.tokens_in_steps_of = 1
        """Tokens are filled up to a multiple of it, for attention."""
        self._positions_of_grid: Cache = {}
        self.engine = Engine(self._maps, tables=self._tables)
        """What runs it."""
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def forward(self, pictures: Tensor) -> Tensor:
        """Return the maps (N, C, s gh, s gw) of `pictures` (N, H, W, 3) uint8 BGR, on its device, in the head's dtype.

        Raises:
            ValueError: H or W is no whole number of patches.
        """
        height, width = pictures.shape[1:3]
        patch_height, patch_width = self.patch_size
        if height % patch_height or width % patch_width:
            raise ValueError(f"{height}x{width} pixels are no whole number of {patch_height}x{patch_width} patches")
        return self.engine(pictures)

    def _maps(self, pictures: Tensor) -> Tensor:
        rows, columns = pictures.shape[1] // self.patch_size[0], pictures.shape[2] // self.patch_size[1]
        tokens: Tensor = self.first(self._patches(pictures, rows, columns))
        tokens.add_(self._position_embeddings(rows, columns))
        count = tokens.shape[1]
        tokens, mask = _filled_up(tokens, self.tokens_in_steps_of)
        for layer in self.layers:
            tokens = layer(tokens, mask)
        maps: Tensor = self.head(self.layernorm(tokens)[:, :count], rows, columns)
        return maps

    def _tables(self) -> list[Tensor]:
        of_head = self.head.matrices.values() if isinstance(self.head, SimpleDecoder) else ()
        return [*self._positions_of_grid.values(), *of_head]

    def _patches(self, pictures: Tensor, rows: int, columns: int) -> Tensor:
        """Return the bytes of every patch, (N, rows * columns, p p 3), as numbers of which 0 is `_CENTRE`."""
        patch_height, patch_width = self.patch_size
        # Behind the border: the last patches end that much before the picture does.
        bordered = torch.full_like(pictures, _CENTRE)
        bordered[:, _BORDER:, _BORDER:] = pictures[:, :-_BORDER, :-_BORDER]
        cells = bordered.view(-1, rows, patch_height, columns, patch_width, 3).transpose(2, 3)
        patches = torch.empty(cells.shape, dtype=self.positions.dtype, device=cells.device)
        return patches.copy_(cells).sub_(_CENTRE).view(len(pictures), rows * columns, -1)

    def _position_embeddings(self, rows: int, columns: int) -> Tensor:
        """Return what is added to the (1, rows * columns, channels) patches of a grid.

        Entry 0 belongs to no patch and is added to all of them, as in transformers. Another grid than the trained one
        gets the others resampled bicubically, as in ViT and DINOv2. What the first layer adds is part of it, too.
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
            known = grid + everywhere + self._offsets_of_patches(rows, columns).to(grid.dtype)
            known = keep(self._positions_of_grid, key, known)
        return known

    def _offsets_of_patches(self, rows: int, columns: int) -> Tensor:
        inside, above, beside, corner = self.offsets.unbind()
        offsets = inside.repeat(rows, columns, 1)
        offsets[0] -= above
        offsets[:, 0] -= beside
        offsets[0, 0] += corner
        return offsets.view(1, rows * columns, -1)


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
        mean, std = checkpoint.normalisation()
        network = DenseMapNetwork(model, dataset_index, mean=mean, std=std)
        # Some values of a config are only read here.
        network(torch.zeros(1, *network.patch_size, 3, dtype=torch.uint8))
    check_range(checkpoint, network.state_dict(), dtype)
    network = network.to(device=device, dtype=dtype)
    if isinstance(network.head, SimpleDecoder):
        # A detector's logarithms of distances, rounded to bfloat16, would move the sides of boxes by a hundredth.
        network.head.float()
    if device.type == "cpu" and can_lay_out(dtype):
        _lay_out(network)
    return network


@cache
def can_lay_out(dtype: torch.dtype) -> bool:
    """Whether oneDNN has its fast linear layers for `dtype` on this CPU; in bfloat16 it wants AVX-512 or better."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        _LaidOutLinear(nn.Linear(16, 16, dtype=dtype))(torch.zeros(16, 16, dtype=dtype))
    except RuntimeError:
        return False
    return True


def _first_layer(projection: nn.Conv2d, mean: Sequence[float], std: Sequence[float]) -> tuple[nn.Linear, nn.Parameter]:
    """Return the first layer as one for patches of bytes less `_CENTRE`, and what has to be added to its output.

    With n = (byte / 255 - mean) / std, a sum over w n is one over w / (255 std) (byte - _CENTRE), which is 0 in the
    border, and a constant: (4, channels), for a patch inside, then the part of it that a border above takes away, one
    on the left, and what both take away twice.
    """
    weight = projection.weight.detach()  # (channels, RGB, height, width)
    if weight.shape[1] != 3:
        raise ValueError(f"it takes {weight.shape[1]} colours, not 3")
    deviation = torch.tensor(std, dtype=weight.dtype, device=weight.device)[:, None, None]
    level = _CENTRE / 255 - torch.tensor(mean, dtype=weight.dtype, device=weight.device)[:, None, None]
    constant = weight * (level / deviation)
    inside = constant.sum(dim=(1, 2, 3)) + (0 if projection.bias is None else projection.bias)
    above, beside = constant[:, :, :_BORDER], constant[..., :_BORDER]
    offsets = [inside, above.sum(dim=(1, 2, 3)), beside.sum(dim=(1, 2, 3)), above[..., :_BORDER].sum(dim=(1, 2, 3))]
    of_bytes = (weight / (255 * deviation)).flip(1).permute(0, 2, 3, 1).flatten(1)
    layer = nn.Linear(of_bytes.shape[1], of_bytes.shape[0], bias=False, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(of_bytes)
    return layer, nn.Parameter(torch.stack(offsets).detach(), requires_grad=False)


def _lay_out(network: DenseMapNetwork) -> None:
    """Replace the layers of `network`, which has its final dtype, by those that oneDNN's kernels are fast with."""
    assert isinstance(network.first, nn.Linear)
    network.tokens_in_steps_of = _ATTENTION_STEP
    network.first = _LaidOutLinear(network.first)
    for layer in network.layers:
        assert isinstance(layer, _Layer)
        for name in ("query_key_value", "attention_output", "expand", "contract"):
            is_followed_by_gelu = name == "expand" and _is_gelu(layer.activation)
            setattr(layer, name, _LaidOutLinear(getattr(layer, name), with_gelu=is_followed_by_gelu))
        if _is_gelu(layer.activation):
            layer.activation = nn.Identity()


def _is_gelu(activation: nn.Module) -> bool:
    """Whether it is the exact GELU, of which there are approximations."""
    sample = torch.linspace(-6, 6, 101)
    return bool(torch.allclose(activation(sample), F.gelu(sample), rtol=0, atol=1e-6))


class _LaidOutLinear(nn.Module):
    """`nn.Linear` in the memory layout of oneDNN's kernels, with the exact GELU behind it if wanted.

    These are the operators that torch's own compiler makes of linear layers on a CPU.
    """

    def __init__(self, layer: nn.Linear, *, with_gelu: bool = False) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().contiguous(), _USUAL_ROWS)
        self._bias = None if layer.bias is None else layer.bias.detach()
        self._after: tuple[str, list[float], str] = ("gelu", [], "none") if with_gelu else ("none", [], "")

    def forward(self, rows: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise.default(rows, self._weight, self._bias, *self._after)
        return product

    def plus(self, rows: Tensor, added: Tensor) -> Tensor:
        """Return the sum of the product and `added`, rounded once."""
        added_up: Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, added, self._weight, self._bias, "add")
        return added_up


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
        mlp = layer.mlp
        is_mixture = layer.num_experts > 1
        self.expand = mlp.fc1
        self.activation: nn.Module = mlp.act if is_mixture else mlp.activation
        # A mixture computes `fc2` (shared) and, of the last channels, every expert; it zeroes all but the chosen one.
        # As a plain layer, the rows of that one go under those of `fc2`.
        self.contract = _stacked(mlp.fc2, mlp.experts[expert]) if is_mixture else mlp.fc2

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return what the layer makes of `tokens`, perhaps in their memory: it is faster than new memory. `mask` is
        added to the scores of attention.
        """
        product = self.query_key_value(self.layernorm_before(tokens))
        query, key, value = product.view(*tokens.shape[:2], 3, self.head_count, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).reshape(tokens.shape)
        tokens = _plus(tokens, self.attention_output, seen)
        return _plus(tokens, self.contract, self.activation(self.expand(self.layernorm_after(tokens))))


def _filled_up(tokens: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
    """Return `tokens` (N, T, channels) with some of no meaning behind them, so that T is a multiple of `step`, and what
    keeps attention off those; None where there are none.
    """
    count = tokens.shape[1]
    spare = -count % step
    if not spare:
        return tokens, None
    mask = tokens.new_zeros(1, 1, 1, count + spare)
    mask[..., count:] = -torch.inf
    return F.pad(tokens, (0, 0, 0, spare)), mask


def _plus(tokens: Tensor, layer: nn.Module, rows: Tensor) -> Tensor:
    """Return the sum of `tokens` and `layer(rows)`, perhaps in the memory of `tokens`."""
    return layer.plus(rows, tokens) if isinstance(layer, _LaidOutLinear) else tokens.add_(layer(rows))


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
