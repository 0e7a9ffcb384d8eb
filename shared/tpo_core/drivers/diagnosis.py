"""What the updates of many loops failed by, said once, in the numbers of ``tpo check``."""

from __future__ import annotations

from tpo_core.config.experience import Evidence
from tpo_core.loop.estimates import interval, spread_of, value_of_updates
from tpo_core.loop.learning import shown
from tpo_core.trajectory import Trajectory
from tpo_core.values import FailureReason

__all__ = ["Diagnosis"]

FEW = 4
"""Critiques below which their regression is left unsaid: it would be the prior's."""
_NOT_THE_POLICY_S: tuple[FailureReason, ...] = ("deadline", "error", "missing", "unscored")


class Diagnosis:
    """Adds up trajectories; ``text`` says what most of them have in common, if they do."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.queries = 0
        self._counts = {True: 0, False: 0}
        """How often the policy was called weak, and how often anything else was said."""
        self._said = {True: "", False: ""}
        """The first of either."""
        self._last: Trajectory | None = None
        """Not in the sums yet: what one query alone shows is never said."""
        self._evidence = Evidence()
        self._usable = self._made = 0

    def add(self, result: Trajectory | Exception | None) -> None:
        """Take one more query that has ended."""
        self.queries += 1
        if not isinstance(result, Trajectory):
            return
        if diagnosis := result.diagnosis:
            weak = result.weak_policy
            self._counts[weak] += 1
            self._said[weak] = self._said[weak] or diagnosis
        self._sum_up()
        self._last = result

    def _sum_up(self) -> None:
        if (result := self._last) is None:
            return
        self._last = None
        if (evidence := shown(result.candidates, result.steps)).finite:
            self._evidence += evidence
        made = [c for c in result.candidates if not c.fresh]
        self._usable += sum(c.reward is not None for c in made)
        self._made += sum(c.failure is None or c.failure.reason not in _NOT_THE_POLICY_S for c in made)

    @property
    def text(self) -> str:
        """Return a sentence where the updates of most queries came to nothing, else no text."""
        if sum(self._counts.values()) <= self.queries / 2:
            return ""
        weak = self._counts[True] >= self._counts[False]
        if self.queries == 1:
            return self._said[weak]
        numbers = self._numbers() if weak else ""
        return f"{self._counts[weak]} of {self.queries} queries: {self._said[weak]}{numbers}"

    def _numbers(self) -> str:
        from tpo_core.report.moments import Share  # brings all of the reports, and most queries need none

        self._sum_up()
        s = spread_of(self._evidence)
        if s is None or self._evidence.critiques < FEW:
            return ""
        value, usable = value_of_updates(self._evidence, s), Share.build(min(self._usable, self._made), self._made)
        return (
            f". Over all queries an update keeps beta {_span(value.beta, value.beta_var)} of its parent's advantage "
            f"and gains delta {_span(value.delta, value.delta_var)} s, the spread of samples ({s:.3g}); "
            f"{usable.share:.0%} of updates could be used. tpo check says which plan pays"
        )


def _span(mean: float, variance: float) -> str:
    low, high = interval(mean, variance)
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"
