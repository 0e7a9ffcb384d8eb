"""What runs have learned of their policy, critic, editor and reward: how fresh samples spread, what updates are worth.

Everything is kept as sums, so that evidence adds up in any order and one query's is one addition. Rewards are in the
reward model's own units, measured from the mean of the query's fresh samples.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from math import isfinite
from operator import add, attrgetter, sub
from typing import Any, Literal

from tpo_core.errors import InvalidInputError
from tpo_core.records import plain, rebuilt
from tpo_core.threads import Mutex

__all__ = ["Cost", "Evidence", "Experience", "Kind"]

Kind = Literal["sample", "critique", "update"]
"""What tokens are spent on; a critique is the textual loss and the textual gradient together."""

_FORMAT = 1


@dataclass(frozen=True)
class Cost:
    """What was spent on one kind of request, and how much of it was of use. Adds up with ``+``."""

    asked: int = 0
    """Samples asked for; a critique counts once."""
    usable: int = 0
    """Those that became a scored candidate, or a critique to act on."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Sum field by field."""
        return Cost(*map(add, _of_cost(self), _of_cost(other)))

    def __sub__(self, other: Cost) -> Cost:
        """Return what is here beyond ``other``."""
        return Cost(*map(sub, _of_cost(self), _of_cost(other)))


_of_cost = attrgetter(*(f.name for f in fields(Cost)))


@dataclass(frozen=True)
class Evidence:
    """Sums over queries; adds up with ``+``.

    One observation of an update is a critique: ``x`` is its parent's reward and ``y`` the mean reward of the updates
    made from it, both less the mean of the query's fresh samples.
    """

    fresh_squares: float = 0.0
    """Squared deviations of fresh rewards from their query's mean."""
    fresh_degrees: int = 0
    """Fresh rewards less queries: the degrees of freedom of ``fresh_squares``."""
    fresh_deviations: float = 0.0
    """Absolute deviations of fresh rewards from their query's mean."""
    fresh_roots: float = 0.0
    """The sum over queries of sqrt(n (n - 1)), n being their fresh rewards: what ``fresh_deviations`` grow with."""
    critiques: int = 0
    """Critiques with at least one scored update: the count of ``x`` and ``y``."""
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    yy: float = 0.0
    child_shares: float = 0.0
    """The sum over critiques of 1 / their updates."""
    child_squares: float = 0.0
    """Squared deviations of updates from the mean of their critique's."""
    child_degrees: int = 0
    """Updates less critiques."""
    gains: float = 0.0
    """The sum over critiques of what one of its updates is above its parent on average, nothing where it is below."""
    gains_of: int = 0
    """How many critiques ``gains`` is of: all but those that were saved before it was kept."""
    sample: Cost = field(default_factory=Cost)
    critique: Cost = field(default_factory=Cost)
    update: Cost = field(default_factory=Cost)
    explored: float = 0.0
    """Tokens, as they count against the budget, that were spent only to learn."""
    spent: float = 0.0
    """Tokens, as they count against the budget, that were spent on anything."""

    def __add__(self, other: Evidence) -> Evidence:
        """Sum field by field."""
        return Evidence(*map(add, _sums(self), _sums(other)))

    def __sub__(self, other: Evidence) -> Evidence:
        """Return what is here beyond ``other``."""
        return Evidence(*map(sub, _sums(self), _sums(other)))

    @property
    def finite(self) -> bool:
        """Return whether all sums are finite; rewards near the largest float square to infinity."""
        return all(isfinite(value) for value in _sums(self) if not isinstance(value, Cost))


_sums = attrgetter(*(f.name for f in fields(Evidence)))


class Experience:
    """Evidence that grows while runs go on; share one among all runs of one policy, critic, editor and reward.

    ``TPOConfig(plan="adaptive", experience=...)`` reads it before each round and adds what the round showed. It may be
    used from several threads; copies of an object that holds it share it.

    Example:
        >>> experience = Experience()
        >>> experience.add(Evidence(fresh_squares=2.0, fresh_degrees=4))
        >>> Experience.from_json(experience.to_json()).evidence.fresh_degrees
        4
    """

    def __init__(self, evidence: Evidence | None = None) -> None:
        """Start from nothing, or from what earlier runs showed."""
        self._evidence = evidence or Evidence()
        self._lock = Mutex()

    @property
    def evidence(self) -> Evidence:
        """Return all evidence so far."""
        return self._evidence

    def add(self, evidence: Evidence) -> None:
        """Add evidence; what is not finite is left out."""
        if evidence.finite:
            with self._lock:
                self._evidence += evidence

    def to_json(self) -> str:
        """Return the evidence as JSON text."""
        return json.dumps({"format": _FORMAT, **plain(self._evidence)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Experience:
        """Read what ``to_json`` wrote.

        Raises:
            InvalidInputError: It is something else.
        """
        try:
            data = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInputError(f"text is not JSON: {error}") from error
        if not isinstance(data, dict) or data.pop("format", None) != _FORMAT:
            raise InvalidInputError("text is not what Experience.to_json writes")
        evidence = rebuilt(Evidence, data)
        counts = (evidence.fresh_degrees, evidence.fresh_roots, evidence.critiques, evidence.gains, evidence.gains_of)
        if not evidence.finite or any(n < 0 for n in counts):
            raise InvalidInputError("text holds numbers that no evidence has")
        return cls(evidence)

    def __repr__(self) -> str:
        """Show how much it rests on."""
        seen = self._evidence
        return f"Experience({seen.sample.usable} samples, {seen.critiques} critiques, {seen.update.usable} updates)"

    def __copy__(self) -> Experience:
        """Return itself: what is learned belongs to all who share it."""
        return self

    def __deepcopy__(self, memo: Any) -> Experience:
        """Return itself, likewise."""
        return self

    def __reduce__(self) -> Any:
        """Pickle the evidence."""
        return Experience, (self._evidence,)
