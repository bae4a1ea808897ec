"""Loads transformers networks and image processors from checkpoints. Every failure becomes a one-line error."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from streampose.errors import ModelError, StreamposeError, describe
from streampose.networks.checkpoints import Checkpoint
from streampose.networks.hub import quiet
from streampose.networks.layout import PREPROCESSOR

if TYPE_CHECKING:
    import torch


def load_network(checkpoint: Checkpoint, model_class: Any, dtype: torch.dtype) -> Any:
    """Load the checkpoint with `model_class.from_pretrained` and return the network in evaluation mode, on the CPU.

    Args:
        checkpoint: the result of `resolve`.
        model_class: a model class of transformers, or one of its Auto classes.
        dtype: number format of the weights.

    Raises:
        ModelError: the weights are damaged or belong to another network, or a package is missing.
    """
    with quiet(), loading(checkpoint):
        network, report = model_class.from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            use_safetensors=checkpoint.use_safetensors,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, in one line
        )
    # Transformers only warns about missing weights and fills them with random numbers.
    unfit = [*sorted(report["missing_keys"]), *sorted(key for key, *_ in report["mismatched_keys"])]
    if unfit:
        raise ModelError(
            f"{checkpoint.name}: the weights do not match config.json: {unfit[0]} and {len(unfit) - 1} others"
        )
    check_range(checkpoint, network.state_dict(), dtype)
    return network.eval().requires_grad_(False)


def check_range(checkpoint: Checkpoint, weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> None:
    """Check that `dtype` can represent the `weights` of a checkpoint. The keys are the names of the weights.

    Raises:
        ModelError: a weight is too large for `dtype`, infinite or NaN.
    """
    import torch

    limit = torch.finfo(dtype).max
    for key, weight in weights.items():
        # `aminmax` is ten times faster than `isfinite` on every value. With a NaN, both results are NaN.
        low, high = (float(end) for end in weight.aminmax()) if weight.numel() else (0.0, 0.0)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ModelError(f"{checkpoint.name}: the weights are damaged: {key} contains non-finite values")
        if low < -limit or high > limit:
            raise ModelError(
                f"{checkpoint.name}: {key} in the weights exceeds the range of {dtype}: use `dtype` float32 or bfloat16"
            )


def load_image_processor(checkpoint: Checkpoint) -> Any:
    """Return the transformers image processor of the checkpoint.

    Raises:
        ModelError: the checkpoint has no image processor, or it cannot be built, or it fails on a test image.
    """
    import numpy as np
    import transformers

    checkpoint.normalisation()
    processors: Any = transformers.AutoImageProcessor
    with quiet(), loading(checkpoint, PREPROCESSOR):
        processor = processors.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
        # Most invalid values cause an error only when an image is processed.
        processor(images=[np.zeros((64, 64, 3), np.uint8)], input_data_format="channels_last", return_tensors="pt")
    return processor


@contextmanager
def loading(checkpoint: Checkpoint, part: str = "") -> Iterator[None]:
    """Convert every error in the block, except our own errors, into a `ModelError` that names the checkpoint.

    If the block reads a single file of the checkpoint, `part` is its name; the message then includes it.
    """
    try:
        yield
    except StreamposeError:
        raise
    except ImportError as error:
        raise ModelError(f"{checkpoint.name} needs a package that is not installed: {describe(error)}") from error
    except (pickle.UnpicklingError, EOFError) as error:  # torch's own message suggests running the code in the file
        raise ModelError(
            f"cannot load {checkpoint.name}: pytorch_model.bin is damaged or contains more than weights"
        ) from error
    except Exception as error:  # An invalid config can make the library raise any type of error.
        first_sentence = describe(error).partition(". ")[0]  # the rest is advice for users of transformers
        raise ModelError(f"cannot load {checkpoint.name} from {checkpoint.folder / part}: {first_sentence}") from error
