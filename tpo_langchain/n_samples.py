"""Several samples of a chain from one request, where its chat model takes ``n``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import patch_config
from pydantic import ConfigDict

from tpo_langchain.convert import as_prompt_value

__all__ = ["Many", "Sample"]

Sample = tuple[AIMessage | None, Any]
"""A message of the model, and what the rest of the chain made of it: a value, or the exception it raised."""


class Many(RunnableSerializable[Any, list[Sample]]):
    """The chain's prompt once, its model once with ``n``, the rest of the chain once per message."""

    before: tuple[Runnable[Any, Any], ...] = ()
    model: BaseChatModel
    kwargs: Mapping[str, Any]
    """What is bound to the model."""
    tags: list[str]
    metadata: Mapping[str, Any]
    """Likewise its tags and metadata."""
    after: Runnable[Any, Any] | None = None
    n: int

    model_config = ConfigDict(arbitrary_types_allowed=True)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> list[Sample]:
        """Return up to ``n`` samples; the parser's failures are in their places."""
        return self._call_with_config(self._invoke, input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> list[Sample]:
        """Return as ``invoke`` does, without blocking."""
        return await self._acall_with_config(self._ainvoke, input, config, **kwargs)

    def _invoke(self, given: Any, run_manager: Any, config: RunnableConfig) -> list[Sample]:
        inner = patch_config(config, callbacks=run_manager.get_child())
        for step in self.before:
            given = step.invoke(given, inner)
        messages = _messages(self._model.generate_prompt([as_prompt_value(given)], **self._settings(inner)))
        values = messages if self.after is None else self.after.batch(messages, inner, return_exceptions=True)
        return list(zip(messages, values, strict=True))

    async def _ainvoke(self, given: Any, run_manager: Any, config: RunnableConfig) -> list[Sample]:
        inner = patch_config(config, callbacks=run_manager.get_child())
        for step in self.before:
            given = await step.ainvoke(given, inner)
        messages = _messages(await self._model.agenerate_prompt([as_prompt_value(given)], **self._settings(inner)))
        values = messages if self.after is None else await self.after.abatch(messages, inner, return_exceptions=True)
        return list(zip(messages, values, strict=True))

    @property
    def _model(self) -> BaseChatModel:
        # a stream of n answers is one that LangChain's models refuse
        return self.model.model_copy(update={"disable_streaming": True})

    def _settings(self, config: RunnableConfig) -> dict[str, Any]:
        tags, metadata = config.get("tags") or [], config.get("metadata") or {}
        labels = {"tags": [*self.tags, *tags], "metadata": {**self.metadata, **metadata}}
        return {**self.kwargs, **labels, "callbacks": config.get("callbacks"), "n": self.n}


def _messages(result: LLMResult) -> list[AIMessage]:
    return [message for g in result.generations[0] if isinstance(message := getattr(g, "message", None), AIMessage)]
