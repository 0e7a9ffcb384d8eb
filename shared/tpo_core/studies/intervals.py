"""Means of paired queries with their 95 % bootstrap intervals; the same numbers give the same intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Estimate", "at_equal_length", "mean_of"]

DRAWS = 2000
"""Bootstrap samples."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def mean_of(values: Sequence[float]) -> Estimate:
    """Return the mean of one value a query, with its percentile interval over queries.

    Example:
        >>> mean_of([1.0, 1.0, 1.0])
        Estimate(value=1.0, low=1.0, high=1.0)
    """
    import numpy as np

    given = np.asarray(values, dtype=float)
    return _estimate(given.mean(), given[_drawn(len(given))].mean(axis=1))


def at_equal_length(differences: Sequence[float], log_ratios: Sequence[float]) -> Estimate:
    """Return the mean difference of two answers, were they equally long: the intercept of a line over the length.

    Args:
        differences: Reward of one answer less that of the other, a query each.
        log_ratios: Logarithm of the first answer's length by the other's.

    Example:
        >>> found = at_equal_length([0.5, 1.5, 2.5], [0.0, 1.0, 2.0])  # a reward that counts words
        >>> round(found.value, 9)
        0.5
    """
    import numpy as np

    y, x = np.asarray(differences, dtype=float), np.asarray(log_ratios, dtype=float)
    drawn = _drawn(len(y))
    return _estimate(_intercepts(x[None], y[None])[0], _intercepts(x[drawn], y[drawn]))


def _intercepts(x: Any, y: Any) -> Any:
    """Return each row's intercept; its mean where all lengths are alike."""
    mean_x, mean_y = x.mean(axis=1, keepdims=True), y.mean(axis=1, keepdims=True)
    spread = ((x - mean_x) ** 2).sum(axis=1)
    together = ((x - mean_x) * (y - mean_y)).sum(axis=1)
    alike = spread <= 1e-12
    slope = together / (spread + alike) * ~alike
    return mean_y[:, 0] - slope * mean_x[:, 0]


def _drawn(count: int) -> Any:
    import numpy as np

    return np.random.default_rng(0).integers(0, count, (DRAWS, count))


def _estimate(value: Any, draws: Any) -> Estimate:
    import numpy as np

    low, high = np.quantile(draws, (0.025, 0.975))
    return Estimate(float(value), float(low), float(high))
