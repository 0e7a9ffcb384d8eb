"""Means, shares and lines of streams, in one pass and bounded memory, each with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

__all__ = ["Line", "Mean", "Moments", "Share", "expected_maximum", "spread", "unbiased_sd"]

_Z = NormalDist().inv_cdf(0.975)
_SMALL_T = {1: 12.7062, 2: 4.3027}


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval (Student's t)."""

    n: int = 0
    """How many values."""
    mean: float | None = None
    """None without a value."""
    low: float | None = None
    """The interval's ends; None with fewer than two values."""
    high: float | None = None
    sd: float | None = None
    """The values' standard deviation; None with fewer than two."""


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval (Wilson's)."""

    count: int = 0
    of: int = 0
    share: float | None = None
    """None of nothing."""
    low: float | None = None
    high: float | None = None

    @classmethod
    def build(cls, count: int, of: int) -> Share:
        """Compute share and interval.

        Example:
            >>> half = Share.build(5, 10)
            >>> half.share, round(half.low, 3), round(half.high, 3)
            (0.5, 0.237, 0.763)
        """
        if of == 0:
            return cls(count, of)
        share, z2 = count / of, _Z * _Z
        middle = (share + z2 / (2 * of)) / (1 + z2 / of)
        half = _Z * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of)) / (1 + z2 / of)
        return cls(count, of, share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


@dataclass
class Moments:
    """Count, mean and sum of squares of a stream (Welford), which can be merged (Chan).

    Example:
        >>> moments = Moments()
        >>> for x in (1.0, 2.0, 3.0): moments.add(x)
        >>> moments.result().mean, round(moments.result().sd, 3)
        (2.0, 1.0)
    """

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of squared differences from the mean."""

    def add(self, value: float) -> None:
        """Take one more value."""
        self.n += 1
        delta = value - self.mean
        self.mean += delta / self.n
        self.squares += delta * (value - self.mean)

    def merged(self, other: Moments) -> Moments:
        """Return the moments of both streams together."""
        n = self.n + other.n
        if n == 0:
            return Moments()
        delta = other.mean - self.mean
        mean = self.mean + delta * other.n / n
        return Moments(n, mean, self.squares + other.squares + delta * delta * self.n * other.n / n)

    def result(self) -> Mean:
        """Return the mean with its interval."""
        if self.n == 0:
            return Mean()
        if self.n == 1:
            return Mean(1, self.mean)
        sd = math.sqrt(max(0.0, self.squares) / (self.n - 1))
        half = _student(self.n - 1) * sd / math.sqrt(self.n)
        return Mean(self.n, self.mean, self.mean - half, self.mean + half, sd)


@dataclass
class Line:
    """A least-squares line through a stream of points, in one pass: what is y where x is 0?

    Example:
        >>> line = Line()
        >>> for x in (0.0, 1.0, 2.0, 3.0): line.add(x, 5 + 2 * x)
        >>> round(line.intercept().mean, 9)
        5.0
    """

    n: int = 0
    mean_x: float = 0.0
    mean_y: float = 0.0
    xx: float = 0.0
    """Sums of squared differences and of their products."""
    xy: float = 0.0
    yy: float = 0.0

    def add(self, x: float, y: float) -> None:
        """Take one more point."""
        self.n += 1
        before_x, before_y = x - self.mean_x, y - self.mean_y
        self.mean_x += before_x / self.n
        self.mean_y += before_y / self.n
        self.xx += before_x * (x - self.mean_x)
        self.xy += before_x * (y - self.mean_y)
        self.yy += before_y * (y - self.mean_y)

    def intercept(self) -> Mean:
        """Return the line's y at 0 with its interval; no number where there are fewer than three points, or one x."""
        if self.n < 3 or self.xx <= 1e-12 * self.n:
            return Mean(self.n)
        slope = self.xy / self.xx
        found = self.mean_y - slope * self.mean_x
        noise = max(0.0, self.yy - slope * self.xy) / (self.n - 2)
        half = _student(self.n - 2) * math.sqrt(noise * (1 / self.n + self.mean_x**2 / self.xx))
        if not math.isfinite(found) or not math.isfinite(half):  # values near the largest float
            return Mean(self.n)
        return Mean(self.n, found, found - half, found + half)


def _student(freedom: int) -> float:
    """Return Student's t at 97.5 %, by the Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5)."""
    if freedom in _SMALL_T:
        return _SMALL_T[freedom]
    z, v = _Z, float(freedom)
    terms = (
        z,
        (z**3 + z) / 4 / v,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96 / v**2,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / v**3,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160 / v**4,
    )
    return sum(terms)


def spread(values: Sequence[float]) -> float:
    """Return a sample's standard deviation; needs two values."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (len(values) - 1))


def unbiased_sd(values: Sequence[float]) -> float:
    """Return the standard deviation, corrected for the bias of small normal samples (c4); needs two values."""
    n = len(values)
    return spread(values) / (math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2)))


@lru_cache(maxsize=4096)
def expected_maximum(n: int) -> float:
    """Return the expected maximum of ``n`` standard normal draws, by Simpson's rule.

    Example:
        >>> [round(expected_maximum(n), 3) for n in (1, 2, 5, 19)]
        [0.0, 0.564, 1.163, 1.844]
    """
    normal, low, steps = NormalDist(), -9.0, 600
    h = -2 * low / steps
    points = [low + i * h for i in range(steps + 1)]
    weights = [1 if i in (0, steps) else 4 if i % 2 else 2 for i in range(steps + 1)]
    inside = (x * n * normal.pdf(x) * normal.cdf(x) ** (n - 1) for x in points)
    return round(sum(w * y for w, y in zip(weights, inside, strict=True)) * h / 3, 12)
