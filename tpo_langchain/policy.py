"""Answers the loop's ``Generate`` by running Runnables, each as a child of the run under way."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from json import JSONDecodeError
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.globals import get_llm_cache
from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import ValidationError

from tpo_core import Failure, InvalidInputError, Usage
from tpo_core.loop.effects import Generate, Task
from tpo_core.masking import masked
from tpo_core.values import Completion
from tpo_langchain.convert import rendered
from tpo_langchain.memory import Memory
from tpo_langchain.n_samples import Many, Sample
from tpo_langchain.roles import Parts
from tpo_langchain.sampling import equip
from tpo_langchain.steps import Call, Flow, Gates, Rendering, aserved, served
from tpo_langchain.system_role import folded, may_refuse_system
from tpo_langchain.tracing import Meter, child, finish_reason

logger = logging.getLogger(__name__)

__all__ = ["ChainPolicy"]

_UNPARSABLE = (OutputParserException, ValidationError, JSONDecodeError)


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
        self._secrets = parts.secrets  # hidden as long as this runs
        self._config, self._run_manager, self._kwargs = config, run_manager, kwargs
        graph = sys.modules.get("langgraph.errors")
        # LangGraph's interrupts and commands must reach it
        self.fatal: tuple[type[Exception], ...] = (graph.GraphBubbleUp,) if graph is not None else ()
        self._gates: Gates = (nullcontext(), nullcontext()) if gates is None else gates
        for task in ("sample", "update"):
            if parts.core(task) is None:
                memory.takes_n[task] = False
        # the chain's first step gets the keyword arguments, and a request with n does not go through it
        self.takes_n: MutableMapping[Task, bool] = {**memory.takes_n, "sample": False} if kwargs else memory.takes_n

    def generate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Run what the task needs."""
        return served(self._flow(request, seeds))

    async def agenerate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Run what the task needs, without blocking."""
        return await aserved(self._flow(request, seeds))

    def _flow(self, request: Generate, seeds: Sequence[int]) -> Flow[list[Completion]]:
        call = self._call(request, seeds)
        out = yield from self._asked(request, call)
        if isinstance(out, Exception):
            return [self._explained(call, out)]
        samples = out if isinstance(call.run, Many) else [(call.meter.last, out)]
        texts = yield from self._rendered(request, samples)
        costs = [call.meter.usage, *[Usage()] * len(samples)]
        return [
            self._completion(request, message, value, texts.get(i), costs[i])
            for i, (message, value) in enumerate(samples)
        ]

    def _asked(self, request: Generate, call: Call) -> Flow[Any]:
        """Make a call; once more without a system message where it seems that the model's template has none."""
        out = yield call
        if request.task != "sample" and isinstance(out, Exception) and may_refuse_system(call.given, out):
            out = yield replace(call, given=folded(call.given))
            if not isinstance(out, Exception) or _unparsable(out):
                self._memory.no_system.add(_role(request))
        return out

    def _rendered(self, request: Generate, samples: Sequence[Sample]) -> Flow[dict[int, Any]]:
        """Have the user's renderer write what came of the samples, by place; nothing where there is none."""
        if self._parts.render is None or request.task in ("loss", "gradient"):
            return {}
        places = [i for i, (_, value) in enumerate(samples) if _missing(value) is None]
        made = yield Rendering(self._parts.render, [samples[i][1] for i in places])
        return dict(zip(places, made, strict=True))

    # -- before the call ----------------------------------------------------------------------------------------------

    def _call(self, request: Generate, seeds: Sequence[int]) -> Call:
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
        return Call(equipped, given, config, self._kwargs if sampled else {}, meter, self._gates)

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
            messages = folded(messages)
        return messages

    # -- after it -----------------------------------------------------------------------------------------------------

    def _completion(
        self, request: Generate, message: AIMessage | None, value: Any, text: Any, usage: Usage
    ) -> Completion:
        reason = finish_reason(message)
        for thing in (value, text):
            if isinstance(thing, Exception) and isinstance(thing, (InvalidInputError, *self.fatal)):
                raise thing
        if failure := _missing(value) or (_failed(text) if isinstance(text, Exception) else None):
            return Completion(finish_reason=reason, usage=usage, failure=failure)
        if request.task in ("loss", "gradient"):
            return Completion(value, finish_reason=reason, usage=usage)
        text = self._parts.text(value, message) if text is None else rendered(text)
        if self._rounds and self._parts.must_parse(value):
            raise InvalidInputError(
                f"an updated text cannot become the chain's output ({type(value).__name__}) without a parser; give "
                "parser= a function of the text, or of the text and the output it was made from, or mode='bon'"
            )
        if getattr(value, "tool_calls", None) or (not text.strip() and message is not None and message.tool_calls):
            failure = Failure("tool_call", "the model called a tool instead of answering")
        return Completion(text, value, reason, usage, failure)

    def _explained(self, call: Call, error: Exception) -> Completion:
        """Return what the error says about the sample, or raise it."""
        if isinstance(call.run, Many) or (failure := _unparsable(error)) is None:
            raise error
        return Completion(finish_reason=finish_reason(call.meter.last), usage=call.meter.usage, failure=failure)


def _role(request: Generate) -> str:
    return "editor" if request.task == "update" else "critic"


def _missing(value: Any) -> Failure | None:
    """Say why a value is none; None when it is one."""
    if value is None:
        return Failure("empty", "the chain returned None")
    if isinstance(value, Exception):
        return _failed(value)
    if isinstance(value, dict) and (error := value.get("parsing_error")) is not None and "raw" in value:
        return Failure("unparsable", str(error), error if isinstance(error, Exception) else None)
    return None


def _failed(raised: Exception) -> Failure:
    error = masked(raised)  # it was returned, not raised: nobody else has seen it
    return _unparsable(error) or Failure("error", f"{type(error).__name__}: {error}", error)


def _unparsable(error: Exception) -> Failure | None:
    if type(error).__name__ == "LengthFinishReasonError":  # openai's client, on structured output cut short
        return Failure("length", str(error), error)
    return Failure("unparsable", f"{type(error).__name__}: {error}", error) if isinstance(error, _UNPARSABLE) else None
