"""The two ViTPose decoders. Both turn tokens into maps with a higher resolution than the patch grid."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Cache = dict[tuple[Any, ...], Tensor]
_CACHE_LIMIT = 32
"""Maximum number of tensors. A run rarely has this many image shapes; only a folder of mixed stills exceeds it."""


def keep(cache: Cache, key: tuple[Any, ...], value: Tensor) -> Tensor:
    """Add `value` to the cache and return it."""
    if len(cache) >= _CACHE_LIMIT:
        cache.clear()
    cache[key] = value
    return value


class ClassicDecoder(nn.Module):
    """Runs tokens (N, rows * columns, channels) through transformers' two deconvolutions, unchanged."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        maps: Tensor = self.head(tokens.transpose(1, 2).reshape(len(tokens), -1, rows, columns))
        return maps


class SimpleDecoder(nn.Module):
    """ReLU, bilinear upsampling by s and a 3x3 convolution, computed in a faster order with the same result.

    A 3x3 convolution is the sum of nine 1x1 convolutions, each shifted by up to one cell with zero padding. A 1x1
    convolution mixes channels and upsampling mixes positions, so the two commute. The 1x1 convolutions therefore run
    first, on 1/s^2 of the positions. Upsampling and shifting then combine into one small matrix per axis:
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
        self.matrices: Cache = {}

    def forward(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        low = self.pointwise(F.relu(tokens).to(self.bias.dtype)).view(-1, rows, columns, 3, 3, self.map_count)
        low = low.permute(0, 5, 3, 1, 4, 2)  # (N, map, dy, row, dx, column)
        wide = low.reshape(-1, self.map_count, 3 * rows, 3 * columns) @ self._enlarging(columns, low).mT
        maps: Tensor = self._enlarging(rows, low) @ wide + self.bias
        return maps

    def _enlarging(self, size: int, like: Tensor) -> Tensor:
        """Return the matrix (s * size, 3 * size) that upsamples and sums three concatenated rows of `size` cells.

        The rows are upsampled bilinearly, shifted by 1, 0 and -1 cells, and added. For s = 4 the entries are exact in
        every dtype.
        """
        key = (size, like.device, like.dtype)
        known = self.matrices.get(key)
        if known is None:
            cells = torch.eye(size, dtype=torch.float64)[None]
            enlarged = F.interpolate(cells, scale_factor=self.scale, mode="linear", align_corners=False)[0].T
            bordered = F.pad(enlarged, (0, 0, 1, 1))
            shifted = torch.cat([bordered[shift : shift + self.scale * size] for shift in range(3)], dim=1)
            known = keep(self.matrices, key, shifted.to(like))
        return known
