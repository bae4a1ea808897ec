"""Selects devices and number formats, copies data to and from a device, and translates torch errors.

Knows nothing about networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy.typing as npt
import torch

from streampose.errors import ModelError, UsageError, describe
from streampose.frames import Image
from streampose.networks.engine import new_stream
from streampose.networks.pending import Pending
from streampose.networks.workers import MOST_AT_ONCE, worker_count

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(text: str) -> torch.device:
    """Return the device called `text`: `auto` or one of torch's names (`cpu`, `cuda`, `cuda:1`, `xpu`, `mps`).

    `auto` selects the first of cuda, xpu, mps and cpu that is available.

    Raises:
        UsageError: the device is not available; the message lists the available devices.
    """
    here = _devices()
    if text == "auto":
        return torch.device(here[0])
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise UsageError(f"unknown device {text!r}: choose auto or one of {', '.join(here)}") from error
    if str(device) not in here:
        raise UsageError(f"no device {text!r} on this machine: choose auto or one of {', '.join(here)}")
    return device


def pick_dtype(text: str, device: torch.device) -> torch.dtype:
    """Return the number format called `text` (`auto`, `float32`, `bfloat16`, `float16`) for networks on `device`.

    `auto` selects the fastest format that keeps the accuracy: bfloat16 if the hardware supports it, else float16 on
    CUDA and float32 elsewhere. (A CPU without bfloat16 units runs bfloat16 at 0.6 times its float32 speed.)

    Raises:
        UsageError: the format is unknown.
    """
    if text == "auto":
        return _fastest_dtype(device)
    if text not in _DTYPES:
        raise UsageError(f"unknown dtype {text!r}: choose auto or one of {', '.join(_DTYPES)}")
    return _DTYPES[text]


def default_batches(device: torch.device) -> tuple[int, int]:
    """Return the default maximum frames per detector call and maximum people per pose call for a device."""
    if device.type == "cpu":
        # The factors are each worker's share of a batch. Smaller shares are slower; larger ones only add latency.
        return 4 * worker_count(), MOST_AT_ONCE * worker_count()
    return 8, 64


def own_stream(device: torch.device) -> AbstractContextManager[object]:
    """On CUDA, give the calling thread its own stream, so that its work runs concurrently with that of other threads.

    On other devices this does nothing.
    """
    return torch.cuda.stream(new_stream(device)) if device.type == "cuda" else nullcontext()


def upload(image: Image, device: torch.device) -> torch.Tensor:
    """Return an image (H, W, 3) uint8 on `device`; on a CPU the result shares the image's memory.

    On CUDA the copy is asynchronous. Later work in the calling thread's stream runs after it.
    """
    pixels = torch.from_numpy(image)
    if device.type == "cuda":
        # An asynchronous copy needs pinned memory. torch keeps that memory until the copy is complete.
        return pixels.pin_memory().to(device, non_blocking=True)
    return pixels.to(device)


def read_here(tensor: torch.Tensor) -> torch.Tensor:
    """Prepare a tensor from another thread for reading in this thread, and return it. The tensor must be complete.

    On CUDA, this thread's stream is recorded as a user of the tensor. Without that, torch could reuse the memory once
    the last reference is gone, before this stream has read it.
    """
    if tensor.device.type == "cuda":
        tensor.record_stream(torch.cuda.current_stream(tensor.device))
    return tensor


def fetch(tensor: torch.Tensor) -> Pending[npt.NDArray[Any]]:
    """Start copying a tensor to the host and return a handle; its result is an independent array.

    On CUDA the copy is queued in the calling thread's stream, so the thread can queue more work before it waits.
    `result()` waits for this copy only, not for work that was queued later.
    """
    if tensor.device.type == "cuda":
        return _CudaCopy(tensor)
    return _Copy(tensor)


class _Copy:
    """A copy that is made when `result()` is called."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def result(self) -> npt.NDArray[Any]:
        """Return the tensor as an array."""
        return self._tensor.cpu().numpy()


class _CudaCopy:
    """An asynchronous copy from a CUDA device."""

    def __init__(self, tensor: torch.Tensor) -> None:
        # An asynchronous copy needs pinned memory.
        self._here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._here.copy_(tensor, non_blocking=True)
        self._is_here = torch.cuda.current_stream(tensor.device).record_event()

    def result(self) -> npt.NDArray[Any]:
        """Wait for the copy and return it."""
        self._is_here.synchronize()
        return self._here.numpy()


@contextmanager
def run_errors(network: str, device: torch.device, batch_parameter: str) -> Iterator[None]:
    """Convert torch errors while `network` runs on `device` into a `ModelError` that suggests a remedy.

    Args:
        network: the network's name, for the message.
        batch_parameter: the parameter that controls its batch size.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error):
            raise ModelError(
                f"{network}: out of memory on {device}: use a smaller `{batch_parameter}` or another `dtype`"
            ) from error
        raise ModelError(f"{network} failed on {device}: {describe(error)}; try `dtype` float32") from error


def _devices() -> list[str]:
    """Return the names of this machine's devices, best first: each type, followed by its numbered devices."""
    here: list[str] = []
    for kind, module in (("cuda", torch.cuda), ("xpu", torch.xpu)):
        if module.is_available():
            here += [kind, *(f"{kind}:{i}" for i in range(module.device_count()))]
    if torch.backends.mps.is_available():
        here.append("mps")
    return [*here, "cpu"]


def _fastest_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        # GPUs below compute capability 8.0 (Ampere) only emulate bfloat16.
        major, _ = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if major >= 8 and torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "xpu" or (device.type == "cpu" and _cpu_multiplies_bfloat16()):
        return torch.bfloat16
    return torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    # Torch has no public API for this before 2.13. oneDNN's `is_bf16_supported` is also true for emulation.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
