"""Whether a policy follows feedback well enough with a reward, and which plan pays: what ``tpo check`` says.

A few queries are run by ``probe``: three fresh samples, then twice a critique of the best against the worst with two
updates and one more fresh sample. Their evidence gives s, beta and delta (see ``loop.planner``); the planner's law then
says what best-of-N, the paper's plan and the adaptive plan are expected to reach for the tokens that the paper's D2-N5
takes. The verdict is best-of-N where updates add less than ``MARGIN`` to it even at the upper end of what they may be
worth, and the adaptive plan, which goes on learning, where that is open. Where they pay even at the lower end it is the
paper's plan or the adaptive one, whichever is expected to reach more; the law leaves out what planning anew gains.
All fresh samples are taken to have heavy tails: a dozen queries say too little to count on less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from tpo_core.config import TPOConfig
from tpo_core.config.experience import Cost, Evidence, Experience
from tpo_core.loop.estimates import Value, Z, interval, spread_of, value_of_updates
from tpo_core.loop.planner import Costs, Outlook, best_split, gain
from tpo_core.report.moments import Share
from tpo_core.studies.intervals import Estimate

__all__ = ["Check", "Estimate", "Verdict", "check", "probe"]

MARGIN = 0.1
"""Spreads of fresh samples by which updates must be ahead of best-of-N to be worth it."""
PARENT = 1.0
"""Where on the line of beta and delta the ends of their interval are taken: the best of three is about there."""
WIDTHS = (2, 3, 5, 8)
"""Widths of the paper's plan that are compared."""
FIRST_SHARE = 0.25
"""The share of its budget that the adaptive plan gives to the first samples."""
LOWEST = -4.0
"""No best of samples is expected below this, in spreads from their mean."""


@dataclass(frozen=True)
class Verdict:
    """Which plan to use."""

    plan: Literal["bon", "paper", "adaptive"]
    settings: Mapping[str, Any]
    """Fields of ``TPOConfig``; they cost about as many tokens as the paper's D2-N5."""
    reason: str


@dataclass(frozen=True)
class Check:
    """What a few queries show of a policy, its critic and editor, and a reward."""

    queries: int
    spread: Estimate | None
    """s, of fresh samples of one query, in the reward's units; None where the samples of each query were equal."""
    beta: Estimate
    """How much of its parent's advantage over the mean of fresh samples an update keeps."""
    delta: Estimate
    """What an update gains beside that, in units of s."""
    upside: float
    """By what the gain that a normal law promises of updates is multiplied; see ``Value.upside``."""
    critiques: int
    """Critiques that beta and delta rest on; with none they are what is assumed of any policy."""
    usable_updates: Estimate | None
    """The share of updates that became scored candidates; None where none was asked for."""
    usable_critiques: Estimate | None
    tokens: Mapping[str, float]
    """Prompt and completion tokens of one ``sample``, ``critique`` and ``update``; 0 where none are reported."""
    expected: Mapping[str, float]
    """The best reward that each plan is expected to reach, in units of s above the mean of fresh samples."""
    verdict: Verdict


def probe(experience: Experience, **settings: Any) -> TPOConfig:
    """Return the configuration of a checked query: 13 samples, of which 5 are fresh and 4 updates of two critiques.

    Args:
        experience: What the evidence is added to.
        **settings: Fields of ``TPOConfig`` that it does not set itself.
    """
    return TPOConfig(width=3, depth=2, fresh=1, experience=experience, **settings)


def check(evidence: Evidence, queries: int, *, prompt_price: float = 1.0, scoring: float = 0.0) -> Check:
    """Return what the evidence of probed queries says, and the verdict.

    Args:
        evidence: Of all probed queries.
        queries: How many they were.
        prompt_price: What a prompt token counts, where a completion token counts 1.
        scoring: Tokens that the reward takes for one response, as they count.
    """
    s = spread_of(evidence)
    value = value_of_updates(evidence, s or 1.0)
    plans = _Plans(evidence, value, prompt_price, scoring)
    return Check(
        queries,
        None if s is None else _spread(s, evidence.fresh_degrees),
        _normal(value.beta, value.beta_var),
        _normal(value.delta, value.delta_var),
        value.upside,
        evidence.critiques,
        _usable(evidence.update),
        _usable(evidence.critique),
        {name: _tokens(getattr(evidence, name)) for name in ("sample", "critique", "update")},
        {"bon": plans.bon(), "paper": plans.paper()[0], "adaptive": plans.adaptive()},
        _verdict(evidence, s, plans),
    )


