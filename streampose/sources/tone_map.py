"""Converts HDR video (PQ or HLG, BT.2020) to SDR (sRGB, BT.709).

Linear light up to `_KNEE` of paper white is unchanged. Brighter light is compressed into the remaining range.
"""

from __future__ import annotations

import tempfile
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import cv2  # noqa: F401 - import before av, or windows hang: see sinks/display.py

# isort: split
import av
import av.filter
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

Float64 = npt.NDArray[np.float64]

_SIZE = 65
"""Table points per axis; values between them are interpolated."""
_KNEE = 0.8
"""Linear light above this fraction of paper white is compressed."""
_WHITE_NITS, _PEAK_NITS = 203.0, 1000.0
"""Luminance of paper white in HDR (ITU-R BT.2408), and the luminance at which highlights clip."""
_HLG_WHITE = 0.2647
"""Paper white in HLG scene light: 75 % of the signal (ITU-R BT.2408)."""
_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
"""Linear BT.2020 RGB to linear BT.709 RGB (ITU-R BT.2087)."""


class ToneMap:
    """Converts frames of one transfer function through a lookup table, with FFmpeg's `lut3d` filter."""

    FORMAT: ClassVar[str] = "gbrp10le"
    """Input pixel format: nonlinear RGB."""

    def __init__(self, *, is_hlg: bool) -> None:
        self._table = _table(is_hlg)
        self._graph: av.filter.Graph | None = None
        self._size = 0, 0

    def to_bgr(self, frame: VideoFrame) -> npt.NDArray[Any]:
        """Return a frame in `FORMAT` as (H, W, 3) uint8 BGR. Raises `av.FFmpegError`."""
        frame.pts = None
        if self._graph is None or self._size != (frame.width, frame.height):
            self._size = frame.width, frame.height
            self._graph = self._built(frame)
        self._graph.push(frame)
        mapped = self._graph.pull()
        assert isinstance(mapped, VideoFrame)
        return mapped.to_ndarray()

    def _built(self, frame: VideoFrame) -> av.filter.Graph:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "table.cube"
            file.write_text(self._table)
            graph = av.filter.Graph()
            graph.link_nodes(
                graph.add_buffer(
                    width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, av.time_base)
                ),
                graph.add("lut3d", file=str(file), interp="tetrahedral"),
                graph.add("format", "bgr24"),
                graph.add("buffersink"),
            )
            graph.configure()
        return graph


@cache
def _table(is_hlg: bool) -> str:
    """Return the table as the text of a .cube file (Adobe's format); red varies fastest."""
    axis = np.linspace(0.0, 1.0, _SIZE)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    signal = np.stack([red, green, blue], axis=-1).reshape(-1, 3)
    linear = _hlg_to_linear(signal) if is_hlg else _pq_to_linear(signal)
    rows = _to_srgb(_compressed(np.maximum(linear @ _TO_BT709.T, 0.0)))
    return f"LUT_3D_SIZE {_SIZE}\n" + "\n".join(f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in rows) + "\n"


def _pq_to_linear(signal: Float64) -> Float64:
    """Convert a PQ signal to linear light relative to paper white (SMPTE ST 2084)."""
    root = signal ** (1 / 78.84375)
    light = np.maximum(root - 0.8359375, 0.0) / (18.8515625 - 18.6875 * root)
    return 10_000.0 / _WHITE_NITS * light ** (1 / 0.1593017578125)


def _hlg_to_linear(signal: Float64) -> Float64:
    """Convert an HLG signal to scene light relative to paper white (ITU-R BT.2100).

    The display's contrast curve is left out, because an SDR display applies one too.
    """
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene: Float64 = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return scene / _HLG_WHITE


def _compressed(linear: Float64) -> Float64:
    """Compress light to 0..1 by its largest component, which keeps hues (Reinhard et al. 2002, above the knee)."""
    largest = linear.max(axis=-1, keepdims=True)
    room = 1.0 - _KNEE
    above = np.maximum(largest - _KNEE, 0.0) / room
    peak = (_PEAK_NITS / _WHITE_NITS - _KNEE) / room
    compressed = _KNEE + room * np.minimum(above * (1 + above / peak**2) / (1 + above), 1.0)
    scale = np.where(largest > _KNEE, compressed / np.maximum(largest, 1e-9), 1.0)
    return np.clip(linear * scale, 0.0, 1.0)


def _to_srgb(linear: Float64) -> Float64:
    """Convert linear light to an sRGB signal (IEC 61966-2-1)."""
    srgb: Float64 = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return srgb
