"""Histograms of streams, in one pass and bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

__all__ = ["Histogram", "HistogramTally"]

_FINEST = -9


@dataclass(frozen=True)
class Histogram:
    """Counts of equally wide bins that reach to 0 or over it, with the values that are exactly 0 apart."""

    zero: int = 0
    """How many values are exactly 0."""
    start: float = 0.0
    """Where the first bin begins; a multiple of ``width``."""
    width: float = 1.0
    """1, 2 or 5 times a power of ten."""
    counts: tuple[int, ...] = ()
    below: int = 0
    """Values under the first bin, in the outer half per cent, where a long tail would flatten all else."""
    above: int = 0


class HistogramTally:
    """Counts a stream in bins of 10^k, at most ``most`` of them, so that they merge into 1, 2 or 5 times 10^k.

    Example:
        >>> tally = HistogramTally()
        >>> for x in (0, 0, 0.1, 0.15, 0.3): tally.add(x)
        >>> tally.result(bins=5)
        Histogram(zero=2, start=0.0, width=0.1, counts=(0, 2, 0, 1), below=0, above=0)
    """

    def __init__(self, most: int = 2000) -> None:
        """Begin with bins a billionth wide."""
        self._most, self._power, self._zero = most, _FINEST, 0
        self._bins: Counter[int] = Counter()

    def add(self, value: float) -> None:
        """Take one more finite value."""
        if value == 0:
            self._zero += 1
            return
        self._bins[_key(value) // 10 ** (self._power - _FINEST)] += 1
        while len(self._bins) > self._most:
            self._power += 1
            self._bins = _merge(self._bins, 10)

    def result(self, bins: int = 30) -> Histogram:
        """Return at most ``bins`` bins of a readable width."""
        if not self._bins:
            return Histogram(self._zero)
        first, last = self._ends()
        factors = (m * 10**k for k in count() for m in (1, 2, 5))
        factor = next(f for f in factors if last // f - first // f < bins)
        merged, start, stop = _merge(self._bins, factor), first // factor, last // factor
        return Histogram(
            zero=self._zero,
            start=_exact(start * factor, self._power),
            width=_exact(factor, self._power),
            counts=tuple(merged[key] for key in range(start, stop + 1)),
            below=sum(n for key, n in merged.items() if key < start),
            above=sum(n for key, n in merged.items() if key > stop),
        )

    def _ends(self) -> tuple[int, int]:
        """Return the bins between which 0 and all but the outer half per cent of each side lie."""
        keys, spare = sorted(self._bins), sum(self._bins.values()) // 200
        return min(0, _reach(keys, self._bins, spare)), max(-1, _reach(keys[::-1], self._bins, spare))


def _merge(bins: Counter[int], factor: int) -> Counter[int]:
    coarse: Counter[int] = Counter()
    for key, n in bins.items():
        coarse[key // factor] += n
    return coarse


def _reach(keys: Sequence[int], bins: Counter[int], spare: int) -> int:
    for key in keys:
        if spare < bins[key]:
            return key
        spare -= bins[key]
    return keys[-1]


def _key(value: float) -> int:
    """Return the value in billionths, rounded so that 0.3 is the start of a bin and not the end of one."""
    return round(value * 1e9) if abs(value) < 1e15 else int(value) * 10**9


def _exact(number: int, power: int) -> float:
    return float(f"{number}e{power}")
