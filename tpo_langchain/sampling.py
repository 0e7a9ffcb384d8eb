"""What makes one sample unlike another: its own place in the LLM cache, and the loop's sampling settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from langchain_core.caches import BaseCache
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable

from tpo_core.loop.effects import Generate
from tpo_langchain.caching import SaltedCache
from tpo_langchain.chain import rebuilt

__all__ = ["equip"]

R = TypeVar("R", bound=Runnable[Any, Any])

# What integrations call the most tokens of a response: OpenAI and most others, Google, Ollama.
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict")


def equip(chain: R, request: Generate, seeds: Sequence[int]) -> R:
    """Return the chain with its models set up for these samples; the chain itself where nothing needs to change."""

    def change(model: BaseLanguageModel[Any]) -> BaseLanguageModel[Any]:
        update = {**_settings(model, request, seeds), **_cache(model, seeds)}
        return model.model_copy(update=update) if update else model

    return cast("R", rebuilt(chain, change))


def _settings(model: BaseLanguageModel[Any], request: Generate, seeds: Sequence[int]) -> Mapping[str, Any]:
    """Return the loop's settings under the names of those of the model's fields that take them."""
    seed = seeds[0] if request.send_seed else None
    asked = {"temperature": request.temperature, "top_p": request.top_p, "limit": request.max_tokens, "seed": seed}
    if not (wanted := {name: value for name, value in asked.items() if value is not None}):
        return {}
    taken = type(model).model_fields
    if "limit" in wanted:
        wanted[next((name for name in _LIMITS if name in taken), "limit")] = wanted.pop("limit")
    return {name: value for name, value in wanted.items() if name in taken}


def _cache(model: BaseLanguageModel[Any], seeds: Sequence[int]) -> Mapping[str, Any]:
    if model.cache is False:
        return {}
    base = model.cache if isinstance(model.cache, BaseCache) else get_llm_cache()
    return {} if base is None else {"cache": SaltedCache(base, "-".join(map(str, seeds)))}
