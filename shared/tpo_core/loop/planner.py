"""How to spend what is left of a budget on one query: the law of the adaptive plan. Pure functions.

A fresh sample has reward m + s t, with t of variance 1 and Student tails (``TAILS`` degrees of freedom). An update of a
parent with reward p has reward m + beta (p - m) + delta s + critique + child: the critique's part is shared by all
updates made from it, the child's is each one's own. All in units of s, the spread of fresh samples within a query.

A plan is c critiques with k updates each now, and all the rest on fresh samples: n of them. With G_k the probability
that none of one critique's k updates exceeds x, and F that of a fresh sample, the best gains

    V(c, k) = E_theta integral over x from the best to the ceiling of  1 - F(x)^n G_k(x)^c  dx

Theta is what is not known of beta and delta: it is common to all updates, so it is averaged over last. c = 0 is
best-of-N, and it is always one of the plans; what follows is no worse than that as far as the law holds. Rounds add up:
the same c and k may come again, each time from the best that is then expected, before the rest goes to fresh samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tpo_core.config.experience import Evidence

__all__ = ["Costs", "Outlook", "Split", "Value", "best_split", "gain", "query_spread", "spread_of", "value_of_updates"]

CRITIQUES = (1, 2, 4)
"""How many critiques one round may have."""
ROUNDS = 4
"""Most equal rounds that are looked ahead."""
SPAN = 8.0
"""How far above the best a reward is reckoned with."""
UPDATES = (1, 2, 3, 5)
"""How many updates of one critique one round may have."""
TAILS = 5
"""Degrees of freedom of fresh samples: heavier than a normal's, so that a lucky sample is not ruled out."""
PRIOR_WEIGHT = 4.0
"""How many observations the priors of the two spreads below count."""
NODES = (-2.856970013872806, -1.3556261799742659, 0.0, 1.3556261799742659, 2.856970013872806)
WEIGHTS = (0.01125741132772067, 0.2220759220056126, 0.5333333333333333, 0.2220759220056126, 0.01125741132772067)
"""Gauss's quadrature for a standard normal variable."""
TIE_WEIGHT = 6.0
"""How many samples all other queries count in the spread of one whose samples were all equal."""
CRITIQUE_SPREAD, CHILD_SPREAD = 0.4, 0.6
BETA, BETA_SD = 0.5, 0.25
"""A parent's advantage is halved, unless seen otherwise: half of it was luck."""
DELTA, DELTA_SD = 0.0, 0.35
"""An instruction is worth nothing, unless seen otherwise."""


@dataclass(frozen=True)
class Value:
    """What an update is worth, in units of s, as far as it is known."""

    beta: float = BETA
    delta: float = DELTA
    beta_var: float = BETA_SD**2
    delta_var: float = DELTA_SD**2
    covariance: float = 0.0
    critique_sd: float = CRITIQUE_SPREAD
    child_sd: float = CHILD_SPREAD

    def mean(self, x: float) -> float:
        """Return the expected reward of an update whose parent is ``x`` above the mean of fresh samples."""
        return self.beta * x + self.delta

    def sd(self, x: float) -> float:
        """Return how uncertain that expectation is."""
        return math.sqrt(max(0.0, self.beta_var * x * x + 2 * x * self.covariance + self.delta_var))


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


@dataclass(frozen=True)
class Split:
    """How to split a budget, and what that is expected to gain, in units of s."""

    critiques: int
    updates: int
    fresh: int
    gain: float

    def price(self, costs: Costs) -> float:
        """Return what the critiques and updates take of the budget."""
        return self.critiques * (costs.critique + self.updates * costs.update)


def spread_of(evidence: Evidence) -> float | None:
    """Return s, the spread of fresh samples within a query; None where all of them were equal."""
    if evidence.fresh_degrees <= 0 or evidence.fresh_squares <= 0:
        return None
    return math.sqrt(evidence.fresh_squares / evidence.fresh_degrees)


def query_spread(squares: float, degrees: int) -> float:
    """Return the spread of one query's fresh samples, in units of s: 1, and less the more of them were all equal.

    A small spread that is not zero says little: where tails are heavy most queries look narrow, until a lucky sample.

    Args:
        squares: Squared deviations of the query's fresh rewards from their mean.
        degrees: Their degrees of freedom.
    """
    return 1.0 if squares > 0 else math.sqrt(TIE_WEIGHT / (TIE_WEIGHT + degrees))


