"""A refined answer as a chat model's run: its children, its usage counted once, its chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig

from tpo_langchain.streaming import message_chunks

__all__ = ["child_config", "may_call", "must_call", "result", "result_chunks", "with_name"]


def may_call(kwargs: Mapping[str, Any]) -> bool:
    """Return whether the model has tools that it may call."""
    return bool(kwargs.get("tools") or kwargs.get("functions"))


def must_call(kwargs: Mapping[str, Any]) -> bool:
    """Return whether the answer will be a tool call: this run then stands for the model's, which is shown once."""
    return may_call(kwargs) and kwargs.get("tool_choice") not in (None, False, "auto", "none")


def child_config(
    run_manager: Any, manager: type[CallbackManager] | type[AsyncCallbackManager], kwargs: Mapping[str, Any]
) -> RunnableConfig | None:
    """Return the config of child runs; an LLM run's callbacks make none themselves."""
    if run_manager is None:  # while streaming: LangChain hands none over, and what is under way here is the parent
        return {"callbacks": []} if must_call(kwargs) else {"tags": ["nostream"]}
    callbacks = manager(handlers=[], parent_run_id=run_manager.run_id)
    callbacks.set_handlers([] if must_call(kwargs) else run_manager.inheritable_handlers)
    callbacks.add_tags([*run_manager.inheritable_tags, "nostream"])  # no sample's tokens on a user's screen
    callbacks.add_metadata(run_manager.inheritable_metadata)
    return {"callbacks": callbacks}


def result(message: AIMessage, counted: bool = True) -> ChatResult:
    """Return a message as a model does; ``counted`` says that the calls that led to it are runs of their own.

    Usage callbacks count whatever names its model, so a counted one goes without until they have seen it.
    """
    if counted:
        told = dict(message.response_metadata)
        told["tpo"] = {**told.get("tpo", {}), "model_name": told.pop("model_name", None)}
        message = message.model_copy(update={"response_metadata": told})
    return ChatResult(generations=[ChatGeneration(message=message)])


def with_name(message: Any) -> Any:
    """Give a message its model's name back."""
    name = message.response_metadata.get("tpo", {}).get("model_name")
    if name is None:
        return message
    return message.model_copy(update={"response_metadata": {**message.response_metadata, "model_name": name}})


def result_chunks(made: ChatResult) -> Iterator[ChatGenerationChunk]:
    """Return an answer as the chunks of a stream."""
    message = made.generations[0].message
    assert isinstance(message, AIMessage)
    for chunk in message_chunks(message):
        yield ChatGenerationChunk(message=chunk)
