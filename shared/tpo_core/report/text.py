"""A run or a trajectory in plain lines, for a terminal, a log, or a reader without scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tpo_core.report.caveats import span
from tpo_core.report.entries import best, initial_best, winner
from tpo_core.report.summary import RunSummary

if TYPE_CHECKING:
    from tpo_core.trajectory import Trajectory

__all__ = ["summary_lines", "trajectory_line"]

_WINNERS = {"first": "a first sample", "fresh": "a later sample", "update": "an update"}


def summary_lines(run: RunSummary) -> list[str]:
    """Write a run's figures one a line, and below them what they cannot show.

    Example:
        >>> summary_lines(RunSummary())
        ['queries: 0']
    """
    return [f"{name}: {said}" for name, said in _figures(run) if said] + [f"note: {c}" for c in run.caveats]


def trajectory_line(trajectory: Trajectory) -> str:
    """Write one loop's outcome in a line.

    Example:
        >>> from tpo_core import Candidate, Trajectory
        >>> trajectory_line(Trajectory("q", (Candidate("a", reward=1.0), Candidate("b", reward=2.5, step=1))))
        '2 candidates: reward 1 to 2.5 (gain +1.5), the best is a later sample; 0 tokens; stopped by depth.'
    """
    found, first = best(trajectory), initial_best(trajectory)
    tokens = trajectory.usage.tokens + trajectory.reward_usage.tokens
    many = len(trajectory.candidates)
    text = f"{many} candidate{'' if many == 1 else 's'}: "
    if found is None:
        text += "none scored"
    elif first is None:
        text += f"reward {found[1]:.4g}"
    else:
        text += f"reward {first[1]:.4g} to {found[1]:.4g} (gain {found[1] - first[1]:+.3g}), "
        text += f"the best is {_WINNERS[winner(found[0])]}"
    return f"{text}; {tokens:,} tokens; stopped by {trajectory.stop_reason}."


def _figures(run: RunSummary) -> Iterator[tuple[str, str]]:
    yield "queries", f"{run.queries:,}" + (f", {run.answered:,} answered" if run.answered != run.queries else "")
    yield "errors", _counts(run.errors)
    if run.answered:
        yield "reward of the first best", span(run.first_best)
        yield "reward of the best", span(run.best)
        yield "gain", span(run.gain, sign=True)
        yield "gain by the held-out reward", "" if run.gold_gain.mean is None else span(run.gold_gain, sign=True)
        won = run.update_won
        yield "an update won", f"{won.share:.1%} (95 % interval {won.low:.1%} to {won.high:.1%})"
    yield "stopped by", _counts(run.stop_reasons)
    if run.candidates:
        yield "candidates", f"{run.candidates:,}"
    yield "failed candidates", _counts(run.failures)
    yield "failed rounds", _counts(run.rounds_failed)
    yield from _costs(run)


def _costs(run: RunSummary) -> Iterator[tuple[str, str]]:
    if not run.candidates:
        return
    used = run.usage
    text = f"{run.tokens:,} ({used.prompt_tokens:,} prompt, {used.completion_tokens:,} completion"
    yield "tokens", text + (f", {run.reward_usage.tokens:,} of the reward model)" if run.reward_usage.tokens else ")")
    yield "calls", f"{used.calls:,} in {used.requests:,} requests"
    if run.seconds.mean is not None:
        yield "seconds a query", f"{run.seconds.mean:.3g}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{word} {number:,}" for word, number in counts.items())
