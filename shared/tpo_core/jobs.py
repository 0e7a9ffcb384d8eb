"""What a loop's effects mean in calls: the same for every driver, sync or async.

A line is one loop in flight. It turns each effect into batches of jobs that may run at once (one request with n, or n
requests), takes their outcomes and sends the loop its answer.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from tpo_core.effects import Completion, Effect, Gather, Generate, Pair, Progress, Reward, Score
from tpo_core.errors import InvalidInputError, UnsupportedError
from tpo_core.loop import Loop
from tpo_core.policies import Policy
from tpo_core.rewards.base import RewardModel
from tpo_core.trajectory import Failure, Trajectory, Usage

__all__ = ["Batch", "Call", "Job", "Late", "Observer", "Outcome", "Scoring", "Telling", "line"]

logger = logging.getLogger(__name__)

Observer: TypeAlias = "Callable[[Progress], Awaitable[None] | None]"
"""Is told what happens while it happens."""

T = TypeVar("T", covariant=True)


class Late(Exception):
    """The outcome of a job that had not ended at its deadline."""


class Job(Protocol[T]):
    """Something to do for a loop; its two ways to run differ by one await."""

    def run(self) -> T:
        """Do it in this thread."""

    async def arun(self) -> T:
        """Do it in this event loop."""


@dataclass(frozen=True)
class Call:
    """One request to the policy, for one completion per seed."""

    policy: Policy
    request: Generate
    seeds: tuple[int, ...]

    def run(self) -> Sequence[Completion]:
        """Ask."""
        return self.policy.generate(self.request, self.seeds)

    async def arun(self) -> Sequence[Completion]:
        """Ask without blocking."""
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
    timeout: float | None = None
    """Seconds from now; a job that has not ended by then has the outcome ``Late``."""


@dataclass
class _Ask:
    """One ``Generate`` on its way to its completions."""

    policy: Policy
    request: Generate
    done: list[Completion] = field(default_factory=list)

    @property
    def rest(self) -> tuple[int, ...]:
        return self.request.seeds[len(self.done) :]

    def take(self, seeds: tuple[int, ...], outcome: Outcome) -> None:
        """Enter what came for these seeds; what is missing stays in ``rest`` unless the call failed."""
        if isinstance(outcome, Exception):
            self.done += [Completion(failure=_failure(outcome))] * len(seeds)
            return
        got = list(outcome)[: len(seeds)]
        if got and not any(c.usage.requests for c in got):
            got[0] = replace(got[0], usage=got[0].usage + Usage(requests=1))
        self.done += got
        if len(seeds) == 1 and not got:
            self.done.append(Completion(failure=Failure("missing", "the model returned no completion")))


def line(
    loop: Loop,
    policy: Policy,
    reward: RewardModel,
    observer: Observer | None = None,
    gold: RewardModel | None = None,
    place: int = 0,
) -> Line:
    """Serve a loop: yield batches of jobs, be sent their outcomes, return the trajectory.

    Args:
        loop: From ``tpo_loop``.
        policy: Answers ``Generate``.
        reward: Answers ``Score``.
        observer: Told each ``Progress``, with ``place`` in it.
        gold: Scores the candidates once more at the end, for the record.
        place: Which of many loops this is.
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
    return trajectory if gold is None else (yield from _weigh(trajectory, gold))


Line: TypeAlias = Generator[Batch[Any], Sequence[Outcome], Trajectory]


class _LoopSees(Exception):
    def __init__(self, error: Exception) -> None:
        self.error = error


def _answer(
    effect: Effect, policy: Policy, reward: RewardModel, observer: Observer | None, place: int
) -> Generator[Batch[Any], Sequence[Outcome], Any]:
    if isinstance(effect, Generate):
        return (yield from _generate(policy, (effect,)))[0]
    if isinstance(effect, Gather):
        return (yield from _generate(policy, effect.effects))
    if isinstance(effect, Score):
        [outcome] = yield Batch((Scoring(reward, effect.pairs),), effect.timeout)
        if isinstance(outcome, Late):
            return [Reward(nan, failure="deadline: scoring took too long")] * len(effect.pairs)
        if isinstance(outcome, Exception):
            raise _LoopSees(outcome)
        return outcome
    if observer is not None:
        [outcome] = yield Batch((Telling(observer, replace(effect, place=place)),))
        if isinstance(outcome, Exception):
            raise outcome
    return None


