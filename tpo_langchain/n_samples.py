"""One request to a chain's chat model, for one sample or for several where the model takes ``n``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import patch_config

from tpo_core import Usage
from tpo_core.records import repr_without_texts
from tpo_langchain.chain import Core
from tpo_langchain.signatures import Signed
from tpo_langchain.tails import Tail
from tpo_langchain.tracing import Meter, cost_of, name_model

__all__ = ["Request", "Sample", "Samples"]

Sample = tuple[Any, Any]
"""A message of the model, if known, and what the rest of the chain made of it: a value, or the exception it raised."""


@dataclass(frozen=True)
class Samples:
    """What one request brought, and what it cost."""

    samples: Sequence[Sample]
    usage: Usage
    seen: Any = None
    """What reached the model that wrote them: messages, or a text; None where that is the chain's own input, or what
    its only prompt makes of it."""

    __repr__ = repr_without_texts()


class Request(Runnable[Any, Samples]):
    """A chain's prompts once, its model once, the rest of the chain once per message.

    ``invoke`` makes a run of it, for those who listen. Where nobody does, ``do`` makes none, neither of the request nor
    of the steps around the model: runs are most of what a Runnable costs.

    Args:
        before: The prompts.
        core: What the model is asked with.
        model: The model itself, set up for this request.
        n: How many messages are wanted.
        tail: What is done with each.
        meter: Counts what it costs where others listen, too: it is among the callbacks of the run's config.
    """

    def __init__(
        self,
        before: Sequence[Runnable[Any, Any]],
        core: Core,
        model: BaseChatModel,
        n: int,
        tail: Tail,
        meter: Meter | None = None,
    ) -> None:
        """Note what is asked."""
        self._before, self._core, self._model, self._n = before, core, model, n
        self._tail, self._meter = tail, meter

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Samples:
        """Return up to ``n`` samples; the failures of the rest of the chain are in their places."""
        return self._call_with_config(Signed(self._invoke), input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Samples:
        """Return as ``invoke`` does, without blocking."""
        return await self._acall_with_config(Signed(self._ainvoke), input, config, **kwargs)

    def _invoke(self, given: Any, run_manager: Any, config: RunnableConfig) -> Samples:
        return self.do(given, patch_config(config, callbacks=run_manager.get_child()))

    async def _ainvoke(self, given: Any, run_manager: Any, config: RunnableConfig) -> Samples:
        return await self.ado(given, patch_config(config, callbacks=run_manager.get_child()))

    def do(self, given: Any, config: RunnableConfig | None = None) -> Samples:
        """Ask; what is run within are children by ``config``, or no runs without it."""
        for step in self._before:
            given = step.invoke(given, config or _UNSEEN)
        asked = _messages(given)
        result = self._model.generate([asked], **self._settings(config))
        made = _written(result, self._core.kwargs)
        return self._samples(asked, result, made, self._tail.values(made, config))

    async def ado(self, given: Any, config: RunnableConfig | None = None) -> Samples:
        """Ask without blocking."""
        for step in self._before:
            given = await step.ainvoke(given, config or _UNSEEN)
        asked = _messages(given)
        result = await self._model.agenerate([asked], **self._settings(config))
        made = _written(result, self._core.kwargs)
        return self._samples(asked, result, made, await self._tail.avalues(made, config))

    def _settings(self, config: RunnableConfig | None) -> dict[str, Any]:
        asked = dict(self._core.kwargs) if self._n == 1 else {**self._core.kwargs, "n": self._n}
        if config is None:
            return asked
        tags, metadata = config.get("tags") or [], config.get("metadata") or {}
        labels = {"tags": [*self._core.tags, *tags], "metadata": {**self._core.metadata, **metadata}}
        return {**asked, **labels, "callbacks": config.get("callbacks")}

    def _samples(
        self, asked: list[BaseMessage], result: LLMResult, made: Sequence[ChatGeneration], values: Sequence[Any]
    ) -> Samples:
        usage = cost_of(result) if self._meter is None else self._meter.usage
        messages = [generation.message for generation in made]
        return Samples(list(zip(messages, values, strict=True)), usage, asked if len(self._before) > 1 else None)


_UNSEEN: RunnableConfig = {"callbacks": []}


def _messages(given: Any) -> list[BaseMessage]:
    if isinstance(given, PromptValue):
        return given.to_messages()
    if isinstance(given, list) and all(isinstance(message, BaseMessage) for message in given):
        return given
    return [HumanMessage(given)] if isinstance(given, str) else convert_to_messages(given)


def _written(result: LLMResult, asked: Mapping[str, Any]) -> list[ChatGeneration]:
    name_model(result, asked.get("model"))
    return [g for g in result.generations[0] if isinstance(g, ChatGeneration) and isinstance(g.message, AIMessage)]
