"""A prompt as the chat messages that a template takes; a response as its answer alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from tpo_core.errors import InvalidInputError
from tpo_core.prompts.modeltext import after_reasoning
from tpo_core.values import Prompt

__all__ = ["plain_messages", "without_mark", "without_thinking"]

_TOOLS = ("name", "tool_call_id", "tool_calls")


def plain_messages(prompt: Prompt, system: str | None = None) -> list[dict[str, Any]]:
    """Return a prompt as chat messages with text contents; calls of tools stay beside them, for templates to write.

    Args:
        prompt: A user turn, or chat messages; a content may be a list of text parts.
        system: The system prompt of conversations that have none.

    Raises:
        InvalidInputError: A content holds something that is not text.
    """
    given: Sequence[Mapping[str, Any]] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    messages = [
        {"role": str(m["role"]), "content": _text_of(m["content"]), **{k: _calls(m[k]) for k in _TOOLS if m.get(k)}}
        for m in given
    ]
    try:
        "".join(m["content"] for m in messages).encode()
    except UnicodeEncodeError:
        raise InvalidInputError("prompt holds a lone surrogate, which no tokenizer can take") from None
    if system is not None and all(m["role"] != "system" for m in messages):
        messages.insert(0, {"role": "system", "content": system})
    return messages


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, Sequence):
        parts: list[Any] = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        if all(isinstance(part, str) for part in parts):
            return "".join(parts)
    raise InvalidInputError(f"prompt: a reward model of text cannot read the content {content!r:.80}; give text")


def _calls(value: Any) -> Any:
    """Return tool calls with their arguments as objects, as templates want them; providers write them as JSON."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_calls(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    told = {k: _calls(v) for k, v in value.items()} if "function" in value else dict(value)
    if isinstance(arguments := told.get("arguments"), str):
        with suppress(ValueError):
            told["arguments"] = json.loads(arguments)
    return told


def without_mark(text: str, mark: str) -> str:
    """Return a text without a mark, also where what stands around one makes another; a mark holds no space.

    Example:
        >>> without_mark("step one<ex<extra_0>tra_0>", "<extra_0>")
        'step one '
    """
    return text.replace(mark, "").replace(mark, " ")


def without_thinking(response: str) -> str:
    """Return a response without the reasoning before it; see ``prompts.modeltext.after_reasoning``.

    Raises:
        InvalidInputError: The reasoning never ends.
    """
    answer = after_reasoning(response)
    if answer is None:
        raise InvalidInputError(
            "the response starts to think and never ends, so it holds no answer to score; keep_thinking=True "
            "scores it as it is"
        )
    return answer if answer is response else answer.lstrip()
