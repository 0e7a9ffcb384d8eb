"""Whether what is measured again and again stays flat.

The law. The slope is Theil's and Sen's: the median of the slopes of all pairs of measurements (Theil 1950, Sen 1968),
which a few spikes do not move. Its 95 % interval is Sen's, from the order of those slopes, for measurements that do not
hang together. Memory does: it goes up and down in steps of an allocator, so that an interval that leaves out zero says
little by itself. A quantity *grows* where it grows by more than its noise even at the interval's lower end: where

    lower end of the slope x length of the measurement > max(noise, grain)

The noise is the distance from the 5th to the 95th percentile of what is left when the line is taken away; the grain is
the least growth that is worth a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Trend", "trend"]

MOST = 1500
"""Measurements of which all pairs are taken; of more, every second or third is."""


@dataclass(frozen=True)
class Trend:
    """How a quantity goes on. All but ``slope`` are in its own unit."""

    start: float
    """Where the line begins."""
    slope: float
    """A second."""
    growth: float
    """From the first measurement to the last, by the line."""
    low: float
    """Lower end of the growth's 95 % interval."""
    high: float
    noise: float
    grain: float

    @property
    def flat(self) -> bool:
        """Return whether it does not grow; see the law above."""
        return self.low <= max(self.noise, self.grain)

    def __str__(self) -> str:
        """Write the growth, its interval and its noise."""
        return f"{self.growth:+,.1f} ({self.low:+,.1f} to {self.high:+,.1f}; noise {self.noise:,.1f})"


def trend(at: Sequence[float], values: Sequence[float], grain: float = 0.0) -> Trend:
    """Return how a quantity goes on.

    Args:
        at: When it was measured, in seconds, ascending; at least three times.
        values: What was measured.
        grain: The least growth that counts.
    """
    import numpy as np

    every = -(-len(at) // MOST)
    t, y = np.asarray(at[::every], dtype=float), np.asarray(values[::every], dtype=float)
    first, second = np.triu_indices(len(t), k=1)
    slopes = np.sort((y[second] - y[first]) / (t[second] - t[first]))
    low, high = (slopes[place] for place in _ends(len(t), len(slopes)))
    slope, length = float(np.median(slopes)), float(t[-1] - t[0])
    start = float(np.median(y - slope * (t - t[0])))
    rest: Any = y - start - slope * (t - t[0])
    noise = float(np.subtract(*np.quantile(rest, (0.95, 0.05))))
    return Trend(start, slope, slope * length, float(low) * length, float(high) * length, noise, grain)


def _ends(count: int, pairs: int) -> tuple[int, int]:
    """Return the places of the interval's ends among the sorted slopes (Sen 1968, without ties)."""
    deviation = (count * (count - 1) * (2 * count + 5) / 18) ** 0.5
    below = int((pairs - 1.96 * deviation) / 2)
    return max(0, below), min(pairs - 1, pairs - 1 - below)
