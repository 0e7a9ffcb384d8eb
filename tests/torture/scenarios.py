"""What a scenario is: something that is tried many times, each time by a seed, and must never fail."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Report", "Scenario"]

SHOWN = 5
"""Failures that a report writes out."""


@dataclass
class Report:
    """What came of a scenario; two of the same add up."""

    name: str
    tried: int = 0
    failures: list[str] = field(default_factory=list)
    """Each with the seed that brings it back."""
    seconds: float = 0.0
    """Of processor time."""
    seen: Counter[str] = field(default_factory=Counter)
    """How often what happened: whoever reads it sees that what was to be tried was tried."""
    notes: list[str] = field(default_factory=list)
    """What else there is to say, a line each."""

    def __iadd__(self, other: Report) -> Report:
        """Take another part of the same scenario."""
        self.tried += other.tried
        self.failures += other.failures
        self.seconds += other.seconds
        self.seen += other.seen
        self.notes += other.notes
        return self

    def __str__(self) -> str:
        """Write one line of the table, and below it what was seen and what failed."""
        lines = [f"{self.name:<24} {self.tried:>9,} {len(self.failures):>8,} {self.seconds:>8.0f} s"]
        lines += ["    " + ", ".join(f"{what} {count:,}" for what, count in self.seen.most_common())] * bool(self.seen)
        return "\n".join([*lines, *(f"    {line}" for line in (*self.notes, *self.failures[:SHOWN]))])

    def row(self) -> str:
        """Write a row of Markdown."""
        seen = "; ".join([*(f"{what} {count:,}" for what, count in self.seen.most_common()), *self.notes])
        cells = (self.name, f"{self.tried:,}", f"{len(self.failures):,}", f"{self.seconds:.0f} s", seen)
        return f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Scenario:
    """Something to be tried by seeds.

    Args:
        attempt: Takes a seed, and where to count what happens; raises where something is wrong.
        short: How often the tests try it.
        full: How often ``make torture`` does.
    """

    attempt: Callable[[int, Counter[str]], object]
    short: int
    full: int

    def run(self, count: int, first: int = 0) -> Report:
        """Try it so often, by the seeds from ``first`` on; nothing that it raises ends the rest."""
        report, began = Report(""), time.process_time()
        for seed in range(first, first + count):
            try:
                self.attempt(seed, report.seen)
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
                report.failures.append(f"seed {seed}: {type(error).__name__} at {where}: {str(error)[:300]}")
            report.tried += 1
        report.seconds = time.process_time() - began
        return report
