"""Between a chain's outputs and text, and back again."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from pydantic import BaseModel

from tpo_core import InvalidInputError
from tpo_core.prompts.modeltext import read_json, without_reasoning

__all__ = ["can_remake", "remaker", "rendered", "replace_text", "text_of"]

_RAW = {"raw", "parsed", "parsing_error"}  # with_structured_output(include_raw=True)
_JSON = (dict, list)


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
        return without_reasoning(str(value))  # StrOutputParser's is a subclass
    if isinstance(value, BaseMessage):
        return without_reasoning(str(value.text))
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
        f"the chain's output, of type {type(value).__name__}, is not text; "
        "give render= a function from it to the text that is to be judged"
    )


def remaker(parser: Any) -> Callable[[str, Any], Any]:
    """Return what makes an output of an updated text, given the output that was rewritten.

    Args:
        parser: The user's ``parser=``: a function of the text, or of the text and the output; None goes by the output.
    """
    if parser is None:
        return _alike
    return parser if _takes_two(parser) else partial(_of_text, parser)


def _of_text(parser: Callable[[str], Any], text: str, like: Any) -> Any:
    return parser(text)


def _alike(text: str, like: Any) -> Any:
    """Return an updated text as an output like the one it was made from.

    Raises:
        InvalidInputError: It cannot be told how, without a parser.
    """
    if isinstance(like, str):
        return text
    if isinstance(like, AIMessage):
        return replace_text(like, text)
    if isinstance(like, BaseModel):
        return type(like).model_validate(read_json(text))
    if isinstance(like, dict) and like.get("messages") and isinstance(like["messages"][-1], AIMessage):
        return {**like, "messages": [*like["messages"][:-1], replace_text(like["messages"][-1], text)]}
    if isinstance(like, _JSON):
        return read_json(text)
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
    """Return whether ``remaker`` needs no parser for an output like this one."""
    return isinstance(like, (str, AIMessage, BaseModel, *_JSON))


def _takes_two(parser: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(parser).parameters.values()
    except (TypeError, ValueError):
        return False
    placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len([p for p in placed if p.default is p.empty]) >= 2