def _verdict(evidence: Evidence, s: float | None, plans: _Plans) -> Verdict:
    if evidence.critique.asked and not evidence.critique.usable:
        return Verdict("bon", plans.settings("bon"), f"not one of {evidence.critique.asked} critiques could be used")
    if evidence.update.asked and not evidence.update.usable:
        return Verdict("bon", plans.settings("bon"), f"not one of {evidence.update.asked} updates could be used")
    if s is None or not evidence.critiques:
        return Verdict(
            "adaptive",
            plans.settings("adaptive"),
            "the reward tells too few samples apart to learn what updates are worth; this plan goes on where rewards "
            "are equal. Try harder prompts, or a finer reward",
        )
    lead = {z: plans.adaptive(z) - plans.bon() for z in (-Z, 0.0, Z)}
    if lead[Z] < MARGIN:
        most = f"they add {lead[Z]:+.2f} s to best-of-N for the same tokens"
        return Verdict("bon", plans.settings("bon"), f"updates do not pay: {most}, even at the intervals' upper end")
    if lead[-Z] < MARGIN:
        between = f"{lead[-Z]:+.2f} to {lead[Z]:+.2f} s"
        reason = f"updates may pay: {between} over best-of-N; this plan learns on, and is best-of-N where they do not"
        return Verdict("adaptive", plans.settings("adaptive"), reason)
    ahead = f"updates pay: {lead[0.0]:+.2f} s over best-of-N for the same tokens, {lead[-Z]:+.2f} s at least"
    if plans.paper()[0] > plans.adaptive():
        return Verdict("paper", plans.settings("paper"), f"{ahead}; the paper's plan is expected to reach most")
    return Verdict("adaptive", plans.settings("adaptive"), ahead)


class _Plans:
    """What each plan is expected to reach for the tokens of the paper's D2-N5, by the planner's law."""

    def __init__(self, evidence: Evidence, value: Value, prompt_price: float, scoring: float) -> None:
        self._value, self._price = value, prompt_price
        known = (evidence.sample, evidence.critique, evidence.update)
        self.in_tokens = all(cost.completion_tokens for cost in known if cost.asked)
        scored = scoring if self.in_tokens else 0.0
        each = [self._each(cost, calls) for cost, calls in zip(known, (1, 2, 1), strict=True)]
        each = [price or times * each[0] for price, times in zip(each, (1, 3, 2), strict=True)]  # none was asked for
        sample, critique, update = (
            price * max(1, cost.asked) / max(1, cost.usable) for price, cost in zip(each, known, strict=True)
        )
        self._costs = Costs(max(1.0, sample + scored), critique, update + scored)
        self.budget = 5 * (each[0] + scored) + 2 * (each[1] + 5 * (each[2] + scored))
        self.samples = max(2, int(self.budget / self._costs.sample))
        self.first = max(2, round(FIRST_SHARE * self.samples))

    def _each(self, cost: Cost, calls: int) -> float:
        """Return what one takes of the budget, usable or not."""
        if not self.in_tokens:
            return float(calls)
        return (cost.completion_tokens + self._price * cost.prompt_tokens) / max(1, cost.asked)

    def bon(self) -> float:
        """Return what best-of-N reaches, reckoned from the same first samples as the adaptive plan."""
        return self._after_first(self._value, critiques=False)

    def adaptive(self, z: float = 0.0) -> float:
        """Return what the adaptive plan reaches; where z is not 0, with updates worth z standard deviations more."""
        return self._after_first(self._shifted(z), critiques=True)

    def paper(self) -> tuple[float, int, int]:
        """Return what the best of the paper's plans reaches, its width and its depth."""
        return max(self._paper(width) for width in WIDTHS)

    def settings(self, plan: Literal["bon", "paper", "adaptive"]) -> dict[str, Any]:
        """Return the fields of ``TPOConfig`` that make a plan."""
        if plan == "bon":
            return {"mode": "bon", "width": self.samples}
        if plan == "paper":
            _, width, depth = self.paper()
            return {"width": width, "depth": depth}
        found: dict[str, Any] = {"plan": "adaptive", "width": self.first}
        found["max_tokens" if self.in_tokens else "max_calls"] = round(self.budget)
        return {**found, "prompt_price": self._price} if self.in_tokens and self._price != 1 else found

    def _paper(self, width: int) -> tuple[float, int, int]:
        round_ = self._costs.critique + width * self._costs.update
        depth = max(1, int((self.budget - width * self._costs.sample) / round_))
        best = self._best_of(width)
        for _ in range(depth):
            best += gain(Outlook(best, math.inf), self._value, 1, width, 0)
        return best, width, depth

    def _after_first(self, value: Value, *, critiques: bool) -> float:
        best = self._best_of(self.first)
        left = self.budget - self.first * self._costs.sample
        return best + best_split(Outlook(best, math.inf), value, self._costs, left, critiques=critiques).gain

    def _best_of(self, samples: int) -> float:
        return LOWEST + gain(Outlook(LOWEST, math.inf), self._value, 0, 0, samples)

    def _shifted(self, z: float) -> Value:
        if not z:
            return self._value
        delta = self._value.delta + z * self._value.sd(PARENT)
        return replace(self._value, delta=delta, beta_var=0.0, delta_var=0.0, covariance=0.0)


def _tokens(cost: Cost) -> float:
    return (cost.prompt_tokens + cost.completion_tokens) / max(1, cost.asked)


def _usable(cost: Cost) -> Estimate | None:
    found = Share.build(min(cost.usable, cost.asked), cost.asked)
    if found.share is None or found.low is None or found.high is None:
        return None
    return Estimate(found.share, found.low, found.high)


def _normal(mean: float, variance: float) -> Estimate:
    return Estimate(mean, *interval(mean, variance))


def _spread(s: float, degrees: int) -> Estimate:
    """Return s with the interval of a normal's standard deviation: chi-square by Wilson and Hilferty's formula."""
    part = 2 / (9 * degrees)
    below, above = ((max(0.0, 1 - part + sign * Z * math.sqrt(part))) ** 1.5 for sign in (1, -1))
    return Estimate(s, s / below, s / above if above else math.inf)
