"""What a loop's effects mean in calls: the same for every driver, sync or async.

    effect  ->  tickets that may be out at the same time  ->  their outcomes  ->  the effect's answer

A ticket is one call: of the policy, of the reward model, of the observer. ``serve`` runs one loop; it yields batches of
tickets, goes on once each of them has its outcome, and returns the trajectory.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import nan
from typing import Any, Generic, TypeAlias, TypeVar

from tpo_core.drivers.calls import Calls
from tpo_core.drivers.outcomes import Done, Late, Raised
from tpo_core.drivers.tracing import UNTRACED, QueryTrace, ScoringPart, scored_together, traced_query
from tpo_core.errors import InvalidInputError, UnsupportedError
from tpo_core.loop.algorithm import tpo_loop
from tpo_core.loop.effects import Effect, Gather, Generate, Progress, Score
from tpo_core.loop.ledger import Ledger
from tpo_core.masking import hidden_errors
from tpo_core.models.policy import Policy, Remembering
from tpo_core.records import repr_without_texts
from tpo_core.rewards.base import RewardModel
from tpo_core.trajectory import Trajectory
from tpo_core.values import Completion, Pair, Reward, changed

__all__ = ["Batch", "Call", "Models", "Observer", "Scoring", "Served", "Telling", "Ticket", "serve"]

logger = logging.getLogger(__name__)

Observer: TypeAlias = "Callable[[Progress], Awaitable[None] | None]"
"""Called with each ``Progress`` as it happens; may be async where the run is."""

T = TypeVar("T")


class Ticket(Generic[T]):
    """One call to be made for a run; its two ways, of the subclasses, differ by one await."""

    outcome: Done[T] | Raised | None = None
    """None until the call has ended, or its deadline has passed."""

    def call(self) -> T:
        """Make the call in this thread."""
        raise NotImplementedError

    async def acall(self) -> T:
        """Make the call in this event loop."""
        raise NotImplementedError

    @property
    def ended(self) -> Done[T] | Raised:
        """Return the outcome, which is there once the batch has been answered."""
        assert self.outcome is not None
        return self.outcome


@dataclass(eq=False)
class Call(Ticket[Sequence[Completion]]):
    """Ask the policy for one completion per seed."""

    policy: Policy
    request: Generate
    seeds: tuple[int, ...]
    trace: QueryTrace = UNTRACED

    __repr__ = repr_without_texts("policy", "seeds")

    def call(self) -> Sequence[Completion]:
        """Ask."""
        with hidden_errors(), self.trace.calling(self.policy, self.request, self.seeds) as brought:
            completions = self.policy.generate(self.request, self.seeds)
            brought(completions)
            return completions

    async def acall(self) -> Sequence[Completion]:
        """Ask without blocking."""
        with hidden_errors(), self.trace.calling(self.policy, self.request, self.seeds) as brought:
            completions = await self.policy.agenerate(self.request, self.seeds)
            brought(completions)
            return completions


@dataclass(eq=False)
class Scoring(Ticket[Sequence[Reward]]):
    """Ask the reward model for one reward per pair."""

    reward: RewardModel
    pairs: tuple[Pair, ...]
    alone: bool = False
    """Whether it may not be merged with others: it was once, and that failed."""
    trace: QueryTrace = UNTRACED

    __repr__ = repr_without_texts("reward")

    @property
    def traced_parts(self) -> Sequence[ScoringPart]:
        """Return what each query has in it."""
        return ((self.trace, self.reward, self.pairs),)

    def call(self) -> Sequence[Reward]:
        """Score."""
        with scored_together(self.traced_parts) as scored:
            rewards = self.reward.score_pairs(self.pairs)
            scored(rewards)
            return rewards

    async def acall(self) -> Sequence[Reward]:
        """Score without blocking."""
        with scored_together(self.traced_parts) as scored:
            rewards = await self.reward.ascore_pairs(self.pairs)
            scored(rewards)
            return rewards


@dataclass(eq=False)
class Checking(Ticket[None]):
    """Have the reward model find out whether it can score at all."""

    reward: RewardModel

    def call(self) -> None:
        """Check."""
        with hidden_errors():
            self.reward.check()

    async def acall(self) -> None:
        """Check without blocking."""
        with hidden_errors():
            await self.reward.acheck()


@dataclass(eq=False)
class Telling(Ticket[None]):
    """Tell the observer."""

    observer: Observer
    progress: Progress

    __repr__ = repr_without_texts()

    def call(self) -> None:
        """Tell."""
        if inspect.isawaitable(told := self.observer(self.progress)):
            if inspect.iscoroutine(told):
                told.close()
            raise InvalidInputError("on_progress is an async function; it can only be awaited in the async calls")

    async def acall(self) -> None:
        """Tell, and wait where the observer is async."""
        told = self.observer(self.progress)
        if inspect.isawaitable(told):
            await told


@dataclass(frozen=True)
class Batch:
    """Tickets of one run that may be out at the same time; the run goes on when all have their outcomes."""

    tickets: tuple[Ticket[Any], ...]
    deadline: float | None = None
    """When, on the loop's clock, a ticket without an outcome has ``Late``."""


Served: TypeAlias = Generator[Batch, None, T]
"""Yields batches, goes on when they are answered, returns what they add up to."""


@dataclass(frozen=True)
class Models:
    """Who answers a run's effects."""

    policy: Policy
    reward: RewardModel
    gold: RewardModel | None = None
    """Scores the candidates once more at the end, for the record."""
    observer: Observer | None = None
    trace: QueryTrace = UNTRACED
    """Of the query, while it is served."""

    @cached_property
    def memory(self) -> Remembering | None:
        """Return the policy where it remembers whole requests."""
        policy = self.policy
        return policy if hasattr(policy, "recall") and isinstance(policy, Remembering) else None  # the latter is slow


