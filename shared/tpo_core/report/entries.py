"""What a run's page is made of: one entry a query, and plain questions to its trajectory.

Everything is read by attribute and leniently: a trajectory may come from JSON, and fields may be added to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tpo_core.masking import hide
from tpo_core.records import repr_without_texts
from tpo_core.values import Candidate, Step

if TYPE_CHECKING:
    from tpo_core.trajectory import Trajectory

__all__ = [
    "Entry",
    "Item",
    "Winner",
    "best",
    "finite",
    "initial_best",
    "label",
    "parent_of",
    "place_of",
    "rounds_of",
    "scored",
    "told_in",
    "winner",
]

Winner = Literal["first", "fresh", "update"]
"""Where the best answer came from: a first sample, a sample of a later round, or an update."""


@dataclass(frozen=True)
class Entry:
    """One query of a run.

    Example:
        >>> Entry.of(ValueError("no server")).error
        'ValueError: no server'
    """

    trajectory: Trajectory | None
    """What its loop did; None when nothing of it is left."""
    name: str = ""
    """What the user calls it, such as a batch line's ``custom_id``."""
    error: str = ""
    """Why the query has no answer; empty when it has one."""

    __repr__ = repr_without_texts("name", "error")

    @classmethod
    def of(cls, item: Item) -> Entry:
        """Make an entry of what ``run_many(..., return_exceptions=True)`` returns."""
        if isinstance(item, Entry):
            return item
        if isinstance(item, BaseException):
            return cls(getattr(item, "trajectory", None), error=f"{type(item).__name__}: {hide(str(item))}")
        return cls(item)


Item: TypeAlias = "Trajectory | BaseException | Entry"
"""What a run's page takes for a query: its trajectory, the exception that ended it, or either with a name."""


def finite(value: Any) -> float | None:
    """Return the number, or None where there is none or it is NaN or infinite."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def label(value: Any) -> str:
    """Return a word to count by, such as a reason, cut at the length of a word: files may hold anything in its place.

    Example:
        >>> label("depth"), len(label("x" * 1000))
        ('depth', 80)
    """
    text = str(value)
    return text if len(text) <= 80 else text[:79] + "…"


def scored(trajectory: Trajectory) -> Iterator[tuple[Candidate, float]]:
    """Yield the candidates that have a reward, with it."""
    for candidate in trajectory.candidates:
        reward = finite(candidate.reward)
        if reward is not None and candidate.failure is None:
            yield candidate, reward


def best(trajectory: Trajectory) -> tuple[Candidate, float] | None:
    """Return the best candidate, the earliest of equals, with its reward."""
    return max(scored(trajectory), key=lambda pair: pair[1], default=None)


def initial_best(trajectory: Trajectory) -> tuple[Candidate, float] | None:
    """Return the best candidate before any update, with its reward."""
    return max((pair for pair in scored(trajectory) if pair[0].step == 0), key=lambda pair: pair[1], default=None)


def winner(candidate: Candidate) -> Winner:
    """Return where a best answer came from."""
    if not candidate.fresh:
        return "update"
    return "first" if candidate.step == 0 else "fresh"


def rounds_of(trajectory: Trajectory) -> int:
    """Return the number of the last round."""
    return max([*(c.step for c in trajectory.candidates), *(s.step for s in trajectory.steps)], default=0)


def parent_of(candidate: Candidate, trajectory: Trajectory) -> int | None:
    """Return the place of the candidate that an update rewrites: the chosen of its critique, or of its round."""
    if candidate.fresh:
        return None
    critique = _critique_of(candidate, trajectory)
    if critique is None:
        critique = next((step for step in trajectory.steps if step.step == candidate.step), None)
    return None if critique is None else place_of(critique.chosen, trajectory)


def told_in(candidate: Candidate, trajectory: Trajectory) -> int | None:
    """Return the round whose instructions a later round's update follows again."""
    critique = _critique_of(candidate, trajectory)
    return None if critique is None or critique.step == candidate.step else critique.step


def _critique_of(candidate: Candidate, trajectory: Trajectory) -> Step | None:
    """Return the critique that a candidate says it was made from; a file may hold any number in its place."""
    place = candidate.critique
    return trajectory.steps[place] if place is not None and 0 <= place < len(trajectory.steps) else None


def place_of(candidate: Candidate | None, trajectory: Trajectory) -> int | None:
    """Return where a round's candidate stands among the trajectory's, or None when it is not there."""
    if candidate is None:
        return None
    all_of_them = trajectory.candidates
    if candidate.index < len(all_of_them) and all_of_them[candidate.index].response == candidate.response:
        return candidate.index
    return next((i for i, c in enumerate(all_of_them) if c.response == candidate.response), None)
