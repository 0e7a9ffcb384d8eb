"""Any Runnable, its answer aligned to a reward while it is being produced."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Hashable, Iterator, Sequence
from functools import reduce
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import PrivateAttr

from tpo_core import Trajectory
from tpo_core.drivers.run import arun, run
from tpo_core.models.policy import AfterFirst, Policy
from tpo_langchain.base import Composite, checked_parts
from tpo_langchain.chain import arguments_of
from tpo_langchain.final_text import aspeak, speak
from tpo_langchain.first_answer import first_sample
from tpo_langchain.graphs import WholeGraph
from tpo_langchain.memory import Memories
from tpo_langchain.policy import ChainPolicy
from tpo_langchain.query import Asked, read_seen
from tpo_langchain.reference import Reference
from tpo_langchain.roles import Parts
from tpo_langchain.sending import send_feedback
from tpo_langchain.settings import RETURN_TRAJECTORY, LoopSettings, named, refuse_settings, spread
from tpo_langchain.signatures import Signed
from tpo_langchain.steps import Gates
from tpo_langchain.streaming import chunks, joined
from tpo_langchain.tracing import TracedReward, atell, child, heard, hears_events, record, tell, told

__all__ = ["RunnableTPO"]


class RunnableTPO(LoopSettings, Composite):
    """A Runnable whose output is the best-rewarded of many (Test-Time Preference Optimization, arXiv:2501.12895).

    The first ``width`` candidates are runs of the Runnable itself. The best and the worst are contrasted in words, and
    the best is rewritten accordingly, ``depth`` times; a rewritten text goes through the chain's own parser.

    Args:
        runnable: What is refined: a chain, a model, anything that can be invoked.
        reward: What its output is aligned to: a ``RewardModel``, a function of prompt and response, a Runnable, a
            LangSmith or openevals evaluator, a model name or a URL.
        llm: Writes critiques and updates; by default the chat model that is found in the chain.
        critic: Writes the critiques instead.
        editor: Writes the updates instead.
        gold: A held-out reward, reported in the trajectory and never optimised.
        query: What critic, editor and reward are shown as the question: a function of the input, or the name of a key.
            By default what reached the chain's last model for the very answer, retrieved documents included.
        reference: What answers are compared with, where a call knows that and the reward asks for it: the name of a key
            of the input, which the chain then does not see, or a function of the input.
        parser: Makes the chain's kind of output of an updated text, where the chain has no parser of its own after its
            model: a Runnable, a function of the text, or one of the text and the output it was made from.
        render: Makes text of the chain's output, where it is neither text nor data.
        prompts: The loop's prompts in other words; see ``load_prompts``.
        return_trajectory: Return the Trajectory; its ``.best.value`` is the chain's output.
        langsmith_feedback: Send reward, initial reward and gain as feedback on this run, where LangSmith traces it.
        trace_trajectory: Put the whole trajectory, texts included, into this run's metadata in every tracer.
        config: A ``TPOConfig``: all settings at once; what is given beside it wins.
        **settings: The fields of ``LoopSettings``: ``width=5``, ``depth=2``, ``mode="tpo"``, budgets. A single
            call sets them by ``config={"configurable": {"tpo_width": 3}}``.

    Around a whole LangGraph agent, the agent runs once, with its tools; only its last answer is refined, by ``llm``.

    Raises:
        InvalidInputError: An argument is wrong, or ``llm`` is needed and there is none.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> from langchain_core.output_parsers import StrOutputParser
        >>> chain = FakeListChatModel(responses=["short", "a longer answer"]) | StrOutputParser()
        >>> RunnableTPO(chain, reward=lambda prompt, response: len(response), width=2, depth=0).invoke("hi")
        'a longer answer'
    """

    _parts: Parts = PrivateAttr()
    _memories: Memories = PrivateAttr(default_factory=Memories)
    _models: Hashable = PrivateAttr(default=None)
    _gates: Gates | None = PrivateAttr(default=None)
    _speaks: bool = PrivateAttr(default=True)
    _part: bool = PrivateAttr(default=False)
    _known: Reference | None = PrivateAttr(default=None)
    _first: tuple[AIMessage, Any] | None = PrivateAttr(default=None)
    _graph: WholeGraph | None = PrivateAttr(default=None)

    def __init__(self, runnable: Any = None, reward: Any = None, /, **given: Any) -> None:
        """Check everything that can be checked before a model is called."""
        placed = {name: thing for name, thing in (("runnable", runnable), ("reward", reward)) if thing is not None}
        given = spread({**given, **placed})
        with named():
            super().__init__(**checked_parts(type(self).model_fields, given))
        self._given_reward = given["reward"]
        self._graph = WholeGraph.of(self.runnable, self.llm)
        self._parts = Parts.of(
            self.runnable, self.llm, self.critic, self.editor,
            query=self.query, parser=self.parser, render=self.render, prompts=self.prompts,
        )  # fmt: skip
        self._parts.check(self.loop_config().rounds)
        self._known = None if self.reference is None else Reference(self.reference)

    # -- one run ------------------------------------------------------------------------------------------------------

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Return the best answer; keyword arguments go to the wrapped Runnable.

        Raises:
            InvalidInputError: The input or a setting is wrong; raised before any model is called.
            GenerationError: Not one candidate could be produced.
            RewardError: The reward model failed before anything was scored, or broke its contract. These two carry the
                trajectory so far.
        """
        return self._call_with_config(Signed(self._invoke), input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Return the best answer without blocking; see ``invoke``."""
        return await self._acall_with_config(Signed(self._ainvoke), input, config, **kwargs)

    def _invoke(self, input: Any, run_manager: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        whole, config = self._set_up(config, kwargs)
        if self._known is not None:
            whole, input = self._known.told(whole, input)
        if self._graph is not None:
            return self._graph.run(whole, input, run_manager, config, kwargs)
        return whole._refine(input, run_manager, config, **kwargs)

    async def _ainvoke(self, input: Any, run_manager: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        whole, config = self._set_up(config, kwargs)
        if self._known is not None:
            whole, input = await self._known.atold(whole, input)
        if self._graph is not None:
            return await self._graph.arun(whole, input, run_manager, config, kwargs)
        return await whole._arefine(input, run_manager, config, **kwargs)

    def _set_up(self, config: RunnableConfig, kwargs: dict[str, Any]) -> tuple[RunnableTPO, RunnableConfig]:
        """Return this as the call wants it, and the call's config, without what is meant for this alone."""
        if kwargs:
            refuse_settings(kwargs, lambda: arguments_of(self.runnable))
        settings = config.get("configurable")
        if not settings or RETURN_TRAJECTORY not in settings:
            return self, config
        rest: Any = {**config, "configurable": {k: v for k, v in settings.items() if k != RETURN_TRAJECTORY}}
        wanted = settings[RETURN_TRAJECTORY]
        if wanted is None or self._part:
            return self, rest
        return self.model_copy(update={"return_trajectory": bool(wanted)}), rest

    def _refine(self, input: Any, run_manager: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        asked = self._parts.asking.of(input)
        job = self._job(asked, input, run_manager, config, kwargs)
        if hears_events(run_manager):
            events = child(config, run_manager, "tpo:events")
            job["on_progress"] = lambda progress: tell(progress, events)
        trajectory = run(**job)
        if self._speaks and not self.return_trajectory:
            speak(trajectory, config, run_manager)
        return self._answer(trajectory, run_manager)

    async def _arefine(self, input: Any, run_manager: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        asked = await self._parts.asking.aof(input)
        job = self._job(asked, input, run_manager, config, kwargs)
        if hears_events(run_manager):
            events = child(config, run_manager, "tpo:events")
            job["on_progress"] = lambda progress: atell(progress, events)
        trajectory = await arun(**job)
        if self._speaks and not self.return_trajectory:
            await aspeak(trajectory, config, run_manager)
        return self._answer(trajectory, run_manager)

    def _job(
        self, asked: Asked, input: Any, run_manager: Any, config: RunnableConfig, kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Return what the drivers take."""
        parts, settings = self._parts, self.loop_config(config.get("configurable"))
        parts.check(settings.rounds)
        reward = self.reward
        if heard(run_manager):
            reward = TracedReward(reward, lambda: child(config, run_manager, "tpo:score"))
        memory = self._memories.of((self._models, parts.chosen(config.get("configurable") or {})))
        policy: Policy = ChainPolicy(
            parts, memory, settings.rounds, config, run_manager, kwargs, self._gates, asked.opened
        )
        return {
            "query": asked.query,
            "policy": policy if self._first is None else AfterFirst(policy, first_sample(*self._first)),
            "reward": reward,
            "config": settings,
            "inputs": input,
            "gold": self.gold,
            "max_concurrency": config.get("max_concurrency"),
        }

    def _answer(self, trajectory: Trajectory, run_manager: Any) -> Any:
        record(trajectory, run_manager, whole=self.trace_trajectory)
        if self.langsmith_feedback:
            send_feedback(trajectory, run_manager, self.reward.name)
        if self.return_trajectory:
            return trajectory
        best = trajectory.best.value
        return told(best, trajectory) if isinstance(best, AIMessage) else best

    # -- the answer in chunks -----------------------------------------------------------------------------------------

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """Yield the final answer in chunks; nothing is shown before it is final."""
        yield from self.transform(iter([input]), config, **kwargs)

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        """Yield the final answer in chunks, without blocking."""

        async def once() -> AsyncIterator[Any]:
            yield input

        async for chunk in self.atransform(once(), config, **kwargs):
            yield chunk

    def transform(self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """Wait for the whole input, then yield the final answer in chunks."""
        yield from self._transform_stream_with_config(input, self._transform, config, **kwargs)

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Do as ``transform`` does, without blocking."""
        async for chunk in self._atransform_stream_with_config(input, self._atransform, config, **kwargs):
            yield chunk

    def _transform(
        self, input: Iterator[Any], run_manager: Any, config: RunnableConfig, **kwargs: Any
    ) -> Iterator[Any]:
        yield from chunks(self._invoke(reduce(joined, input, None), run_manager, config, **kwargs))

    async def _atransform(
        self, input: AsyncIterator[Any], run_manager: Any, config: RunnableConfig, **kwargs: Any
    ) -> AsyncIterator[Any]:
        whole = reduce(joined, [chunk async for chunk in input], None)
        for chunk in chunks(await self._ainvoke(whole, run_manager, config, **kwargs)):
            yield chunk

    def as_part(self, speaks: bool = True) -> RunnableTPO:
        """Return this, to be used inside what returns answers, and perhaps streams the final text itself."""
        self._part, self._speaks = True, speaks
        return self

    def remember(self, memories: Memories, models: Hashable) -> None:
        """Share what is learnt about models with other objects, under what tells the models from others."""
        self._memories, self._models = memories, models

    def after_first(self, message: AIMessage, seen: Any = None) -> RunnableTPO:
        """Return this with its first sample already made: ``message``, an answer of the wrapped Runnable.

        Args:
            message: The answer.
            seen: The messages that it answers, where they are known to be more than the input.
        """
        copy = self.model_copy()
        copy._first = (message, read_seen(seen) if self._parts.contextual else None)
        return copy

    # -- many runs ----------------------------------------------------------------------------------------------------

    def batch(
        self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[Any]:
        """Return the best answer to each input; ``max_concurrency`` bounds the model calls of them all together."""
        bounded = self._bounded(config)
        return RunnableSerializable.batch(bounded, inputs, config, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[Any]:
        """Return as ``batch`` does, without blocking."""
        bounded = self._bounded(config)
        return await RunnableSerializable.abatch(bounded, inputs, config, return_exceptions=return_exceptions, **kwargs)

    def batch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> Iterator[Any]:
        """Yield the place and the best answer of each input as it is there."""
        settings: Any = {"return_exceptions": return_exceptions, **kwargs}
        yield from RunnableSerializable.batch_as_completed(self._bounded(config), inputs, config, **settings)

    async def abatch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Yield as ``batch_as_completed`` does, without blocking."""
        settings: Any = {"return_exceptions": return_exceptions, **kwargs}
        async for done in RunnableSerializable.abatch_as_completed(self._bounded(config), inputs, config, **settings):
            yield done

    def _bounded(self, config: Any) -> RunnableTPO:
        first = config[0] if isinstance(config, list) and config else config
        limit = (first or {}).get("max_concurrency")
        bounded = self.model_copy()
        if limit is not None:
            bounded._gates = (threading.BoundedSemaphore(limit), asyncio.Semaphore(limit))
        return bounded
