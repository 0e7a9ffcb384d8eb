"""From the command line's words to models and rewards."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tpo_core.errors import InvalidInputError, ModelError
from tpo_core.masking import hide, public
from tpo_core.models.policy import ChatModel
from tpo_core.records import plain
from tpo_core.trajectory import Trajectory

__all__ = ["QUESTION", "find_model", "find_reward", "is_embedded", "summary"]

QUESTION = "Does the response give clear, correct and useful advice about the query?"
"""What the embedded model is asked about an answer. So small a judge is weak by any wording: by this one it ranked a
good answer above a bad one 6 to 7 times of 10 (25 answers to 2 queries), by ``JudgeReward``'s own 3 to 4 times."""


def find_model(model: str | None, api_base: str | None, *, listed: bool = False, **settings: Any) -> ChatModel:
    """Return the model that was named, or the embedded one where nothing was.

    Args:
        model: A GGUF file, a litellm model string, or, with a server, one of its model names; ``TPO_MODEL`` by default.
        api_base: An OpenAI-compatible server; ``TPO_API_BASE`` by default, or ``OPENAI_BASE_URL`` where the model names
            no provider.
        listed: Refuse a model that the server does not list, where it lists any.
        **settings: Passed on to a model behind a server or a provider: ``timeout``, ``max_retries``.

    Raises:
        InvalidInputError: The file is not there or is no GGUF file.
        ModelError: The server does not answer, or does not say which models it has.
    """
    model = model or os.environ.get("TPO_MODEL") or None
    if model and (model.lower().endswith(".gguf") or Path(model).is_file()):
        from tpo_core.models.local.chat import LocalChat

        return LocalChat(model)
    base = api_base or os.environ.get("TPO_API_BASE")
    if not base and "/" not in (model or ""):
        base = os.environ.get("OPENAI_BASE_URL")
    if base:
        return _on_server(model, base.rstrip("/"), listed, settings)
    if model:
        return _of_provider(model, settings)
    from tpo_core.models.local.chat import LocalChat
    from tpo_core.models.local.demos import SAMPLING

    return LocalChat(sampling=SAMPLING)


def is_embedded(model: ChatModel) -> bool:
    """Return whether a model is the embedded default."""
    return model.name == "local/SmolLM2-135M-Instruct.Q4_1"


def find_reward(reward: str, judge: Callable[[], ChatModel], named: Callable[[str], ChatModel]) -> Any:
    """Return the reward that was named.

    Args:
        reward: ``judge`` (a model asked about the answer), ``judge:MODEL``, ``module:function``, ``file.py:function``,
            a server's URL, or a transformers reward model (``org/name`` or ``./folder``).
        judge: Gives the model that judges when none is named.
        named: Finds a judge's model by its name.

    Raises:
        InvalidInputError: It is none of these, or cannot be imported.
    """
    from tpo_core.rewards.function import as_reward

    if reward == "judge" or reward.startswith("judge:"):
        from tpo_core.rewards import JudgeReward

        model = named(reward.removeprefix("judge:")) if ":" in reward else judge()
        return JudgeReward(model, question=QUESTION) if is_embedded(model) else JudgeReward(model)
    if found := re.fullmatch(r"(?P<home>[\w.]+|.+\.py):(?P<name>[A-Za-z_]\w*)", reward):
        return as_reward(_imported(found["home"], found["name"]))
    return as_reward(reward)


def summary(trajectory: Trajectory | None, models: Mapping[str, str], error: BaseException | None) -> dict[str, Any]:
    """Return what ``--json`` writes: the outcome, and the whole trajectory where there is one.

    Args:
        trajectory: What was gained; None where nothing had started.
        models: The names of the policy, the critic, the editor and the reward.
        error: What ended the run, if anything did.
    """
    best = None if trajectory is None else trajectory.best_or_none
    shown = None if best is None else {"response": best.response, "reward": best.reward, "step": best.step}
    return {
        **({} if trajectory is None else trajectory.to_dict()),
        "best": plain(shown),
        "gain": None if trajectory is None or best is None else trajectory.gain,
        "diagnosis": None if trajectory is None else trajectory.diagnosis,
        "models": dict(models),
        "error": None if error is None else hide(" ".join(str(error).split()) or type(error).__name__),
    }


def _on_server(model: str | None, base: str, listed: bool, settings: Mapping[str, Any]) -> ChatModel:
    from tpo_core.models.openai_chat import served_models

    key = os.environ.get("TPO_API_KEY") or os.environ.get("OPENAI_API_KEY")
    served = served_models(base, key)
    if model is None and not served:
        raise ModelError(f"the server at {public(base)} does not say which models it has; name one with --model")
    if listed and model is not None and served and model not in served:
        has = ", ".join(served[:10]) + (", ..." if len(served) > 10 else "")
        raise ModelError(f"the server at {public(base)} has no model {model!r}; it has {has}")
    name = model or served[0]
    from tpo_core.models.openai_chat import OpenAIChat

    return OpenAIChat(name, api_base=base, api_key=key, **settings)


def _of_provider(model: str, settings: Mapping[str, Any]) -> ChatModel:
    if model.startswith("openai/"):
        from tpo_core.models.openai_chat import OpenAIChat

        return OpenAIChat(model, **settings)
    from tpo_core.models.litellm_chat import LiteLLMChat

    return LiteLLMChat(model, **settings)


def _imported(home: str, name: str) -> Any:
    try:
        module = _from_file(Path(home)) if home.endswith(".py") else _from_path(home)
        return getattr(module, name)
    except Exception as error:
        raise InvalidInputError(f"--reward {home}:{name} cannot be imported: {error}") from error


def _from_path(home: str) -> Any:
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(home)
    finally:
        sys.path.remove(os.getcwd())


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)  # where dataclasses look for what their annotations name
    spec.loader.exec_module(module)
    return module
