"""An answer that is already whole, in chunks; what is streamed in, made whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk

__all__ = ["chunks", "joined"]


def chunks(answer: Any) -> Iterator[Any]:
    """Split an answer into chunks that add up to it: text and messages word by word, anything else whole."""
    if isinstance(answer, str):
        yield from _words(answer) or [answer]
    elif isinstance(answer, AIMessage) and isinstance(answer.content, str) and not answer.tool_calls:
        yield from _message_chunks(answer)
    else:
        yield answer


def joined(whole: Any, chunk: Any) -> Any:
    """Add a chunk of an input to what came before; the later one where they cannot be added."""
    if whole is None:
        return chunk
    try:
        return whole + chunk
    except TypeError:
        return chunk


def _message_chunks(message: AIMessage) -> Iterator[AIMessageChunk]:
    *words, last = _words(str(message.content)) or [""]
    for word in words:
        yield AIMessageChunk(content=word, id=message.id)
    told = message.model_dump(exclude={"content", "type", "tool_calls", "invalid_tool_calls"})
    yield AIMessageChunk(content=last, chunk_position="last", **told)


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+(?:\s+\Z)?", text) or ([text] if text else [])
