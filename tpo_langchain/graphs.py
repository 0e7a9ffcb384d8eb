"""Refinement in LangGraph: the last step of a conversation, and a whole graph whose last answer is refined."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import var_child_runnable_config

from tpo_core import InvalidInputError, Trajectory
from tpo_core.records import repr_without_texts
from tpo_langchain.first_answer import is_final
from tpo_langchain.settings import loop_settings
from tpo_langchain.tracing import Meter, child

if TYPE_CHECKING:
    from tpo_langchain.runnable import RunnableTPO

__all__ = ["Ending", "WholeGraph", "ending", "replacement"]


@dataclass(frozen=True)
class Ending:
    """The last step of a conversation: what was said before it, and the answer if there is one already."""

    before: list[BaseMessage]
    answer: AIMessage | None

    __repr__ = repr_without_texts()


def ending(messages: Any) -> Ending | None:
    """Return the last step where it is to be refined; None where it calls a tool or reports one."""
    messages = list(messages)
    if messages and is_final(messages[-1]):
        return Ending(messages[:-1], messages[-1])
    open_ = messages and not isinstance(messages[-1], AIMessage)
    return Ending(messages, None) if open_ else None


@dataclass(frozen=True)
class WholeGraph:
    """A compiled graph inside a RunnableTPO: it may act, so it runs once, and its last answer alone is refined."""

    graph: Any

    @classmethod
    def of(cls, runnable: Any, llm: Any) -> WholeGraph | None:
        """Return the graph that a Runnable is; None where it is something else.

        Raises:
            InvalidInputError: It is one, and there is no model to sample its last answer.
        """
        while isinstance(runnable, RunnableBindingBase):
            runnable = runnable.bound
        pregel = sys.modules.get("langgraph.pregel")
        if pregel is None or not isinstance(runnable, pregel.Pregel):
            return None
        if llm is None:
            raise InvalidInputError(
                "llm is missing: a graph is not run again, llm= answers its last step again instead"
            )
        return cls(runnable)

    def run(self, whole: RunnableTPO, input: Any, run_manager: Any, config: RunnableConfig, kwargs: Any) -> Any:
        """Run the graph, and refine its last answer."""
        meter = Meter(watching=True)
        with _inside(child(config, run_manager, "tpo:agent", meter=meter)) as inner:
            state = whole.runnable.invoke(input, inner, **kwargs)
        if (last := _graph_ending(state)) is None:
            return state
        best = _refiner(whole, last)._refine(_asked(last, meter), run_manager, config)
        if self._keeps(config):
            self.graph.update_state(config, {"messages": [replacement(last, best)]})
        return best if whole.return_trajectory else _with_last(state, last, best)

    async def arun(self, whole: RunnableTPO, input: Any, run_manager: Any, config: RunnableConfig, kwargs: Any) -> Any:
        """Run the graph, and refine its last answer, without blocking."""
        meter = Meter(watching=True)
        with _inside(child(config, run_manager, "tpo:agent", meter=meter)) as inner:
            state = await whole.runnable.ainvoke(input, inner, **kwargs)
        if (last := _graph_ending(state)) is None:
            return state
        best = await _refiner(whole, last)._arefine(_asked(last, meter), run_manager, config)
        if self._keeps(config):
            await self.graph.aupdate_state(config, {"messages": [replacement(last, best)]})
        return best if whole.return_trajectory else _with_last(state, last, best)

    def _keeps(self, config: RunnableConfig) -> bool:
        """Return whether the graph keeps this conversation, which must then remember what the user was told."""
        return bool(self.graph.checkpointer) and "thread_id" in config.get("configurable", {})


def _graph_ending(state: Any) -> Ending | None:
    """Return the last answer of a graph's final state; None where it stopped to ask, called a tool or filled a form."""
    if not isinstance(state, Mapping) or "messages" not in state:
        raise InvalidInputError(
            "the graph's output has no messages, so its last answer cannot be told from the rest; put a tpo_node, or a "
            "RunnableTPO around the model, inside the graph"
        )
    if state.get("__interrupt__") or state.get("structured_response") is not None:
        return None
    last = ending(state["messages"])
    return last if last is not None and last.answer is not None else None


@contextmanager
def _inside(config: RunnableConfig) -> Iterator[RunnableConfig]:
    """Make a config the one under way: a graph merges what it is given into that."""
    before = var_child_runnable_config.set(config)
    try:
        yield config
    finally:
        var_child_runnable_config.reset(before)


def _asked(last: Ending, meter: Meter) -> list[BaseMessage]:
    """Return what the last answer answers: what reached its model, system prompt included, where that was seen."""
    wrote = last.answer is not None and meter.last is not None and meter.last.text == last.answer.text
    return meter.seen if wrote and isinstance(meter.seen, list) else last.before


def _refiner(whole: RunnableTPO, last: Ending) -> RunnableTPO:
    assert whole.llm is not None and last.answer is not None
    names = ("reward", "critic", "editor", "gold", "query", "prompts", "return_trajectory")
    given = {**{name: getattr(whole, name) for name in names}, **loop_settings(whole)}
    refiner = type(whole)(whole.llm, **given)
    refiner.remember(whole._memories, None)
    return refiner.after_first(last.answer)


def replacement(last: Ending, best: Any) -> AIMessage:
    """Return the best answer under the id of the one it replaces: ``add_messages`` goes by it."""
    message = best.best.value if isinstance(best, Trajectory) else best
    message = message if isinstance(message, AIMessage) else AIMessage(str(message))
    return message if last.answer is None else message.model_copy(update={"id": last.answer.id})


def _with_last(state: Mapping[str, Any], last: Ending, best: Any) -> dict[str, Any]:
    return {**state, "messages": [*last.before, replacement(last, best)]}
