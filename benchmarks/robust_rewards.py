"""Rewards that are harder to exploit, in simulation: what the answers are worth that each of them chooses.

    python benchmarks/robust_rewards.py [--queries 400]        prints the table of docs/special-tasks.md

A response has a true worth and, where it is an update, a bonus that is worth nothing (``tpo_core.studies.worlds``).
Three reward models see the worth with noise of their own, and none, one or all of them the bonus, too. The loop runs
with the first of them, or with all three joined, by the paper's D2-N5 and as best-of-15, and the table says what the
answer was worth, in spreads of fresh samples above their mean, with 95 % intervals over queries. A simulation shows the
mechanism; how much real reward models err alike is what it cannot say.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tpo_core import TPOConfig
from tpo_core.rewards import EnsembleReward, RewardModel
from tpo_core.studies.playing import play
from tpo_core.studies.worlds import WORLDS, WorldGold, WorldPolicy, world_mean
from tpo_core.values import Pair

LAW = next(world for world in WORLDS if world.name == "hackable reward")
"""Updates are worth less than their parent, and please more."""
NOISE = 0.7
PLANS = {"best-of-15": TPOConfig(mode="bon", width=15, seed=1), "paper, D2-N5": TPOConfig(width=5, depth=2, seed=1)}
FOOLED = {"none": (), "one": (0,), "all": (0, 1, 2)}
"""Which of the three see the bonus."""


@dataclass
class Member(RewardModel):
    """One reward model: the worth, noise that is the same whenever it sees a response, and perhaps the bonus."""

    number: int
    fooled: bool

    def __post_init__(self) -> None:
        self.name = f"reward {self.number}"

    def score_batch(self, pairs: Sequence[Pair]) -> list[float]:
        return [self._score(pair.response) for pair in pairs]

    def _score(self, response: str) -> float:
        worth, _, bonus = map(float, response.split())
        digest = hashlib.blake2b(f"{self.number} {response}".encode(), digest_size=8).digest()
        noise = random.Random(int.from_bytes(digest, "big")).gauss(0.0, NOISE)
        return worth + noise + self.fooled * bonus


def rewards(fooled: Sequence[int]) -> dict[str, RewardModel]:
    """Return the first reward model alone, and the three joined in each way, on one scale."""
    members = [Member(number, number in fooled) for number in range(3)]
    one: dict[str, RewardModel] = {"the first alone": members[0]}
    joined = {
        "mean": EnsembleReward(members, normalize=False),
        "mean less 1 sd": EnsembleReward(members, how="lcb", k=1.0, normalize=False),
        "minimum": EnsembleReward(members, how="min", normalize=False),
    }
    return {**one, **joined}


def worths(reward: RewardModel, config: TPOConfig, queries: int) -> list[float]:
    """Return what each query's answer was worth, above the mean of its fresh samples."""
    policy, gold, found = WorldPolicy(LAW), WorldGold(LAW), []
    for number in range(queries):
        query = f"query {number}"
        best = play(query, policy, reward, config).best
        found.append(gold.score(query, [best.response])[0] - world_mean(query))
    return found


def table(queries: int) -> str:
    """Return the table, in Markdown."""
    head = ["plan", "who sees the bonus", *rewards(())]
    lines = [head, ["---"] * len(head)]
    for plan, config in PLANS.items():
        for fooled, members in FOOLED.items() if config.rounds else [("nobody can", ())]:
            cells = [_shown(worths(reward, config, queries)) for reward in rewards(members).values()]
            lines.append([plan, fooled, *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _shown(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.2f} ± {1.96 * statistics.stdev(values) / len(values) ** 0.5:.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=400)
    print(table(parser.parse_args().queries))


if __name__ == "__main__":
    main()
