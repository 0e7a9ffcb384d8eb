"""How to spend what is left of a budget on one query: the law of the adaptive plan. Pure functions.

A fresh sample has reward m + s t, with t of variance 1 and Student tails (``TAILS`` degrees of freedom). An update of a
parent with reward p has reward m + beta (p - m) + delta s + critique + child: the critique's part is shared by all
updates made from it, the child's is each one's own. All in units of s, the spread of fresh samples within a query.

A plan is c critiques with k updates each now, and all the rest on fresh samples: n of them. With G_k the probability
that none of one critique's k updates exceeds x, and F that of a fresh sample, the best gains

    V(c, k) = E_theta integral over x from the best to the ceiling of  1 - F(x)^n G_k(x)^c  dx

Theta is what is not known of beta and delta: it is common to all updates, so it is averaged over last. c = 0 is
best-of-N, and it is always one of the plans; what follows is no worse than that as far as the law holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tpo_core.experience import Evidence

__all__ = ["Costs", "Outlook", "Split", "Value", "best_split", "gain", "query_spread", "spread_of", "value_of_updates"]

CRITIQUES = 4
"""Most critiques in one round."""
UPDATES = 5
"""Most updates of one critique in one round."""
TAILS = 5
"""Degrees of freedom of fresh samples: heavier than a normal's, so that a lucky sample is not ruled out."""
PRIOR_WEIGHT = 4.0
"""How many observations the priors of the two spreads below count."""
QUERY_WEIGHT = 6.0
"""How many samples all other queries count in the spread of one."""
CRITIQUE_SPREAD, CHILD_SPREAD = 0.4, 0.6
BETA, BETA_SD = 0.5, 0.35
"""A parent's advantage is halved, unless seen otherwise: half of it was luck."""
DELTA, DELTA_SD = 0.0, 0.4
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
    mean_sd: float
    """How uncertain the mean of fresh samples is."""
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


def query_spread(squares: float, degrees: int, s: float) -> float:
    """Return the spread of one query's fresh samples, in units of s: its own, drawn towards the other queries'.

    Args:
        squares: Squared deviations of the query's fresh rewards from their mean.
        degrees: Their degrees of freedom.
        s: The spread in all queries.
    """
    return math.sqrt((QUERY_WEIGHT + squares / s**2) / (QUERY_WEIGHT + degrees))


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


def best_split(outlook: Outlook, value: Value, costs: Costs, budget: float, *, critiques: int = CRITIQUES) -> Split:
    """Return the best split of a budget among all critiques and updates that it pays, fresh samples alone included.

    Args:
        outlook: Where the query stands.
        value: What an update is worth.
        costs: In the budget's units.
        budget: What is left.
        critiques: Most critiques now; 0 for fresh samples alone.
    """
    law = _Law(outlook, value)
    best = law.split(0, 0, int(max(0.0, budget) / costs.sample))
    for some in range(1, critiques + 1):
        for updates in range(1, UPDATES + 1):
            rest = budget - some * (costs.critique + updates * costs.update)
            if rest >= 0:
                best = max(best, law.split(some, updates, int(rest / costs.sample)), key=lambda split: split.gain)
    return best


def gain(outlook: Outlook, value: Value, critiques: int, updates: int, fresh: int, *, optimism: float = 0.0) -> float:
    """Return V: by how much the best is expected to gain from so many critiques, updates of each, and fresh samples.

    With ``optimism``, were updates worth this many standard deviations more than known.
    """
    return _Law(outlook, value, optimism).split(critiques, updates, fresh).gain


class _Law:
    """The integrand of V on a grid, for one query at one moment."""

    def __init__(self, outlook: Outlook, value: Value, optimism: float = 0.0) -> None:
        """Lay the grid from the best upwards, denser near it."""
        import numpy as np  # comes with dspy; loaded only where a plan is made

        span = min(8.0, outlook.ceiling - outlook.best)
        steps = np.linspace(0.0, 1.0, 49) ** 2 * max(span, 0.0)
        self._widths = np.diff(steps)
        x = outlook.best + (steps[1:] + steps[:-1]) / 2
        scale = math.sqrt((outlook.fresh_sd**2 + outlook.mean_sd**2) * (TAILS - 2) / TAILS)
        self._fresh = _student(x / scale, np)
        nodes, weights = np.polynomial.hermite_e.hermegauss(7)
        known = value.mean(outlook.best) + value.sd(outlook.best) * (nodes + optimism)
        shifts = known[:, None, None] + value.critique_sd * nodes[None, :, None]
        self._below = _normal((x - shifts) / value.child_sd, np)
        self._weights = weights / weights.sum()

    def split(self, critiques: int, updates: int, fresh: int) -> Split:
        """Return a split with its gain."""
        below = self._fresh**fresh
        if critiques:
            one = self._weights @ self._below**updates  # (theta, x): no update of one critique exceeds x
            below = below * (self._weights @ one**critiques)
        return Split(critiques, updates, fresh, float(((1 - below) * self._widths).sum()))


def _student(t: Any, np: Any) -> Any:
    """Return Student's distribution function with 5 degrees of freedom."""
    u = 1 + t * t / 5
    return 0.5 + (t / math.sqrt(5) / u * (1 + 2 / (3 * u)) + np.arctan(t / math.sqrt(5))) / math.pi


def _normal(z: Any, np: Any) -> Any:
    """Return the normal distribution function, within 2e-4."""
    z = np.clip(z, -8.0, 8.0)
    return 1 / (1 + np.exp(-(1.5976 * z + 0.07056 * z**3)))
