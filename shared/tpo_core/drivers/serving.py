"""What a loop's effects mean in calls: the same for every driver, sync or async.

A line is one loop in flight. It turns each effect into batches of jobs that may run at once (one request with n, or n
requests), takes their outcomes and sends the loop its answer.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from tpo_core.drivers.calls import Calls, Late
from tpo_core.errors import InvalidInputError, UnsupportedError
from tpo_core.loop.algorithm import Loop
from tpo_core.loop.effects import Effect, Gather, Generate, Progress, Score
from tpo_core.masking import hidden_errors
from tpo_core.models.policy import Policy, Remembering
from tpo_core.rewards.base import RewardModel
from tpo_core.trajectory import Trajectory
from tpo_core.values import Completion, Pair, Reward

__all__ = ["Batch", "Call", "Job", "Late", "Observer", "Outcome", "Scoring", "Telling", "line"]

logger = logging.getLogger(__name__)

Observer: TypeAlias = "Callable[[Progress], Awaitable[None] | None]"
"""Is told what happens while it happens."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Job(Protocol[T_co]):
    """Something to do for a loop; its two ways to run differ by one await."""

    def run(self) -> T_co:
        """Do it in this thread."""

    async def arun(self) -> T_co:
        """Do it in this event loop."""


@dataclass(frozen=True)
class Call:
    """One request to the policy, for one completion per seed."""

    policy: Policy
    request: Generate
    seeds: tuple[int, ...]

    def run(self) -> Sequence[Completion]:
        """Ask."""
        with hidden_errors():
            return self.policy.generate(self.request, self.seeds)

    async def arun(self) -> Sequence[Completion]:
        """Ask without blocking."""
        with hidden_errors():
            return await self.policy.agenerate(self.request, self.seeds)


@dataclass(frozen=True)
class Scoring:
    """One request to the reward model."""

    reward: RewardModel
    pairs: tuple[Pair, ...]

    def run(self) -> Sequence[Reward]:
        """Score."""
        return self.reward.score_pairs(self.pairs)

    async def arun(self) -> Sequence[Reward]:
        """Score without blocking."""
        return await self.reward.ascore_pairs(self.pairs)


@dataclass(frozen=True)
class Telling:
    """One word to the observer."""

    observer: Observer
    progress: Progress

    def run(self) -> None:
        """Tell."""
        if inspect.isawaitable(told := self.observer(self.progress)):
            if inspect.iscoroutine(told):
                told.close()
            raise InvalidInputError("on_progress is an async function; it can only be awaited in the async calls")

    async def arun(self) -> None:
        """Tell, and wait where the observer is async."""
        told = self.observer(self.progress)
        if inspect.isawaitable(told):
            await told


Outcome: TypeAlias = "Any | Exception"
"""What a job returned, or the exception it raised; never raised itself."""


@dataclass(frozen=True)
class Batch(Generic[T]):
    """Jobs of one line that may run at once; answered with their outcomes, in the same order."""

    jobs: tuple[Job[T], ...]
    deadline: float | None = None
    """When, on the loop's clock, a job that has not ended has the outcome ``Late``."""


Served: TypeAlias = "Generator[Batch[Any], Sequence[Outcome], T]"
"""Yields batches, is sent their outcomes, returns what they add up to."""

Line: TypeAlias = "Served[Trajectory]"
"""One loop in flight."""


def line(
    loop: Loop,
    policy: Policy,
    reward: RewardModel,
    observer: Observer | None = None,
    gold: RewardModel | None = None,
    place: int = 0,
    inputs: Any = None,
) -> Line:
    """Serve a loop: yield batches of jobs, be sent their outcomes, return the trajectory.

    Args:
        loop: From ``tpo_loop``.
        policy: Answers ``Generate``.
        reward: Answers ``Score``.
        observer: Told each ``Progress``, with ``place`` in it.
        gold: Scores the candidates once more at the end, for the record.
        place: Which of many loops this is.
        inputs: What the user's program takes, for the held-out reward; the loop hands it to the other itself.
    """
    try:
        effect = next(loop)
        while True:
            try:
                answer = yield from _answer(effect, policy, reward, observer, place)
            except _LoopSees as seen:
                effect = loop.throw(seen.error)
            else:
                effect = loop.send(answer)
    except StopIteration as stop:
        trajectory: Trajectory = stop.value
    finally:
        loop.close()
    return trajectory if gold is None else (yield from _weigh(trajectory, policy, gold, inputs))


