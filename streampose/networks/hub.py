"""The Hugging Face hub: which of a checkpoint's files are fetched, from its cache where they lie there."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from streampose.errors import ModelError, describe
from streampose.networks.known import DEFAULT_DETECTOR, DEFAULT_POSE, names_like
from streampose.networks.layout import CONFIG, PREPROCESSOR, is_complete

_LOG = logging.getLogger("streampose")

_SMALL_FILES = [CONFIG, PREPROCESSOR]
_SAFETENSORS = ["model*.safetensors", "model.safetensors.index.json"]
_PICKLES = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]
_HUB_ANSWER_TIMEOUT_S = 5.0


def from_hub(name: str, repo: str, revision: str | None, allow_pickle: bool) -> Path:
    """Return the folder of a hub checkpoint, fetched where it does not lie complete in the cache.

    Args:
        name: as the user named it.
        repo, revision: what that means; None takes the hub's default.
        allow_pickle: take weights that are no safetensors, where there are no others.

    Raises:
        ModelError: there is no such checkpoint, or it cannot be fetched.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    with quiet():
        try:
            with suppress(LocalEntryNotFoundError):  # not in the cache: ask the hub
                folder = Path(
                    snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=_SMALL_FILES)
                )
                if is_complete(folder, allow_pickle):
                    return folder
            # Asked for first, because the download itself has no timeout or retries for half a minute.
            model = HfApi().model_info(repo, revision=revision, timeout=_HUB_ANSWER_TIMEOUT_S)
            files = {file.rfilename for file in model.siblings or []}
            has_safetensors = bool(files & {"model.safetensors", "model.safetensors.index.json"})
            _LOG.info("fetching %s from the Hugging Face hub", name)
            weights = _PICKLES if allow_pickle and not has_safetensors else _SAFETENSORS
            # By the name that was asked for, under which the cache then knows it; not by `model.sha`.
            folder = Path(snapshot_download(repo, revision=revision, allow_patterns=[*_SMALL_FILES, *weights]))
        except HFValidationError as error:
            raise ModelError(f"no folder {name!r}, and {describe(error)}") from error
        except RevisionNotFoundError as error:
            raise ModelError(f"{repo} has no revision {revision!r} on the Hugging Face hub") from error
        except RepositoryNotFoundError as error:
            raise ModelError(
                f"no folder {name!r}, and no such model on the Hugging Face hub, or a private one (log in with "
                f"`hf auth login`): {names_like(repo)}"
            ) from error
        except Exception as error:  # The HTTP library behind the hub's differs between its versions.
            flag = f" --revision {revision}" if revision else ""
            raise ModelError(
                f"cannot fetch {name} ({describe(error)}) and it is not in the local cache: run "
                f"`hf download {repo}{flag}` where there is a network, or take a local folder, or a bundled network "
                f"({DEFAULT_POSE}, {DEFAULT_DETECTOR})"
            ) from error
    if not has_safetensors and not allow_pickle and "pytorch_model.bin" in files:
        raise ModelError(
            f"{name}: its weights on the hub are pickled (pytorch_model.bin), which can run code when loaded: "
            "take a checkpoint with safetensors, or trust this one with `allow_pickle`"
        )
    return folder


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers and huggingface_hub from writing to the terminal: no progress bars, no warnings."""
    import huggingface_hub.utils.logging as hub_logging
    import transformers.utils.logging

    transformers_logging: Any = transformers.utils.logging
    levels = transformers_logging.get_verbosity(), hub_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    hub_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(levels[0])
        hub_logging.set_verbosity(levels[1])
        if bars:
            transformers_logging.enable_progress_bar()
