"""How far a run is and what it spends, counted while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tpo_core.loop.effects import Generate
from tpo_core.models.policy import Policy
from tpo_core.runs.reader import Counts
from tpo_core.trajectory import StopReason, Trajectory
from tpo_core.values import Completion, Usage

__all__ = ["Budget", "Metered", "Price", "Tally"]


@dataclass(frozen=True)
class Price:
    """What tokens cost, in dollars each.

    Example:
        >>> round(Price(1e-6, 2e-6).of(Usage(prompt_tokens=1000, completion_tokens=500)), 6)
        0.002
    """

    prompt: float
    completion: float

    def of(self, usage: Usage) -> float:
        """Return the dollars that tokens cost."""
        return usage.prompt_tokens * self.prompt + usage.completion_tokens * self.completion


@dataclass
class Tally:
    """A run's figures so far; read it at any moment.

    Args:
        counts: Where the run stood when this process took it up.
        before: What it had spent by then.
        total: How many queries the source holds, where that is known.
        price: Of the policy's tokens, where it is known.
    """

    counts: Counts
    before: Usage = field(default_factory=Usage)
    total: int | None = None
    price: Price | None = None
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    """Queries that this process has finished; likewise the rest."""
    failed: int = 0
    spent: Usage = field(default_factory=Usage)
    """What models and reward model cost."""
    limit: int | None = None
    """Most requests at once, as it is now."""
    requests_out: int = 0
    answered: float = float("-inf")
    """When, on the clock, the latest request went out that a model has answered."""
    on_their_way: int = 0
    """Queries that have begun and not ended."""
    first_best: float = 0.0
    """Sum of the rewards of the best first samples of ``compared`` queries."""
    best: float = 0.0
    """Sum of the rewards of their answers."""
    compared: int = 0
    gained: int = 0
    """How many of them have an answer with a higher reward than the best first sample."""

    def __post_init__(self) -> None:
        """Count time from here."""
        self._began = self.clock()

    @property
    def seconds(self) -> float:
        """Return how long this process has been at it."""
        return self.clock() - self._began

    @property
    def all_done(self) -> int:
        """Return the finished queries, those of earlier processes included."""
        return self.counts.done + self.done

    @property
    def all_failed(self) -> int:
        """Return the failed queries, likewise."""
        return self.counts.failed + self.failed

    @property
    def usage(self) -> Usage:
        """Return what the run has cost so far, in all processes."""
        return self.before + self.spent

    @property
    def dollars(self) -> float | None:
        """Return that in dollars; None without a price."""
        return None if self.price is None else self.price.of(self.usage)

    @property
    def seconds_left(self) -> float | None:
        """Return how long the rest takes at this process's pace; None while nothing is known."""
        ended = self.done + self.failed
        if self.total is None or not ended:
            return None
        return self.seconds / ended * max(0, self.total - self.all_done - self.all_failed)

    def expected(self, so_far: float) -> float | None:
        """Return what a figure comes to at the end, if the rest costs what was spent so far a query."""
        ended = self.all_done + self.all_failed
        return None if self.total is None or not ended else so_far * self.total / ended

    def finish(self, trajectory: Trajectory) -> None:
        """Count a trajectory."""
        self.done += 1
        self.spent += trajectory.reward_usage
        first, best = trajectory.initial_best, trajectory.best_or_none
        if first is not None and best is not None:
            self.compared += 1
            self.first_best += first.reward or 0.0
            self.best += best.reward or 0.0
            self.gained += (best.reward or 0.0) > (first.reward or 0.0)

    def fail(self) -> None:
        """Count a query that came to nothing."""
        self.failed += 1

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request while it is out."""
        self.requests_out += 1
        sent = self.clock()
        try:
            yield
            self.answered = max(self.answered, sent)
        finally:
            self.requests_out -= 1


@dataclass(frozen=True)
class Budget:
    """What a whole run may spend, earlier processes included, but for the time. None for no limit."""

    calls: int | None = None
    tokens: int | None = None
    dollars: float | None = None
    """Only where the tally has a price."""
    seconds: float | None = None
    """Of this process."""

    def used_up(self, tally: Tally) -> StopReason | None:
        """Return which limit is reached, as a loop's reason to stop."""
        spent: list[tuple[StopReason, float | None, float | None]] = [
            ("max_calls", self.calls, tally.usage.calls),
            ("max_tokens", self.tokens, tally.usage.tokens),
            ("max_dollars", self.dollars, tally.dollars),
            ("deadline", self.seconds, tally.seconds),
        ]
        reached = (reason for reason, most, used in spent if most is not None and used is not None and used >= most)
        return next(reached, None)


class Metered:
    """A policy that counts what its answers cost.

    Args:
        policy: Answers.
        tally: Counts.
        told: Called when an answer has been counted.
    """

    def __init__(self, policy: Policy, tally: Tally, told: Callable[[], None] = lambda: None) -> None:
        """Wrap it."""
        self._policy, self._tally, self._told = policy, tally, told
        self.takes_n: Any = policy.takes_n
        self.fatal: tuple[type[Exception], ...] = policy.fatal
        self.models: Any = getattr(policy, "models", {})

    def generate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Ask, and count."""
        with self._tally.request():
            return self._counted(self._policy.generate(request, seeds), len(seeds))

    async def agenerate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Ask without blocking, and count."""
        with self._tally.request():
            return self._counted(await self._policy.agenerate(request, seeds), len(seeds))

    def _counted(self, completions: Sequence[Completion], calls: int) -> list[Completion]:
        spent = sum((c.usage for c in completions), Usage())
        self._tally.spent += Usage(
            calls, max(1, spent.requests), spent.prompt_tokens, spent.completion_tokens, spent.cached_tokens
        )
        self._told()
        return list(completions)
