"""Resolves model names to checkpoints: bundled ones, local folders, and the Hugging Face hub or its local cache.

Knows nothing about what a network computes. A checkpoint is a folder in hub layout: `config.json`, safetensors weights
and usually `preprocessor_config.json`. Code that comes with a checkpoint is never run.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from streampose.errors import ModelError, describe
from streampose.networks.hub import from_hub
from streampose.networks.known import KNOWN_MODELS, names_like
from streampose.networks.layout import CONFIG, PREPROCESSOR, has_weights

if TYPE_CHECKING:
    pass

_T = TypeVar("_T")
_LOG = logging.getLogger("streampose")

MAX_JSON_BYTES = 16 * 2**20
_COUNTED = frozenset(["id2label", "label2id", "edges", "flip_pairs"])
_LARGEST = (
    dict.fromkeys(["image_size", "height", "width", "shortest_edge", "longest_edge"], 8192)
    | dict.fromkeys(["num_labels", *_COUNTED], 10_000)
    | dict.fromkeys(["patch_size", "num_hidden_layers", "num_attention_heads", "num_experts"], 1024)
    | dict.fromkeys(["hidden_size", "d_model", "intermediate_size", "mlp_ratio", "part_features"], 65_536)
    | dict.fromkeys(["num_queries", "num_detection_tokens"], 10_000)
)
"""Upper limits for config values, by key. All published networks stay below them. For the keys in `_COUNTED`, the limit
applies to the number of entries.
"""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose files are on this machine."""

    name: str
    """The name that the user gave."""
    folder: Path
    config: dict[str, Any]
    """The contents of `config.json`, unchanged; `model_type` is a string."""
    preprocessing: dict[str, Any]
    """The contents of `preprocessor_config.json`, unchanged; empty if the file is missing."""
    use_safetensors: bool
    """False only if the weights are pickled and the user allowed it."""

    @property
    def model_type(self) -> str:
        """The architecture as transformers names it, such as `vitpose` or `rt_detr`."""
        return str(self.config["model_type"])

    def entry(self, file: str, key: str, default: _T, parse: Callable[[Any], _T], what: str) -> _T:
        """Return `parse(value)` for an entry of `file` (`CONFIG` or `PREPROCESSOR`).

        Returns `default` if the entry is missing. If `default` is None, a null entry also gives None.

        Raises:
            ModelError: `parse` fails; the message says that `what` was expected.
        """
        value = (self.config if file == CONFIG else self.preprocessing).get(key, default)
        if value is default:
            return default
        try:
            return parse(value)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise ModelError(f"{self.name}: '{key}' in {file} is {reprlib.repr(value)}, expected {what}") from error

    def whole_number(self, file: str, key: str, default: int, of: range) -> int:
        """Return an integer entry of `file` that must be in the range `of`; see `entry`."""
        return self.entry(file, key, default, lambda value: _one_of(value, of), f"an integer from {of[0]} to {of[-1]}")

    @property
    def channel_names(self) -> dict[int, str]:
        """The name of each class or keypoint, by index; empty if the checkpoint has no names."""

        def parse(value: Any) -> dict[int, str] | None:
            return {int(number): str(name) for number, name in value.items()}

        return self.entry(CONFIG, "id2label", None, parse, "a mapping from indices to names") or {}

    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the mean and standard deviation (RGB) that normalise colours in 0..1 for the network.

        The default is ImageNet's mean and standard deviation.

        Raises:
            ModelError: a value in `preprocessor_config.json` is not a number, or a standard deviation is not above 0.
        """
        range_ = 255.0
        if self.preprocessing.get("do_rescale", True):
            range_ *= self.entry(
                PREPROCESSOR, "rescale_factor", 1 / 255, lambda value: _number(value, above=0), "a number above 0"
            )
        mean: tuple[float, ...] | None = (0.0, 0.0, 0.0)
        std: tuple[float, ...] | None = (1.0, 1.0, 1.0)
        if self.preprocessing.get("do_normalize", True):
            mean = self.entry(PREPROCESSOR, "image_mean", None, _colour, "three numbers")
            std = self.entry(
                PREPROCESSOR, "image_std", None, lambda value: _colour(value, above=0), "three numbers above 0"
            )
        return (
            tuple(value / range_ for value in mean or (0.485, 0.456, 0.406)),
            tuple(value / range_ for value in std or (0.229, 0.224, 0.225)),
        )


def _one_of(value: Any, of: range) -> int:
    if type(value) is not int or value not in of:
        raise ValueError
    return value


def _number(value: Any, above: float = -math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not above < value < math.inf:
        raise ValueError
    return float(value)


def _colour(value: Any, above: float = -math.inf) -> tuple[float, ...] | None:
    red, green, blue = (_number(part, above) for part in value)
    return red, green, blue


def assets_folder() -> Path:
    """Return the folder of the bundled files: inside an installed package, or next to the package in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "assets"
    return inside if inside.is_dir() else package.parent / "assets"


