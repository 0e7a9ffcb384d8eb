"""Run one loop, or thousands together, in threads or in an event loop.

What is out when is decided by the scheduler, the same for both. Around it, the sync driver makes calls in threads, each
with a copy of the caller's context, and waits on a queue; the async driver makes tasks and awaits a queue.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import aclosing, closing
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, overload

from tpo_core.config import TPOConfig
from tpo_core.drivers.outcomes import Done, Raised
from tpo_core.drivers.scheduler import Run, Scheduler
from tpo_core.drivers.serving import Models, Observer, Ticket, serve
from tpo_core.errors import InvalidInputError, carry
from tpo_core.loop.ledger import Ledger
from tpo_core.models.policy import ChatModel, Policy
from tpo_core.models.resolving import as_policy
from tpo_core.rewards import as_reward
from tpo_core.threads import AT_ONCE, Threads
from tpo_core.trajectory import Trajectory
from tpo_core.values import Prompt

__all__ = ["arun", "arun_many", "run", "run_many"]

logger = logging.getLogger(__name__)

GRACE = 0.1
"""Seconds a run waits at its end for what it has cancelled: nobody's clean-up is cut short, and nobody's delays it."""

_lingering: set[asyncio.Task[None]] = set()
"""Cancelled tasks that took longer: an event loop itself holds its tasks weakly."""

T = TypeVar("T")
_Back: TypeAlias = "queue.SimpleQueue[tuple[Ticket[Any], Future[Done[Any] | Raised]]]"
_Arrival: TypeAlias = "tuple[Ticket[Any], Done[Any] | Raised] | None"
"""A ticket whose call has ended; None where time is up."""


def run(
    query: Prompt,
    policy: Policy | ChatModel | str,
    reward: Any,
    config: TPOConfig | None = None,
    *,
    inputs: Any = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
) -> Trajectory:
    """Align one answer to a reward while it is being produced.

    Args:
        query: What is asked: text, or chat messages.
        policy: Who answers: a ``Policy``, a ``ChatModel``, or a litellm model string.
        reward: What the answer is aligned to: a ``RewardModel`` or anything ``as_reward`` takes.
        config: Width, depth, mode and budgets; ``TPOConfig()`` by default.
        inputs: What the policy's own program takes; the query by default.
        gold: A held-out reward, reported in ``Trajectory.gold`` and never optimised.
        on_progress: Called with each ``Progress`` as it happens, in this thread unless a deadline is set. What it
            raises ends the run: catch inside what must not.
        max_concurrency: Most requests at once; 32 by default.

    Returns:
        The trajectory; ``.best`` is the answer.

    Raises:
        InvalidInputError: An argument is wrong; raised before any model is called.
        GenerationError: Not one candidate could be produced.
        RewardError: The reward model failed. These two carry the trajectory so far, as does whatever else ends the run:
            what ``on_progress`` raised, the host's control flow, an interrupt.
    """
    [trajectory] = run_many(
        [query],
        policy,
        reward,
        config,
        inputs=None if inputs is None else [inputs],
        gold=gold,
        on_progress=on_progress,
        max_concurrency=max_concurrency,
    )
    return trajectory


async def arun(
    query: Prompt,
    policy: Policy | ChatModel | str,
    reward: Any,
    config: TPOConfig | None = None,
    *,
    inputs: Any = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
) -> Trajectory:
    """Align one answer without blocking the event loop; see ``run``. ``on_progress`` may be async."""
    [trajectory] = await arun_many(
        [query],
        policy,
        reward,
        config,
        inputs=None if inputs is None else [inputs],
        gold=gold,
        on_progress=on_progress,
        max_concurrency=max_concurrency,
    )
    return trajectory


@overload
def run_many(
    queries: Sequence[Prompt],
    policy: Policy | ChatModel | str,
    reward: Any,
    config: TPOConfig | None = None,
    *,
    inputs: Sequence[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    return_exceptions: Literal[False] = False,
) -> list[Trajectory]: ...
@overload
def run_many(
    queries: Sequence[Prompt],
    policy: Policy | ChatModel | str,
    reward: Any,
    config: TPOConfig | None = None,
    *,
    inputs: Sequence[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    return_exceptions: bool,
) -> list[Trajectory | Exception]: ...
def run_many(
    queries: Sequence[Prompt],
    policy: Policy | ChatModel | str,
    reward: Any,
    config: TPOConfig | None = None,
    *,
    inputs: Sequence[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    return_exceptions: bool = False,
) -> list[Any]:
    """Run one loop per query together, so that their requests overlap and their rewards share batches.

    Args:
        queries: One prompt per loop.
        policy: As in ``run``; likewise the arguments not named here.
        inputs: One per query.
        return_exceptions: Put a failed loop's exception in its place instead of raising the first one.

    Returns:
        One trajectory per query, same order.

    Raises:
        Exception: The first that ended a loop, as in ``run``. Its ``trajectories`` hold what each query has until then,
            same order: finished, or cut off with stop reason ``cancelled``; likewise those of an interrupt or
            cancellation.
    """
    batch = _Many(
        queries,
        policy,
        reward,
        config,
        inputs,
        gold,
        on_progress,
        AT_ONCE if max_concurrency is None else max_concurrency,
    )
    with batch, closing(_drive(batch.scheduler)) as ended:
        for run in ended:
            batch.enter(run, return_exceptions)
    return batch.results


@overload
async def arun_many(
    queries: Sequence[Prompt],
    policy: Policy | ChatModel | str,
    reward: Any,
    config: TPOConfig | None = None,
    *,
    inputs: Sequence[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    return_exceptions: Literal[False] = False,
) -> list[Trajectory]: ...
@overload
async def arun_many(
    queries: Sequence[Prompt],
    policy: Policy | ChatModel | str,
    reward: Any,
    config: TPOConfig | None = None,
    *,
    inputs: Sequence[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    return_exceptions: bool,
) -> list[Trajectory | Exception]: ...
async def arun_many(
    queries: Sequence[Prompt],
    policy: Policy | ChatModel | str,
    reward: Any,
    config: TPOConfig | None = None,
    *,
    inputs: Sequence[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    return_exceptions: bool = False,
) -> list[Any]:
    """Run one loop per query together without blocking the event loop; see ``run_many``."""
    batch = _Many(queries, policy, reward, config, inputs, gold, on_progress, max_concurrency)
    with batch:
        async with aclosing(_adrive(batch.scheduler)) as ended:
            async for run in ended:
                batch.enter(run, return_exceptions)
    return batch.results


class _Many:
    """What came of queries that run together; an error that ends them early carries it.

    Every argument is checked here, before a model is called.
    """

    def __init__(
        self,
        queries: Sequence[Prompt],
        policy: Policy | ChatModel | str,
        reward: Any,
        config: TPOConfig | None,
        inputs: Sequence[Any] | None,
        gold: Any,
        on_progress: Observer | None,
        limit: int | None,
    ) -> None:
        if isinstance(queries, str) or not isinstance(queries, Sequence):
            raise InvalidInputError(f"queries must be a list of prompts, not {type(queries).__name__}")
        if inputs is not None and len(inputs) != len(queries):
            raise InvalidInputError(f"inputs and queries differ in length: {len(inputs)} and {len(queries)}")
        if limit is not None and limit < 1:
            raise InvalidInputError(f"max_concurrency must be at least 1, not {limit}")
        config = TPOConfig() if config is None else config
        if not isinstance(config, TPOConfig):
            raise InvalidInputError(f"config must be a TPOConfig, not {type(config).__name__}")
        models = Models(as_policy(policy), as_reward(reward), None if gold is None else as_reward(gold), on_progress)
        given = [None] * len(queries) if inputs is None else inputs
        ledgers = [Ledger(query, own, config, time.monotonic) for query, own in zip(queries, given, strict=True)]
        self._runs = [Run(each, serve(each, models, place), place) for place, each in enumerate(ledgers)]
        self.scheduler = Scheduler(self._runs, limit)
        self.results: list[Any] = [None] * len(queries)

    def enter(self, run: Run, return_exceptions: bool) -> None:
        """Enter a run that has ended, and raise its error unless errors are results."""
        self.results[run.place] = run.result
        if isinstance(run.result, Exception) and not return_exceptions:
            raise run.result

    def __enter__(self) -> _Many:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is None:
            _warn_of_weakness([t.diagnosis for t in self.results if isinstance(t, Trajectory)])
            return
        self.scheduler.close()
        carry(error, tuple(run.gained for run in self._runs))


def _warn_of_weakness(diagnoses: Sequence[str | None]) -> None:
    weak = [diagnosis for diagnosis in diagnoses if diagnosis]
    if len(weak) > len(diagnoses) / 2:
        which = "" if len(diagnoses) == 1 else f"{len(weak)} of {len(diagnoses)} queries: "
        logger.warning("%s%s", which, weak[0])


def _drive(scheduler: Scheduler) -> Generator[Run, None, None]:
    """Make the calls in threads, and yield the runs as they end."""
    back: _Back = queue.SimpleQueue()
    threads = Threads("tpo")
    try:
        while True:
            tickets = list(scheduler.take())
            yield from scheduler.ended()
            if scheduler.finished:
                return
            if len(tickets) == scheduler.out == 1 and scheduler.alarm() is None:
                scheduler.give(tickets[0], _outcome(tickets[0]))  # nothing to overlap: stay in the caller's thread
                continue
            for ticket in tickets:
                threads.submit(_outcome, ticket).add_done_callback(partial(_report, back, ticket))
            if scheduler.out:
                for ticket, future in _arrived(back, scheduler.alarm()):
                    scheduler.give(ticket, future.result())  # an interrupt in a thread is an interrupt of the run
                scheduler.expire()
    finally:
        threads.close()


async def _adrive(scheduler: Scheduler) -> AsyncGenerator[Run, None]:
    """Make the calls in tasks, and yield the runs as they end."""
    back: asyncio.Queue[_Arrival] = asyncio.Queue()
    tasks: dict[Ticket[Any], asyncio.Task[None]] = {}
    try:
        while True:
            for ticket in scheduler.take():
                tasks[ticket] = asyncio.create_task(_areport(ticket, back))
                tasks[ticket].add_done_callback(partial(tasks.pop, ticket))
            for run in scheduler.ended():
                yield run
            if scheduler.finished:
                return
            if scheduler.out:
                for ticket, outcome in await _aarrived(back, scheduler.alarm()):
                    scheduler.give(ticket, outcome)
                _cancel(tasks[ticket] for ticket in scheduler.expire() if ticket in tasks)
    finally:
        await _end(set(tasks.values()))


def _outcome(ticket: Ticket[T]) -> Done[T] | Raised:
    """Make a ticket's call."""
    try:
        return Done(ticket.call())
    except Exception as error:  # noqa: BLE001 - the run that asked decides what it costs
        return Raised(error)


