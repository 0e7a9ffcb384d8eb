"""A trajectory as the plain data that a page draws: each text once, other candidates by their place."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from tpo_core.report.entries import (
    Entry,
    best,
    finite,
    initial_best,
    label,
    parent_of,
    place_of,
    rounds_of,
    told_in,
    winner,
)
from tpo_core.values import Candidate, Failure, Step, Usage

if TYPE_CHECKING:
    from tpo_core.trajectory import Trajectory

__all__ = ["record", "row"]

SNIPPET = 160
"""Characters of a query that the table shows and searches."""

_DATA_URL = re.compile(r"(data:[\w.+-]+/[\w.+-]+;base64,)([A-Za-z0-9+/=]{400,})")


def record(entry: Entry) -> dict[str, Any]:
    """Return everything that a query's tree shows."""
    trajectory = entry.trajectory
    if trajectory is None:
        return _kept({"name": entry.name, "error": entry.error})
    top, first = best(trajectory), initial_best(trajectory)
    return _kept(
        {
            "name": entry.name,
            "error": entry.error,
            "query": [_turn(turn) for turn in _turns(trajectory.query)],
            "candidates": [_candidate(c, trajectory) for c in trajectory.candidates],
            "steps": [_step(s, trajectory) for s in trajectory.steps],
            "best": None if top is None else place_of(top[0], trajectory),
            "first": None if first is None else place_of(first[0], trajectory),
            "rounds": rounds_of(trajectory),
            "usage": _usage(trajectory.usage),
            "reward_usage": _usage(trajectory.reward_usage),
            "seconds": {str(k): finite(v) for k, v in trajectory.seconds.items()},
            "stop": str(trajectory.stop_reason),
            "seed": trajectory.seed,
            "diagnosis": trajectory.diagnosis,
        }
    )


def row(place: int, entry: Entry) -> list[Any]:
    """Return a query's line in the table; ``static/table.js`` names its columns in this order."""
    trajectory = entry.trajectory
    if trajectory is None:
        return [place, label(entry.name), "", None, None, "", 0, 0, {}, 0, None, "error"]
    top, first = best(trajectory), initial_best(trajectory)
    return [
        place,
        label(entry.name),
        _snippet(trajectory.query),
        None if first is None else _rounded(first[1]),
        None if top is None else _rounded(top[1]),
        "" if top is None else winner(top[0]),
        rounds_of(trajectory),
        len(trajectory.candidates),
        _failures(trajectory),
        trajectory.usage.tokens + trajectory.reward_usage.tokens,
        _rounded(finite(trajectory.seconds.get("total"))),
        "error" if entry.error else label(trajectory.stop_reason),
    ]


def _candidate(candidate: Candidate, trajectory: Trajectory) -> dict[str, Any]:
    return _kept(
        {
            "text": _text(candidate.response),
            "reward": finite(candidate.reward),
            "step": candidate.step,
            "update": not candidate.fresh,
            "parent": parent_of(candidate, trajectory),
            "told": told_in(candidate, trajectory),
            "failure": _failure(candidate.failure),
            "feedback": candidate.feedback,
            "heads": {str(k): finite(v) for k, v in candidate.heads.items()},
            "truncated": candidate.truncated,
            "gold": finite(trajectory.gold.get(candidate.index)),
        }
    )


def _step(step: Step, trajectory: Trajectory) -> dict[str, Any]:
    return _kept(
        {
            "number": step.step,
            "chosen": place_of(step.chosen, trajectory),
            "rejected": place_of(step.rejected, trajectory),
            "loss": step.loss,
            "gradient": step.gradient,
            "failure": _failure(step.failure),
        }
    )


def _failure(failure: Failure | None) -> list[str] | None:
    return None if failure is None else [str(failure.reason), str(failure.message)]


def _failures(trajectory: Trajectory) -> dict[str, int]:
    counts: dict[str, int] = {}
    for candidate in trajectory.candidates:
        if candidate.failure is not None:
            reason = label(candidate.failure.reason)
            counts[reason] = counts.get(reason, 0) + 1
    return counts


def _usage(usage: Usage) -> dict[str, Any]:
    return {f.name: getattr(usage, f.name) for f in fields(usage) if getattr(usage, f.name)}


def _turns(query: Any) -> Sequence[Any]:
    several = isinstance(query, Sequence) and not isinstance(query, str)
    return query if several else [query]


def _turn(turn: Any) -> list[str]:
    """Return who speaks, and what is said; what is not text as JSON."""
    if isinstance(turn, Mapping) and "content" in turn:
        return [str(turn.get("role", "")), _text(turn["content"])]
    return ["", _text(turn)]


def _text(value: Any) -> str:
    """Return text as it is, anything else as JSON, without the bytes of pictures."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1, default=_plain)
    return _DATA_URL.sub(lambda found: f"{found[1]}[{len(found[2]):,} characters left out here]", text)


def _plain(value: Any) -> Any:
    return {f.name: getattr(value, f.name) for f in fields(value)} if is_dataclass(value) else str(value)


def _snippet(query: Any) -> str:
    """Return the beginning of the last thing said that is not the system's, on one line."""
    said = [text for role, text in map(_turn, _turns(query)) if role != "system"] or [""]
    line = " ".join(said[-1][: 4 * SNIPPET].split())
    return line if len(line) <= SNIPPET else line[: SNIPPET - 1] + "…"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _kept(data: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what says nothing, but for zeros of numbers."""
    return {k: v for k, v in data.items() if v is not None and v is not False and v != "" and v != {} and v != []}
