"""Bad weather and crowds: what must be answered all the same."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from by_hand import by_hand
from faults import PASSING, FaultyChat

from tpo_core import TPOConfig, Trajectory, arun, run
from tpo_core.rewards import FunctionReward
from tpo_core.testing import RubricReward, SimulatedPolicy

__all__ = ["crowd", "storm"]

CROWD = 64
"""Threads, and tasks, that use one object."""


def storm(seed: int, seen: Counter[str]) -> None:
    """Answer a query by the paper's plan where 30 % of calls fail, 20 % of completions are odd, and n is refused."""
    chat = FaultyChat(random.Random(seed), 0.3, 0.2, "refused", PASSING)
    reward = FunctionReward(lambda prompt, response: float(sum(map(ord, response)) % 11))
    [result] = by_hand(random.Random(seed), ["How?"], chat, reward, TPOConfig())
    assert isinstance(result, Trajectory) and result.best_or_none is not None, f"ended with {result!r}"
    seen[result.stop_reason] += 1


def crowd(seed: int, seen: Counter[str]) -> None:
    """Use one policy and one reward from many threads, with event loops that come and go, and from many tasks."""
    policy, reward, config = SimulatedPolicy(seed=seed), RubricReward(), TPOConfig(width=3, depth=1, seed=seed)
    queries = [f"query {n}" for n in range(CROWD)]
    alone = [run(query, policy, reward, config).best.response for query in queries]

    async def all_at_once() -> list[Trajectory]:
        return list(await asyncio.gather(*(arun(query, policy, reward, config) for query in queries)))

    with ThreadPoolExecutor(CROWD) as threads:
        in_threads = threads.map(lambda query: run(query, policy, reward, config), queries)
        in_loops = threads.map(lambda query: asyncio.run(arun(query, policy, reward, config)), queries)
        found = [list(in_threads), list(in_loops), asyncio.run(all_at_once())]
    for trajectories in found:
        assert [t.best.response for t in trajectories] == alone, "another answer in a crowd than alone"
        seen["answers"] += len(trajectories)
