"""Scores a run's answers that have no score yet: by checks, by a judge of refusals, by a held-out reward."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from tpo_core.prompts.rendering import show_query
from tpo_core.report.entries import best, scored
from tpo_core.rewards.base import RewardModel
from tpo_core.runs.reader import Finished, RunReader
from tpo_core.studies.benchmarks.checkers import Verdict, checker
from tpo_core.studies.benchmarks.folder import Made
from tpo_core.studies.benchmarks.refusals import Asked, RefusalJudge
from tpo_core.studies.benchmarks.scores import Scores, answered
from tpo_core.trajectory import Trajectory
from tpo_core.values import Pair

__all__ = ["GOLD", "golds", "score_checks", "score_gold", "score_refusals"]

GOLD = "gold"
"""The scorer of a held-out reward; its parts are the candidates' rewards by their place."""
BATCH = 64
"""Queries whose candidates go to a held-out reward together."""


def score_checks(made: Made) -> None:
    """Score a run's answers by the benchmark's program; nothing where it has none.

    Raises:
        InvalidInputError: The program's package is not installed.
    """
    check = checker(made.benchmark.scored)
    if check is None:
        return
    scores = Scores(made.folder, made.benchmark.scored)
    with RunReader(made.folder) as reader:
        for each, response in answered(reader):
            before = scores.get(each.item.id, response)
            if before is None or before.left_out:  # a package or data may have come since
                scores.add(each.item.id, response, check(each.item.row["row"], response))


async def score_refusals(made: Made, judge: RefusalJudge) -> None:
    """Have a judge score a run's answers, where the benchmark is about refusals.

    Raises:
        ModelError: The judge cannot be found or reached; what it has judged is kept.
    """
    if made.benchmark.scored != "refusal":
        return
    scores = Scores(made.folder, "refusal", judge.name)
    with RunReader(made.folder) as reader:
        answers = [
            Asked(each.item.id, each.item.row["row"], show_query(each.item.prompt), response)
            for each, response in answered(reader)
        ]
    open_ = [each for each in answers if (found := scores.get(each.id, each.response)) is None or found.left_out]
    async for each, verdict in judge.judge(open_):
        scores.add(each.id, each.response, verdict)


def score_gold(made: Made, gold: RewardModel, name: str) -> None:
    """Score every candidate of a run by a reward that was not optimised.

    Args:
        made: The run.
        gold: The held-out reward.
        name: What it is called on the command line.
    """
    scores = Scores(made.folder, GOLD, name)
    with RunReader(made.folder) as reader:
        open_ = (each for each, response in answered(reader) if scores.get(each.item.id, response) is None)
        while batch := list(islice(open_, BATCH)):
            _score_batch(batch, gold, scores)


def _score_batch(batch: Sequence[Finished], gold: RewardModel, scores: Scores) -> None:
    kept = [[candidate for candidate, _ in scored(each.trajectory)] for each in batch]
    pairs = [
        Pair(candidate.answers(each.item.prompt), candidate.response, candidate.value, None, each.item.prompt)
        for each, candidates in zip(batch, kept, strict=True)
        for candidate in candidates
    ]
    rewards = iter(gold.score_pairs(pairs))
    for each, candidates in zip(batch, kept, strict=True):
        mine = list(islice(rewards, len(candidates)))
        values = {str(c.index): float(r) for c, r in zip(candidates, mine, strict=True) if math.isfinite(r)}
        found = best(each.trajectory)
        assert found is not None
        chosen = values.get(str(found[0].index))
        why = "" if chosen is not None else "the held-out reward has none for the answer"
        scores.add(each.item.id, found[0].response, Verdict(chosen, values, why))


def golds(reader: RunReader, scores: Scores) -> Iterator[tuple[Finished, Trajectory]]:
    """Yield a run's queries, with the held-out rewards in their trajectories where there are any."""
    for each in reader.finished():
        found = best(each.trajectory)
        verdict = None if found is None else scores.get(each.item.id, found[0].response)
        values = {} if verdict is None else {int(place): value for place, value in verdict.parts.items()}
        yield each, replace(each.trajectory, gold=values) if values else each.trajectory
