"""None"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tpo_core.errors import InvalidInputError
from tpo_core.values import Message, Prompt

if TYPE_CHECKING:
    import dspy

__all__ = [
    "as_messages",
    "fence",
    "render",
    "render_fields",
    "shorten",
    "show_query",
]


def fence(text: str, name: str = "response") -> str:
    """Put untrusted text between two tags it cannot close.

    Example:
        >>> print(fence("hello"))
        <response>
        hello
        </response>
        >>> print(fence("bye</response>"))
        <response-2>
        bye</response>
        </response-2>
    """
    tag, number = name, 1
    while re.search(rf"{re.escape(tag)}\s*>", text, re.IGNORECASE):  # what a model may read as this tag
        number += 1
        tag = f"{name}-{number}"
    return f"<{tag}>\n{text}\n</{tag}>"


def shorten(text: str, limit: int | None) -> str:
    """Cut the middle out of text longer than ``limit`` characters, and say in its place how much is gone."""
    if limit is None or len(text) <= limit:
        return text
    note = f"\n[... {len(text) - limit} or more characters left out here ...]\n"
    keep = max(limit - len(note), 2)
    head = (keep + 1) // 2
    return text[:head] + note + text[len(text) - (keep - head) :]


def show_query(prompt: Prompt) -> str:
    """Write a prompt as one text: a single user turn as it is, a conversation with each speaker named.

    Raises:
        InvalidInputError: The prompt is empty or is neither text nor chat messages.
    """
    if isinstance(prompt, str):
        if not prompt.strip():
            raise InvalidInputError("query is empty; give the text or chat messages to answer")
        return prompt
    if not isinstance(prompt, Sequence) or not prompt:
        raise InvalidInputError(f"query must be text or a non-empty list of chat messages, not {prompt!r:.80}")
    turns = [(_role(m), _content(m)) for m in as_messages(prompt)]
    if not any(text.strip() for role, text in turns if role != "system"):
        raise InvalidInputError("query holds no text besides the system prompt; add a user message")
    if len(turns) == 1 and turns[0][0] == "user":
        return turns[0][1]
    return "\n\n".join(f"{role.capitalize()}: {text}" for role, text in turns)


def as_messages(prompt: Prompt) -> list[Message]:
    """Return a prompt as chat messages: text becomes one user turn."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def render_fields(fields: Mapping[str, Any]) -> str:
    """Write named values as text: one value as it is, several as ``name: value`` paragraphs."""
    if len(fields) == 1:
        return str(next(iter(fields.values())))
    return "\n\n".join(f"{name}: {value}" for name, value in fields.items())


def render(
    signature: type[dspy.Signature], inputs: Mapping[str, Any], demos: Sequence[Mapping[str, Any]] = ()
) -> list[Message]:
    """Write a signature as chat messages: instructions as the system turn, inputs as the user turn.

    Args:
        signature: One output field, of type str.
        inputs: Its input fields, as text.
        demos: Worked examples (inputs and output), each shown as a user turn and an assistant turn.

    Raises:
        InvalidInputError: An input field is missing, or the signature has several output fields.
    """
    output = _output(signature)
    missing = [name for name in signature.input_fields if name not in inputs]
    if missing:
        raise InvalidInputError(f"inputs lacks {', '.join(missing)}, which {signature.__name__} takes")
    ask = f"Write the {_words(output)}: {signature.output_fields[output].json_schema_extra['desc']}."
    messages: list[Message] = [{"role": "system", "content": signature.instructions}]
    for demo in demos:
        if output in demo:
            messages += [
                {"role": "user", "content": _turn(signature, demo, ask)},
                {"role": "assistant", "content": str(demo[output])},
            ]
    return [*messages, {"role": "user", "content": _turn(signature, inputs, ask)}]


def _turn(signature: type[dspy.Signature], inputs: Mapping[str, Any], ask: str) -> str:
    parts = [f"# {_words(name).capitalize()}\n{inputs[name]}" for name in signature.input_fields if name in inputs]
    return "\n\n".join([*parts, ask])


def _output(signature: type[dspy.Signature]) -> str:
    names = list(signature.output_fields)
    if len(names) != 1:
        raise InvalidInputError(f"signature {signature.__name__} has {len(names)} output fields; one is needed here")
    return str(names[0])


def _words(name: str) -> str:
    return name.replace("_", " ")


def _role(message: Message) -> str:
    try:
        return str(message["role"])
    except (KeyError, TypeError):
        raise InvalidInputError(
            f"query holds {message!r:.80}; a chat message is a dict with role and content"
        ) from None


def _content(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, (list, tuple)):
        parts = [p if isinstance(p, str) else p.get("text") or f"[{p.get('type', 'part')}]" for p in content]
        return "\n".join(parts)
    return "" if content is None else str(content)
