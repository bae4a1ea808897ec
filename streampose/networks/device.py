"""Which devices and number formats this machine's torch can run, and what it means when they fail. Knows no network."""

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
    """Return the device that `text` names: `auto`, or torch's own names (`cpu`, `cuda`, `cuda:1`, `xpu`, `mps`).

    `auto` takes the first of cuda, xpu, mps and cpu that this machine has.

    Raises:
        UsageError: no such device here; the text names those that there are.
    """
    here = _devices()
    if text == "auto":
        return torch.device(here[0])
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise UsageError(f"no device {text!r}: auto or one of {', '.join(here)}") from error
    if str(device) not in here:
        raise UsageError(f"no device {text!r} on this machine: auto or one of {', '.join(here)}")
    return device


def pick_dtype(text: str, device: torch.device) -> torch.dtype:
    """Return the number format that `text` names (`auto`, `float32`, `bfloat16`, `float16`) for networks on `device`.

    `auto` takes the fastest one that keeps the accuracy: bfloat16 where the hardware multiplies it, else float16 on
    CUDA and float32 elsewhere (a CPU without bfloat16 units runs it at 0.6 times its float32 speed).

    Raises:
        UsageError: no such format.
    """
    if text == "auto":
        return _fastest_dtype(device)
    if text not in _DTYPES:
        raise UsageError(f"no dtype {text!r}: auto or one of {', '.join(_DTYPES)}")
    return _DTYPES[text]


def default_batches(device: torch.device) -> tuple[int, int]:
    """Return the most frames of a detector call and the most people of a pose call that suit a device."""
    if device.type == "cpu":
        # A worker's share of a batch: fewer cost it speed, more only time.
        return 4 * worker_count(), MOST_AT_ONCE * worker_count()
    return 8, 64


def own_stream(device: torch.device) -> AbstractContextManager[object]:
    """Let what the calling thread does on a CUDA device run beside what others do there; elsewhere nothing."""
    return torch.cuda.stream(new_stream(device)) if device.type == "cuda" else nullcontext()


def upload(image: Image, device: torch.device) -> torch.Tensor:
    """Return a picture (H, W, 3) uint8 on `device`; on a CPU it shares the picture's memory.

    On CUDA the copy may still be under way in the calling thread's stream, behind which comes whatever it does next.
    """
    pixels = torch.from_numpy(image)
    if device.type == "cuda":
        # Only from pinned memory the device copies by itself; torch keeps that memory until it has.
        return pixels.pin_memory().to(device, non_blocking=True)
    return pixels.to(device)


def read_here(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that another thread has made, complete, and that is read by this one from now on.

    On CUDA its memory would else be given away as soon as nobody refers to it, before this thread's stream has read it.
    """
    if tensor.device.type == "cuda":
        tensor.record_stream(torch.cuda.current_stream(tensor.device))
    return tensor


def fetch(tensor: torch.Tensor) -> Pending[npt.NDArray[Any]]:
    """Begin to copy a tensor to the host and return a handle, whose result is an array of its own.

    On CUDA the copy is part of the calling thread's stream, so that the thread can ask the device for more before it
    waits; `result()` waits for this copy only, not for what was asked after it.
    """
    if tensor.device.type == "cuda":
        return _CudaCopy(tensor)
    return _Copy(tensor)


class _Copy:
    """A tensor that is copied when its result is asked for."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def result(self) -> npt.NDArray[Any]:
        """Return the tensor as an array."""
        return self._tensor.cpu().numpy()


class _CudaCopy:
    """A copy that the device makes by itself."""

    def __init__(self, tensor: torch.Tensor) -> None:
        # Only into pinned memory the device copies by itself.
        self._here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._here.copy_(tensor, non_blocking=True)
        self._is_here = torch.cuda.current_stream(tensor.device).record_event()

    def result(self) -> npt.NDArray[Any]:
        """Wait for the copy and return it."""
        self._is_here.synchronize()
        return self._here.numpy()


@contextmanager
def run_errors(network: str, device: torch.device, batch_parameter: str) -> Iterator[None]:
    """Turn what torch raises while `network` runs on `device` into a `ModelError` that names the remedy.

    Args:
        network: the network's name, for the message.
        batch_parameter: the parameter that makes its batches smaller.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error):
            raise ModelError(
                f"{network}: out of memory on {device}: take a smaller `{batch_parameter}` or another `dtype`"
            ) from error
        raise ModelError(f"{network} failed on {device}: {describe(error)}; try `dtype` float32") from error


def _devices() -> list[str]:
    """The devices of this machine, best first: each type by itself, then its numbers where there are several."""
    here: list[str] = []
    for kind, module in (("cuda", torch.cuda), ("xpu", torch.xpu)):
        if module.is_available():
            here += [kind, *(f"{kind}:{i}" for i in range(module.device_count()))]
    if torch.backends.mps.is_available():
        here.append("mps")
    return [*here, "cpu"]


def _fastest_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        # Before compute capability 8.0 (Ampere) bfloat16 is emulated.
        major, _ = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if major >= 8 and torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "xpu" or (device.type == "cpu" and _cpu_multiplies_bfloat16()):
        return torch.bfloat16
    return torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    # Torch has no public question for this before 2.13; `is_bf16_supported` of oneDNN also says yes to emulation.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
