"""The OpenAI chat format, as litellm and the openai client return it, read into completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tpo_core.models.token_reports import of_all_choices
from tpo_core.values import Completion, Failure, Usage

__all__ = ["completions_of", "read_finish_reason", "read_logprobs", "read_usage"]


def completions_of(response: Any) -> list[Completion]:
    """Read the choices of a response, the request's whole usage on the first."""
    usage = read_usage(response)
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


_CUT = {"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"}
_FILTERED = {"content_filter", "safety", "refusal", "blocklist", "prohibited_content"}


def read_finish_reason(told: Mapping[str, Any]) -> str | None:
    """Read why a model stopped from a response's metadata, in the words of this format where another says the same."""
    reason = told.get("finish_reason") or told.get("stop_reason") or told.get("done_reason")
    if not reason:
        return None
    word = str(reason).lower()
    return "length" if word in _CUT else "content_filter" if word in _FILTERED else reason


def read_logprobs(logprobs: Any) -> tuple[Mapping[str, float], ...]:
    """Read log-probabilities in the OpenAI format, from an object or a dict; see ``Completion.logprobs``."""
    tokens = getattr(logprobs, "content", None) or (logprobs.get("content") if isinstance(logprobs, dict) else None)
    plain = [t if isinstance(t, dict) else t.model_dump() for t in tokens or ()]
    return tuple(
        {t["token"]: t["logprob"], **{a["token"]: a["logprob"] for a in t.get("top_logprobs") or ()}} for t in plain
    )


def read_usage(response: Any) -> Usage:
    """Read what a request cost from its response in the OpenAI format, the tokens of all its choices."""
    usage = getattr(response, "usage", None)
    details = getattr(usage, "prompt_tokens_details", None)
    reported = Usage(
        requests=1,
        prompt_tokens=getattr(usage, "prompt_tokens", 0) or 0,
        completion_tokens=getattr(usage, "completion_tokens", 0) or 0,
        cached_tokens=getattr(details, "cached_tokens", 0) or 0,
    )
    choices = response.choices
    return of_all_choices(reported, list(map(_written, choices)), lambda i: choices[i].finish_reason == "length")


def _written(choice: Any) -> str:
    message = choice.message
    calls = [call.function.arguments or "" for call in getattr(message, "tool_calls", None) or () if call.function]
    parts = [getattr(message, "reasoning_content", None) or "", message.content or "", *calls]
    return "\n".join(filter(None, parts))
