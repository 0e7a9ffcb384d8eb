"""An answer that was needed anyway, to see whether it calls a tool, as the first sample of a run."""

from __future__ import annotations

from langchain_core.messages import AIMessage

from tpo_core.values import Completion, Prompt
from tpo_langchain.convert import text_of
from tpo_langchain.tracing import finish_reason, usage_of

__all__ = ["first_sample", "is_final"]


def is_final(message: object) -> bool:
    """Return whether a message answers in words and can be refined, rather than calling a tool."""
    if not isinstance(message, AIMessage) or message.tool_calls or message.invalid_tool_calls:
        return False
    return bool(message.text.strip())


def first_sample(message: AIMessage, context: Prompt | None = None) -> Completion:
    """Return an answer as a sample; ``context`` is what it was given to, see ``Candidate``."""
    return Completion(text_of(message), message, finish_reason(message), usage_of(message), context=context)
