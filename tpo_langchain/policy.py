"""Answers the loop's ``Generate`` by running Runnables, each as a child of the run under way."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

from langchain_core.globals import get_llm_cache
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import RunnableConfig

from tpo_core import Failure, InvalidInputError, Usage
from tpo_core.loop.effects import Generate, Task
from tpo_core.values import NO_USAGE, Completion, changed
from tpo_langchain.convert import rendered
from tpo_langchain.failures import failed, missing
from tpo_langchain.memory import Memory
from tpo_langchain.n_samples import Request, Sample, Samples
from tpo_langchain.query import read_seen
from tpo_langchain.roles import Parts
from tpo_langchain.sampling import equip
from tpo_langchain.steps import Asking, Flow, Gates, Rendering, Running, aserved, served
from tpo_langchain.system_role import folded, may_refuse_system
from tpo_langchain.tracing import Meter, child, finish_reason, heard

logger = logging.getLogger(__name__)

__all__ = ["ChainPolicy"]


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
        opened: What the chain's only prompt made of the input, where that is known already.
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
        opened: PromptValue | None = None,
    ) -> None:
        """Note what a call needs."""
        self._parts, self._memory, self._rounds = parts, memory, rounds
        self._secrets = parts.secrets  # hidden as long as this runs
        self._config, self._run_manager, self._kwargs = config, run_manager, kwargs
        self._heard, self._opened = heard(run_manager), opened
        graph = sys.modules.get("langgraph.errors")
        # LangGraph's interrupts and commands must reach it
        self.fatal: tuple[type[Exception], ...] = (graph.GraphBubbleUp,) if graph is not None else ()
        self._gates: Gates = (nullcontext(), nullcontext()) if gates is None else gates
        for task in ("sample", "update"):
            if not parts.takes_n(task):
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
        out = yield from self._asked(request, self._step(request, seeds))
        if isinstance(out, Exception):
            raise out
        texts = yield from self._rendered(request, out.samples)
        costs = [out.usage, *[NO_USAGE] * len(out.samples)]
        made = [
            self._completion(request, message, value, texts.get(i), costs[i])
            for i, (message, value) in enumerate(out.samples)
        ]
        if request.task != "sample" or out.seen is None or not self._parts.contextual:
            return made
        context = read_seen(out.seen)
        return [changed(completion, context=context) for completion in made]

    def _asked(self, request: Generate, step: Asking | Running) -> Flow[Samples | Exception]:
        """Ask; once more without a system message where it seems that the model's template has none."""
        out = yield step
        if request.task != "sample" and isinstance(out, Exception) and may_refuse_system(step.given, out):
            out = yield replace(step, given=folded(step.given))
            if not isinstance(out, Exception):
                self._memory.no_system.add(_role(request))
        return cast("Samples | Exception", out)

    def _rendered(self, request: Generate, samples: Sequence[Sample]) -> Flow[dict[int, Any]]:
        """Have the user's renderer write what came of the samples, by place; nothing where there is none."""
        if self._parts.render is None or request.task in ("loss", "gradient"):
            return {}
        places = [i for i, (_, value) in enumerate(samples) if missing(value) is None]
        made = yield Rendering(self._parts.render, [samples[i][1] for i in places], self._parts.rendering)
        return dict(zip(places, made, strict=True))

    # -- before the call ----------------------------------------------------------------------------------------------

    def _step(self, request: Generate, seeds: Sequence[int]) -> Asking | Running:
        sampled, core = request.task == "sample", self._parts.cores[request.task]
        given = request.inputs if sampled else self._messages(request)
        if core is None or (sampled and self._kwargs) or (len(seeds) == 1 and core.by_front_door):
            return self._running(request, seeds, given)
        several = len(seeds) > 1
        model = equip(core.whole if several else core.model, request, seeds)
        before: Sequence[Any] = self._parts.anatomy.before if sampled else ()
        if not self._heard and self._opened is not None and len(before) == 1:  # its prompt has written it already
            before, given = (), self._opened
        meter = Meter() if several and self._heard else None  # before those that read the model's name
        asked = Request(before, core, model, len(seeds), self._parts.tail(request), meter)
        return Asking(asked, given, self._child(request, meter) if self._heard else None, self._gates)

    def _running(self, request: Generate, seeds: Sequence[int], given: Any) -> Running:
        sampled = request.task == "sample"
        meter = Meter(watching=sampled and self._parts.contextual)
        chain = self._parts.chain if sampled else self._parts.writer(request)
        equipped = equip(chain, request, seeds)
        if sampled and equipped is chain and get_llm_cache() is not None and not self._memory.warned:
            self._memory.warned = True
            logger.warning(
                "an LLM cache is set, and no chat model was found in %s: one that is called inside a function gives "
                "equal samples; make it a step of the chain, or give it cache=False",
                chain.get_name(),
            )
        config = self._child(request, meter)
        return Running(equipped, given, config, self._kwargs if sampled else {}, meter, self._gates)

    def _child(self, request: Generate, meter: Meter | None) -> RunnableConfig:
        return child(self._config, self._run_manager, f"tpo:{request.task}", f"tpo:round:{request.step}", meter)

    def _messages(self, request: Generate) -> list[BaseMessage]:
        messages = self._parts.messages(request)
        if _role(request) in self._memory.no_system:
            messages = folded(messages)
        return messages

    # -- after it -----------------------------------------------------------------------------------------------------

    def _completion(
        self, request: Generate, message: AIMessage | None, value: Any, text: Any, usage: Usage
    ) -> Completion:
        reason = finish_reason(message)
        raised = value if isinstance(value, Exception) else text if isinstance(text, Exception) else None
        if raised is not None and isinstance(raised, (InvalidInputError, *self.fatal)):
            raise raised
        if failure := missing(value) if raised is None else failed(raised):
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


def _role(request: Generate) -> str:
    return "editor" if request.task == "update" else "critic"
