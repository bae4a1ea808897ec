"""The files of a folder in hub layout: `config.json`, weights and usually `preprocessor_config.json`."""

from __future__ import annotations

import json
from pathlib import Path

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"


def is_complete(folder: Path, allow_pickle: bool) -> bool:
    """Whether the folder has a config and weights. Pickled weights count only if `allow_pickle` is set."""
    return (folder / CONFIG).exists() and (
        has_weights(folder, "model.safetensors") or (allow_pickle and has_weights(folder, "pytorch_model.bin"))
    )


def has_weights(folder: Path, file: str) -> bool:
    """Whether the folder has the weights: either as one file, or as all files listed in the index."""
    if (folder / file).exists():
        return True
    try:
        shards = json.loads((folder / f"{file}.index.json").read_text())["weight_map"].values()
        return all((folder / shard).exists() for shard in set(shards))
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return False