def demo_clip() -> Path:
    """Return the path of the bundled clip: 8 s, 1280x720, five synthetic people."""
    return assets_folder() / "demo.mp4"


def resolve(name: str | os.PathLike[str], *, allow_pickle: bool = False) -> Checkpoint:
    """Find the checkpoint called `name`. Download it from the hub if necessary.

    Args:
        name: a bundled name, a folder in hub layout, or a hub id (`organisation/model`, `organisation/model@revision`).
            If the local cache holds the complete hub checkpoint, it is loaded from there without contacting the hub.
        allow_pickle: accept pickled weights if the checkpoint has no safetensors.

    Raises:
        ModelError: the checkpoint does not exist, cannot be downloaded, or lacks `config.json` or weights.
    """
    name = os.fspath(name)
    folder = _find_folder(name, allow_pickle)
    config = _read_json(name, folder / CONFIG)
    if not isinstance(config.get("model_type"), str):
        raise ModelError(f"{name}: config.json has no model_type; this is not a transformers checkpoint")
    preprocessing_file = folder / PREPROCESSOR
    preprocessing = _read_json(name, preprocessing_file) if preprocessing_file.exists() else {}
    use_safetensors = has_weights(folder, "model.safetensors")
    if not use_safetensors:
        pickled = has_weights(folder, "pytorch_model.bin")
        if pickled and not allow_pickle:
            raise ModelError(
                f"{name}: the weights are pickled (pytorch_model.bin) and can run code when loaded: "
                "use a checkpoint with safetensors, or set `allow_pickle` if you trust this one"
            )
        if not pickled:
            raise ModelError(f"{name}: no weights (model.safetensors) in {folder}")
    return Checkpoint(name, folder, config, preprocessing, use_safetensors)


_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")


def _find_folder(name: str, allow_pickle: bool) -> Path:
    if any(name == model.name for model in KNOWN_MODELS if "/" not in model.name):
        return assets_folder() / "models" / name
    shown = name if len(name) <= 200 else f"{name[:200]}..."
    try:
        folder = Path(name).expanduser()
        if name and folder.is_dir():
            return folder
    except (OSError, RuntimeError) as error:  # OSError: name too long, no permission; RuntimeError: `~` of unknown user
        raise ModelError(f"cannot access folder {shown!r}: {describe(error)}") from error
    if hub_id := _HUB_ID.fullmatch(name):
        return from_hub(name, hub_id["repo"], hub_id["revision"], allow_pickle)
    raise ModelError(f"unknown model {shown!r}: {names_like(name)}")


def _read_json(name: str, file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise ModelError(f"{name}: {file.name} is larger than the limit of {MAX_JSON_BYTES >> 20} MiB")
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{name}: no {file.name} in {file.parent}; this is not a checkpoint in hub layout") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{name}: cannot read {file.name}: {describe(error)}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{name}: cannot read {file.name}: it is not a JSON object")
    _check_numbers(name, file.name, values)
    return values


def _check_numbers(name: str, file: str, values: dict[str, Any]) -> None:
    """Raise `ModelError` for unrealistically large values, before anything of that size is allocated."""
    for key, value in values.items():
        if isinstance(value, dict) and key != "id2label":
            _check_numbers(name, file, value)
        limit = _LARGEST.get(key)
        if limit is None:
            continue
        numbers = value if isinstance(value, list) and key not in _COUNTED else [value]
        for number in [len(value)] if key in _COUNTED and isinstance(value, dict | list) else numbers:
            if isinstance(number, int) and number > limit:
                raise ModelError(f"{name}: '{key}' in {file} is {reprlib.repr(number)}, more than the limit of {limit}")
