"""How to spend what is left of a budget on one query: the law of the adaptive plan. Pure functions.

A fresh sample has reward m + s t, with t of variance 1: normal, or for a part of them Student's with ``TAILS`` degrees
of freedom. An update of a parent with reward p has reward m + beta (p - m) + delta s + critique + child: the critique's
part is shared by all updates made from it, the child's is each one's own. All in units of s, the spread of fresh
samples within a query.

A plan is c critiques with k updates each now, and all the rest on fresh samples: n of them. With G_k the probability
that none of one critique's k updates exceeds x, and F that of a fresh sample, the best gains

    V(c, k) = E_theta integral over x from the best to the ceiling of  1 - F(x)^n G_k(x)^c  dx

A normal law may promise more than comes true: bad updates may be far worse than good ones are better, or most be copies
of their parents. 1 - G_k is multiplied by ``Value.upside``, which is less than 1 where much less came true so far.

Theta is what is not known of beta and delta: it is common to all updates, so it is averaged over last. c = 0 is
best-of-N, and it is always one of the plans; what follows is no worse than that as far as the law holds. Rounds add up:
the same c and k may come again, each time from the best that is then expected, before the rest goes to fresh samples.

Instructions that did well may be followed again, by k more updates of the same parent: there is no critique to pay, and
what they are worth is known from the updates so far. That round, too, may be followed by rounds of one new critique.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from tpo_core.loop.estimates import TAILS, Value

__all__ = ["Again", "Costs", "Outlook", "Split", "best_split", "gain"]

CRITIQUES = (1, 2, 4)
"""How many critiques one round may have."""
ROUNDS = 4
"""Most equal rounds that are looked ahead."""
SPAN = 8.0
"""How far above the best a reward is reckoned with."""
UPDATES = (1, 2, 3, 5)
"""How many updates of one critique one round may have."""
NODES = (-2.856970013872806, -1.3556261799742659, 0.0, 1.3556261799742659, 2.856970013872806)
WEIGHTS = (0.01125741132772067, 0.2220759220056126, 0.5333333333333333, 0.2220759220056126, 0.01125741132772067)
"""Gauss's quadrature for a standard normal variable."""


@dataclass(frozen=True)
class Costs:
    """What one usable sample, critique and update take of the budget."""

    sample: float
    critique: float
    update: float


@dataclass(frozen=True)
class Outlook:
    """Where a query stands, in units of s from the mean of its fresh samples."""

    best: float
    """The best reward so far; updates rewrite its response."""
    ceiling: float
    """A reward that need not be exceeded; infinite where none is known."""
    fresh_sd: float = 1.0
    """The spread of this query's own fresh samples."""
    log_sd: float = 0.0
    """The standard error of log s; an error in s is common to all fresh samples, so it is averaged over last."""
    heavy: float = 1.0
    """The part of fresh samples that have heavy tails; the others are normal."""


@dataclass(frozen=True)
class Again:
    """What further updates by the instructions of an earlier critique are worth, in units of s."""

    mean: float
    """Their expected reward, above the mean of fresh samples."""
    sd: float
    """How uncertain that is; they differ by ``Value.child_sd`` beside it."""


@dataclass(frozen=True)
class Split:
    """How to split a budget, and what that is expected to gain, in units of s."""

    critiques: int
    updates: int
    fresh: int = 0
    gain: float = 0.0
    again: bool = False
    """Whether the updates follow the instructions of an earlier critique, so that there is none to pay."""

    def price(self, costs: Costs) -> float:
        """Return what the critiques and updates take of the budget."""
        return self.critiques * ((0 if self.again else costs.critique) + self.updates * costs.update)


@dataclass(frozen=True)
class _Path:
    """A first round, the equal ones that may follow, what all of those may cost, and the best that they start from."""

    first: Split
    then: Split
    budget: float
    best: float


def best_split(
    outlook: Outlook, value: Value, costs: Costs, budget: float, *, critiques: bool = True, again: Again | None = None
) -> Split:
    """Return the first round of the best way to spend a budget, among all that it pays, fresh samples alone included.

    Args:
        outlook: Where the query stands.
        value: What an update is worth.
        costs: In the budget's units.
        budget: What is left.
        critiques: Whether there may be any; else fresh samples alone.
        again: The most promising of the critiques so far, where there are any.
    """
    import numpy as np  # comes with dspy; loaded only where a plan is made

    law, fresh = _Law(outlook, value), int(max(0.0, budget) / costs.sample)
    best = Split(0, 0, fresh, gain(outlook, value, 0, 0, fresh))
    arms = [Split(c, k) for c in CRITIQUES for k in UPDATES] if critiques else []
    paths = [_Path(arm, arm, budget, outlook.best) for arm in arms]
    for head in (Split(1, k, again=True) for k in UPDATES if critiques and again is not None):
        if (rest := budget - head.price(costs)) >= 0:
            fresh, one = int(rest / costs.sample), np.ones(1, int)
            updated, with_fresh = law.gains(outlook.best * one, one, head.updates * one, fresh * one, again)
            best = max(best, replace(head, fresh=fresh, gain=float(with_fresh[0])), key=attrgetter("gain"))
            reached = outlook.best + float(updated[0])
            paths += [_Path(head, arm, rest, reached) for arm in arms if arm.critiques == 1]
    bests = np.array([path.best for path in paths])
    for rounds in range(1, ROUNDS + 1):
        left = [path.budget - rounds * path.then.price(costs) for path in paths]
        keep = [place for place, rest in enumerate(left) if rest >= 0]
        if not keep:
            break
        paths, left, bests = [paths[i] for i in keep], [left[i] for i in keep], bests[keep]
        c, k = np.array([path.then.critiques for path in paths]), np.array([path.then.updates for path in paths])
        n = np.array([int(rest / costs.sample) for rest in left])
        updated, with_fresh = law.gains(bests, c, k, n)
        gains = bests - outlook.best + with_fresh
        top = int(gains.argmax())
        if gains[top] > best.gain:
            best = replace(paths[top].first, fresh=int(n[top]), gain=float(gains[top]))
        bests = bests + updated
    return best


