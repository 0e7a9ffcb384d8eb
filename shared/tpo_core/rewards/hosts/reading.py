"""Read a prompt and a response out of whatever a host hands to a metric.

One field is its text; several become ``name: value`` paragraphs. The model's reasoning and an agent's trajectory are
not part of the answer and are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tpo_core.errors import InvalidInputError
from tpo_core.prompts.rendering import render_fields
from tpo_core.values import Prompt

__all__ = ["HIDDEN_FIELDS", "fields_of", "prompt_of", "response_of"]

HIDDEN_FIELDS = ("reasoning", "rationale", "trajectory", "history")
"""Fields that are not read: how the answer came to be, and DSPy's own conversation record."""

# LangChain's message types in the words of the chat format
_ROLES = {"human": "user", "ai": "assistant", "HumanMessageChunk": "user", "AIMessageChunk": "assistant"}
_KNOWN = ("human", "ai", "system", "user", "assistant")


def prompt_of(inputs: Any, outputs: Any = None) -> Prompt:
    """Read the prompt: text, chat messages, a mapping, or a ``dspy.Example`` (its input fields).

    Args:
        inputs: What the host calls inputs, example or arguments.
        outputs: What was answered; an example without declared inputs is read less the fields that this holds.

    Raises:
        InvalidInputError: There is nothing to read; give the metric a ``prompt=`` picker.
    """
    if isinstance(inputs, str):
        return inputs
    if (messages := _messages(inputs)) is not None:
        return messages
    fields = fields_of(inputs)
    if (declared := getattr(inputs, "_input_keys", None)) is not None:
        fields = {k: v for k, v in fields.items() if k in declared}
    else:
        answered = fields_of(outputs)
        fields = {k: v for k, v in fields.items() if k not in answered} or fields
    if (messages := _messages(fields)) is not None:
        return messages
    return _text(fields, "prompt", inputs)


def response_of(outputs: Any) -> str:
    """Read the response: text, a message, a mapping, a ``dspy.Prediction`` or a pydantic object.

    Raises:
        InvalidInputError: There is nothing to read; give the metric a ``response=`` picker.
    """
    if isinstance(outputs, str):
        return outputs
    if (messages := _messages(outputs)) is not None:
        return str(messages[-1]["content"])
    fields = fields_of(outputs)
    if "role" in fields and "content" in fields:
        return str(_message(fields)["content"])
    return _text(fields, "response", outputs)


def fields_of(thing: Any) -> dict[str, Any]:
    """Return named values: of a mapping, an Example or Prediction, a message (its content) or a pydantic object."""
    if thing is None:
        return {}
    if isinstance(thing, Mapping):
        return dict(thing)
    if hasattr(thing, "toDict"):  # dspy.Example and dspy.Prediction; their own toDict turns values into text
        return dict(thing.items())
    if hasattr(thing, "content"):
        return {"content": _message(thing)["content"]}
    if hasattr(thing, "model_dump"):
        return dict(thing.model_dump(mode="json"))
    return {"value": thing}


def _messages(thing: Any) -> list[dict[str, Any]] | None:
    """Return chat messages where that is what this is: a list of them, or a mapping that holds nothing else."""
    if isinstance(thing, Mapping) and set(thing) == {"messages"}:
        thing = thing["messages"]
    if hasattr(thing, "to_messages"):  # a LangChain prompt value
        thing = thing.to_messages()
    if not isinstance(thing, Sequence) or isinstance(thing, (str, bytes)) or not thing:
        return None
    read = [_message(m) for m in thing]
    return read if all(m["role"] for m in read) else None


def _message(message: Any) -> dict[str, Any]:
    if isinstance(message, Mapping):
        role, content = message.get("role"), message.get("content", "")
    elif isinstance(message, (list, tuple)) and len(message) == 2 and message[0] in _KNOWN:
        role, content = message  # LangChain's short form
    else:
        role = getattr(message, "role", None) or getattr(message, "type", None)
        content = getattr(message, "content", "")
    if isinstance(content, list):  # content blocks: the text ones are what can be judged
        content = "".join(str(b.get("text") or "") if isinstance(b, Mapping) else str(b) for b in content)
    if content is None:  # a message that only calls tools
        content = ""
    return {"role": _ROLES.get(str(role), role), "content": content}


def _text(fields: Mapping[str, Any], name: str, thing: Any) -> str:
    shown = {k: v for k, v in fields.items() if k not in HIDDEN_FIELDS} or dict(fields)
    if all(v is None for v in shown.values()):
        raise InvalidInputError(f"no {name} can be read out of {thing!r:.80}; give as_metric a {name}= picker")
    return render_fields({k: _plain(v) for k, v in shown.items()})


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if hasattr(value, "model_dump_json"):
        return str(value.model_dump_json())
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)
