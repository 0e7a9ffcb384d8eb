"""What a run shows: what its model calls cost, the scoring as a child run, an event per round, and the trajectory."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackHandler,
    AsyncCallbackManager,
    BaseCallbackHandler,
    CallbackManager,
    adispatch_custom_event,
    dispatch_custom_event,
)
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.outputs import LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import patch_config
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run

from tpo_core import Progress, Trajectory, Usage
from tpo_core.drivers.mlflow_span import note_outcome, note_rewards
from tpo_core.models.openai_format import read_finish_reason
from tpo_core.models.token_reports import of_all_choices
from tpo_core.rewards import RewardModel
from tpo_core.values import Pair, Reward
from tpo_langchain.final_text import without_tokens
from tpo_langchain.signatures import Signed

__all__ = [
    "Meter", "TracedReward", "atell", "child", "cost_of", "finish_reason", "heard", "hears_events", "name_model",
    "record", "summary", "tell", "told", "traced", "usage_of",
]  # fmt: skip


def heard(run_manager: Any) -> bool:
    """Return whether anybody listens to a run: callbacks, a tracer of the environment, LangGraph's streams."""
    return bool(run_manager.handlers or run_manager.inheritable_handlers)


_DEAF = {BaseCallbackHandler.on_custom_event, AsyncCallbackHandler.on_custom_event}
"""What handlers do about an event of our own unless they say otherwise: nothing. Tracers are such handlers."""


def hears_events(run_manager: Any) -> bool:
    """Return whether anybody who listens to a run does anything about an event of our own: each costs a config."""
    listening = (*run_manager.handlers, *run_manager.inheritable_handlers)
    return any(getattr(handler.on_custom_event, "__func__", None) not in _DEAF for handler in listening)


