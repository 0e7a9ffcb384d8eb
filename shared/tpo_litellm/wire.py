"""Between the loop and litellm: its requests, and its own formats for responses, chunks of a stream, errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import litellm
from litellm.llms.custom_llm import CustomLLMError

from tpo_core.errors import InvalidInputError, TPOError, UnsupportedError
from tpo_core.masking import hidden_errors
from tpo_core.models.refusals import Fitting, status_of
from tpo_core.prompts.modeltext import pieces
from tpo_core.trajectory import Trajectory
from tpo_core.values import Candidate

__all__ = ["acompleted", "choice", "chunks", "completed", "in_words", "mapped_errors", "rank"]


def rank(candidate: Candidate) -> tuple[float, int]:
    """Sort the best candidate first, the earlier of equals before the later."""
    return -(candidate.reward or 0.0), candidate.index


def completed(request: Mapping[str, Any]) -> Any:
    """Ask litellm, without sampling settings that are refused."""
    fitting = Fitting(request)
    while True:
        try:
            return litellm.completion(**fitting.request)
        except Exception as error:
            if not fitting.drop(error):
                raise


async def acompleted(request: Mapping[str, Any]) -> Any:
    """Ask litellm as ``completed`` does, without blocking."""
    fitting = Fitting(request)
    while True:
        try:
            return await litellm.acompletion(**fitting.request)
        except Exception as error:
            if not fitting.drop(error):
                raise


def choice(place: int, candidate: Candidate, trajectory: Trajectory) -> Any:
    """Return a candidate as a choice of litellm's response, with its reward in ``provider_specific_fields``."""
    initial = trajectory.initial_best
    told = {
        "reward": candidate.reward,
        "initial_reward": initial.reward if initial else None,
        "step": candidate.step,
        "stop_reason": trajectory.stop_reason,
        "usage": asdict(trajectory.usage),
    }
    message = litellm.Message(role="assistant", content=candidate.response, provider_specific_fields={"tpo": told})
    return litellm.Choices(index=place, finish_reason="stop", message=message)


def in_words(response: Any) -> bool:
    """Return whether a response answers in words rather than calling a tool."""
    message = response.choices[0].message
    return not getattr(message, "tool_calls", None) and not getattr(message, "function_call", None)


def chunks(response: Any) -> Iterator[Any]:
    """Split a response of one choice into litellm's chunks, word by word; usage comes with the last one."""
    usage, told = response.usage, response.choices[0]
    counts = {k: getattr(usage, k) for k in ("prompt_tokens", "completion_tokens", "total_tokens")}
    for place, call in enumerate(getattr(told.message, "tool_calls", None) or ()):
        yield _chunk("", tool_use={**call.model_dump(), "index": place})
    for word in pieces(told.message.content or ""):
        yield _chunk(word)
    yield _chunk("", finish_reason=told.finish_reason, usage=counts)


def _chunk(text: str, *, tool_use: Any = None, finish_reason: str = "", usage: Any = None) -> dict[str, Any]:
    told = {"text": text, "tool_use": tool_use, "finish_reason": finish_reason, "usage": usage, "index": 0}
    return {**told, "is_finished": bool(finish_reason)}


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Raise what is raised inside as ``mapped`` does, with nothing secret in it."""
    with hidden_errors():
        try:
            yield
        except Exception as error:
            if (told := mapped(error)) is error:
                raise
            raise told from error


def mapped(error: Exception) -> Exception:
    """Return an error with the status that litellm turns into its own: the model's where it failed, else by kind."""
    status = status_of(error)
    if status is None and isinstance(error, TPOError):
        status = 400 if isinstance(error, (InvalidInputError, UnsupportedError)) else 500
    return error if status is None else CustomLLMError(status_code=status, message=str(error))
