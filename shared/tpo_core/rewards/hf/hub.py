"""Whether a reward model is on the Hugging Face hub or in its cache here, asked before torch is imported."""

from __future__ import annotations

import os

from tpo_core.errors import ModelError

__all__ = ["commit_here", "only_here"]

_REACH = 10.0
"""Seconds the hub may take to tell whether it has a model."""


def only_here(name: str, revision: str | None) -> bool:
    """Return whether only files on this machine can be read: the hub cannot be reached, but they are in its cache.

    The hub is asked once. Transformers would ask it six times for each file, with waits in between.

    Args:
        name: Of a repository on the hub, or of a folder, which is not asked about.
        revision: A branch, a tag or a commit.

    Raises:
        ModelError: The model is neither a folder here, nor on the hub, nor in its cache.
    """
    if os.path.isdir(name):
        return False
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        huggingface_hub.HfApi().model_info(name, revision=revision, timeout=_REACH)
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        said = str(error).strip().splitlines()[0]
        raise ModelError(
            f"cannot find the reward model {name!r}: it is no folder here and not on the Hugging Face hub "
            f"(a private one needs HF_TOKEN): {said}"
        ) from error
    except Exception as error:
        if commit_here(name, revision) is None:
            raise ModelError(
                f"cannot load the reward model {name!r}: it is not in this machine's cache, and the Hugging "
                f"Face hub cannot be reached ({error})"
            ) from error
        return True
    return False


def commit_here(name: str, revision: str | None) -> str | None:
    """Return the commit of a model that is in the hub's cache here; None where there is none."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        found = huggingface_hub.try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:  # a folder
        return None
    if not isinstance(found, str):
        return None
    return os.path.basename(os.path.dirname(found))  # .../snapshots/<commit>/config.json