class Meter(BaseCallbackHandler):
    """Counts what the model calls of one sample report, and keeps the last answer.

    Args:
        watching: Whether to keep, too, what the last answer was an answer to.
    """

    run_inline = True

    def __init__(self, watching: bool = False) -> None:
        """Start at zero."""
        self.usage = Usage()
        self.last: AIMessage | None = None
        self.seen: Any = None
        """What reached the model that gave the last answer: messages, or a text."""
        self._watching = watching
        self._given: dict[UUID, Any] = {}
        self._lock = threading.Lock()

    ignore_chain = ignore_agent = ignore_retriever = ignore_retry = ignore_custom_event = property(lambda self: True)

    @property
    def ignore_chat_model(self) -> bool:
        """Return whether the start of a chat model's call is nothing to this."""
        return not self._watching

    def on_chat_model_start(
        self, serialized: Any, messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Note what a chat model is given."""
        self._given[run_id] = messages[0] if messages else None

    def on_llm_start(self, serialized: Any, prompts: list[str], *, run_id: UUID, **kwargs: Any) -> None:
        """Note what a text model is given."""
        if self._watching:
            self._given[run_id] = prompts[0] if prompts else None

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Count a model call."""
        made = _made(response)
        first = made[0] if made else None
        message = getattr(first, "message", None)
        name_model(response)
        with self._lock:
            self.seen = self._given.pop(run_id, None)
            self.usage += cost_of(response)
            if isinstance(message, AIMessage):
                self.last = message
            elif first is not None:
                self.last = AIMessage(first.text, response_metadata=first.generation_info or {})


def _written(generation: Any) -> str:
    calls = getattr(getattr(generation, "message", None), "tool_calls", None)
    if not calls:
        return str(generation.text)
    return "\n".join([generation.text, *(json.dumps(call["args"], default=str) for call in calls)])


def _is_cut(generation: Any) -> bool:
    message = getattr(generation, "message", None)
    return isinstance(message, AIMessage) and finish_reason(message) == "length"


def _made(response: LLMResult) -> Sequence[Any]:
    return response.generations[0] if response.generations else ()


def name_model(response: LLMResult, asked: Any = None) -> None:
    """Write the model's name into the messages of a request, as LangChain does where there is one: usage callbacks ask
    for it.

    Args:
        response: What came of the request; where nobody listens its name is the model object's own.
        asked: The model that this request named itself, if it did.
    """
    name = asked if isinstance(asked, str) else (response.llm_output or {}).get("model_name")
    for generation in _made(response) if name else ():
        if isinstance(message := getattr(generation, "message", None), AIMessage):
            message.response_metadata.setdefault("model_name", name)


def cost_of(response: LLMResult) -> Usage:
    """Return what one request cost; several generations of it carry its whole usage each."""
    made = _made(response)
    usage = usage_of(getattr(made[0], "message", None) if made else None, response.llm_output)
    return usage if len(made) == 1 else of_all_choices(usage, list(map(_written, made)), lambda i: _is_cut(made[i]))


def usage_of(message: Any, llm_output: Any = None) -> Usage:
    """Return what one request cost, as its message or its result says; see ``cost_of`` where it had several."""
    told = getattr(message, "usage_metadata", None)
    if told:
        cached = (told.get("input_token_details") or {}).get("cache_read") or 0
        return Usage(0, 1, told["input_tokens"], told["output_tokens"], cached)
    tokens = (llm_output or {}).get("token_usage") or {}
    return Usage(0, 1, tokens.get("prompt_tokens") or 0, tokens.get("completion_tokens") or 0)


def finish_reason(message: AIMessage | None) -> str | None:
    """Return why the model stopped, in the words of the OpenAI format where another says the same."""
    return read_finish_reason(message.response_metadata if message is not None else {})


def child(
    config: RunnableConfig, run_manager: Any, name: str, tag: str | None = None, meter: Meter | None = None
) -> RunnableConfig:
    """Return the config of a child run: the parent's callbacks, tags and metadata, a name of its own.

    Its models are tagged ``nostream`` and do not stream: what is streamed to a user is the answer, not the samples.
    """
    callbacks: CallbackManager | AsyncCallbackManager = run_manager.get_child(tag)
    callbacks.add_tags(["nostream"])
    if callbacks.handlers:
        callbacks.handlers = without_tokens(callbacks.handlers)
        callbacks.inheritable_handlers = without_tokens(callbacks.inheritable_handlers)
    if meter is not None:
        callbacks.handlers.insert(0, meter)  # before those that read the model's name
        callbacks.inheritable_handlers.insert(0, meter)
    return patch_config(config, callbacks=callbacks, run_name=name)


class TracedReward(RewardModel):
    """A reward model whose scorings are child runs."""

    def __init__(self, reward: RewardModel, config: Callable[[], RunnableConfig]) -> None:
        """Wrap a reward for the length of one run; ``config`` makes a child run's config."""
        self.reward, self.name, self._config = reward, reward.name, config

    def check(self) -> None:
        """Check the reward model behind this."""
        self.reward.check()

    async def acheck(self) -> None:
        """Check the reward model behind this, without blocking."""
        await self.reward.acheck()

    @property
    def origin(self) -> RewardModel:
        """Return the reward model behind this."""
        return self.reward.origin

    def score_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Score; the checks are the wrapped model's."""
        return self.reward.score_pairs(pairs)

    def score_pairs(self, pairs: Sequence[Pair]) -> list[Reward]:
        """Score in a child run."""
        return _Scoring(self.reward, pairs).invoke(_shown(pairs), self._config())

    async def ascore_pairs(self, pairs: Sequence[Pair]) -> list[Reward]:
        """Score in a child run, without blocking."""
        return await _Scoring(self.reward, pairs).ainvoke(_shown(pairs), self._config())


class _Scoring(Runnable[Any, "list[Reward]"]):
    """A scoring as a run, which shows what is scored."""

    def __init__(self, reward: RewardModel, pairs: Sequence[Pair]) -> None:
        self._reward, self._pairs = reward, pairs

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> list[Reward]:
        return self._call_with_config(Signed(self._score), input, config)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> list[Reward]:
        return await self._acall_with_config(Signed(self._ascore), input, config)

    def _score(self, shown: Any, run_manager: Any) -> list[Reward]:
        return self._noted(self._reward.score_pairs(self._pairs), run_manager)

    async def _ascore(self, shown: Any, run_manager: Any) -> list[Reward]:
        return self._noted(await self._reward.ascore_pairs(self._pairs), run_manager)

    def _noted(self, rewards: list[Reward], run_manager: Any) -> list[Reward]:
        told = {"reward_model": self._reward.name, "rewards": [float(r) if r == r else None for r in rewards]}
        for _, run in traced(run_manager):
            run.add_metadata({"tpo": told})
        note_rewards(self._reward.name, rewards, "tpo:score")
        return rewards


def _shown(pairs: Sequence[Pair]) -> dict[str, Any]:
    return {"prompt": pairs[0].prompt if pairs else "", "responses": [pair.response for pair in pairs]}


def tell(progress: Progress, config: RunnableConfig) -> None:
    """Dispatch a custom event, ``tpo:scored``, ``tpo:loss``, ``tpo:gradient`` or ``tpo:stopped``."""
    dispatch_custom_event(f"tpo:{progress.kind}", _event(progress), config=config)


async def atell(progress: Progress, config: RunnableConfig) -> None:
    """Dispatch a custom event, as ``tell`` does."""
    await adispatch_custom_event(f"tpo:{progress.kind}", _event(progress), config=config)


def _event(progress: Progress) -> dict[str, Any]:
    best = progress.best
    return {
        "step": progress.step,
        "text": progress.text,
        "candidates": [
            {"response": c.response, "reward": c.reward, "failure": c.failure.reason if c.failure else None}
            for c in progress.candidates
        ],
        "best": {"response": best.response, "reward": best.reward, "step": best.step} if best else None,
    }


def summary(trajectory: Trajectory) -> dict[str, Any]:
    """Return a run in a few plain values, for message and run metadata."""
    initial = trajectory.initial_best
    return {
        "reward": trajectory.best.reward,
        "initial_reward": initial.reward if initial else None,
        "gain": trajectory.gain,
        "step": trajectory.best.step,
        "candidates": len(trajectory.candidates),
        "failures": len(trajectory.failures),
        "calls": trajectory.usage.calls,
        "tokens": trajectory.usage.tokens,
        "tokens_estimated": trajectory.usage.estimated,
        "stop_reason": trajectory.stop_reason,
        "seconds": round(trajectory.seconds.get("total", math.nan), 3),
    }


def traced(run_manager: Any) -> Iterator[tuple[BaseTracer, Run]]:
    """Yield the tracers that listen, each with the run as it keeps it."""
    for handler in run_manager.handlers:
        run = handler.run_map.get(str(run_manager.run_id)) if isinstance(handler, BaseTracer) else None
        if run is not None:
            yield handler, run


def record(trajectory: Trajectory, run_manager: Any, *, whole: bool = False) -> None:
    """Put the summary into the run's metadata, in every tracer that listens, and on MLflow's span.

    Args:
        trajectory: What came of the run.
        run_manager: The run's callbacks.
        whole: Put all of the trajectory there, too: prompts, answers and critiques. A tracer that is told to hide
            inputs and outputs does not hide metadata.
    """
    for _, run in traced(run_manager):
        run.add_metadata({"tpo": summary(trajectory)})
        if whole:
            run.add_metadata({"tpo_trajectory": trajectory.to_dict()})
    note_outcome(trajectory)


def told(message: AIMessage, trajectory: Trajectory) -> AIMessage:
    """Return a message with the usage of all calls that led to it, and the run in ``response_metadata["tpo"]``."""
    spent = trajectory.usage
    usage = UsageMetadata(
        input_tokens=spent.prompt_tokens,
        output_tokens=spent.completion_tokens,
        total_tokens=spent.tokens,
        input_token_details=InputTokenDetails(cache_read=spent.cached_tokens),
    )
    metadata = {**message.response_metadata, "tpo": summary(trajectory)}
    return message.model_copy(update={"usage_metadata": usage, "response_metadata": metadata})
