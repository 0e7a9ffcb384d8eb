"""LLM caches: the samples of a loop kept apart in them, and refined answers kept whole, if at all."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import Runnable, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase

from tpo_core.cache_keys import made_of

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CachedWhole", "SaltedCache", "llm_key"]

_PASSING = {"deadline", "reward_failed", "critic_failed"}
"""Why a loop may have stopped this time, and not the next."""


class _Seen(BaseCache):
    """A cache seen through another name for its entries."""

    def __init__(self, base: BaseCache) -> None:
        """See ``base`` so."""
        self.base = base

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """Look up under the other name."""
        return self.base.lookup(prompt, self.named(llm_string))

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Enter under the other name."""
        if self.keeps(return_val):
            self.base.update(prompt, self.named(llm_string), return_val)

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """Look up under the other name."""
        return await self.base.alookup(prompt, self.named(llm_string))

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Enter under the other name."""
        if self.keeps(return_val):
            await self.base.aupdate(prompt, self.named(llm_string), return_val)

    def clear(self, **kwargs: Any) -> None:
        """Clear the cache behind, all of it."""
        self.base.clear(**kwargs)

    def named(self, llm_string: str) -> str:
        """Return what an entry of this name is called in the cache behind."""
        return llm_string

    def keeps(self, value: RETURN_VAL_TYPE) -> bool:
        """Return whether this is to be entered."""
        return True


class SaltedCache(_Seen):
    """An LLM cache seen through a salt: equal requests with different salts are different entries of it.

    A second identical run uses the same salts, and is answered from the cache. What LangChain knows a model by may hold
    the values of its headers: here it is a digest.
    """

    def __init__(self, base: BaseCache, salt: str) -> None:
        """Salt ``base``; an already salted one is salted twice, as it should: a loop inside a loop."""
        super().__init__(base)
        self.salt = salt

    def named(self, llm_string: str) -> str:
        """Return the salted name."""
        return f"{made_of('llm', name=llm_string)}|tpo:{self.salt}"


class _Complete(_Seen):
    """A cache that keeps no answer of a loop that something temporary ended early."""

    def keeps(self, value: RETURN_VAL_TYPE) -> bool:
        told: Any = getattr(value[0], "message", None)
        return told is None or told.response_metadata.get("tpo", {}).get("stop_reason") not in _PASSING


class CachedWhole(BaseChatModel, ABC):
    """A chat model whose answers are cached under all that they follow from; not at all where that has no name."""

    @abstractmethod
    def answer_key(self, stop: list[str] | None = None, **kwargs: Any) -> str | None:
        """Return what its answers follow from, beside the messages; None where that cannot be said."""

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        return self.answer_key(stop, **kwargs) or f"tpo:{uuid.uuid4()}"  # which nothing is found under

    def _generate_with_cache(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        model = self._careful(stop, kwargs)
        return BaseChatModel._generate_with_cache(model, messages, stop, run_manager, **kwargs)

    async def _agenerate_with_cache(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        model = self._careful(stop, kwargs)
        return await BaseChatModel._agenerate_with_cache(model, messages, stop, run_manager, **kwargs)

    def _careful(self, stop: list[str] | None, kwargs: dict[str, Any]) -> Self:
        """Return itself with a cache that is safe to use."""
        base = self.cache if isinstance(self.cache, BaseCache) else get_llm_cache()
        if self.cache is False or base is None:
            return self
        cache = False if self.answer_key(stop, **kwargs) is None else _Complete(base)
        return self.model_copy(update={"cache": cache})


def llm_key(llm: Runnable[Any, Any], **kwargs: Any) -> str | None:
    """Return what LangChain's caches know a model by, as a key that nothing can be read in.

    Args:
        llm: A model, with what is bound to it, its retries and fallbacks.
        **kwargs: What it is called with.

    Returns:
        The key; None for anything else: what it answers may depend on more than its settings.
    """
    if isinstance(llm, CachedWhole):
        return llm.answer_key(**kwargs)
    if isinstance(llm, BaseChatModel):
        return made_of("chat", llm=llm._get_llm_string(**kwargs))
    if isinstance(llm, BaseLLM):
        return made_of("llm", llm=str(sorted({**llm.asdict(), **kwargs}.items())))
    if isinstance(llm, RunnableWithFallbacks):
        return made_of("fallbacks", *[llm_key(one, **kwargs) for one in llm.runnables])
    if isinstance(llm, RunnableBindingBase) and not llm.config_factories and not llm.config.get("configurable"):
        return llm_key(llm.bound, **{**llm.kwargs, **kwargs})
    return None
