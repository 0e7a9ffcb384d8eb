"""Run one loop, or thousands together, in threads or in an event loop.

What runs when is decided by the desk, the same for both. Around it, the sync driver gives jobs to threads, each with a
copy of the caller's context, and waits on a queue; the async driver makes tasks and awaits a queue.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeAlias

from tpo_core.config import TPOConfig
from tpo_core.drivers.scheduler import Desk, Ticket
from tpo_core.drivers.serving import Observer, Outcome, line
from tpo_core.errors import InvalidInputError
from tpo_core.loop.algorithm import tpo_loop
from tpo_core.loop.ledger import Ledger
from tpo_core.models.policy import ChatModel, Policy
from tpo_core.models.resolving import as_policy
from tpo_core.rewards import as_reward
from tpo_core.threads import AT_ONCE, Threads
from tpo_core.trajectory import Trajectory
from tpo_core.values import Prompt

__all__ = ["arun", "arun_many", "run", "run_many"]

logger = logging.getLogger(__name__)

_Arrival: TypeAlias = "tuple[Ticket, Outcome] | None"
"""A job that has ended; None where time is up."""

GRACE = 0.1
"""Seconds a run waits at its end for what it has cancelled: nobody's clean-up is cut short, and nobody's delays it."""

_lingering: set[asyncio.Task[None]] = set()
"""Cancelled tasks that took longer: an event loop itself holds its tasks weakly."""


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
    return _one(trajectory)


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
    return _one(trajectory)


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
    desk = _open(queries, policy, reward, config, inputs, gold, on_progress, max_concurrency, AT_ONCE)
    ended: queue.SimpleQueue[tuple[Ticket, Future[Outcome]]] = queue.SimpleQueue()
    threads = Threads("tpo")
    try:
        while not _over(desk, return_exceptions):
            tickets = list(desk.take())
            if not desk.running:
                continue
            if len(tickets) == desk.running == 1 and desk.alarm() is None:
                desk.give(tickets[0], _outcome(tickets[0]))  # nothing to overlap: stay in the caller's thread
                continue
            for ticket in tickets:
                threads.submit(_outcome, ticket).add_done_callback(partial(_report, ended, ticket))
            for ticket, future in _arrived(ended, desk.alarm()):
                desk.give(ticket, future.result())  # an interrupt in a thread is an interrupt of the run
            desk.ring()
    except BaseException as error:
        desk.abandon(error)
        raise
    finally:
        threads.close()
    return _results(desk, return_exceptions)


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
    desk = _open(queries, policy, reward, config, inputs, gold, on_progress, max_concurrency, None)
    ended: asyncio.Queue[_Arrival] = asyncio.Queue()
    tasks: dict[Ticket, asyncio.Task[None]] = {}
    try:
        while not _over(desk, return_exceptions):
            for ticket in desk.take():
                tasks[ticket] = asyncio.create_task(_arun(ticket, ended))
                tasks[ticket].add_done_callback(partial(tasks.pop, ticket))
            if not desk.running:
                continue
            for ticket, outcome in await _aarrived(ended, desk.alarm()):
                desk.give(ticket, outcome)
            _cancel(tasks[ticket] for ticket in desk.ring() if ticket in tasks)
        await _end(set(tasks.values()))
    except BaseException as error:
        desk.abandon(error)
        await _end(set(tasks.values()))
        raise
    return _results(desk, return_exceptions)


def _open(
    queries: Sequence[Prompt],
    policy: Policy | ChatModel | str,
    reward: Any,
    config: TPOConfig | None,
    inputs: Sequence[Any] | None,
    gold: Any,
    on_progress: Observer | None,
    max_concurrency: int | None,
    default_limit: int | None,
) -> Desk:
    """Check every argument, and start one line per query; no model is called yet."""
    if isinstance(queries, str) or not isinstance(queries, Sequence):
        raise InvalidInputError(f"queries must be a list of prompts, not {type(queries).__name__}")
    if inputs is not None and len(inputs) != len(queries):
        raise InvalidInputError(f"inputs and queries differ in length: {len(inputs)} and {len(queries)}")
    if max_concurrency is not None and max_concurrency < 1:
        raise InvalidInputError(f"max_concurrency must be at least 1, not {max_concurrency}")
    config = TPOConfig() if config is None else config
    if not isinstance(config, TPOConfig):
        raise InvalidInputError(f"config must be a TPOConfig, not {type(config).__name__}")
    answers = as_policy(policy)
    scores = as_reward(reward)
    holdout = None if gold is None else as_reward(gold)
    lines = []
    for place, query in enumerate(queries):
        given = None if inputs is None else inputs[place]
        ledger = Ledger(query, given, config, time.monotonic)
        loop = tpo_loop(query, config, inputs=given, ledger=ledger)
        lines.append((line(loop, answers, scores, on_progress, holdout, place, given), ledger))
    return Desk(lines, default_limit if max_concurrency is None else max_concurrency)


def _one(trajectory: Any) -> Trajectory:
    assert isinstance(trajectory, Trajectory)
    return trajectory


def _over(desk: Desk, return_exceptions: bool) -> bool:
    return desk.finished or (desk.first_error is not None and not return_exceptions)


def _results(desk: Desk, return_exceptions: bool) -> list[Any]:
    if desk.first_error is not None and not return_exceptions:
        desk.abandon(desk.first_error)
        raise desk.first_error
    weak = [t.diagnosis for t in desk.results if isinstance(t, Trajectory) and t.diagnosis]
    if len(weak) > len(desk.results) / 2:
        logger.warning(
            "%s%s", "" if len(desk.results) == 1 else f"{len(weak)} of {len(desk.results)} queries: ", weak[0]
        )
    return desk.results


def _outcome(ticket: Ticket) -> Outcome:
    """Run a job; its exception is its outcome."""
    try:
        return ticket.job.run()
    except Exception as error:  # noqa: BLE001 - the loop that asked decides what it costs
        return error


def _report(ended: queue.SimpleQueue[tuple[Ticket, Future[Outcome]]], ticket: Ticket, future: Future[Outcome]) -> None:
    ended.put((ticket, future))


def _arrived(
    ended: queue.SimpleQueue[tuple[Ticket, Future[Outcome]]], seconds: float | None
) -> list[tuple[Ticket, Future[Outcome]]]:
    """Wait until a job ends, at most these seconds; return all that have ended."""
    try:
        first = ended.get(timeout=seconds)
    except queue.Empty:
        return []
    return [first, *(ended.get() for _ in range(ended.qsize()))]


async def _arun(ticket: Ticket, ended: asyncio.Queue[_Arrival]) -> None:
    """Run a job in a task, and report it."""
    outcome: Outcome = ConnectionAbortedError("the request was cancelled")
    try:
        outcome = await ticket.job.arun()
    except Exception as error:  # noqa: BLE001 - the loop that asked decides what it costs
        outcome = error
    finally:
        ended.put_nowait((ticket, outcome))


async def _aarrived(ended: asyncio.Queue[_Arrival], seconds: float | None) -> list[tuple[Ticket, Outcome]]:
    """Wait until a job ends, at most these seconds; return all that have ended.

    A timer wakes the queue up. Were the wait for it cancelled instead, as by ``asyncio.wait_for``, a cancellation of
    the run that comes at the same moment would be lost before Python 3.12.
    """
    timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, ended.put_nowait, None)
    try:
        arrived = [await ended.get()]
    finally:
        if timer is not None:
            timer.cancel()
    arrived += [ended.get_nowait() for _ in range(ended.qsize())]
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
