"""OpenAI's batch format: a line that asks, and the line that answers it.

A line that asks has ``custom_id`` and ``body``, the body of a chat request. Of the body, the messages are the prompt,
and what a loop can be told for one query is honoured; whatever would be answered differently than it asks is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tpo_core.config import TPOConfig
from tpo_core.errors import InvalidInputError
from tpo_core.runs.items import Item
from tpo_core.runs.reader import Failed, Finished

__all__ = ["answer_line", "failure_line", "is_batch_line", "item_of"]

_CHAT = "/v1/chat/completions"

_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "max_response_tokens",
    "max_completion_tokens": "max_response_tokens",
    "seed": "seed",
}
"""Honoured: from OpenAI's name to that in TPOConfig."""

_NO_EFFECT = {"metadata", "service_tier", "store", "user", "safety_identifier", "prompt_cache_key"}
"""Parameters that change no answer."""

_NEUTRAL: dict[str, Any] = {
    "n": 1,
    "stream": False,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logprobs": False,
    "response_format": {"type": "text"},
    "tools": [],
    "stop": [],
    "logit_bias": {},
}
"""Parameters that a loop does not take, with the value that asks for nothing."""

_INSTEAD = {
    "n": "a run's width says how many candidates there are",
    "stream": "a run answers when the query has ended",
    "tools": "an answer that calls a tool cannot be scored",
}


def is_batch_line(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a line of an OpenAI batch."""
    return "custom_id" in row and "body" in row


def item_of(row: Mapping[str, Any], line: int) -> Item:
    """Read a line that asks.

    Raises:
        InvalidInputError: It lacks something, or asks for what a loop cannot do; says what.
    """
    if not is_batch_line(row):
        raise InvalidInputError("it lacks custom_id or body, which the lines before it have")
    url, body = row.get("url", "/v1/chat/completions"), row["body"]
    if url != "/v1/chat/completions" or row.get("method", "POST") != "POST":
        raise InvalidInputError(
            f"it asks {row.get('method', 'POST')} {url}; only POST /v1/chat/completions is answered"
        )
    if not isinstance(row["custom_id"], str) or not row["custom_id"]:
        raise InvalidInputError(f"custom_id is {row['custom_id']!r}; give each line a text of its own")
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        raise InvalidInputError("its body has no list of messages")
    sampling = _sampling({name: value for name, value in body.items() if name not in ("messages", "model")})
    return Item(row["custom_id"], body["messages"], dict(row), line, sampling, body.get("model"))


def _sampling(parameters: Mapping[str, Any]) -> dict[str, Any]:
    sampling: dict[str, Any] = {}
    for name, value in parameters.items():
        if name in _SAMPLING and value is not None:
            sampling[_SAMPLING[name]] = value
        elif name not in _SAMPLING and name not in _NO_EFFECT and value not in (None, _NEUTRAL.get(name)):
            why = _INSTEAD.get(name, "a run cannot pass it on")
            raise InvalidInputError(f"its body sets {name}, and {why}; leave it out")
    TPOConfig(**sampling)  # refuses values out of range
    return sampling


def answer_line(finished: Finished) -> dict[str, Any]:
    """Return the line that answers: the best candidate as a chat completion."""
    trajectory, item = finished.trajectory, finished.item
    usage = trajectory.usage
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": trajectory.best.response, "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",  # what was cut off is no candidate
    }
    body = {
        "id": f"chatcmpl-tpo-{finished.position}",
        "object": "chat.completion",
        "created": int(finished.at),
        "model": item.model or "",
        "choices": [choice],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.tokens,
        },
    }
    response = {"status_code": 200, "request_id": f"tpo-{finished.position}", "body": body}
    return _line(finished.position, item, response, None)


def failure_line(failed: Failed) -> dict[str, Any]:
    """Return the line that says that there is no answer."""
    return _line(failed.position, failed.item, None, {"code": failed.error, "message": failed.message})


def _line(position: int, item: Item, response: Any, error: Any) -> dict[str, Any]:
    return {"id": f"batch_req_tpo_{position}", "custom_id": item.id, "response": response, "error": error}
