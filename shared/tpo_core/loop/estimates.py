"""What a run's evidence says: s, the spread of fresh samples within a query, and beta and delta, the worth of updates.

An update of a parent with reward p is worth m + beta (p - m) + delta s, m being the mean of the query's fresh samples;
see ``planner``, whose law these numbers enter. The priors are sceptical: few critiques say little. Pure functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tpo_core.config.experience import Evidence

__all__ = [
    "TAILS",
    "Value",
    "Z",
    "heavy_share",
    "interval",
    "log_spread_error",
    "query_spread",
    "spread_of",
    "value_of_updates",
]

Z = 1.96
"""Standard deviations that a 95 % interval reaches to either side."""
TAILS = 5
"""Degrees of freedom of the heavy part of fresh samples: a lucky sample is not ruled out until many were seen."""
DEVIATION, HEAVY_DEVIATION = 0.7979, 0.7351
"""The mean absolute deviation of a normal variable and of Student's t with ``TAILS`` degrees, both of variance 1."""
TAILS_WEIGHT = 60.0
"""How many samples the prior counts by which all of them have heavy tails."""
PRIOR_WEIGHT = 4.0
"""How many observations the priors of the two spreads below count."""
TIE_WEIGHT = 6.0
"""How many samples all other queries count in the spread of one whose samples were all equal."""
UPSIDE_WEIGHT = 2.0
"""How many spreads of gain, promised and come true, the prior of ``Value.upside`` counts."""
UPSIDE_LEAST = 0.8
"""Only what is missing to this part of the promised gain is reckoned with: where a reward has a ceiling, the updates of
parents near it gain less than the law says, and those of other parents do not."""
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
    upside: float = 1.0
    """By what the gain of updates over their parents is multiplied: less than 1 where much less than this law promises
    came true, since bad updates are far worse than good ones are better, or most are copies."""

    def mean(self, x: float) -> float:
        """Return the expected reward of an update whose parent is ``x`` above the mean of fresh samples."""
        return self.beta * x + self.delta

    def sd(self, x: float) -> float:
        """Return how uncertain that expectation is."""
        return math.sqrt(max(0.0, self.beta_var * x * x + 2 * x * self.covariance + self.delta_var))


def interval(mean: float, variance: float) -> tuple[float, float]:
    """Return the ends of a normal's 95 % interval."""
    half = Z * math.sqrt(max(0.0, variance))
    return mean - half, mean + half


def spread_of(evidence: Evidence) -> float | None:
    """Return s, the spread of fresh samples within a query; None where all of them were equal."""
    if evidence.fresh_degrees <= 0 or evidence.fresh_squares <= 0:
        return None
    return math.sqrt(evidence.fresh_squares / evidence.fresh_degrees)


def heavy_share(evidence: Evidence) -> float:
    """Return the part of fresh samples that have heavy tails, where the others are normal: 1 where nothing was seen.

    It is the part with which the mean absolute deviation in units of s comes out as seen: a few far samples make s
    large, and most look near then.
    """
    s = spread_of(evidence)
    if s is None:
        return 1.0
    seen = TAILS_WEIGHT * HEAVY_DEVIATION + evidence.fresh_deviations / s
    short = DEVIATION - seen / (TAILS_WEIGHT + evidence.fresh_roots)
    return max(0.0, min(1.0, short / (DEVIATION - HEAVY_DEVIATION)))


def log_spread_error(evidence: Evidence) -> float:
    """Return the standard error of log s; 0 where all samples were equal.

    The variance of log s is (kurtosis - 1) / 4 / degrees, and the kurtosis of Student's t is 3 + 6 / (TAILS - 4).
    Without it a policy with a few narrow samples looks as if sampling had nothing more to gain.
    """
    degrees = evidence.fresh_degrees
    return 0.0 if spread_of(evidence) is None else math.sqrt((2 + 6 / (TAILS - 4)) / 4 / degrees)


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
    value = Value(beta, delta, b, d, c, math.sqrt(critique), math.sqrt(child))
    return replace(value, upside=_upside(evidence, value, s))


def _upside(evidence: Evidence, value: Value, s: float) -> float:
    """Return what updates gained over their parents as a part of what the law has the same critiques gain, shrunk to 1.

    It is given in units of ``UPSIDE_LEAST``, and at most 1.
    """
    x = evidence.x / s / evidence.critiques
    variance = max(0.0, evidence.xx / s**2 / evidence.critiques - x * x)
    mean = value.mean(x) - x
    sd = math.sqrt(value.critique_sd**2 + value.child_sd**2 + (1 - value.beta) ** 2 * variance)
    z = mean / sd
    promised = sd * math.exp(-z * z / 2) / math.sqrt(2 * math.pi) + mean * (1 + math.erf(z / math.sqrt(2))) / 2
    part = (UPSIDE_WEIGHT + evidence.gains / s) / (UPSIDE_WEIGHT + evidence.gains_of * promised)
    return min(1.0, part / UPSIDE_LEAST)
