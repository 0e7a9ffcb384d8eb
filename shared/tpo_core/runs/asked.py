"""One call to a policy or a reward model, beside what the store has: what is known, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from tpo_core.loop.effects import Generate
from tpo_core.records import plain, rebuilt
from tpo_core.runs.answers import Answers, Key, UnderWay
from tpo_core.runs.codec import (
    completion_from_bytes,
    completion_to_bytes,
    pair_hash,
    reward_from_bytes,
    reward_to_bytes,
)
from tpo_core.runs.items import decode, encode
from tpo_core.runs.store import Answer
from tpo_core.runs.writer import Receipt
from tpo_core.values import Completion, Pair, Reward, Usage

__all__ = ["Asked", "Scored", "Settled"]

_NO_ANSWER = ("error", "deadline", "missing")
"""Failures of a completion that say that nothing came; the others are the model's own words, and paid for."""


class Asked:
    """One call to a policy.

    Args:
        answers: The query's.
        request: What is asked.
        seeds: For which samples.
        hash: The request's: see ``codec.request_hash``.
    """

    def __init__(self, answers: Answers, request: Generate, seeds: Sequence[int], hash: bytes) -> None:
        """Look it up."""
        self._answers, self._asked, self._seeds = answers, (request.task, request.step), tuple(seeds)
        self._hash = hash
        found = {seed: row for seed in seeds if (row := answers.find(self._key(str(seed)))) is not None}
        self.missing: tuple[int, ...] = ()
        if self._seeds and self._seeds[0] in found:
            found = self._as_it_came(found)
        else:
            self.missing = tuple(seed for seed in seeds if seed not in found)
        self._known = {seed: completion_from_bytes(row.data) for seed, row in found.items()}

    @property
    def completions(self) -> list[Completion]:
        """Return the completions of the first seeds, up to one that has none: that is how a driver counts them."""
        return [self._known[seed] for seed in takewhile(self._known.__contains__, self._seeds)]

    def keep(self, completions: Sequence[Completion]) -> Receipt[None]:
        """Take the completions for the missing seeds, and hand those that are answers to the store."""
        new = dict(zip(self.missing, _counted(completions), strict=False))
        self._known |= new
        rows = [self._row(str(seed), completion_to_bytes(c)) for seed, c in new.items() if _is_answer(c)]
        return self._answers.keep(rows)

    def _as_it_came(self, found: dict[int, Answer]) -> dict[int, Answer]:
        """Take as many as one request brought then: a driver learns from it about ``n`` what it learnt then."""
        first = found[self._seeds[0]].request
        same = takewhile(lambda seed: seed in found and found[seed].request == first, self._seeds)
        return {seed: found[seed] for seed in same}

    def _key(self, seeds: str) -> Key:
        return *self._asked, seeds, self._hash

    def _row(self, seed: str, data: bytes) -> Answer:
        return Answer(self._answers.query.position, *self._key(seed), _joined(self.missing), True, data)


class Settled:
    """How a whole request ended, as the loop was told: with its failures, and with what failed calls cost.

    A loop that is begun again is answered the same, for it counts what it spends.

    Args:
        answers: The query's.
        request: What was asked.
        hash: Its hash.
    """

    def __init__(self, answers: Answers, request: Generate, hash: bytes) -> None:
        """Look it up."""
        self._answers, self._request, self._hash = answers, request, hash

    @property
    def completions(self) -> list[Completion] | None:
        """Return what the loop was answered; None where that is not kept."""
        row = self._answers.find(self._key(self._all))
        if row is None:
            return None
        return [self._read(seed, told) for seed, told in zip(self._request.seeds, decode(row.data), strict=True)]

    def note(self, completions: Sequence[Completion]) -> None:
        """Take what the loop is told."""
        told = [self._written(seed, c) for seed, c in zip(self._request.seeds, completions, strict=True)]
        place = self._answers.query.position
        self._answers.note(Answer(place, *self._key(self._all), "", False, encode(told)))

    def _written(self, seed: int, completion: Completion) -> dict[str, Any]:
        """Write what the loop is told, less the text where it is kept as an answer."""
        if _is_answer(completion) and self._answers.has(self._key(str(seed))):
            return {"usage": plain(completion.usage)}
        return {"told": plain(completion)}

    def _read(self, seed: int, told: dict[str, Any]) -> Completion:
        if "told" in told:
            return rebuilt(Completion, told["told"])
        kept = self._answers.find(self._key(str(seed)))
        assert kept is not None, "an answer is kept before the request that it belongs to ends"
        return replace(completion_from_bytes(kept.data), usage=rebuilt(Usage, told["usage"]))

    @property
    def _all(self) -> str:
        return "=" + _joined(self._request.seeds)

    def _key(self, seeds: str) -> Key:
        return self._request.task, self._request.step, seeds, self._hash


class Scored:
    """One call to a reward model, for pairs of any of the run's queries.

    Args:
        under_way: The run's queries.
        task: Which reward model of the run.
        pairs: What to score.

    Raises:
        InvalidInputError: A pair holds what JSON cannot.
    """

    def __init__(self, under_way: UnderWay, task: str, pairs: Sequence[Pair]) -> None:
        """Look the pairs up."""
        self._store, self._task, self._pairs = under_way.store, task, pairs
        self._keys: list[Key] = [(task, 0, "", pair_hash(pair)) for pair in pairs]
        self._owners = [under_way.with_prompt(pair.asked) for pair in pairs]
        self._rewards = [self._find(key, owners) for key, owners in zip(self._keys, self._owners, strict=True)]

    @property
    def missing(self) -> list[Pair]:
        """Return the pairs that were not scored yet."""
        return [pair for pair, reward in zip(self._pairs, self._rewards, strict=True) if reward is None]

    @property
    def rewards(self) -> list[Reward]:
        """Return a reward for each pair."""
        return [reward for reward in self._rewards if reward is not None]

    def keep(self, rewards: Sequence[Reward]) -> Receipt[None]:
        """Take the rewards of the missing pairs, and hand what a query does not have yet to the store."""
        new = iter(rewards)
        self._rewards = [next(new) if reward is None else reward for reward in self._rewards]
        rows: list[Answer] = []
        for key, owners, reward in zip(self._keys, self._owners, self.rewards, strict=True):
            data = reward_to_bytes(reward)
            for owner in owners:
                rows += self._kept(owner, Answer(owner.query.position, *key, "", math.isfinite(reward), data))
        return self._store.keep(rows)

    def _kept(self, owner: Answers, row: Answer) -> list[Answer]:
        if row.paid:
            return [row] if owner.remember(row) else []
        owner.note(row)
        return []

    @staticmethod
    def _find(key: Key, owners: Sequence[Answers]) -> Reward | None:
        found = next((row for owner in owners if (row := owner.find(key)) is not None), None)
        return None if found is None else reward_from_bytes(found.data)


def _counted(completions: Sequence[Completion]) -> list[Completion]:
    """Return what a call brought; a call that does not count its requests is one request, as drivers take it."""
    taken = list(completions)
    if taken and not any(c.usage.requests for c in taken):
        taken[0] = replace(taken[0], usage=taken[0].usage + Usage(requests=1))
    return taken


def _is_answer(completion: Completion) -> bool:
    return completion.failure is None or completion.failure.reason not in _NO_ANSWER


def _joined(seeds: Sequence[int]) -> str:
    return " ".join(map(str, seeds))
