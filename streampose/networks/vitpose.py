"""A ViTPose network as one function from pixels to dense maps, without the redundant work in transformers' forward.

It gives the same result as `VitPoseForPoseEstimation` (transformers/models/vitpose and vitpose_backbone) from the same
weights, for inputs of any whole number of patches. Knows nothing about frames, boxes or the meaning of a map.

On a CPU, the network runs uncompiled, with weights in the memory layout of oneDNN's kernels. Times for the bundled pose
network in bfloat16 on one core with AMX, in milliseconds per crop:

- batches of 8 crops, all in one run: these modules with torch's default layout 17.1; with oneDNN's layout and in-place
  operations 12.8; compiled by inductor with frozen weights 12.1;
- batches of 4 crops, in another run: transformers 22.8; these modules with torch's default layout 19.1.

Compilation is not worth its gain of a twentieth. It needs a C++ compiler and takes 8 to 20 s for each batch size. With
frozen weights, nothing is cached for the next run. The compiled code also holds the interpreter lock: a second core
adds only a twentieth (68 to 72 crops per second), where it would otherwise nearly double the speed.
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
"""The number of tokens for which the memory layout is optimised; other numbers also work."""
_ATTENTION_STEP = 16
"""The number of tokens is padded to a multiple of this. Attention over 352 tokens, two of them padding, takes 0.8 times
as long as attention over 350.
"""
_CENTRE = 128
"""The grey level that becomes 0 in the first layer. A byte minus this level is exact in every number format."""
_BORDER = 2
"""Width in pixels of the padding (0 after normalisation) that transformers' first layer adds around an input."""


