"""Rewards of a study's answers by a reward model that no arm optimised: reported, never chosen by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from tpo_core.rewards.base import RewardModel
from tpo_core.studies.benchmarks.checkers import Verdict
from tpo_core.studies.benchmarks.scores import Scores, digest
from tpo_core.studies.scaling import Answer
from tpo_core.values import Pair

__all__ = ["held_out"]

BATCH = 256
"""Answers that go to the reward model together, and are kept together."""


def held_out(folder: Path, pairs: Mapping[Answer, Pair], gold: RewardModel, name: str) -> dict[Answer, float]:
    """Return the held-out reward of each answer that has one, and keep it beside the study's answers.

    Args:
        folder: The study's; rewards that it keeps already, by the same name, are not asked for again.
        pairs: What is scored, by query and response.
        gold: The held-out reward.
        name: What it is called on the command line.
    """
    scores = Scores(folder, "held-out", name)
    kept = {query: dict(before.parts) if (before := scores.get(query, "")) else {} for query, _ in pairs}
    left: Iterator[Answer] = ((query, text) for query, text in pairs if digest(text) not in kept[query])
    while batch := list(islice(left, BATCH)):
        rewards = zip(batch, gold.score_pairs([pairs[answer] for answer in batch]), strict=True)
        new = [(query, text, float(reward)) for (query, text), reward in rewards if math.isfinite(reward)]
        for query, text, reward in new:
            kept[query][digest(text)] = reward
        for query in dict.fromkeys(query for query, _, _ in new):
            scores.add(query, "", Verdict(None, kept[query]))
    found = {(query, text): kept[query].get(digest(text)) for query, text in pairs}
    return {answer: reward for answer, reward in found.items() if reward is not None}
