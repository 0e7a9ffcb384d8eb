"""What each setting of ``TPOConfig.fast()`` and ``critiques`` do to reward, waits and tokens, in worlds of a known law.

A wait is a request that a query makes after the one before has been answered. Rewards are the best of each query above
the mean of its fresh samples, in their spreads; differences to ``TPOConfig()`` with 95 % intervals over runs. "width 4"
is what is left of five answers a round where the last of them is not waited for; with two critiques a round it has
about as many answer tokens as D2-N5.

    python benchmarks/fast.py [--runs 12] [--queries 40]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from tpo_core import TPOConfig
from tpo_core.studies.playing import play
from tpo_core.studies.worlds import WORLDS, World, WorldPolicy, WorldReward, world_mean

ARMS: dict[str, dict[str, Any]] = {
    "D2-N5": {},
    "merged critique": {"merged_critique": True},
    "patience 1": {"patience": 1},
    "fast": {"merged_critique": True, "patience": 1},
    "width 4": {"width": 4},
    "critiques 2": {"critiques": 2},
    "critiques 2, width 4": {"critiques": 2, "width": 4},
}


@dataclass(frozen=True)
class Played:
    """One arm in one world."""

    rewards: Sequence[float]
    """The mean of each run."""
    waits: float
    tokens: float
    """Completion tokens a query."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--queries", type=int, default=40)
    args = parser.parse_args()
    print("| world |", " | ".join(ARMS), "| waits |", " | ".join(ARMS), "| tokens |", " | ".join(ARMS), "|")
    for world in WORLDS:
        arms = [played(world, settings, args.runs, args.queries) for settings in ARMS.values()]
        cells = [f"{fmean(arms[0].rewards):.3f}", *(ahead(arm, arms[0]) for arm in arms[1:]), ""]
        cells += [f"{arm.waits:.2f}" for arm in arms] + [""] + [f"{arm.tokens:.0f}" for arm in arms]
        print(f"| {world.name} |", " | ".join(cells), "|", flush=True)


def played(world: World, settings: dict[str, Any], runs: int, queries: int) -> Played:
    """Play all runs of an arm."""
    policy, reward = WorldPolicy(world), WorldReward(world)
    rewards, waits, tokens = [], [], []
    for run in range(runs):
        config, gained = TPOConfig(seed=run, **settings), []
        for number in range(queries):
            query = f"0 {run} {number}"
            trajectory = play(query, policy, reward, config)
            gained.append((trajectory.best.reward or 0.0) - world_mean(query))
            critiqued = len({step.step for step in trajectory.steps if step.chosen is not None})  # a round's at once
            waits.append(1 + (config.critique_calls + 1) * critiqued)
            tokens.append(trajectory.usage.completion_tokens)
        rewards.append(fmean(gained))
    return Played(rewards, fmean(waits), fmean(tokens))


def ahead(arm: Played, other: Played) -> str:
    """Return the mean difference with its interval; runs share their queries and first samples."""
    differences = [a - b for a, b in zip(arm.rewards, other.rewards, strict=True)]
    return f"{fmean(differences):+.3f} ± {1.96 * stdev(differences) / math.sqrt(len(differences)):.3f}"


if __name__ == "__main__":
    main()
