"""A chat model whose text answers are aligned to a reward while they are being produced."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import ConfigDict, Field, PrivateAttr

from tpo_core import InvalidInputError
from tpo_langchain.anatomy import model_in
from tpo_langchain.first import is_final
from tpo_langchain.parts import TunedPrompt
from tpo_langchain.policy import Memory
from tpo_langchain.runnable import RunnableTPO
from tpo_langchain.settings import LoopSettings, loop_settings, named, spread
from tpo_langchain.streaming import message_chunks

__all__ = ["ChatTPO"]


class ChatTPO(LoopSettings, BaseChatModel):
    """A chat model over a chat model: what it answers in words is refined, what it calls as tools passes through.

    With tools bound, the first answer is looked at before others are sampled, so a tool call costs one request.

    Args:
        llm: The chat model that answers, and that writes critiques and updates.
        reward: What the answers are aligned to; see ``RunnableTPO``.
        critic: Writes the critiques instead.
        editor: Writes the updates instead.
        prompts: The loop's prompts in other words; see ``load_prompts``.
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
    stop: list[str] | None = None
    """Words at which answers end, where a call says nothing else."""
    streaming: bool = False
    """Hand the answer on in chunks, even where it is asked for whole."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    _memories: dict[frozenset[str], Memory] = PrivateAttr(default_factory=dict)

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

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any) -> Runnable[Any, AIMessage]:
        """Bind tools as the model behind writes them."""
        model: Any = self.llm
        bound = model.bind_tools(tools, **({} if tool_choice is None else {"tool_choice": tool_choice}), **kwargs)
        return self.bind(**bound.kwargs)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        """Return the refined answer."""
        return _named(super().invoke(input, config, **kwargs))  # type: ignore[no-any-return]

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        """Return the refined answer without blocking."""
        return _named(await super().ainvoke(input, config, **kwargs))  # type: ignore[no-any-return]

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[AIMessageChunk]:
        """Yield the refined answer in chunks."""
        yield from map(_named, super().stream(input, config, **kwargs))

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """Yield the refined answer in chunks, without blocking."""
        async for chunk in super().astream(input, config, **kwargs):
            yield _named(chunk)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config, bound = _config(run_manager, CallbackManager, kwargs), self._bound(stop, kwargs)
        first = self.llm.invoke(messages, config, **bound) if _may_call(kwargs) else None
        if first is not None and not is_final(first):
            return _result(first, counted=not _must_call(kwargs))
        return _result(self._refiner(bound, first).invoke(messages, config))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config, bound = _config(run_manager, AsyncCallbackManager, kwargs), self._bound(stop, kwargs)
        first = await self.llm.ainvoke(messages, config, **bound) if _may_call(kwargs) else None
        if first is not None and not is_final(first):
            return _result(first, counted=not _must_call(kwargs))
        return _result(await self._refiner(bound, first).ainvoke(messages, config))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        """Yield the refined answer in chunks; nothing is shown before it is final."""
        for chunk in _chunks(self._generate(messages, stop, run_manager, **kwargs)):
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
        for chunk in _chunks(await self._agenerate(messages, stop, run_manager, **kwargs)):
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
            **loop_settings(self),
        )
        refiner._memory = self._memories.setdefault(
            frozenset(bound), Memory()
        )  # tools or a format change what n can do
        return refiner if first is None else refiner.after_first(first)

    def _bound(self, stop: list[str] | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        stop = stop or self.stop
        return {**kwargs, "stop": stop} if stop else kwargs

    @property
    def _llm_type(self) -> str:
        return "tpo"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """Return what makes its answers its own: the key under which an LLM cache keeps them."""
        parts = {name: getattr(self, name) for name in ("llm", "critic", "editor", "prompts")}
        return {**loop_settings(self), **{k: repr(v) for k, v in parts.items()}, "reward": repr(self.reward)}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        """Return the model behind's, for traces."""
        model: Any = model_in(self.llm)
        return model._get_ls_params(stop=stop, **kwargs)


def _may_call(kwargs: Mapping[str, Any]) -> bool:
    return bool(kwargs.get("tools") or kwargs.get("functions"))


def _must_call(kwargs: Mapping[str, Any]) -> bool:
    """Say whether the answer will be a tool call: this run then stands for the model's, which is shown once."""
    return _may_call(kwargs) and kwargs.get("tool_choice") not in (None, False, "auto", "none")


def _config(
    run_manager: Any, manager: type[CallbackManager] | type[AsyncCallbackManager], kwargs: Mapping[str, Any]
) -> RunnableConfig | None:
    """Return the config of child runs; an LLM run's callbacks make none themselves."""
    if run_manager is None:  # while streaming: LangChain hands none over, and what is under way here is the parent
        return {"callbacks": []} if _must_call(kwargs) else {"tags": ["nostream"]}
    callbacks = manager(handlers=[], parent_run_id=run_manager.run_id)
    callbacks.set_handlers([] if _must_call(kwargs) else run_manager.inheritable_handlers)
    callbacks.add_tags([*run_manager.inheritable_tags, "nostream"])  # no sample's tokens on a user's screen
    callbacks.add_metadata(run_manager.inheritable_metadata)
    return {"callbacks": callbacks}


def _result(message: AIMessage, counted: bool = True) -> ChatResult:
    """Return a message as a model does; ``counted`` says that the calls that led to it are runs of their own.

    Usage callbacks count whatever names its model, so a counted one goes without until they have seen it.
    """
    if counted:
        told = dict(message.response_metadata)
        told["tpo"] = {**told.get("tpo", {}), "model_name": told.pop("model_name", None)}
        message = message.model_copy(update={"response_metadata": told})
    return ChatResult(generations=[ChatGeneration(message=message)])


def _named(message: Any) -> Any:
    """Give a message its model's name back."""
    name = message.response_metadata.get("tpo", {}).get("model_name")
    if name is None:
        return message
    return message.model_copy(update={"response_metadata": {**message.response_metadata, "model_name": name}})


def _chunks(result: ChatResult) -> Iterator[ChatGenerationChunk]:
    message = result.generations[0].message
    assert isinstance(message, AIMessage)
    for chunk in message_chunks(message):
        yield ChatGenerationChunk(message=chunk)
