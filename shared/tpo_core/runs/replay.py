"""A policy and a reward model that answer from the store what was paid for before, and keep what is new.

A loop is a deterministic generator given its answers, and numbers its samples; so a query that is begun again asks what
it asked before, is given the same answers, and stands where it stood. Each answer is found by its step, task, seed and
the hash of all that was asked: one that does not fit is never given. A request of which calls failed is remembered as
a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tpo_core.errors import StoreError
from tpo_core.loop.effects import Generate
from tpo_core.models.policy import Policy
from tpo_core.rewards.base import RewardModel
from tpo_core.runs.answers import Answers, UnderWay
from tpo_core.runs.asked import Asked, Scored, Settled
from tpo_core.runs.codec import request_hash
from tpo_core.values import Completion, Pair, Reward

__all__ = ["ReplayPolicy", "ReplayReward"]


class ReplayPolicy:
    """A policy for one query of a run: what was answered before is not asked again.

    Args:
        policy: Is asked what is new; shared by all queries.
        answers: The query's.
    """

    def __init__(self, policy: Policy, answers: Answers) -> None:
        """Wrap a policy; what it learns about ``n`` goes to the wrapped one."""
        self._policy, self._answers = policy, answers
        self._hashes: dict[int, tuple[Generate, bytes]] = {}  # of the requests under way, by identity
        self.takes_n = policy.takes_n
        self.fatal: tuple[type[Exception], ...] = (*policy.fatal, StoreError)  # what cannot be kept must not go on

    def __getattr__(self, name: str) -> Any:
        """Be the wrapped policy in all else."""
        if name == "_policy":  # not there yet, while this object is being copied
            raise AttributeError(name)
        return getattr(self._policy, name)

    def generate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Answer as far as the store goes, else ask; the answer is committed when this returns."""
        asked = Asked(self._answers, request, seeds, self._hash(request))
        if asked.missing:
            asked.keep(self._policy.generate(request, asked.missing)).wait()
        return asked.completions

    async def agenerate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Answer as ``generate`` does, without blocking."""
        asked = Asked(self._answers, request, seeds, self._hash(request))
        if asked.missing:
            await asked.keep(await self._policy.agenerate(request, asked.missing))
        return asked.completions

    def recall(self, request: Generate) -> list[Completion] | None:
        """Return how a request ended in an earlier process where calls failed, as ``Remembering`` says."""
        return Settled(self._answers, request, self._hash(request)).completions

    def settle(self, request: Generate, completions: Sequence[Completion]) -> None:
        """Note how a request ended."""
        Settled(self._answers, request, self._hash(request)).note(completions)
        del self._hashes[id(request)]

    def _hash(self, request: Generate) -> bytes:
        """Return a request's hash, which takes its time, and is needed three times until the request has ended."""
        if (known := self._hashes.get(id(request))) is None:
            known = self._hashes[id(request)] = request, request_hash(request)
        return known[1]


class ReplayReward(RewardModel):
    """A reward model for all queries of a run: what was scored before is not scored again.

    One object serves the whole run, so that the rewards of many loops are still merged. A pair belongs to every query
    under way that has its prompt; of one that belongs to none, nothing is kept.

    Args:
        reward: Scores what is new.
        under_way: The run's queries.
        task: ``score``, or another name for a second reward model of the same run, such as ``gold``.
    """

    def __init__(self, reward: RewardModel, under_way: UnderWay, *, task: str = "score") -> None:
        """Wrap a reward model."""
        self.reward = reward
        self.name = reward.name
        self.merges = reward.merges  # type: ignore[misc]  # as the reward would have it
        self.merges_up_to = reward.merges_up_to
        self._under_way, self._task = under_way, task

    def score_batch(self, pairs: Sequence[Pair]) -> Sequence[Reward]:
        """Answer as far as the store goes, else score; all is committed when this returns."""
        asked = Scored(self._under_way, self._task, pairs)
        asked.keep(self.reward.score_pairs(asked.missing) if asked.missing else ()).wait()
        return asked.rewards

    async def ascore_batch(self, pairs: Sequence[Pair]) -> Sequence[Reward]:
        """Answer as ``score_batch`` does, without blocking."""
        asked = Scored(self._under_way, self._task, pairs)
        await asked.keep(await self.reward.ascore_pairs(asked.missing) if asked.missing else ())
        return asked.rewards

    def check(self) -> None:
        """Check the reward model behind this."""
        self.reward.check()

    async def acheck(self) -> None:
        """Check the reward model behind this, without blocking."""
        await self.reward.acheck()

    @property
    def origin(self) -> RewardModel:
        """Return the reward model behind this."""
        return self.reward.origin

    def close(self) -> None:
        """Close the reward model."""
        self.reward.close()
