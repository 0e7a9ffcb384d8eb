"""Answers the loop's ``Generate`` by running Runnables, each as a child of the run under way."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from json import JSONDecodeError
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.globals import get_llm_cache
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, convert_to_messages
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import ValidationError

from tpo_core import Failure, InvalidInputError, Usage
from tpo_core.effects import Completion, Generate, Task
from tpo_langchain.many import Many
from tpo_langchain.parts import Parts
from tpo_langchain.sampling import equip
from tpo_langchain.tracing import Meter, child, finish_reason

logger = logging.getLogger(__name__)

__all__ = ["ChainPolicy", "Gates", "Memory"]

Gates = tuple[AbstractContextManager[Any], AbstractAsyncContextManager[Any]]
"""What a sync and an async call must pass: the bounds of a batch."""

_UNPARSABLE = (OutputParserException, ValidationError, JSONDecodeError)


@dataclass
class Memory:
    """What one object learns about its models and keeps from call to call."""

    takes_n: MutableMapping[Task, bool] = field(default_factory=dict)
    no_system: set[str] = field(default_factory=set)
    """Who refuses a system message: ``critic``, ``editor``."""
    warned: bool = False
    """Whether it was said that the LLM cache may make samples equal."""


@dataclass(frozen=True)
class _Call:
    """One child run: what is invoked with what, and what it costs."""

    run: Runnable[Any, Any]
    given: Any
    config: RunnableConfig
    kwargs: dict[str, Any]
    meter: Meter


class ChainPolicy:
    """The user's chain with its critic and editor, for the length of one run.

    Args:
        parts: Chain, models and pickers.
        memory: What earlier calls found out.
        rounds: How many rounds are planned.
        config: The run's own config.
        run_manager: The run's callbacks; children are made from it.
        kwargs: Passed on to the chain, as ``invoke``'s are.
        gates: Bounds on the calls of a whole batch; none by default.
    """

    def __init__(
        self,
        parts: Parts,
        memory: Memory,
        rounds: int,
        config: RunnableConfig,
        run_manager: Any,
        kwargs: dict[str, Any],
        gates: Gates | None = None,
    ) -> None:
        """Note what a call needs."""
        self._parts, self._memory, self._rounds = parts, memory, rounds
        self._config, self._run_manager, self._kwargs = config, run_manager, kwargs
        graph = sys.modules.get("langgraph.errors")
        # LangGraph's interrupts and commands must reach it
        self.fatal: tuple[type[Exception], ...] = (graph.GraphBubbleUp,) if graph is not None else ()
        open_gate: nullcontext[None] = nullcontext()
        both: Gates = (open_gate, open_gate) if gates is None else gates
        self._gate, self._agate = both
        for task in ("sample", "update"):
            if parts.core(task) is None:
                memory.takes_n[task] = False
        # the chain's first step gets the keyword arguments, and a request with n does not go through it
        self.takes_n: MutableMapping[Task, bool] = {**memory.takes_n, "sample": False} if kwargs else memory.takes_n

    def generate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Run what the task needs."""
        call = self._call(request, seeds)
        try:
            with self._gate:
                return self._read(request, call, call.run.invoke(call.given, call.config, **call.kwargs))
        except Exception as error:  # noqa: BLE001 - what is not explained is raised again
            return self._explained(request, call, error)

    async def agenerate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Run what the task needs, without blocking."""
        call = self._call(request, seeds)
        try:
            async with self._agate:
                return self._read(request, call, await call.run.ainvoke(call.given, call.config, **call.kwargs))
        except Exception as error:  # noqa: BLE001 - what is not explained is raised again
            return self._explained(request, call, error)

    # -- before the call ----------------------------------------------------------------------------------------------

    def _call(self, request: Generate, seeds: Sequence[int]) -> _Call:
        meter, sampled = Meter(), request.task == "sample"
        config = child(self._config, self._run_manager, f"tpo:{request.task}", f"tpo:round:{request.step}", meter)
        run = self._many(request, len(seeds)) if len(seeds) > 1 else self._one(request)
        given = request.inputs if sampled else self._messages(request)
        equipped = equip(run, request, seeds)
        if sampled and equipped is run and get_llm_cache() is not None and not self._memory.warned:
            self._memory.warned = True
            logger.warning(
                "an LLM cache is set, and no chat model was found in %s: one that is called inside a function gives "
                "equal samples; make it a step of the chain, or give it cache=False",
                run.get_name(),
            )
        return _Call(equipped, given, config, self._kwargs if sampled else {}, meter)

    def _one(self, request: Generate) -> Runnable[Any, Any]:
        return self._parts.chain if request.task == "sample" else self._parts.writer(request)

    def _many(self, request: Generate, n: int) -> Many:
        core = self._parts.core(request.task)
        assert core is not None, "takes_n said so"
        before = self._parts.anatomy.before if request.task == "sample" else ()
        return Many(
            before=before,
            model=core.model,
            kwargs=core.kwargs,
            tags=core.tags,
            metadata=core.metadata,
            n=n,
            after=self._parts.after(request),
        )

    def _messages(self, request: Generate) -> list[BaseMessage]:
        messages = convert_to_messages(self._parts.messages(request))
        if _role(request) in self._memory.no_system:
            system, first, *rest = messages
            messages = [HumanMessage(f"{system.text}\n\n{first.text}"), *rest]
        return messages

    # -- after it -----------------------------------------------------------------------------------------------------

    def _read(self, request: Generate, call: _Call, out: Any) -> list[Completion]:
        samples = out if isinstance(call.run, Many) else [(call.meter.last, out)]
        costs = [call.meter.usage, *[Usage()] * len(samples)]
        return [self._completion(request, m, value, cost) for (m, value), cost in zip(samples, costs, strict=False)]

    def _completion(self, request: Generate, message: AIMessage | None, value: Any, usage: Usage) -> Completion:
        reason = finish_reason(message)
        if isinstance(value, Exception) and isinstance(value, (InvalidInputError, *self.fatal)):
            raise value
        if failure := _missing(value):
            return Completion(finish_reason=reason, usage=usage, failure=failure)
        if request.task in ("loss", "gradient"):
            return Completion(value, finish_reason=reason, usage=usage)
        text = self._parts.text(value, message)
        if self._rounds and self._parts.must_parse(value):
            raise InvalidInputError(
                f"an updated text cannot become the chain's output ({type(value).__name__}) without a parser; give "
                "parser= a function of the text, or of the text and the output it was made from, or mode='bon'"
            )
        if getattr(value, "tool_calls", None) or (not text.strip() and message is not None and message.tool_calls):
            failure = Failure("tool_call", "the model called a tool instead of answering")
        return Completion(text, value, reason, usage, failure)

    def _explained(self, request: Generate, call: _Call, error: Exception) -> list[Completion]:
        """Return what the error says about the sample, or raise it."""
        if not isinstance(call.run, Many) and (failure := _unparsable(error)):
            return [Completion(finish_reason=finish_reason(call.meter.last), usage=call.meter.usage, failure=failure)]
        if request.task != "sample" and "system" in str(error).lower() and isinstance(call.given[0], SystemMessage):
            self._memory.no_system.add(_role(request))  # the loop asks again, then without one
        raise error


def _role(request: Generate) -> str:
    return "editor" if request.task == "update" else "critic"


def _missing(value: Any) -> Failure | None:
    """Say why a value is none; None when it is one."""
    if value is None:
        return Failure("empty", "the chain returned None")
    if isinstance(value, Exception):
        return _unparsable(value) or Failure("error", f"{type(value).__name__}: {value}", value)
    if isinstance(value, dict) and (error := value.get("parsing_error")) is not None and "raw" in value:
        return Failure("unparsable", str(error), error if isinstance(error, Exception) else None)
    return None


def _unparsable(error: Exception) -> Failure | None:
    if type(error).__name__ == "LengthFinishReasonError":  # openai's client, on structured output cut short
        return Failure("length", str(error), error)
    return Failure("unparsable", f"{type(error).__name__}: {error}", error) if isinstance(error, _UNPARSABLE) else None
