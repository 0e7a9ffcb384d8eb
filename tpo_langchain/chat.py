"""A chat model whose text answers are aligned to a reward while they are being produced."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from pydantic import ConfigDict, Field, PrivateAttr

from tpo_core import InvalidInputError
from tpo_core.cache_keys import made_of
from tpo_core.prompts.signatures import TextualGradient, TextualLoss, Update
from tpo_langchain.caching import CachedWhole, llm_key
from tpo_langchain.chain import arguments_of, model_in, rebuilt
from tpo_langchain.final_text import not_streaming
from tpo_langchain.first_answer import is_final
from tpo_langchain.llm_run import child_config, may_call, must_call, result, result_chunks, with_name
from tpo_langchain.memory import Memories
from tpo_langchain.roles import TunedPrompt
from tpo_langchain.runnable import RunnableTPO
from tpo_langchain.settings import LoopSettings, loop_settings, named, refuse_settings, spread

__all__ = ["ChatTPO"]


class ChatTPO(LoopSettings, CachedWhole):
    """A chat model over a chat model: what it answers in words is refined, what it calls as tools passes through.

    With tools bound, the first answer is looked at before others are sampled, so a tool call costs one request.

    Under an LLM cache a whole answer is kept where its reward has a ``cache_key`` and where LangChain's caches know its
    models; otherwise the samples alone are, as in ``RunnableTPO``.

    Args:
        llm: The chat model that answers, and that writes critiques and updates.
        reward: What the answers are aligned to; see ``RunnableTPO``.
        critic: Writes the critiques instead.
        editor: Writes the updates instead.
        prompts: The loop's prompts in other words; see ``load_prompts``.
        langsmith_feedback: Send the rewards to LangSmith as feedback; see ``RunnableTPO``, as for ``trace_trajectory``.
        trace_trajectory: Put the whole trajectory into traces.
        config: A ``TPOConfig``: all settings at once; what is given beside it wins.
        **settings: The fields of ``LoopSettings``; ``max_tokens`` is the loop's budget. What a chat model usually
            takes (temperature, keys, timeouts, the length of an answer) is set on ``llm``.

    Raises:
        InvalidInputError: An argument is wrong.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> llm = FakeListChatModel(responses=["short", "a longer answer"])
        >>> ChatTPO(llm=llm, reward=lambda prompt, response: len(response), width=2, depth=0).invoke("hi").text
        'a longer answer'
    """

    llm: Runnable[Any, Any]
    """The chat model that answers."""
    reward: Any
    """What the answers are aligned to."""
    critic: Runnable[Any, Any] | None = None
    editor: Runnable[Any, Any] | None = None
    prompts: dict[str, TunedPrompt] = Field(default_factory=dict)
    langsmith_feedback: bool = False
    """As in ``RunnableTPO``; the feedback is on the run inside this one's."""
    trace_trajectory: bool = False
    """As in ``RunnableTPO``."""
    stop: list[str] | None = None
    """Words at which answers end, where a call says nothing else."""
    streaming: bool = False
    """Hand the answer on in chunks, even where it is asked for whole."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    _memories: Memories = PrivateAttr(default_factory=Memories)

    def __init__(self, **given: Any) -> None:
        """Check everything that can be checked before a model is called."""
        given = spread(given)
        if unknown := sorted(set(given) - set(type(self).model_fields)):
            raise InvalidInputError(
                f"ChatTPO takes no argument {', '.join(unknown)}; set it on llm, the model it is over"
            )
        if model_in(given.get("llm")) is None:
            raise InvalidInputError(f"llm must be a chat model, not {given.get('llm')!r:.80}")
        with named():
            super().__init__(**given)
        self.reward = self._refiner({}).reward
        if self.cache not in (None, False) and self.answer_key(self.stop) is None:
            raise InvalidInputError(
                "cache: answers cannot be told apart by what they follow from; leave it out, or give a reward with a "
                "cache_key (see FunctionReward) and models that LangChain's caches know"
            )

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any) -> Runnable[Any, AIMessage]:
        """Bind tools as the model behind writes them."""
        model: Any = self.llm
        bound = model.bind_tools(tools, **({} if tool_choice is None else {"tool_choice": tool_choice}), **kwargs)
        return self.bind(**bound.kwargs)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        """Return the refined answer."""
        return with_name(super().invoke(input, config, **kwargs))  # type: ignore[no-any-return]

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        """Return the refined answer without blocking."""
        return with_name(await super().ainvoke(input, config, **kwargs))  # type: ignore[no-any-return]

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[AIMessageChunk]:
        """Yield the refined answer in chunks."""
        yield from map(with_name, super().stream(input, config, **kwargs))

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """Yield the refined answer in chunks, without blocking."""
        async for chunk in super().astream(input, config, **kwargs):
            yield with_name(chunk)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config, bound = child_config(run_manager, CallbackManager, kwargs), self._bound(stop, kwargs)
        first = self._quiet.invoke(messages, config, **bound) if may_call(kwargs) else None
        if first is not None and not is_final(first):
            return result(first, counted=not must_call(kwargs))
        return result(self._refiner(bound, first).invoke(messages, config))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config, bound = child_config(run_manager, AsyncCallbackManager, kwargs), self._bound(stop, kwargs)
        first = await self._quiet.ainvoke(messages, config, **bound) if may_call(kwargs) else None
        if first is not None and not is_final(first):
            return result(first, counted=not must_call(kwargs))
        return result(await self._refiner(bound, first).ainvoke(messages, config))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        """Yield the refined answer in chunks; nothing is shown before it is final."""
        for chunk in result_chunks(self._generate(messages, stop, run_manager, **kwargs)):
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in result_chunks(await self._agenerate(messages, stop, run_manager, **kwargs)):
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def _refiner(self, bound: dict[str, Any], first: AIMessage | None = None) -> RunnableTPO:
        refiner = RunnableTPO(
            self.llm.bind(**bound) if bound else self.llm,
            reward=self.reward,
            critic=self.critic,
            editor=self.editor,
            prompts=self.prompts,
            langsmith_feedback=self.langsmith_feedback,
            trace_trajectory=self.trace_trajectory,
            **loop_settings(self),
        )
        refiner.remember(self._memories, frozenset(bound))  # tools or a format change what n can do
        return refiner.as_part(speaks=False) if first is None else refiner.as_part(speaks=False).after_first(first)

    @property
    def _quiet(self) -> Runnable[Any, Any]:
        """Return the model behind, to be asked before it is known whether its answer is final."""
        quiet: Runnable[Any, Any] = rebuilt(self.llm, lambda m: not_streaming(m) if isinstance(m, BaseChatModel) else m)
        return quiet

    def _bound(self, stop: list[str] | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        if kwargs:
            refuse_settings(kwargs, lambda: arguments_of(self.llm))
        stop = stop or self.stop
        return {**kwargs, "stop": stop} if stop else kwargs

    @property
    def _llm_type(self) -> str:
        return "tpo"

    def answer_key(self, stop: list[str] | None = None, **kwargs: Any) -> str | None:
        """Return what its answers follow from, beside the messages; None where that cannot be said."""
        given = ensure_config().get("configurable")  # of the call that this one is part of
        others = (self.critic, self.editor)
        return made_of(
            "tpo",
            self.reward.cache_key,
            llm_key(self.llm, **self._bound(stop, kwargs)),
            *[llm_key(model) for model in others if model is not None],
            given=[model is not None for model in others],
            prompts=self.prompts,
            instructions=[signature.instructions for signature in (TextualLoss, TextualGradient, Update)],
            settings={**asdict(self.loop_config(given)), "experience": None},
        )

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """Return what traces show of it: nothing secret."""
        settings = {**loop_settings(self), "experience": repr(self.experience)}
        return {**settings, "llm": type(model_in(self.llm)).__name__, "reward": self.reward.name}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        """Return the model behind's, for traces."""
        model: Any = model_in(self.llm)
        return model._get_ls_params(stop=stop, **kwargs)
