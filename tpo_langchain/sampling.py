"""What makes one sample unlike another: its own place in the LLM cache, and the loop's sampling settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.caches import BaseCache
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable

from tpo_core.loop.effects import Generate
from tpo_langchain.caching import SaltedCache
from tpo_langchain.chain import rebuilt

__all__ = ["equip"]

# What integrations call the most tokens of a response: OpenAI and most others, Google, Ollama.
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict")


def equip(chain: Runnable[Any, Any], request: Generate, seeds: Sequence[int]) -> Runnable[Any, Any]:
    """Return the chain with its models set up for these samples; the chain itself where nothing needs to change."""

    def change(model: BaseLanguageModel[Any]) -> BaseLanguageModel[Any]:
        update = {**_settings(model, request, seeds), **_cache(model, seeds)}
        return model.model_copy(update=update) if update else model

    return rebuilt(chain, change)  # type: ignore[no-any-return]


def _settings(model: BaseLanguageModel[Any], request: Generate, seeds: Sequence[int]) -> Mapping[str, Any]:
    """Return the loop's settings under the names of those of the model's fields that take them."""
    taken = type(model).model_fields
    limit = next((name for name in _LIMITS if name in taken), "max_tokens")
    wanted = {"temperature": request.temperature, "top_p": request.top_p, limit: request.max_tokens}
    if request.send_seed:
        wanted["seed"] = seeds[0]
    return {name: value for name, value in wanted.items() if value is not None and name in taken}


def _cache(model: BaseLanguageModel[Any], seeds: Sequence[int]) -> Mapping[str, Any]:
    if model.cache is False:
        return {}
    base = model.cache if isinstance(model.cache, BaseCache) else get_llm_cache()
    return {} if base is None else {"cache": SaltedCache(base, "-".join(map(str, seeds)))}
