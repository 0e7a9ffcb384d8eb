"""A policy and a reward model that are somewhere else: in Ray actors."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

from tpo_core.loop.effects import Generate, Task
from tpo_core.rewards.base import RewardModel
from tpo_core.runs.ray.actors import RayActors
from tpo_core.values import Completion, Pair, Reward

__all__ = ["RayPolicy", "RayReward"]


class RayPolicy:
    """A policy whose calls are made in actors.

    Args:
        actors: Each holds a policy; ``agenerate`` is what is called.
        *args: Given to ``agenerate`` after the request and the seeds, where what the actors hold takes more.
    """

    fatal: tuple[type[Exception], ...] = ()

    def __init__(self, actors: RayActors, *args: Any) -> None:
        """Take what is known about ``n`` from them; what is learnt stays here."""
        self._actors, self._args = actors, args
        self.takes_n: MutableMapping[Task, bool] = dict(actors.attributes("takes_n")["takes_n"])

    def generate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Have an actor ask."""
        return list(self._actors.call("agenerate", request, tuple(seeds), *self._args))

    async def agenerate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Have an actor ask, without blocking."""
        return list(await self._actors.acall("agenerate", request, tuple(seeds), *self._args))


class RayReward(RewardModel):
    """A reward model in actors: a batch is shared out among them.

    Args:
        actors: Each holds the same reward model.
    """

    def __init__(self, actors: RayActors) -> None:
        """Be called as the reward model is called, and merge the requests of loops where it would."""
        self._actors = actors
        vars(self).update(actors.attributes("name", "merges", "merges_up_to"))
        self.merges_up_to *= actors.count

    def score_batch(self, pairs: Sequence[Pair]) -> list[Reward]:
        """Have actors score."""
        parts = self._parts(pairs)
        if len(parts) == 1:
            return list(self._score(parts[0]))
        with ThreadPoolExecutor(len(parts)) as threads:
            return [reward for rewards in threads.map(self._score, parts) for reward in rewards]

    async def ascore_batch(self, pairs: Sequence[Pair]) -> list[Reward]:
        """Have actors score, without blocking."""
        calls = (self._actors.acall("ascore_pairs", part) for part in self._parts(pairs))
        return [reward for rewards in await asyncio.gather(*calls) for reward in rewards]

    def check(self) -> None:
        """Have an actor check its reward model."""
        self._actors.call("acheck")

    async def acheck(self) -> None:
        """Have an actor check its reward model, without blocking."""
        await self._actors.acall("acheck")

    def _score(self, pairs: Sequence[Pair]) -> list[Reward]:
        return list(self._actors.call("ascore_pairs", pairs))

    def _parts(self, pairs: Sequence[Pair]) -> list[Sequence[Pair]]:
        """Cut a batch into parts that differ in length by one at most."""
        count = min(self._actors.count, len(pairs))
        bounds = [len(pairs) * part // count for part in range(count + 1)]
        return [tuple(pairs[start:end]) for start, end in pairwise(bounds)]
