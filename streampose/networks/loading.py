"""Checkpoints to networks and image processors of transformers, with one line for whatever fails."""

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
    """Return `model_class.from_pretrained` of the checkpoint, on the CPU, in `dtype`, ready to evaluate.

    Args:
        checkpoint: what `resolve` found.
        model_class: a model class of transformers, or one of its Auto classes.
        dtype: number format of the weights.

    Raises:
        ModelError: damaged weights, weights of another network, a package that is missing.
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
    # Transformers fills what is missing with random numbers and warns.
    unfit = [*sorted(report["missing_keys"]), *sorted(key for key, *_ in report["mismatched_keys"])]
    if unfit:
        raise ModelError(
            f"{checkpoint.name}: its weights do not fit its config.json: {unfit[0]} and {len(unfit) - 1} others"
        )
    check_range(checkpoint, network.state_dict(), dtype)
    return network.eval().requires_grad_(False)


def check_range(checkpoint: Checkpoint, weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> None:
    """See to it that `dtype` can hold the `weights` of a checkpoint, by name.

    Raises:
        ModelError: a weight is too large for `dtype`, infinite or not a number.
    """
    import torch

    limit = torch.finfo(dtype).max
    for key, weight in weights.items():
        # Ten times faster than asking every weight whether it is finite; both ends of NaN are NaN.
        low, high = (float(end) for end in weight.aminmax()) if weight.numel() else (0.0, 0.0)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ModelError(f"{checkpoint.name}: its weights are damaged: {key} holds values that are not finite")
        if low < -limit or high > limit:
            raise ModelError(
                f"{checkpoint.name}: {key} in its weights exceeds {dtype}: take `dtype` float32 or bfloat16"
            )


def load_image_processor(checkpoint: Checkpoint) -> Any:
    """Return transformers' own image processor of the checkpoint.

    Raises:
        ModelError: the checkpoint has none, or one that this installation cannot build or that fails on a picture.
    """
    import numpy as np
    import transformers

    checkpoint.normalisation()
    processors: Any = transformers.AutoImageProcessor
    with quiet(), loading(checkpoint, PREPROCESSOR):
        processor = processors.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
        # Most of what is wrong with its values shows only now.
        processor(images=[np.zeros((64, 64, 3), np.uint8)], input_data_format="channels_last", return_tensors="pt")
    return processor


@contextmanager
def loading(checkpoint: Checkpoint, part: str = "") -> Iterator[None]:
    """Turn whatever fails inside, other than by our own errors, into a `ModelError` that names the checkpoint and the
    file `part` of it, where it is one file that is read.
    """
    try:
        yield
    except StreamposeError:
        raise
    except ImportError as error:
        raise ModelError(f"{checkpoint.name} needs a package that is not installed: {describe(error)}") from error
    except (pickle.UnpicklingError, EOFError) as error:  # torch's own text advises to run the code in the file
        raise ModelError(
            f"cannot load {checkpoint.name}: its pytorch_model.bin is damaged or holds more than weights"
        ) from error
    except Exception as error:  # A config written by anybody can make any line of the library fail, with any type.
        first_sentence = describe(error).partition(". ")[0]  # the others are advice for another program
        raise ModelError(f"cannot load {checkpoint.name} from {checkpoint.folder / part}: {first_sentence}") from error
