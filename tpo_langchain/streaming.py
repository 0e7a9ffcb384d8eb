"""An answer that is already whole, in chunks; what is streamed in, made whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk

from tpo_core.prompts.modeltext import pieces

__all__ = ["chunks", "joined", "message_chunks"]


def chunks(answer: Any) -> Iterator[Any]:
    """Split an answer into chunks that add up to it: text and messages word by word, anything else whole."""
    if isinstance(answer, str):
        yield from pieces(answer) or [answer]
    elif isinstance(answer, AIMessage):
        yield from message_chunks(answer)
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


def message_chunks(message: AIMessage) -> Iterator[AIMessageChunk]:
    """Split a message word by word; usage, metadata and tool calls come with the last chunk."""
    *words, last = (pieces(message.content) if isinstance(message.content, str) else [message.content]) or [""]
    for word in words:
        yield AIMessageChunk(content=word, id=message.id)
    calls = [
        tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=place)
        for place, call in enumerate(message.tool_calls)
    ]
    told = message.model_dump(exclude={"content", "type", "tool_calls", "invalid_tool_calls"})
    yield AIMessageChunk(content=last, chunk_position="last", tool_call_chunks=calls, **told)
