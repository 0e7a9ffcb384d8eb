"""Bad weather and crowds: what must be answered all the same."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import dspy
from by_hand import by_hand
from faults import PASSING, FaultyChat
from instant import Instant, scattered
from instant_lm import instant_lm
from langchain_core.output_parsers import StrOutputParser

from tpo_core import TPOConfig, Trajectory, arun, run
from tpo_core.rewards import FunctionReward
from tpo_core.testing import RubricReward, SimulatedPolicy
from tpo_dspy import TPO
from tpo_langchain import RunnableTPO

__all__ = ["crowd", "crowd_of_faces", "storm"]

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


def crowd_of_faces(seed: int, seen: Counter[str]) -> None:
    """Use one chain and one program from many threads and many tasks; each query keeps what is its own."""
    config = TPOConfig(width=2, depth=1)
    chain = RunnableTPO(
        Instant() | StrOutputParser(), reward=scattered, llm=Instant(), config=config, return_trajectory=True
    )
    program = TPO(dspy.Predict("question -> answer"), scattered, config=config)
    queries = [f"query {seed} {n}" for n in range(CROWD)]

    async def all_at_once() -> list[Trajectory]:
        chains = asyncio.gather(*(chain.ainvoke(query) for query in queries))
        programs = asyncio.gather(*(program.acall(question=query) for query in queries))
        return [*await chains, *(prediction.trajectory for prediction in await programs)]

    def in_thread(query: str) -> Trajectory:
        with dspy.context(lm=lm):
            return program(question=query).trajectory

    lm = instant_lm()
    with dspy.context(lm=lm):
        found = asyncio.run(all_at_once())
    with ThreadPoolExecutor(CROWD) as threads:
        found += [*threads.map(chain.invoke, queries), *threads.map(in_thread, queries)]
    for place, trajectory in enumerate(found):
        assert queries[place % CROWD] in str(trajectory.query), f"{trajectory.query!r} in place {place}"
        assert trajectory.best.reward is not None and len(trajectory.candidates) == 4, (
            f"place {place}: {trajectory.stop_reason}, {[c.response for c in trajectory.candidates]}"
        )
    seen["answers"] += len(found)