async def _areport(ticket: Ticket[Any], back: asyncio.Queue[_Arrival]) -> None:
    """Make a ticket's call in this event loop, and report its outcome."""
    outcome: Done[Any] | Raised = Raised(ConnectionAbortedError("the request was cancelled"))
    try:
        outcome = Done(await ticket.acall())
    except Exception as error:  # noqa: BLE001 - the run that asked decides what it costs
        outcome = Raised(error)
    finally:
        back.put_nowait((ticket, outcome))


def _report(back: _Back, ticket: Ticket[Any], future: Future[Done[Any] | Raised]) -> None:
    back.put((ticket, future))


def _arrived(back: _Back, seconds: float | None) -> list[tuple[Ticket[Any], Future[Done[Any] | Raised]]]:
    """Wait until a call ends, at most these seconds; return all that have ended."""
    try:
        first = back.get(timeout=seconds)
    except queue.Empty:
        return []
    return [first, *(back.get() for _ in range(back.qsize()))]


async def _aarrived(
    back: asyncio.Queue[_Arrival], seconds: float | None
) -> list[tuple[Ticket[Any], Done[Any] | Raised]]:
    """Wait until a call ends, at most these seconds; return all that have ended.

    A timer wakes the queue up. Were the wait for it cancelled instead, as by ``asyncio.wait_for``, a cancellation of
    the run that comes at the same moment would be lost before Python 3.12.
    """
    timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, back.put_nowait, None)
    try:
        arrived = [await back.get()]
    finally:
        if timer is not None:
            timer.cancel()
    arrived += [back.get_nowait() for _ in range(back.qsize())]
    return [arrival for arrival in arrived if arrival is not None]


def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait a moment for them; one that needs longer, or will not end, goes on by itself."""
    _cancel(tasks)
    try:
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)
    finally:
        for task in tasks:
            if not task.done():
                _lingering.add(task)
                task.add_done_callback(_lingering.discard)
