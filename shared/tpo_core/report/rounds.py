"""Rewards round by round over many queries: how the best so far rises, and how far a round's rewards are spread."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tpo_core.report.entries import initial_best, rounds_of, scored
from tpo_core.report.moments import Mean, Moments, spread

if TYPE_CHECKING:
    from tpo_core.trajectory import Trajectory

__all__ = ["RoundSummary", "RoundTally"]

_CURVES = ("best", "sample", "update")


@dataclass(frozen=True)
class RoundSummary:
    """One round, over all queries. A loop that has ended counts in later rounds with the best that it ended with."""

    number: int
    """0 is before any update."""
    best: Mean
    """Reward of the best candidate so far."""
    best_sample: Mean
    """Reward of the best sample of the program so far."""
    best_update: Mean
    """Reward of the best update so far, where there is one."""
    best_gain: Mean
    """The same three, less the reward of each query's best first sample."""
    best_sample_gain: Mean
    best_update_gain: Mean
    samples_sd: Mean
    """Standard deviation of the round's samples within a query, where at least two were scored."""
    updates_sd: Mean
    """That of the round's updates."""


class RoundTally:
    """Adds up curves of any length in memory that grows with the number of rounds alone."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._running: defaultdict[tuple[int, str], Moments] = defaultdict(Moments)
        self._ended: defaultdict[tuple[int, str], Moments] = defaultdict(Moments)
        self._last = -1

    def add(self, trajectory: Trajectory) -> None:
        """Take one query that has a first best."""
        first = initial_best(trajectory)
        if first is None:
            return
        last = rounds_of(trajectory)
        self._last = max(self._last, last)
        for number, tops in enumerate(_tops(trajectory, last)):
            for name, top in tops.items():
                self._enter(self._running, number, name, top, first[1])
        for name, top in tops.items():
            self._enter(self._ended, last, name, top, first[1])
        for (number, kind), rewards in _by_round(trajectory).items():
            if len(rewards) > 1:
                self._running[number, f"{kind} sd"].add(spread(rewards))

    @staticmethod
    def _enter(tally: defaultdict[tuple[int, str], Moments], number: int, name: str, top: float, first: float) -> None:
        tally[number, name].add(top)
        tally[number, f"{name} gain"].add(top - first)

    def result(self) -> tuple[RoundSummary, ...]:
        """Return every round's means."""
        return tuple(self._round(number) for number in range(self._last + 1))

    def _round(self, number: int) -> RoundSummary:
        best, sample, update = (self._carried(number, name) for name in _CURVES)
        best_gain, sample_gain, update_gain = (self._carried(number, f"{name} gain") for name in _CURVES)
        samples_sd, updates_sd = (self._running[number, f"{kind} sd"].result() for kind in _CURVES[1:])
        return RoundSummary(
            number, best, sample, update, best_gain, sample_gain, update_gain, samples_sd, updates_sd
        )  # fmt: skip

    def _carried(self, number: int, name: str) -> Mean:
        moments = self._running[number, name]
        for earlier in range(number):
            moments = moments.merged(self._ended[earlier, name])
        return moments.result()


def _tops(trajectory: Trajectory, last: int) -> list[dict[str, float]]:
    """Return, round by round, the best rewards so far of all, of samples, and of updates."""
    by_round, tops, curve = _by_round(trajectory), dict[str, float](), list[dict[str, float]]()
    for number in range(last + 1):
        for kind in _CURVES[1:]:
            for reward in by_round.get((number, kind), ()):
                for name in ("best", kind):
                    tops[name] = max(tops.get(name, reward), reward)
        curve.append(dict(tops))
    return curve


def _by_round(trajectory: Trajectory) -> dict[tuple[int, str], list[float]]:
    rewards: defaultdict[tuple[int, str], list[float]] = defaultdict(list)
    for candidate, reward in scored(trajectory):
        rewards[candidate.step, "sample" if candidate.fresh else "update"].append(reward)
    return dict(rewards)
