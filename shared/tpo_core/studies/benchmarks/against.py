"""How often a plan's answer beats the best of N samples, for every N up to what was sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tpo_core.report.moments import Mean, Moments

__all__ = ["Sample", "win_rates"]


class Sample(NamedTuple):
    """One sample of best-of-N."""

    reward: float
    """By which the best is chosen."""
    worth: float
    """By which it is compared: the same reward, or a held-out one."""


def win_rates(answers: Mapping[str, float], samples: Mapping[str, Sequence[Sample]], most: int) -> list[Mean]:
    """Return, for N = 1 to ``most``, the share of queries whose answer beats the best of N samples.

    A query's share is exact over all choices of N of its samples, so no order of them matters; a tie counts half.
    Queries with fewer samples than N are left out of that N. The interval is over queries.

    Args:
        answers: What each answer is worth, by query.
        samples: The samples of best-of-N, by query.
        most: The largest N.

    Example:
        >>> samples = {"a": [Sample(1.0, 1.0), Sample(3.0, 3.0)]}
        >>> [mean.mean for mean in win_rates({"a": 2.0}, samples, 2)]
        [0.5, 0.0]
    """
    moments = [Moments() for _ in range(most)]
    for query in answers.keys() & samples.keys():
        ranked = sorted(samples[query])
        wins = [_win(answers[query], sample.worth) for sample in ranked]
        for n in range(1, min(most, len(ranked)) + 1):
            moments[n - 1].add(sum(share * win for share, win in zip(_best_of(n, len(ranked)), wins, strict=True)))
    return [each.result() for each in moments]


def _best_of(n: int, of: int) -> list[float]:
    """Return how likely each of ``of`` ranked samples, the worst first, is the best of ``n`` drawn of them."""
    likely, left = [0.0] * of, 1.0
    for place in range(of - 1, n - 2, -1):  # the best, else the next: among place + 1 samples, n are drawn
        likely[place] = left * n / (place + 1)
        left -= likely[place]
    return likely


def _win(ours: float, theirs: float) -> float:
    return 1.0 if ours > theirs else 0.5 if ours == theirs else 0.0
