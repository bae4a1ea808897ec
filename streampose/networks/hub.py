"""Downloads checkpoint files from the Hugging Face hub, or takes them from its local cache."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
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


class NotHere(ModelError):
    """Hub checkpoints that are neither in the local cache nor can be downloaded."""

    def __init__(self, names: Sequence[str], reason: str) -> None:
        """Store what is missing.

        Args:
            names: hub ids, each with its revision after an `@` if it has one.
            reason: why the hub did not provide them.
        """
        from huggingface_hub.constants import HF_HUB_CACHE

        self.names = tuple(names)
        self.reason = reason
        parts = [name.partition("@") for name in names]
        commands = [f"`hf download {repo}{f' --revision {revision}' if at else ''}`" for repo, at, revision in parts]
        pronoun = "it is" if len(names) == 1 else "they are"
        super().__init__(
            f"cannot download {' and '.join(names)} ({reason}), and {pronoun} not in the local cache ({HF_HUB_CACHE}): "
            f"run {' and '.join(commands)} on a machine with network access and copy its cache to that folder, or to "
            f"one that the environment variable HF_HUB_CACHE names; or use a local folder or a bundled network "
            f"({DEFAULT_POSE}, {DEFAULT_DETECTOR})"
        )


def from_hub(name: str, repo: str, revision: str | None, allow_pickle: bool) -> Path:
    """Return the folder of a hub checkpoint. Download it if the cache does not hold it completely.

    A download shows the progress bars of huggingface_hub if standard error is a terminal, and in a notebook.

    Args:
        name: the checkpoint's name, as the user gave it.
        repo, revision: the repository and revision in `name`; revision None selects the hub's default.
        allow_pickle: accept pickled weights if the checkpoint has no safetensors.

    Raises:
        NotHere: the hub cannot be reached, or the download fails.
        ModelError: the checkpoint does not exist.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    with quiet(bars=_is_watched()):
        try:
            with suppress(LocalEntryNotFoundError):  # not in the cache: ask the hub
                folder = Path(
                    snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=_SMALL_FILES)
                )
                if is_complete(folder, allow_pickle):
                    return folder
            # Query the model first: the download itself has no timeout or retries for half a minute.
            model = HfApi().model_info(repo, revision=revision, timeout=_HUB_ANSWER_TIMEOUT_S)
            files = {file.rfilename for file in model.siblings or []}
            has_safetensors = bool(files & {"model.safetensors", "model.safetensors.index.json"})
            _LOG.info("downloading %s from the Hugging Face hub", name)
            weights = _PICKLES if allow_pickle and not has_safetensors else _SAFETENSORS
            # Download by the requested revision, not by `model.sha`, so that the cache can find it by that revision.
            folder = Path(snapshot_download(repo, revision=revision, allow_patterns=[*_SMALL_FILES, *weights]))
        except HFValidationError as error:
            raise ModelError(f"no folder {name!r}, and it is not a valid hub id: {describe(error)}") from error
        except RevisionNotFoundError as error:
            raise ModelError(f"{repo} has no revision {revision!r} on the Hugging Face hub") from error
        except RepositoryNotFoundError as error:
            raise ModelError(
                f"no folder {name!r}, and no such model on the Hugging Face hub (if it is private, log in with "
                f"`hf auth login`): {names_like(repo)}"
            ) from error
        except Exception as error:  # huggingface_hub's HTTP library, and thus its errors, depends on the version.
            raise NotHere([name], describe(error)) from error
    if not has_safetensors and not allow_pickle and "pytorch_model.bin" in files:
        raise ModelError(
            f"{name}: the weights on the hub are pickled (pytorch_model.bin) and can run code when loaded: "
            "use a checkpoint with safetensors, or set `allow_pickle` if you trust this one"
        )
    return folder


def _is_watched() -> bool:
    """Return whether somebody sees progress bars. Some of huggingface_hub's would also be written to logs."""
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())


@contextmanager
def quiet(*, bars: bool = False) -> Iterator[None]:
    """Suppress the warnings of transformers and huggingface_hub within the block, and unless `bars` is set, their
    progress bars.
    """
    import huggingface_hub.utils.logging as hub_logging
    import transformers.utils.logging

    transformers_logging: Any = transformers.utils.logging
    levels = transformers_logging.get_verbosity(), hub_logging.get_verbosity()
    hides_bars = not bars and transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    hub_logging.set_verbosity(logging.ERROR)
    if hides_bars:
        transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(levels[0])
        hub_logging.set_verbosity(levels[1])
        if hides_bars:
            transformers_logging.enable_progress_bar()


def hide_bars() -> None:
    """Suppress the progress bars of downloads in this process."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # documented there

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an environment variable of huggingface_hub can forbid it
        disable_progress_bars()
