"""What is streamed of a refinement: the final text, and no draft or critique."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import patch_config
from langchain_core.tracers._streaming import _StreamingCallbackHandler, _V2StreamingCallbackHandler

from tpo_core import Trajectory
from tpo_langchain.streaming import message_chunks

__all__ = ["aspeak", "not_streaming", "speak", "without_tokens"]


class WithoutTokens:
    """A handler that watches models write, as the runs inside a refinement see it: told everything but tokens.

    LangChain's models stream for whoever has the methods of such a handler; this has none of those.
    """

    def __init__(self, handler: Any) -> None:
        """Stand before a handler."""
        self.handler = handler

    def __getattr__(self, name: str) -> Any:
        """Return the handler's own."""
        if name == "handler" or name.startswith(("tap_output", "__")):
            raise AttributeError(name)
        return getattr(self.handler, name)

    def __eq__(self, other: object) -> bool:
        """Return whether the other is the same handler: where configs are merged, it is told once."""
        return self.handler is (other.handler if isinstance(other, WithoutTokens) else other)

    def __hash__(self) -> int:
        """Return the handler's own."""
        return hash(self.handler)

    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
        """Tell nobody: a model that streams by itself does so here, too."""

    def on_stream_event(self, *args: Any, **kwargs: Any) -> None:
        """Tell nobody."""


def without_tokens(handlers: list[Any]) -> list[Any]:
    """Return handlers for inner runs: those that watch models write are told everything else."""
    return [WithoutTokens(handler) if _watches(handler) else handler for handler in handlers]


def _watches(handler: Any) -> bool:
    taps = hasattr(handler, "tap_output_iter") and isinstance(handler, _StreamingCallbackHandler)  # the latter is slow
    return taps or isinstance(handler, _V2StreamingCallbackHandler)


def not_streaming(model: BaseChatModel) -> BaseChatModel:
    """Return a model that writes nothing before it is final, unless its owner has it stream always."""
    return model if getattr(model, "streaming", False) else model.model_copy(update={"disable_streaming": True})


class FinalText(BaseChatModel):
    """Says what was found to be best, as a chat model would; its tokens were counted where they were written."""

    message: AIMessage

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.message)])

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        for chunk in message_chunks(self.message):
            yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages):
            yield chunk

    @property
    def _llm_type(self) -> str:
        return "tpo"


def speak(trajectory: Trajectory, config: RunnableConfig, run_manager: Any) -> None:
    """Stream the final text in a child run, where somebody watches models write."""
    if any(map(_watches, run_manager.handlers)):
        _final(trajectory).invoke([], _child(config, run_manager))


async def aspeak(trajectory: Trajectory, config: RunnableConfig, run_manager: Any) -> None:
    """Stream as ``speak`` does, without blocking."""
    if any(map(_watches, run_manager.handlers)):
        await _final(trajectory).ainvoke([], _child(config, run_manager))


def _final(trajectory: Trajectory) -> FinalText:
    best = trajectory.best
    name = best.value.id if isinstance(best.value, AIMessage) else None
    return FinalText(message=AIMessage(best.response, id=name), cache=False)


def _child(config: RunnableConfig, run_manager: Any) -> RunnableConfig:
    callbacks = run_manager.get_child("tpo:answer")
    if any(type(handler).__module__.startswith("langgraph.") for handler in run_manager.handlers):
        callbacks.add_tags(["nostream"])  # a graph streams the message itself, when it enters the state
    return patch_config(config, callbacks=callbacks, run_name="tpo:answer")
