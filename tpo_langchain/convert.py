"""Between a chain's own objects and text: the query in its input, the response in its output, and back again."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages, convert_to_openai_messages
from langchain_core.prompt_values import ChatPromptValue, PromptValue, StringPromptValue
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import RunnableConfig
from langchain_core.utils.json import parse_json_markdown
from pydantic import BaseModel

from tpo_core import InvalidInputError
from tpo_core.values import Prompt
from tpo_langchain.calling import acalled, called

__all__ = ["aquery_of", "as_prompt_value", "can_remake", "query_of", "remade", "rendered", "replace_text", "text_of"]

_RAW = {"raw", "parsed", "parsing_error"}  # with_structured_output(include_raw=True)
_JSON = (dict, list)


def query_of(given: Any, pick: Any, prompt: BasePromptTemplate[Any] | None) -> Prompt:
    """Return what is asked, as the critic and the reward read it: text, or the whole conversation.

    Args:
        given: The chain's input.
        pick: The user's ``query=``: a function of the input, or the name of a key; None finds it.
        prompt: The template that opens the chain, if one does: it then writes the messages.

    Raises:
        InvalidInputError: It is not obvious what is asked, or nothing is.
    """
    step = _picker(given, pick, prompt)
    return _prompt(given if step is None else called(step, given, _UNSEEN if step is prompt else None))


async def aquery_of(given: Any, pick: Any, prompt: BasePromptTemplate[Any] | None) -> Prompt:
    """Return what is asked, as ``query_of`` does, without blocking."""
    step = _picker(given, pick, prompt)
    return _prompt(given if step is None else await acalled(step, given, _UNSEEN if step is prompt else None))


_UNSEEN: RunnableConfig = {"callbacks": []}  # no run of its own in the user's traces


def _picker(given: Any, pick: Any, prompt: BasePromptTemplate[Any] | None) -> Any:
    """Return what finds the query in the input; None where the input is it."""
    if not isinstance(pick, str):
        return prompt if pick is None else pick
    if not isinstance(given, Mapping) or pick not in given:
        raise InvalidInputError(f"query names the key {pick!r}, which the input {given!r:.80} does not have")
    return itemgetter(pick)


def _prompt(given: Any) -> Prompt:
    if isinstance(given, str):
        return given
    if isinstance(given, StringPromptValue):
        return given.text
    if isinstance(given, PromptValue):
        return _chat(given.to_messages())
    if isinstance(given, Mapping) and given.get("messages"):
        return _prompt(given["messages"])
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
        f"cannot tell what is asked in the input {given!r:.120}; give query= a function of the input, or a key"
    )


def as_prompt_value(given: Any) -> PromptValue:
    """Return a model's input as a prompt value."""
    if isinstance(given, PromptValue):
        return given
    if isinstance(given, str):
        return StringPromptValue(text=given)
    return ChatPromptValue(messages=convert_to_messages(given))


def rendered(text: Any) -> str:
    """Return what the user's renderer made of a chain's output.

    Raises:
        InvalidInputError: It is no text.
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"render must return text, not {type(text).__name__}")
    return text


def text_of(value: Any) -> str:
    """Return a chain's output as the text that critic and reward read: text as it is, data as JSON.

    Raises:
        InvalidInputError: It is neither.
    """
    if isinstance(value, str):
        return str(value)  # StrOutputParser's is a subclass
    if isinstance(value, BaseMessage):
        return str(value.text)
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    if isinstance(value, dict) and set(value) == _RAW:
        return "" if value["parsed"] is None else text_of(value["parsed"])
    if isinstance(value, dict) and value.get("messages") and isinstance(value["messages"][-1], BaseMessage):
        return text_of(value["messages"][-1])
    if isinstance(value, _JSON):
        try:
            return json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError):
            pass
    raise InvalidInputError(
        f"the chain's output {value!r:.80} ({type(value).__name__}) is not text; "
        "give render= a function from it to the text that is to be judged"
    )


def remade(text: str, like: Any, parser: Any) -> Any:
    """Return an updated text as an output like the one it was made from.

    Args:
        text: The update.
        like: The chain's output that was rewritten.
        parser: The user's ``parser=``: a function of the text, or of the text and ``like``; None goes by ``like``.

    Raises:
        InvalidInputError: It cannot be told how, without a parser.
    """
    if parser is not None:
        return parser(text, like) if _takes_two(parser) else parser(text)
    if isinstance(like, str):
        return text
    if isinstance(like, AIMessage):
        return replace_text(like, text)
    if isinstance(like, BaseModel):
        return type(like).model_validate(parse_json_markdown(text))
    if isinstance(like, dict) and like.get("messages") and isinstance(like["messages"][-1], AIMessage):
        return {**like, "messages": [*like["messages"][:-1], replace_text(like["messages"][-1], text)]}
    if isinstance(like, _JSON):
        return parse_json_markdown(text)
    raise InvalidInputError(
        f"cannot tell how an updated text becomes the chain's output ({type(like).__name__}); "
        "give parser= a Runnable, or a function of the text or of the text and the output it was made from"
    )


def replace_text(message: AIMessage, text: str) -> AIMessage:
    """Return a message that says something else; its id and metadata stay, what it said beside the text goes."""
    if message.text == text:
        return message
    return message.model_copy(update={"content": text})


def can_remake(like: Any) -> bool:
    """Say whether ``remade`` knows how without a parser."""
    return isinstance(like, (str, AIMessage, BaseModel, *_JSON))


def _takes_two(parser: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(parser).parameters.values()
    except (TypeError, ValueError):
        return False
    placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len([p for p in placed if p.default is p.empty]) >= 2