class _LoopSees(Exception):
    """Carries a job's error to the loop that asked; any other exception ends the run."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _answer(effect: Effect, policy: Policy, reward: RewardModel, observer: Observer | None, place: int) -> Served[Any]:
    if isinstance(effect, Generate):
        return (yield from _complete(policy, effect))
    if isinstance(effect, Gather):
        return (yield from _together([_complete(policy, request) for request in effect.effects]))
    if isinstance(effect, Score):
        [outcome] = yield Batch((Scoring(reward, effect.pairs),), effect.deadline)
        if isinstance(outcome, Late):
            return [Reward(nan, failure="deadline: scoring took too long")] * len(effect.pairs)
        _check_fatal(policy, outcome)  # a reward may ask a person, say
        if isinstance(outcome, Exception):
            raise _LoopSees(outcome)
        return outcome
    if observer is not None:
        [outcome] = yield Batch((Telling(observer, replace(effect, place=place)),))
        if isinstance(outcome, Exception):
            raise outcome
    return None


def _complete(policy: Policy, request: Generate) -> Served[list[Completion]]:
    """Answer one ``Generate`` by the calls that are due for it, unless the policy remembers how it ended."""
    memory = policy if isinstance(policy, Remembering) else None
    if memory is not None and (known := memory.recall(request)) is not None:
        return known
    calls = Calls(request, policy.takes_n)
    while due := calls.due():
        outcomes = yield Batch(tuple(Call(policy, request, seeds) for seeds in due), request.deadline)
        for outcome in outcomes:
            _check_fatal(policy, outcome)
        calls.take(due, outcomes)
    completions = calls.completions()
    if memory is not None:
        memory.settle(request, completions)
    return completions


def _together(served: Sequence[Served[T]]) -> Served[list[T]]:
    """Let several be served at once: their batches go out as one."""
    results: dict[int, T] = {}
    open_batches: dict[int, Batch[Any]] = {}
    answers: dict[int, Sequence[Outcome] | None] = dict.fromkeys(range(len(served)))
    while answers:
        for place, answer in answers.items():
            try:
                open_batches[place] = next(served[place]) if answer is None else served[place].send(answer)
            except StopIteration as stop:
                results[place] = stop.value
        answers = {}
        if open_batches:
            jobs = tuple(job for batch in open_batches.values() for job in batch.jobs)
            deadlines = [b.deadline for b in open_batches.values() if b.deadline is not None]
            outcomes = iter((yield Batch(jobs, min(deadlines, default=None))))
            answers = {place: [next(outcomes) for _ in batch.jobs] for place, batch in open_batches.items()}
            open_batches = {}
    return [results[place] for place in range(len(served))]


def _weigh(trajectory: Trajectory, policy: Policy, gold: RewardModel, inputs: Any) -> Served[Trajectory]:
    """Score the candidates with the held-out reward model: reported, never optimised."""
    scored = [c for c in trajectory.candidates if c.reward is not None]
    pairs = tuple(Pair(c.answers(trajectory.query), c.response, c.value, inputs, trajectory.query) for c in scored)
    [outcome] = yield Batch((Scoring(gold, pairs),))
    _check_fatal(policy, outcome)
    if isinstance(outcome, Exception):
        logger.warning("the gold reward model %r failed: %s", gold.name, outcome)
        return trajectory
    return replace(trajectory, gold={c.index: float(r) for c, r in zip(scored, outcome, strict=True) if r == r})


def _check_fatal(policy: Policy, outcome: Outcome) -> None:
    """Raise what ends the run, whoever raised it: a wrong use, or the host's control flow."""
    if isinstance(outcome, (InvalidInputError, UnsupportedError)) or (
        isinstance(outcome, Exception) and isinstance(outcome, policy.fatal)
    ):
        raise outcome
