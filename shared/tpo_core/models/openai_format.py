"""The OpenAI chat format, as litellm and the openai client return it, read into completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tpo_core.values import Completion, Failure, Usage

__all__ = [
    "read_logprobs",
]


def _completions(response: Any) -> list[Completion]:
    usage = _usage(getattr(response, "usage", None))
    return [_completion(choice, usage if place == 0 else Usage()) for place, choice in enumerate(response.choices)]


def _completion(choice: Any, usage: Usage) -> Completion:
    content = choice.message.content
    failure = None
    if not content and getattr(choice.message, "tool_calls", None):
        failure = Failure("tool_call", "the model called a tool instead of answering")
    return Completion(
        text=content or "",
        finish_reason=choice.finish_reason,
        usage=usage,
        failure=failure,
        logprobs=read_logprobs(getattr(choice, "logprobs", None)),
    )


def read_logprobs(logprobs: Any) -> tuple[Mapping[str, float], ...]:
    """Read log-probabilities in the OpenAI format, from an object or a dict; see ``Completion.logprobs``."""
    tokens = getattr(logprobs, "content", None) or (logprobs.get("content") if isinstance(logprobs, dict) else None)
    plain = [t if isinstance(t, dict) else t.model_dump() for t in tokens or ()]
    return tuple(
        {t["token"]: t["logprob"], **{a["token"]: a["logprob"] for a in t.get("top_logprobs") or ()}} for t in plain
    )


def _usage(usage: Any) -> Usage:
    details = getattr(usage, "prompt_tokens_details", None)
    return Usage(
        requests=1,
        prompt_tokens=getattr(usage, "prompt_tokens", 0) or 0,
        completion_tokens=getattr(usage, "completion_tokens", 0) or 0,
        cached_tokens=getattr(details, "cached_tokens", 0) or 0,
    )
