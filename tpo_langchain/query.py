"""What is asked, found in a chain's input: as critic and reward read it, and as the chain's prompt writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage, convert_to_messages, convert_to_openai_messages
from langchain_core.prompt_values import PromptValue, StringPromptValue
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig

from tpo_core import InvalidInputError
from tpo_core.pace import Pace
from tpo_core.prompts.rendering import render_fields, show_query
from tpo_core.records import repr_without_texts
from tpo_core.rewards.concurrency import aeach_sync
from tpo_core.values import Prompt

__all__ = ["Asked", "Query", "read_seen"]

_UNSEEN: RunnableConfig = {"callbacks": []}  # no run of its own in the user's traces


@dataclass(frozen=True)
class Asked:
    """What one input asks."""

    query: Prompt
    """Text, or the whole conversation."""
    opened: PromptValue | None = None
    """What the chain's prompt made of the input, where the query was read from that."""

    __repr__ = repr_without_texts()


class Query:
    """Finds what is asked.

    Args:
        pick: The user's ``query=``: a function of the input, a Runnable, or the name of a key; None finds it.
        prompt: The template that opens the chain, if one does: it then writes the messages.
        more: Whether the chain makes its model's messages of an input of several fields: all of them are then asked.

    Raises:
        InvalidInputError: When asked: it is not obvious what is asked, or nothing is.
    """

    def __init__(self, pick: Any, prompt: BasePromptTemplate[Any] | None, more: bool = False) -> None:
        """Note where to look."""
        self._pick, self._prompt, self._more, self._pace = pick, prompt, more, Pace()

    def of(self, given: Any) -> Asked:
        """Return what an input asks."""
        if self._pick is None:
            return self._found(given if self._prompt is None else self._prompt.invoke(given, _UNSEEN))
        if isinstance(self._pick, Runnable):
            return Asked(_read(self._pick.invoke(given)))
        return Asked(_read(_keyed(given, self._pick) if isinstance(self._pick, str) else self._pick(given)))

    async def aof(self, given: Any) -> Asked:
        """Return what an input asks, without blocking."""
        if self._pick is None and self._prompt is not None:
            return self._found(await self._prompt.ainvoke(given, _UNSEEN))
        if isinstance(self._pick, Runnable):
            return Asked(_read(await self._pick.ainvoke(given)))
        if self._pick is None or isinstance(self._pick, str):
            return self.of(given)
        [found] = await aeach_sync(self._pick, [given], 1, self._pace)
        if isinstance(found, Exception):
            raise found
        return Asked(_read(found))

    def _found(self, given: Any) -> Asked:
        if self._more and isinstance(given, Mapping) and not given.get("messages") and (shown := _shown(given)):
            return Asked(render_fields(shown))
        return Asked(_read(given), given if isinstance(given, PromptValue) else None)


def read_seen(given: Any) -> Prompt | None:
    """Return what reached a model as a prompt; None where it is nothing that can be shown."""
    try:
        return _read(given)
    except InvalidInputError:
        return None


def _shown(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of an input that are text or conversations, as text."""
    shown = {}
    for name, value in fields.items():
        if isinstance(value, (str, list)) and value:
            with suppress(InvalidInputError):
                shown[name] = show_query(_read(value))
    return shown


def _keyed(given: Any, key: str) -> Any:
    if not isinstance(given, Mapping) or key not in given:
        raise InvalidInputError(f"query names the key {key!r}, which the input, {_kind(given)}, does not have")
    return given[key]


def _read(given: Any) -> Prompt:
    if isinstance(given, str):
        return given
    if isinstance(given, StringPromptValue):
        return given.text
    if isinstance(given, PromptValue):
        return _chat(given.to_messages())
    if isinstance(given, Mapping) and given.get("messages"):
        return _read(given["messages"])
    if isinstance(given, Mapping) and len(given) == 1 and isinstance(text := next(iter(given.values())), str):
        return text
    if isinstance(given, BaseMessage):
        return _chat([given])
    if isinstance(given, Sequence) and not isinstance(given, bytes):
        try:
            messages = convert_to_messages(given)
        except (ValueError, NotImplementedError) as error:
            raise _unclear(given) from error
        return _chat(messages)
    raise _unclear(given)


def _chat(messages: Sequence[BaseMessage]) -> Prompt:
    if not messages:
        raise InvalidInputError("query is empty: the input holds no messages")
    turns: Any = convert_to_openai_messages(list(messages))
    alone = turns[0] if len(turns) == 1 else {}
    return alone["content"] if alone.get("role") == "user" and isinstance(alone["content"], str) else turns


def _unclear(given: Any) -> InvalidInputError:
    return InvalidInputError(
        f"cannot tell what is asked in the input, {_kind(given)}; give query= a function of the input, or a key"
    )


def _kind(given: Any) -> str:
    """Describe an input without what it says."""
    keys = f" with {', '.join(map(repr, given)) or 'nothing in it'}" if isinstance(given, Mapping) else ""
    return f"of type {type(given).__name__}{keys}"
