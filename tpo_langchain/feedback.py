"""What a refinement did, as LangSmith feedback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import BaseMessage

from tpo_core import InvalidInputError, Trajectory
from tpo_langchain.tracing import summary

__all__ = ["trajectory_feedback"]

_SCORES = ("reward", "initial_reward", "gain", "candidates", "failures", "calls", "tokens", "seconds")


def trajectory_feedback(outputs: Any) -> dict[str, list[dict[str, Any]]]:
    """Return a trajectory's numbers and its last critique as LangSmith feedback; itself a LangSmith evaluator.

    Args:
        outputs: A Trajectory, a refined message (which carries its summary), or a target's outputs with one of them.

    Returns:
        ``{"results": [{"key": "tpo_reward", "score": ..., "comment": ...}, ...]}``.

    Raises:
        InvalidInputError: There is neither in the outputs.

    Example:
        >>> from tpo_core import Candidate
        >>> trajectory_feedback(Trajectory("q", (Candidate("a", reward=2.0),)))["results"][0]
        {'key': 'tpo_reward', 'score': 2.0, 'comment': None}
    """
    told, critique = _found(outputs)
    results = [
        {"key": f"tpo_{name}", "score": told[name], "comment": critique if name == "reward" else None}
        for name in _SCORES
        if told.get(name) is not None
    ]
    return {"results": [*results, {"key": "tpo_stop_reason", "value": told.get("stop_reason")}]}


def _found(outputs: Any) -> tuple[Mapping[str, Any], str | None]:
    if isinstance(outputs, Trajectory):
        losses = [step.loss for step in outputs.steps if step.loss]
        return summary(outputs), losses[-1] if losses else None
    if isinstance(outputs, BaseMessage) and "tpo" in outputs.response_metadata:
        return outputs.response_metadata["tpo"], None
    if isinstance(outputs, Mapping) and "response_metadata" in outputs and "tpo" in outputs["response_metadata"]:
        return outputs["response_metadata"]["tpo"], None  # a message as LangSmith writes it
    if isinstance(outputs, Mapping) and "stop_reason" in outputs and "candidates" in outputs:
        return _found(Trajectory.from_dict(outputs))
    for inner in outputs.values() if isinstance(outputs, Mapping) else ():
        last = inner[-1] if isinstance(inner, list) and inner else inner  # an agent's messages
        if isinstance(last, (Trajectory, BaseMessage, Mapping)):
            try:
                return _found(last)
            except InvalidInputError:
                continue
    raise InvalidInputError(
        "outputs holds neither a Trajectory nor a refined message; use RunnableTPO(..., return_trajectory=True)"
    )