def serve(ledger: Ledger, models: Models, place: int = 0) -> Served[Trajectory]:
    """Run the loop of one query.

    Args:
        ledger: Of the query; it has the trajectory so far at any moment.
        models: Who answers.
        place: Which of many queries this is, for the observer.
    """
    trace = traced_query(ledger.query, ledger.config, place)
    try:
        trajectory = yield from _serve(ledger, changed(models, trace=trace), place)
    except BaseException as error:
        trace.ended(ledger.trajectory("cancelled" if isinstance(error, GeneratorExit) else "error"), error)
        raise
    trace.ended(trajectory, None)
    return trajectory


def _serve(ledger: Ledger, models: Models, place: int) -> Served[Trajectory]:
    loop = tpo_loop(ledger)
    try:
        effect = next(loop)
        unchecked = _can_be_checked(models.reward)
        while True:
            try:
                if unchecked and not isinstance(effect, Progress):
                    unchecked = False
                    yield from _check(effect, models)
                answer = None
                if not isinstance(effect, Progress):
                    answer = yield from _answer(effect, models)
                else:
                    models.trace.told(effect)
                    if models.observer is not None:
                        yield from _tell(models.observer, replace(effect, place=place))
            except _LoopSees as seen:
                effect = loop.throw(seen.error)
            else:
                effect = loop.send(answer)
    except StopIteration as stop:
        trajectory: Trajectory = stop.value
    finally:
        loop.close()
    return trajectory if models.gold is None else (yield from _weigh(trajectory, models, ledger.inputs))


class _LoopSees(Exception):
    """Carries a call's error to the loop that asked; any other exception ends the run."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _answer(effect: Generate | Gather | Score, models: Models) -> Served[Any]:
    if isinstance(effect, Generate):
        return (yield from _complete(models, effect))
    if isinstance(effect, Gather):
        return (yield from _together([_complete(models, request) for request in effect.effects]))
    return (yield from _score(effect, models))


def _tell(observer: Observer, progress: Progress) -> Served[None]:
    telling = Telling(observer, progress)
    yield Batch((telling,))
    if isinstance(telling.ended, Raised):
        raise telling.ended.error


def _complete(models: Models, request: Generate) -> Served[list[Completion]]:
    """Answer one ``Generate`` by the calls that are due for it, unless the policy remembers how it ended."""
    policy, memory = models.policy, models.memory
    if memory is not None and (known := memory.recall(request)) is not None:
        return known
    calls = Calls(request, policy.takes_n)
    while due := calls.due():
        tickets = tuple(Call(policy, request, seeds, models.trace) for seeds in due)
        yield Batch(tickets, request.deadline)
        outcomes = [ticket.ended for ticket in tickets]
        for outcome in outcomes:
            _check_fatal(policy, outcome, InvalidInputError, UnsupportedError)
        calls.take(due, outcomes)
    completions = calls.completions()
    if memory is not None:
        memory.settle(request, completions)
    return completions


def _can_be_checked(reward: RewardModel) -> bool:
    return type(reward).check is not RewardModel.check


def _check(effect: Effect, models: Models) -> Served[None]:
    """Check the reward model before the first request is paid for; what is slow to tell is left to scoring."""
    checking = Checking(models.reward)
    yield Batch((checking,), getattr(effect, "deadline", None))
    if isinstance(checking.ended, Raised) and not isinstance(checking.ended.error, Late):
        raise checking.ended.error


def _score(effect: Score, models: Models) -> Served[Sequence[Reward]]:
    scoring = Scoring(models.reward, effect.pairs, trace=models.trace)
    yield Batch((scoring,), effect.deadline)
    outcome = scoring.ended
    if isinstance(outcome, Done):
        return outcome.value
    if isinstance(outcome.error, Late):
        return [Reward(nan, failure="deadline: scoring took too long")] * len(effect.pairs)
    _check_fatal(models.policy, outcome)  # a reward may ask a person, say
    raise _LoopSees(outcome.error)


def _together(served: Sequence[Served[T]]) -> Served[list[T]]:
    """Let several be served at once: their batches go out as one."""
    results: dict[int, T] = {}
    going = dict(enumerate(served))
    while going:
        batches = []
        for place, one in list(going.items()):
            try:
                batches.append(next(one))
            except StopIteration as stop:
                results[place] = stop.value
                del going[place]
        if batches:
            deadlines = [batch.deadline for batch in batches if batch.deadline is not None]
            yield Batch(tuple(t for batch in batches for t in batch.tickets), min(deadlines, default=None))
    return [results[place] for place in range(len(served))]


def _weigh(trajectory: Trajectory, models: Models, inputs: Any) -> Served[Trajectory]:
    """Score the candidates with the held-out reward model: reported, never optimised."""
    assert models.gold is not None
    scored = [c for c in trajectory.candidates if c.reward is not None]
    query = trajectory.query
    pairs = tuple(Pair(c.answers(query), c.response, c.value, inputs, query) for c in scored)
    scoring = Scoring(models.gold, pairs, trace=models.trace)
    yield Batch((scoring,))
    outcome = scoring.ended
    _check_fatal(models.policy, outcome)
    if isinstance(outcome, Raised):
        logger.warning("the gold reward model %r failed: %s", models.gold.name, outcome.error)
        return trajectory
    return replace(trajectory, gold={c.index: float(r) for c, r in zip(scored, outcome.value, strict=True) if r == r})


def _check_fatal(policy: Policy, outcome: Done[Any] | Raised, *also: type[Exception]) -> None:
    """Raise what ends the run, whoever raised it: the host's control flow, and what else is named."""
    if isinstance(outcome, Raised) and isinstance(outcome.error, (*policy.fatal, *also)):
        raise outcome.error