class DenseMapNetwork(nn.Module):
    """Maps images (N, H, W, 3) uint8 BGR, N > 0, to dense maps (N, C, s * gh, s * gw).

    The patch grid is gh x gw = H/p x W/p for patches of p pixels. s is the decoder's scale, 4 in every published
    checkpoint. Differences from transformers' forward, all exact up to rounding:

    - The colour normalisation is folded into the first layer.
    - Grids other than the trained one are supported; their position embeddings are resampled.
    - Of a mixture of experts, only the selected expert remains, as a plain layer.
    - Stages after the last one that the decoder reads are omitted.
    - The simple decoder convolves before it upsamples.
    """

    def __init__(
        self,
        model: VitPoseForPoseEstimation,
        dataset_index: int | None = None,
        *,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        """Take over the weights of `model`. Do not use `model` afterwards.

        Args:
            model: a transformers network in evaluation mode; its device and dtype are kept.
            dataset_index: the expert, 0..n-1; None selects the first, which is COCO in published checkpoints.
            mean, std: the colour normalisation that `model` was trained with, in RGB order, for values in 0..1.

        Raises:
            UsageError: the expert does not exist.
        """
        super().__init__()
        parts: Any = model
        backbone, config = parts.backbone, parts.backbone.config
        expert_count = int(config.num_experts)
        if dataset_index is not None and dataset_index not in range(expert_count):
            known = f"0..{expert_count - 1}" if expert_count > 1 else "0 (this network has no experts)"
            raise UsageError(f"invalid dataset index {dataset_index}: expected {known}")
        projection = backbone.embeddings.patch_embeddings.projection
        self.patch_size: tuple[int, int] = tuple(projection.kernel_size)
        """Patch size in pixels, (h, w)."""
        height, width = backbone.embeddings.patch_embeddings.image_size
        self.trained_grid = (height // self.patch_size[0], width // self.patch_size[1])
        """The patch grid (gh, gw) of the position embeddings."""
        self.first: nn.Module
        self.first, self.offsets = _first_layer(projection, mean, std)
        self.positions = backbone.embeddings.position_embeddings
        last_stage = max(config.stage_names.index(stage) for stage in backbone.out_features)
        self.layers = nn.ModuleList(_Layer(layer, dataset_index or 0) for layer in backbone.encoder.layer[:last_stage])
        self.layernorm = backbone.layernorm
        simple = bool(parts.config.use_simple_decoder)
        self.head: nn.Module = SimpleDecoder(parts.head) if simple else ClassicDecoder(parts.head)
        self.scale: int = int(parts.config.scale_factor) if simple else 4
        """Map cells per patch, along each axis."""
        self.map_count = int(parts.config.num_labels)
        """C, the number of maps per input."""
        self.tokens_in_steps_of = 1
        """The number of tokens is padded to a multiple of this, for faster attention."""
        self._positions_of_grid: Cache = {}
        self.engine = Engine(self._maps, tables=self._tables)
        """Runs the forward pass on the device."""
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Return the maps (N, C, s * gh, s * gw) of `images` (N, H, W, 3) uint8 BGR, in the dtype of the head.

        The maps are on the device of `images`.

        Raises:
            ValueError: H or W is not a multiple of the patch size.
        """
        height, width = images.shape[1:3]
        patch_height, patch_width = self.patch_size
        if height % patch_height or width % patch_width:
            raise ValueError(f"{height}x{width} is not a multiple of the patch size {patch_height}x{patch_width}")
        return self.engine(images)

    def _maps(self, images: Tensor) -> Tensor:
        rows, columns = images.shape[1] // self.patch_size[0], images.shape[2] // self.patch_size[1]
        tokens: Tensor = self.first(self._patches(images, rows, columns))
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

    def _patches(self, images: Tensor, rows: int, columns: int) -> Tensor:
        """Return the bytes of every patch minus `_CENTRE`, (N, rows * columns, p * p * 3)."""
        patch_height, patch_width = self.patch_size
        # The border shifts the image, so the last patches end `_BORDER` pixels before the edge of the image.
        bordered = torch.full_like(images, _CENTRE)
        bordered[:, _BORDER:, _BORDER:] = images[:, :-_BORDER, :-_BORDER]
        cells = bordered.view(-1, rows, patch_height, columns, patch_width, 3).transpose(2, 3)
        patches = torch.empty(cells.shape, dtype=self.positions.dtype, device=cells.device)
        return patches.copy_(cells).sub_(_CENTRE).view(len(images), rows * columns, -1)

    def _position_embeddings(self, rows: int, columns: int) -> Tensor:
        """Return the sum of all constants that are added to the patches of a grid, (1, rows * columns, channels).

        Entry 0 of the position embeddings belongs to no patch and is added to all patches, as in transformers. For a
        grid other than the trained one, the other entries are resampled bicubically, as in ViT and DINOv2. The constant
        offsets of the first layer are included.
        """
        key = (rows, columns, self.positions.device, self.positions.dtype)
        known = self._positions_of_grid.get(key)
        if known is None:
            everywhere, grid = self.positions[:, :1], self.positions[:, 1:]
            if (rows, columns) != self.trained_grid:
                planes = grid.transpose(1, 2).reshape(1, -1, *self.trained_grid)
                # In half precision, the resampling weights would be rounded as well.
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
        ModelError: the checkpoint has another architecture or is damaged, or its weights exceed the range of `dtype`.
        UsageError: there is no expert `dataset_index`.
    """
    from transformers import VitPoseForPoseEstimation

    if checkpoint.model_type != "vitpose":
        raise ModelError(f"{checkpoint.name} is not a ViTPose network; its type is {checkpoint.model_type}")
    checkpoint.whole_number(CONFIG, "scale_factor", 4, range(1, 65))
    model = load_network(checkpoint, VitPoseForPoseEstimation, torch.float32)
    with loading(checkpoint, CONFIG):
        # Weights are folded in float32 and then converted once, so that nothing is rounded twice.
        mean, std = checkpoint.normalisation()
        network = DenseMapNetwork(model, dataset_index, mean=mean, std=std)
        # Some config values are only read in the forward pass. This call finds invalid ones early.
        network(torch.zeros(1, *network.patch_size, 3, dtype=torch.uint8))
    check_range(checkpoint, network.state_dict(), dtype)
    network = network.to(device=device, dtype=dtype)
    if isinstance(network.head, SimpleDecoder):
        # A detector predicts logarithms of distances. Rounding them to bfloat16 would move box sides by a hundredth.
        network.head.float()
    if device.type == "cpu" and can_lay_out(dtype):
        _lay_out(network)
    return network


@cache
def can_lay_out(dtype: torch.dtype) -> bool:
    """Whether oneDNN has fast linear layers for `dtype` on this CPU; bfloat16 requires AVX-512 or better."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        _LaidOutLinear(nn.Linear(16, 16, dtype=dtype))(torch.zeros(16, 16, dtype=dtype))
    except RuntimeError:
        return False
    return True


def _first_layer(projection: nn.Conv2d, mean: Sequence[float], std: Sequence[float]) -> tuple[nn.Linear, nn.Parameter]:
    """Return the first layer for patches of (byte - `_CENTRE`), and the constants to add to its output.

    With n = (byte / 255 - mean) / std, the sum over w * n equals the sum over w / (255 * std) * (byte - _CENTRE) plus a
    constant. The padding border contributes 0 to the first sum, and must contribute 0 to the constant as well. The
    constants are (4, channels): the constant of a patch without border, the part to subtract for a border above, the
    part to subtract for a border on the left, and the part that both subtractions include.
    """
    weight = projection.weight.detach()  # (channels, RGB, height, width)
    if weight.shape[1] != 3:
        raise ValueError(f"it needs {weight.shape[1]} colour channels, not 3")
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
    """Replace the linear layers of `network` by layers in oneDNN's fast layout. The dtype must be final."""
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
    """Whether `activation` is the exact GELU, not one of its approximations."""
    sample = torch.linspace(-6, 6, 101)
    return bool(torch.allclose(activation(sample), F.gelu(sample), rtol=0, atol=1e-6))


class _LaidOutLinear(nn.Module):
    """`nn.Linear` in the memory layout of oneDNN's kernels, optionally followed by the exact GELU.

    It uses the operators that torch's compiler generates for linear layers on a CPU.
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
    """An encoder layer for tokens (N, T, channels), equivalent to transformers' `VitPoseBackboneLayer`.

    It computes query, key and value with one matrix product. It omits the hooks with which transformers collects
    outputs, because torch's compiler cannot handle them.
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
        # A mixture computes the shared `fc2` and, for the last channels, every expert, then zeroes all but the selected
        # one. The equivalent plain layer stacks the rows of the selected expert below those of `fc2`.
        self.contract = _stacked(mlp.fc2, mlp.experts[expert]) if is_mixture else mlp.fc2

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return the layer's output for `tokens`. It may overwrite `tokens`, which is faster than new memory.

        `mask` is added to the attention scores.
        """
        product = self.query_key_value(self.layernorm_before(tokens))
        query, key, value = product.view(*tokens.shape[:2], 3, self.head_count, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).reshape(tokens.shape)
        tokens = _plus(tokens, self.attention_output, seen)
        return _plus(tokens, self.contract, self.activation(self.expand(self.layernorm_after(tokens))))


def _filled_up(tokens: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
    """Pad `tokens` (N, T, channels) so that T is a multiple of `step`. Return them with an attention mask.

    The mask excludes the padding from attention; it is None if no padding is needed.
    """
    count = tokens.shape[1]
    spare = -count % step
    if not spare:
        return tokens, None
    mask = tokens.new_zeros(1, 1, 1, count + spare)
    mask[..., count:] = -torch.inf
    return F.pad(tokens, (0, 0, 0, spare)), mask


def _plus(tokens: Tensor, layer: nn.Module, rows: Tensor) -> Tensor:
    """Return the sum of `tokens` and `layer(rows)`. It may overwrite `tokens`."""
    return layer.plus(rows, tokens) if isinstance(layer, _LaidOutLinear) else tokens.add_(layer(rows))


def _stacked(*parts: nn.Linear) -> nn.Linear:
    """Return one linear layer whose outputs are the concatenated outputs of all `parts`."""
    weight = torch.cat([part.weight for part in parts])
    has_bias = parts[0].bias is not None
    whole = nn.Linear(weight.shape[1], weight.shape[0], bias=has_bias, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        whole.weight.copy_(weight)
        if has_bias:
            whole.bias.copy_(torch.cat([part.bias for part in parts]))
    return whole
