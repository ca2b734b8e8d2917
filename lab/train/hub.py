"""Base models on the hub: their safetensors, configuration and tokenizer, and nothing that is code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.errors import MissingAssetError

_FILES_WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]


def fetch(model: str, bundled: Sequence[str]) -> Path:
    """The folder in the hub's cache that holds a model, fetched unless it is there.

    Args:
        model: A hub id ("owner/name").
        bundled: The models that need no hub, for an error to offer.

    Raises:
        MissingAssetError: The hub does not give it, or may not be asked.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    from lab.assets import is_offline

    offline = is_offline()
    try:
        found = huggingface_hub.snapshot_download(
            model, allow_patterns=_FILES_WANTED, local_files_only=offline
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = f"the hub did not give it ({type(error).__name__})"
        if offline:
            reason = "it is not in the hub's cache, and LAB_OFFLINE forbids downloads"
        raise MissingAssetError(
            f"base.model = {model!r}: not a folder here, and {reason}; "
            f"the bundled models are {', '.join(bundled)}."
        ) from None
    return Path(found)
