"""What one loop has shown so far, as evidence that adds up with other loops'."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tpo_core.config.experience import Cost, Evidence
from tpo_core.loop.ledger import Ledger
from tpo_core.values import Candidate, Step, Usage

__all__ = ["evidence_of", "fresh_mean", "learn", "shown"]


def learn(ledger: Ledger) -> None:
    """Add to the configuration's experience, where it has one, what this loop showed since it last did."""
    if ledger.config.experience is not None:
        now = evidence_of(ledger)
        if now.finite:
            ledger.config.experience.add(now - ledger.told)
            ledger.told = now


def evidence_of(ledger: Ledger) -> Evidence:
    """Return all that this loop has shown so far."""
    spent = ledger.usage + ledger.reward_usage
    return replace(
        shown(ledger.candidates, ledger.steps),
        sample=_cost(ledger, fresh=True),
        critique=_critiques(ledger),
        update=_cost(ledger, fresh=False),
        explored=ledger.explored,
        spent=ledger.priced(spent) if ledger.config.max_tokens is not None and spent.tokens else ledger.usage.calls,
    )


def shown(candidates: Sequence[Candidate], steps: Sequence[Step]) -> Evidence:
    """Return what candidates show of the spread of samples and of the worth of updates; of costs nothing.

    Of a critique's updates only those of its own round count: more are made where those were good, which would bias it.

    Args:
        candidates: Of one loop, all of them.
        steps: Of the same loop.
    """
    fresh = _rewards([c for c in candidates if c.fresh])
    if not fresh:
        return Evidence()
    n, mean = len(fresh), _mean(fresh)
    evidence = Evidence(
        fresh_squares=_squares(fresh),
        fresh_degrees=n - 1,
        fresh_deviations=sum(abs(reward - mean) for reward in fresh),
        fresh_roots=math.sqrt(n * (n - 1)),
    )
    for place, step in enumerate(steps):
        made = _rewards([c for c in candidates if c.critique == place and c.step == step.step])
        if made and step.chosen is not None and step.chosen.reward is not None:
            evidence += _of_critique(step.chosen.reward - mean, [reward - mean for reward in made])
    return evidence


def fresh_mean(ledger: Ledger) -> float:
    """Return the mean reward of the loop's fresh samples; of all candidates where none of those has a reward."""
    rewards = _rewards([c for c in ledger.candidates if c.fresh]) or _rewards(ledger.candidates)
    return _mean(rewards)


def _of_critique(x: float, ys: Sequence[float]) -> Evidence:
    """Return what the updates of one critique show: of a parent ``x`` above the mean of fresh samples."""
    y = _mean(ys)
    return Evidence(
        critiques=1,
        x=x,
        y=y,
        xx=x * x,
        xy=x * y,
        yy=y * y,
        child_shares=1 / len(ys),
        child_squares=_squares(ys),
        child_degrees=len(ys) - 1,
        gains=_mean([max(0.0, y - x) for y in ys]),
        gains_of=1,
    )


def _cost(ledger: Ledger, *, fresh: bool) -> Cost:
    usage = ledger.spent.get("sample" if fresh else "update", Usage())
    usable = sum(c.reward is not None for c in ledger.candidates if c.fresh is fresh)
    return Cost(usage.calls, usable, usage.prompt_tokens, usage.completion_tokens)


def _critiques(ledger: Ledger) -> Cost:
    usage = ledger.spent.get("loss", Usage()) + ledger.spent.get("gradient", Usage())
    tried = [step for step in ledger.steps if step.chosen is not None]
    return Cost(len(tried), sum(bool(s.gradient) for s in tried), usage.prompt_tokens, usage.completion_tokens)


def _rewards(candidates: Sequence[Candidate]) -> list[float]:
    return [c.reward for c in candidates if c.reward is not None]


def _mean(values: Sequence[float]) -> float:
    return sum(value / len(values) for value in values)


def _squares(values: Sequence[float]) -> float:
    """Return the sum of squared deviations from the mean."""
    mean = _mean(values) if values else 0.0
    return sum((value - mean) * (value - mean) for value in values)
