"""Answers as bytes, and requests as hashes: what the store keeps and finds them by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from tpo_core.errors import InvalidInputError
from tpo_core.loop.effects import Generate
from tpo_core.records import plain, rebuilt, repr_without_texts
from tpo_core.runs.items import decode, encode
from tpo_core.values import Completion, Pair, Reward, Usage

__all__ = [
    "completion_from_bytes",
    "completion_to_bytes",
    "pair_hash",
    "request_hash",
    "reward_from_bytes",
    "reward_to_bytes",
]

_NOT_ASKED = {"n", "seeds", "spare", "deadline"}
"""Fields of a request that say how many and until when, not what: an answer is good for the same seed alone, which is
beside the hash, and a run that goes on has a new clock."""


def completion_to_bytes(completion: Completion) -> bytes:
    """Write a completion.

    Raises:
        InvalidInputError: Its ``value`` is a host's own object; a store keeps text and JSON only.
    """
    if not _is_json(completion.value):
        raise InvalidInputError(
            f"the policy's answer holds a {type(completion.value).__name__}, and a run's folder keeps text and JSON "
            "only; use a policy whose completions have such a value, or none"
        )
    return encode(plain(completion))


def completion_from_bytes(data: bytes) -> Completion:
    """Read what ``completion_to_bytes`` wrote: equal to it, less the exception behind a failure."""
    return rebuilt(Completion, decode(data))


def reward_to_bytes(reward: Reward) -> bytes:
    """Write a reward with all that stands beside it."""
    return encode(plain(_Record(float(reward), **vars(reward))))


def reward_from_bytes(data: bytes) -> Reward:
    """Read what ``reward_to_bytes`` wrote."""
    return Reward(**vars(rebuilt(_Record, decode(data))))


@dataclass(frozen=True)
class _Record:
    """A reward's fields: a float can have none that are declared."""

    value: float
    feedback: str | None
    heads: Mapping[str, float]
    failure: str | None
    truncated: bool
    usage: Usage

    __repr__ = repr_without_texts("heads", "failure")


def request_hash(request: Generate) -> bytes:
    """Return the hash of all that a request asks.

    Raises:
        InvalidInputError: Its inputs are objects that have no JSON.
    """
    asked = {f.name: getattr(request, f.name) for f in fields(request) if f.name not in _NOT_ASKED}
    return _hash(asked, "the program's inputs")


def pair_hash(pair: Pair) -> bytes:
    """Return the hash of all that a reward model sees of a pair.

    Raises:
        InvalidInputError: It holds objects that have no JSON.
    """
    return _hash([pair.prompt, pair.response, pair.value, pair.inputs], "what the reward model is shown")


def _hash(asked: Any, what: str) -> bytes:
    try:
        text = json.dumps(asked, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{what} must be text and JSON, which a run's folder can keep: {error}") from error
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _plain(value: Any) -> Any:
    """Describe what JSON has no word for: our own data by what it is compared by, a signature by what it says."""
    if is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in fields(value) if f.compare}
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _is_json(value: Any) -> bool:
    """Return whether JSON gives back exactly this."""
    if isinstance(value, dict):
        return all(type(key) is str and _is_json(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(_is_json(inner) for inner in value)
    return value is None or type(value) in (str, int, float, bool)
