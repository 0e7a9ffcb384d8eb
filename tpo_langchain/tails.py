"""What a chain does with what its model wrote: all messages of one request together, without a thread for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.output_parsers.base import BaseGenerationOutputParser, BaseLLMOutputParser, BaseOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from tpo_core.pace import Pace
from tpo_core.rewards.concurrency import aeach_sync, each
from tpo_core.threads import in_thread

__all__ = ["Paces", "Tail"]

_FRONT = {(cls.invoke, cls.ainvoke) for cls in (BaseOutputParser, BaseGenerationOutputParser)}
_IN_THREADS = {BaseLLMOutputParser.aparse_result, BaseOutputParser.aparse_result}
_WHILE_TRACED = 0.002  # seconds; a run in a trace costs a tenth of that


class Paces:
    """How quick a chain's steps after its model are: in themselves, and with a run for each in a trace."""

    def __init__(self) -> None:
        """Know nothing."""
        self.bare, self.traced = Pace(), Pace(_WHILE_TRACED)


class Tail:
    """Steps for messages: first ours, which never waits, then the user's.

    Args:
        own: Made of each message before the user's steps get it; nothing by default.
        steps: Runnables and functions.
        paces: What is known of how quick the steps are.
    """

    def __init__(
        self, own: Callable[[Any], Any] | None = None, steps: Sequence[Any] = (), paces: Paces | None = None
    ) -> None:
        """Note the steps."""
        self._own, self._steps, self._paces = own, tuple(steps), paces or Paces()

    def values(self, made: Sequence[ChatGeneration], config: RunnableConfig | None) -> list[Any]:
        """Return what comes of each message, or the exception that does; runs are children by ``config``, if any."""
        begun = self._begun(made)
        todo = [i for i, value in enumerate(begun) if not isinstance(value, Exception)] if self._steps else []
        if not todo:
            return begun
        if config is None:
            done = each(self._parsed, [(begun[i], made[i]) for i in todo], len(todo), self._paces.bare)
        else:
            done = each(partial(self._through, config), [begun[i] for i in todo], len(todo), self._paces.traced)
        return _merged(begun, todo, done)

    async def avalues(self, made: Sequence[ChatGeneration], config: RunnableConfig | None) -> list[Any]:
        """Return as ``values`` does, without blocking."""
        begun = self._begun(made)
        todo = [i for i, value in enumerate(begun) if not isinstance(value, Exception)] if self._steps else []
        if not todo:
            return begun
        done: list[Any]
        if config is None and all(map(_is_sync, self._steps)):
            done = await aeach_sync(self._parsed, [(begun[i], made[i]) for i in todo], len(todo), self._paces.bare)
        else:
            done = await asyncio.gather(*[self._athrough(config, begun[i]) for i in todo], return_exceptions=True)
        return _merged(begun, todo, done)

    def _begun(self, made: Sequence[ChatGeneration]) -> list[Any]:
        messages = [generation.message for generation in made]
        return messages if self._own is None else [_caught(self._own, message) for message in messages]

    def _through(self, config: RunnableConfig | None, value: Any) -> Any:
        for step in self._steps:
            value = step.invoke(value, config) if isinstance(step, Runnable) else step(value)
        return value

    def _parsed(self, begun: tuple[Any, ChatGeneration]) -> Any:
        """Do as ``_through`` does, without runs."""
        value, made = begun
        for step in self._steps:
            if _only_parses(step.__class__):
                value = step.parse_result([made if value is made.message else _generation(value)])
            else:
                value = step.invoke(value) if isinstance(step, Runnable) else step(value)
        return value

    async def _athrough(self, config: RunnableConfig | None, value: Any) -> Any:
        for step in self._steps:
            if isinstance(step, Runnable):
                value = await step.ainvoke(value, config)
            else:
                value = await in_thread(step, value)
        return value


def _caught(call: Callable[[Any], Any], value: Any) -> Any:
    try:
        return call(value)
    except Exception as error:  # noqa: BLE001 - it costs this message
        return error


def _merged(begun: Sequence[Any], places: Sequence[int], done: Sequence[Any]) -> list[Any]:
    merged = list(begun)
    for place, value in zip(places, done, strict=True):
        merged[place] = value
    return merged


def _generation(value: Any) -> Generation:
    return ChatGeneration(message=value) if isinstance(value, BaseMessage) else Generation(text=value)


@lru_cache
def _only_parses(kind: type) -> bool:
    """Return whether a kind of step parses and no more, so that a run of its own is all that ``invoke`` adds."""
    return issubclass(kind, BaseLLMOutputParser) and (kind.invoke, kind.ainvoke) in _FRONT  # type: ignore[attr-defined]


def _is_sync(step: Any) -> bool:
    """Return whether a step has no async form of its own: awaited, it would run in a thread."""
    if isinstance(step, RunnableLambda):
        return hasattr(step, "func") and not hasattr(step, "afunc")
    if not _only_parses(step.__class__):
        return not isinstance(step, Runnable)
    aparse = getattr(type(step), "aparse", BaseOutputParser.aparse)
    return type(step).aparse_result in _IN_THREADS and aparse is BaseOutputParser.aparse