def _generate(policy: Policy, requests: Sequence[Generate]) -> Generator[Batch[Any], Sequence[Outcome], list[Any]]:
    """Answer requests together: one call each where that may bring all n samples, then single calls for the rest."""
    asks = [_Ask(policy, request) for request in requests]
    timeout = min((r.timeout for r in requests if r.timeout is not None), default=None)
    whole = {i: ask.rest for i, ask in enumerate(asks) if len(ask.rest) > 1 and _may_take_n(policy, ask.request)}
    single = [(i, (seed,)) for i, ask in enumerate(asks) if i not in whole for seed in ask.rest]
    calls = [*whole.items(), *single]
    outcomes = yield Batch(tuple(Call(policy, asks[i].request, seeds) for i, seeds in calls), timeout)
    topped: list[tuple[int, int]] = []
    for (i, seeds), outcome in zip(calls, outcomes, strict=True):
        _check_fatal(policy, outcome)
        task = asks[i].request.task
        if len(seeds) == 1 or isinstance(outcome, Late):
            asks[i].take(seeds, outcome)
            continue
        if not isinstance(outcome, Exception):
            asks[i].take(seeds, outcome)
            policy.takes_n[task] = not asks[i].rest
        topped += [(i, seed) for seed in asks[i].rest]
    if topped:
        yield from _top_up(policy, asks, topped, timeout)
    return [ask.done for ask in asks]


def _top_up(
    policy: Policy, asks: Sequence[_Ask], wanted: Sequence[tuple[int, int]], timeout: float | None
) -> Generator[Batch[Any], Sequence[Outcome], None]:
    """Ask one by one for what a request with n did not bring.

    Where it brought nothing at all, one call goes ahead: if that fails too, the fault was not in ``n``, and the others
    share its failure instead of repeating it.
    """
    scouts = {i: seed for i, seed in reversed(wanted) if not asks[i].done}
    if scouts:
        outcomes = yield Batch(tuple(Call(policy, asks[i].request, (s,)) for i, s in scouts.items()), timeout)
        for i, outcome in zip(scouts, outcomes, strict=True):
            _check_fatal(policy, outcome)
            if isinstance(outcome, Exception):
                asks[i].take(asks[i].rest, outcome)
            else:
                asks[i].take((scouts[i],), outcome)
                policy.takes_n[asks[i].request.task] = False
    rest = [(i, seed) for i, ask in enumerate(asks) for seed in ask.rest]
    outcomes = yield Batch(tuple(Call(policy, asks[i].request, (seed,)) for i, seed in rest), timeout)
    for (i, seed), outcome in zip(rest, outcomes, strict=True):
        _check_fatal(policy, outcome)
        asks[i].take((seed,), outcome)


def _weigh(trajectory: Trajectory, gold: RewardModel) -> Generator[Batch[Any], Sequence[Outcome], Trajectory]:
    """Score the candidates with the held-out reward model: reported, never optimised."""
    scored = [c for c in trajectory.candidates if c.reward is not None]
    [outcome] = yield Batch((Scoring(gold, tuple(Pair(trajectory.query, c.response, c.value) for c in scored)),))
    if isinstance(outcome, Exception):
        logger.warning("the gold reward model %r failed: %s", gold.name, outcome)
        return trajectory
    return replace(trajectory, gold={c.index: float(r) for c, r in zip(scored, outcome, strict=True) if r == r})


def _may_take_n(policy: Policy, request: Generate) -> bool:
    return policy.takes_n.get(request.task, True)


def _check_fatal(policy: Policy, outcome: Outcome) -> None:
    if isinstance(outcome, (InvalidInputError, UnsupportedError, *policy.fatal)):
        raise outcome


def _failure(error: Exception) -> Failure:
    if isinstance(error, Late):
        return Failure("deadline", "not there when the deadline passed")
    return Failure("error", f"{type(error).__name__}: {error}", error)