def gain(outlook: Outlook, value: Value, critiques: int, updates: int, fresh: int, *, optimism: float = 0.0) -> float:
    """Return V: by how much the best is expected to gain from so many critiques, updates of each, and fresh samples.

    With ``optimism``, were updates worth this many standard deviations more than known.
    """
    import numpy as np

    one, law = np.ones(1, int), _Law(outlook, value, optimism)
    return float(law.gains(outlook.best * one, critiques * one, updates * one, fresh * one)[1][0])


class _Law:
    """V for many plans at once, each from a best of its own."""

    def __init__(self, outlook: Outlook, value: Value, optimism: float = 0.0) -> None:
        """Take what is known of the query and of updates."""
        import numpy as np

        self._np, self._outlook, self._value, self._optimism = np, outlook, value, optimism
        self._steps = (np.arange(33) / 32) ** 2  # denser near the best
        self._nodes, self._weights = np.array(NODES), np.array(WEIGHTS)
        scales = outlook.fresh_sd * np.exp(outlook.log_sd * self._nodes + outlook.log_sd**2)  # few look narrower
        self._scales = scales[:, None, None]

    def gains(self, best: Any, critiques: Any, updates: Any, fresh: Any, again: Again | None = None) -> tuple[Any, Any]:
        """Return what each plan's updates gain, and V: the gain with its fresh samples.

        All arguments and results are arrays with one number per plan; with ``again`` no critique is a new one.
        """
        np = self._np
        steps = self._steps * np.clip(self._outlook.ceiling - best, 0.0, SPAN)[:, None]
        x, widths = best[:, None] + (steps[:, 1:] + steps[:, :-1]) / 2, np.diff(steps)
        no_update = self._no_update(x, best, critiques, updates, again) if critiques.any() else np.ones_like(x)
        t, heavy = x / self._scales, self._outlook.heavy
        fresh_below = heavy * _student(t / math.sqrt((TAILS - 2) / TAILS), np) + (1 - heavy) * _normal(t, np)
        below = no_update * np.tensordot(self._weights, _power(fresh_below, fresh[:, None], np), 1)
        return ((1 - no_update) * widths).sum(axis=1), ((1 - below) * widths).sum(axis=1)

    def _no_update(self, x: Any, best: Any, critiques: Any, updates: Any, again: Again | None) -> Any:
        """Return the probability that no update of a plan exceeds x: by plan and x."""
        np, value = self._np, self._value
        if again is None:
            known = np.array([value.sd(b) for b in best])[:, None] * (self._nodes + self._optimism)
            shifts = (value.beta * best + value.delta)[:, None] + known  # (plan, theta)
        else:
            shifts = np.full((len(best), len(self._nodes)), again.mean)
        critique_sd = value.critique_sd if again is None else again.sd
        means = shifts[:, :, None] + critique_sd * self._nodes  # (plan, theta, critique)
        child = _normal((x[:, None, None, :] - means[..., None]) / value.child_sd, np)
        one = self._weights @ _power(child, updates[:, None, None, None], np)  # (plan, theta, x)
        one = 1 - value.upside * (1 - one)  # none of one critique's updates exceeds x
        return self._weights @ _power(one, critiques[:, None, None], np)


def _power(base: Any, exponent: Any, np: Any) -> Any:
    """Return base ** exponent by squaring: for small whole exponents many times as fast."""
    power = np.ones_like(base)
    while exponent.any():
        power = np.where(exponent & 1, power * base, power)
        base, exponent = base * base, exponent >> 1
    return power


def _student(t: Any, np: Any) -> Any:
    """Return Student's distribution function with 5 degrees of freedom."""
    u = 1 + t * t / 5
    return 0.5 + (t / math.sqrt(5) / u * (1 + 2 / (3 * u)) + np.arctan(t / math.sqrt(5))) / math.pi


def _normal(z: Any, np: Any) -> Any:
    """Return the normal distribution function, within 2e-4."""
    z = np.clip(z, -8.0, 8.0)
    return 1 / (1 + np.exp(-z * (1.5976 + 0.07056 * z * z)))
