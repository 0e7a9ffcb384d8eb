"""What makes one sample unlike another: its own place in the LLM cache, and the loop's sampling settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable

from tpo_core.effects import Generate
from tpo_langchain.anatomy import rebuilt

__all__ = ["SaltedCache", "equip"]

# What integrations call the most tokens of a response: OpenAI and most others, Google, Ollama.
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict")


class SaltedCache(BaseCache):
    """An LLM cache seen through a salt: equal requests with different salts are different entries of it.

    A second identical run uses the same salts, and is answered from the cache.
    """

    def __init__(self, base: BaseCache, salt: str) -> None:
        """Salt ``base``; an already salted one is salted twice, as it should: a loop inside a loop."""
        self.base, self.salt = base, salt

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """Look up under the salt."""
        return self.base.lookup(prompt, self._salted(llm_string))

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Enter under the salt."""
        self.base.update(prompt, self._salted(llm_string), return_val)

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """Look up under the salt."""
        return await self.base.alookup(prompt, self._salted(llm_string))

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Enter under the salt."""
        await self.base.aupdate(prompt, self._salted(llm_string), return_val)

    def clear(self, **kwargs: Any) -> None:
        """Clear the cache behind, all of it."""
        self.base.clear(**kwargs)

    def _salted(self, llm_string: str) -> str:
        return f"{llm_string}|tpo:{self.salt}"


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
