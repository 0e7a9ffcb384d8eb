"""Models whose templates have no system role: how they say so, and how they are asked instead."""

from __future__ import annotations

import re
from collections.abc import Sequence

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

__all__ = ["folded", "may_refuse_system"]

# "System role not supported" (Gemma), "Conversation roles must alternate user/assistant/..." and "Only user and
# assistant roles are supported!" (Mistral), "'messages[0].role' does not support 'system' with this model" (OpenAI),
# "This model doesn't support system messages" (Bedrock), "Developer instruction is not enabled" (Google).
_ROLE = re.compile(
    r"system[\s_-]+(role|message|prompt|instruction)|developer instruction|\brole|['\"]system['\"]", re.I
)
_REFUSED = re.compile(
    r"not\b.{0,40}\b(support|allow|enabl|permit|accept)|n't (support|allow|accept)|unsupported|unexpected|invalid"
    r"|unknown|no system|only user|must alternate",
    re.I | re.S,
)
_PASSING = {401, 403, 404, 408, 409, 425, 429, 502, 503, 504}  # about the moment or the caller, not about the request


def may_refuse_system(messages: object, error: Exception) -> bool:
    """Return whether an error may be a template's refusal of the system message that these messages open with.

    Only if the same request passes without one, it was.
    """
    opened = isinstance(messages, list) and len(messages) > 1 and isinstance(messages[0], SystemMessage)
    said = str(error)[:2000]
    return opened and _status(error) not in _PASSING and bool(_ROLE.search(said) and _REFUSED.search(said))


def folded(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return messages with the system message said at the head of the user's first."""
    system, first, *rest = messages
    return [HumanMessage(f"{system.text}\n\n{first.text}"), *rest]


def _status(error: Exception) -> object:
    return getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
