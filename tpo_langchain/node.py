"""A LangGraph node that refines the last message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from tpo_core import InvalidInputError
from tpo_langchain.graphs import Ending, ending, replacement
from tpo_langchain.runnable import RunnableTPO

__all__ = ["tpo_node"]


def tpo_node(
    llm: Runnable[Any, Any], *, reward: Any, messages_key: str = "messages", **settings: Any
) -> Runnable[Any, dict[str, Any]]:
    """Return a LangGraph node that refines the last message of the state.

    An answer in words is replaced, under its own id, by the best of itself, other samples of ``llm`` and their updates.
    After a user's or a tool's message the node answers itself. A message that calls tools is left alone.

    Args:
        llm: A chat model, or a chain from messages to a message; it samples, and its model criticises and edits.
        reward: What the answer is aligned to; see ``RunnableTPO``.
        messages_key: Where the state keeps its messages.
        **settings: ``RunnableTPO``'s other arguments.

    Example:
        >>> graph.add_node("answer", tpo_node(model, reward=reward))  # doctest: +SKIP
    """
    refined = RunnableTPO(llm, reward=reward, **settings).as_part()
    if refined.return_trajectory:
        raise InvalidInputError("return_trajectory has no place in a node, which returns messages")

    def find(state: Any) -> tuple[RunnableTPO, Ending] | None:
        messages = state.get(messages_key) if isinstance(state, Mapping) else getattr(state, messages_key, None)
        if not messages:
            raise InvalidInputError(f"the state has no messages under {messages_key!r}; see messages_key=")
        last = ending(messages)
        if last is None:
            return None
        return (refined if last.answer is None else refined.after_first(last.answer)), last

    def node(state: Any, config: RunnableConfig) -> dict[str, Any]:
        if (found := find(state)) is None:
            return {}
        refiner, last = found
        return {messages_key: [replacement(last, refiner.invoke(last.before, config))]}

    async def anode(state: Any, config: RunnableConfig) -> dict[str, Any]:
        if (found := find(state)) is None:
            return {}
        refiner, last = found
        return {messages_key: [replacement(last, await refiner.ainvoke(last.before, config))]}

    return RunnableLambda(node, anode, name="tpo")
