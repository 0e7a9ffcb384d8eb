"""Rewards of a study's answers by a reward model that no arm optimised: reported, never chosen by."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from tpo_core.rewards.base import RewardModel
from tpo_core.studies.benchmarks.checkers import Verdict
from tpo_core.studies.benchmarks.scores import Scores
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
    found = {answer: value for answer in pairs if (value := _kept(scores, answer)) is not None}
    left: Iterator[Answer] = (answer for answer in pairs if answer not in found)
    while batch := list(islice(left, BATCH)):
        rewards = gold.score_pairs([pairs[answer] for answer in batch])
        new = {a: float(reward) for a, reward in zip(batch, rewards, strict=True) if math.isfinite(reward)}
        for query in dict.fromkeys(query for query, _ in new):
            before = scores.get(query, "")
            mine = {_place(answer): value for answer, value in new.items() if answer[0] == query}
            scores.add(query, "", Verdict(None, {**(before.parts if before else {}), **mine}))
        found |= new
    return found


def _kept(scores: Scores, answer: Answer) -> float | None:
    kept = scores.get(answer[0], "")
    return kept.parts.get(_place(answer)) if kept is not None else None


def _place(answer: Answer) -> str:
    return hashlib.blake2b(answer[1].encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