def value_of_updates(evidence: Evidence, s: float) -> Value:
    """Return what an update is worth by Bayesian linear regression of critiques' means on their parents.

    Args:
        evidence: Sums in the reward's units.
        s: The spread of fresh samples, in the same units.
    """
    count, weight = evidence.critiques, PRIOR_WEIGHT
    if count == 0:
        return Value()
    x, y = evidence.x / s, evidence.y / s
    xx, xy, yy = (v / s**2 for v in (evidence.xx, evidence.xy, evidence.yy))
    degrees, squares = evidence.child_degrees, evidence.child_squares / s**2
    child = (weight * CHILD_SPREAD**2 + squares) / (weight + degrees)
    share = evidence.child_shares / count  # of a child's variance in the mean of its critique's
    prior = noise = CRITIQUE_SPREAD**2 + child * share
    beta, delta, b, d, c = BETA, DELTA, BETA_SD**2, DELTA_SD**2, 0.0
    for _ in range(3):  # the noise and the line depend on each other
        p, q, r = 1 / BETA_SD**2 + xx / noise, 1 / DELTA_SD**2 + count / noise, x / noise
        determinant = p * q - r * r
        b, d, c = q / determinant, p / determinant, -r / determinant
        u, v = BETA / BETA_SD**2 + xy / noise, DELTA / DELTA_SD**2 + y / noise
        beta, delta = b * u + c * v, c * u + d * v
        left = yy - 2 * (beta * xy + delta * y) + beta**2 * xx + 2 * beta * delta * x + delta**2 * count
        noise = (weight * prior + max(0.0, left)) / (weight + count)
    critique = max(noise - child * share, 0.01)
    return Value(beta, delta, b, d, c, math.sqrt(critique), math.sqrt(child))


def best_split(outlook: Outlook, value: Value, costs: Costs, budget: float, *, critiques: bool = True) -> Split:
    """Return the first round of the best way to spend a budget, among all that it pays, fresh samples alone included.

    Args:
        outlook: Where the query stands.
        value: What an update is worth.
        costs: In the budget's units.
        budget: What is left.
        critiques: Whether there may be any; else fresh samples alone.
    """
    import numpy as np  # comes with dspy; loaded only where a plan is made

    law, fresh = _Law(outlook, value), int(max(0.0, budget) / costs.sample)
    best = Split(0, 0, fresh, gain(outlook, value, 0, 0, fresh))
    arms = [Split(c, k, 0, 0.0) for c in CRITIQUES for k in UPDATES] if critiques else []
    arms = [arm for arm in arms if arm.price(costs) <= budget]
    reached = np.full(len(arms), outlook.best)
    for rounds in range(1, ROUNDS + 1):
        left = [budget - rounds * arm.price(costs) for arm in arms]
        keep = [place for place, rest in enumerate(left) if rest >= 0]
        if not keep:
            break
        arms, left, reached = [arms[i] for i in keep], [left[i] for i in keep], reached[keep]
        c, k = np.array([arm.critiques for arm in arms]), np.array([arm.updates for arm in arms])
        n = np.array([int(rest / costs.sample) for rest in left])
        updated, with_fresh = law.gains(reached, c, k, n)
        gains = reached - outlook.best + with_fresh
        top = int(gains.argmax())
        if gains[top] > best.gain:
            best = Split(arms[top].critiques, arms[top].updates, int(n[top]), float(gains[top]))
        reached = reached + updated
    return best


def gain(outlook: Outlook, value: Value, critiques: int, updates: int, fresh: int, *, optimism: float = 0.0) -> float:
    """Return V: by how much the best is expected to gain from so many critiques, updates of each, and fresh samples.

    With ``optimism``, were updates worth this many standard deviations more than known.
    """
    import numpy as np

    one = (np.array([number]) for number in (critiques, updates, fresh))
    return float(_Law(outlook, value, optimism).gains(np.array([outlook.best]), *one)[1][0])


class _Law:
    """V for many plans at once, each from a best of its own."""

    def __init__(self, outlook: Outlook, value: Value, optimism: float = 0.0) -> None:
        """Take what is known of the query and of updates."""
        import numpy as np

        self._np, self._outlook, self._value, self._optimism = np, outlook, value, optimism
        self._steps = (np.arange(33) / 32) ** 2  # denser near the best
        self._scale = outlook.fresh_sd * math.sqrt((TAILS - 2) / TAILS)
        self._nodes, self._weights = np.array(NODES), np.array(WEIGHTS)

    def gains(self, best: Any, critiques: Any, updates: Any, fresh: Any) -> tuple[Any, Any]:
        """Return what each plan's updates gain, and V: the gain with its fresh samples.

        All arguments and results are arrays with one number per plan.
        """
        np = self._np
        steps = self._steps * np.clip(self._outlook.ceiling - best, 0.0, SPAN)[:, None]
        x, widths = best[:, None] + (steps[:, 1:] + steps[:, :-1]) / 2, np.diff(steps)
        no_update = self._no_update(x, best, critiques, updates) if critiques.any() else np.ones_like(x)
        below = no_update * _power(_student(x / self._scale, np), fresh[:, None], np)
        return ((1 - no_update) * widths).sum(axis=1), ((1 - below) * widths).sum(axis=1)

    def _no_update(self, x: Any, best: Any, critiques: Any, updates: Any) -> Any:
        """Return the probability that no update of a plan exceeds x: by plan and x."""
        np, value = self._np, self._value
        known = np.array([value.sd(b) for b in best])[:, None] * (self._nodes + self._optimism)
        shifts = (value.beta * best + value.delta)[:, None] + known  # (plan, theta)
        means = shifts[:, :, None] + value.critique_sd * self._nodes  # (plan, theta, critique)
        child = _normal((x[:, None, None, :] - means[..., None]) / value.child_sd, np)
        one = self._weights @ _power(child, updates[:, None, None, None], np)  # (plan, theta, x)
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
