"""Plans against each other at equal tokens, in worlds whose law is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from statistics import fmean, stdev
from typing import Any, Literal

from tpo_core.config import TPOConfig
from tpo_core.config.experience import Experience
from tpo_core.loop.effects import Task
from tpo_core.studies.playing import play
from tpo_core.studies.worlds import TOKENS, WORLDS, World, WorldGold, WorldPolicy, WorldReward, world_mean
from tpo_core.values import Usage

__all__ = ["ARMS", "Difference", "Played", "Requirement", "Row", "play_run", "requirements", "rows", "study_plans"]

PROMPT_PRICE = 0.2
ARMS = ("bon", "paper", "adaptive")
"""Best-of-N, the paper's D2-N5, and the adaptive plan, each for the tokens that D2-N5 takes."""
VARIED = 3
"""How many times the runs are played where rewards vary most: of few queries one lucky sample decides there."""
COLD = 20
"""The first queries of a run, in which little is known of the policy yet."""
BEHIND = 0.02
"""Spreads by which the adaptive plan may be behind best-of-N."""
AHEAD = 0.3
"""Spreads by which it must be ahead where the policy follows feedback."""


@dataclass(frozen=True)
class Played:
    """One arm's queries in one run of one world."""

    world: str
    arm: str
    run: int
    rewards: tuple[float, ...]
    """The best reward of each query above the mean of its fresh samples, in their spreads."""
    golds: tuple[float, ...]
    """What the best response was truly worth, likewise."""
    tokens: float
    """Tokens a query, as they count against the budget."""


@dataclass(frozen=True)
class Difference:
    """A mean with its 95 % interval over runs."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One world: each arm's mean, and what the adaptive plan is ahead of the two others."""

    world: str
    queries: int
    bon: float
    paper: float
    adaptive: float
    over_bon: Difference
    over_bon_cold: Difference
    """Of the first ``COLD`` queries of a run."""
    over_paper: Difference
    gold_over_bon: Difference
    """By the true worth, which is not optimised."""
    tokens: float


@dataclass(frozen=True)
class Requirement:
    """What the adaptive plan must be in one world."""

    name: str
    found: Difference
    least: float

    @property
    def verdict(self) -> Literal["met", "mean only", "not met"]:
        """Return whether the interval's lower end reaches ``least``, or the mean alone, or neither."""
        if self.found.low >= self.least:
            return "met"
        return "mean only" if self.found.mean >= self.least else "not met"


def requirements(row: Row) -> list[Requirement]:
    """Return what must be true of a world: no world may be lost, and one whose policy follows must be won."""
    least = AHEAD if row.world == "follows" else -BEHIND
    return [
        Requirement("over best-of-N", row.over_bon, least),
        Requirement(f"in the first {COLD} queries", row.over_bon_cold, least),
        Requirement("over the paper's plan", row.over_paper, 0.0),
    ]


def budget() -> int:
    """Return the tokens that the paper's D2-N5 takes for one query."""
    usage = {task: Usage(0, 0, *TOKENS[task]) for task in TOKENS}
    price = {task: u.completion_tokens + PROMPT_PRICE * u.prompt_tokens for task, u in usage.items()}
    counts: dict[Task, int] = {"sample": 5, "loss": 2, "gradient": 2, "update": 10}
    return round(sum(n * price[task] for task, n in counts.items()))


def study_plans(
    runs: int = 50, queries: int = 40, seed: int = 0, worlds: Sequence[World] = WORLDS, processes: int = 2
) -> Iterator[Row]:
    """Yield one row per world; the same arguments give the same numbers.

    Args:
        runs: Independent runs, each from a cold start; ``VARIED`` times as many with heavy tails or a noisy reward.
        queries: Queries of a run, one after the other.
        seed: Of the policies and the samples.
        worlds: Whose laws.
        processes: How many work side by side.
    """
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waiting = [pool.map(partial(play_run, world, queries, seed), range(_runs(world, runs))) for world in worlds]
        for arms in waiting:
            yield from rows(played for run in arms for played in run)


def _runs(world: World, runs: int) -> int:
    return VARIED * runs if world.heavy or world.noise else runs


def play_run(world: World, queries: int, seed: int, run: int) -> list[Played]:
    """Play one run of one world with each arm; the arms share their first samples."""
    tokens: dict[str, Any] = {"max_tokens": budget(), "prompt_price": PROMPT_PRICE}
    configs = {
        "bon": TPOConfig(mode="bon", plan="adaptive", seed=run, **tokens),
        "paper": TPOConfig(seed=run),
        "adaptive": TPOConfig(plan="adaptive", experience=Experience(), seed=run, **tokens),
    }
    return [_play(world, arm, configs[arm], queries, seed, run) for arm in ARMS]


def _play(world: World, arm: str, config: TPOConfig, queries: int, seed: int, run: int) -> Played:
    policy, reward, gold = WorldPolicy(world, seed), WorldReward(world), WorldGold(world)
    rewards, golds, usage = [], [], Usage()
    for number in range(queries):
        query = f"{seed} {run} {number}"
        trajectory = play(query, policy, reward, config)
        best, mean = trajectory.best, world_mean(query)
        rewards.append((best.reward or 0.0) - mean)
        golds.append(gold.score(query, [best.response])[0] - mean)
        usage += trajectory.usage
    tokens = (usage.completion_tokens + PROMPT_PRICE * usage.prompt_tokens) / queries
    return Played(world.name, arm, run, tuple(rewards), tuple(golds), tokens)


def rows(played: Iterable[Played]) -> list[Row]:
    """Return one row per world."""
    found: dict[str, dict[str, list[Played]]] = {}
    for each in played:
        found.setdefault(each.world, {arm: [] for arm in ARMS})[each.arm].append(each)
    return [_row(world, arms) for world, arms in found.items()]


def _row(world: str, arms: dict[str, list[Played]]) -> Row:
    bon, paper, adaptive = (sorted(arms[arm], key=lambda p: p.run) for arm in ARMS)
    mean = {arm: fmean(r for p in arms[arm] for r in p.rewards) for arm in ARMS}
    return Row(
        world,
        sum(len(p.rewards) for p in adaptive),
        mean["bon"],
        mean["paper"],
        mean["adaptive"],
        _ahead([p.rewards for p in adaptive], [p.rewards for p in bon]),
        _ahead([p.rewards[:COLD] for p in adaptive], [p.rewards[:COLD] for p in bon]),
        _ahead([p.rewards for p in adaptive], [p.rewards for p in paper]),
        _ahead([p.golds for p in adaptive], [p.golds for p in bon]),
        fmean(p.tokens for p in adaptive),
    )


def _ahead(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Difference:
    """Return the mean difference, with an interval over runs: queries of one run learn from each other."""
    means = [fmean(a - b for a, b in zip(x, y, strict=True)) for x, y in zip(ours, theirs, strict=True)]
    half = 1.96 * stdev(means) / math.sqrt(len(means)) if len(means) > 1 else math.inf
    return Difference(fmean(means), fmean(means) - half, fmean(means) + half)
