"""The two drivers: calls in threads, or in an event loop.

What is out when is decided by the scheduler, the same for both. Around it, the sync driver makes calls in threads, each
with a copy of the caller's context, and waits on a queue; the async driver makes tasks and awaits a queue.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from tpo_core.drivers.outcomes import Done, Raised
from tpo_core.drivers.scheduler import Run, Scheduler
from tpo_core.drivers.serving import Ticket
from tpo_core.threads import Threads

__all__ = ["Awaited", "adrive", "drive"]

GRACE = 0.1
"""Seconds a run waits at its end for what it has cancelled: nobody's clean-up is cut short, and nobody's delays it."""

_lingering: set[asyncio.Task[None]] = set()
"""Cancelled tasks that took longer: an event loop itself holds its tasks weakly."""

T = TypeVar("T")
_Back: TypeAlias = "queue.SimpleQueue[tuple[Ticket[Any], Future[Done[Any] | Raised]]]"
_Arrival: TypeAlias = "tuple[Ticket[Any], Done[Any] | Raised] | None"
"""A ticket whose call has ended; None where time is up, or a source has something new."""


def drive(scheduler: Scheduler) -> Generator[Run, None, None]:
    """Make the calls in threads, and yield the runs as they end."""
    back: _Back = queue.SimpleQueue()
    threads = Threads()
    try:
        while True:
            tickets = list(scheduler.take())
            yield from scheduler.ended()
            if scheduler.finished:
                return
            if len(tickets) == scheduler.out and scheduler.is_at_one and scheduler.alarm() is None:
                for ticket, outcome in _together(tickets, threads):
                    scheduler.give(ticket, outcome)
                continue
            for ticket in tickets:
                threads.submit(_outcome, ticket).add_done_callback(partial(_report, back, ticket))
            if scheduler.out or scheduler.waits:
                for ticket, future in _arrived(back, scheduler.alarm()):
                    scheduler.give(ticket, future.result())  # an interrupt in a thread is an interrupt of the run
                scheduler.expire()
    finally:
        threads.close()


async def adrive(scheduler: Scheduler, source: Awaited[Any] | None = None) -> AsyncGenerator[Run, None]:
    """Make the calls in tasks, and yield the runs as they end.

    Args:
        scheduler: Says what is out when.
        source: What its runs are made of, where that comes from an async iterable.
    """
    back: asyncio.Queue[_Arrival] = asyncio.Queue()
    if source is not None:
        source.wake = partial(back.put_nowait, None)
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
            if scheduler.out or scheduler.waits:
                for ticket, outcome in await _aarrived(back, scheduler.alarm()):
                    scheduler.give(ticket, outcome)
                _cancel(tasks[ticket] for ticket in scheduler.expire() if ticket in tasks)
    finally:
        await _end(set(tasks.values()))


class Awaited(Iterator["tuple[T] | None"], Generic[T]):
    """What an async iterable brings, for a scheduler that takes it while calls are out: None for "not there yet".

    Args:
        items: Asked for one item at a time, when the one before has been taken.
    """

    def __init__(self, items: AsyncIterator[T]) -> None:
        """Ask for nothing yet."""
        self._items = items
        self._task: asyncio.Task[T] | None = None
        self.wake: Callable[[], object] = lambda: None
        """Called when an item has come."""

    def __next__(self) -> tuple[T] | None:
        """Return the next item if it is there."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._next())
            self._task.add_done_callback(lambda _: self.wake())
        if not self._task.done():
            return None
        task, self._task = self._task, None
        try:
            return (task.result(),)
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """Ask for no more."""
        if self._task is not None:
            self._task.cancel()

    async def _next(self) -> T:
        return await anext(self._items)


def _outcome(ticket: Ticket[T]) -> Done[T] | Raised:
    """Make a ticket's call."""
    try:
        return Done(ticket.call())
    except Exception as error:  # noqa: BLE001 - the run that asked decides what it costs
        return Raised(error)


async def _areport(ticket: Ticket[Any], back: asyncio.Queue[_Arrival]) -> None:
    """Make a ticket's call in this event loop, and report its outcome."""
    outcome: Done[Any] | Raised
    try:
        outcome = Done(await ticket.acall())
    except Exception as error:  # noqa: BLE001 - the run that asked decides what it costs
        outcome = Raised(error)
    except GeneratorExit:  # the event loop was dropped with this task in it: nobody is there to read a report
        raise
    except BaseException:
        back.put_nowait((ticket, Raised(ConnectionAbortedError("the request was cancelled"))))
        raise
    back.put_nowait((ticket, outcome))


def _together(tickets: Sequence[Ticket[Any]], threads: Threads) -> list[tuple[Ticket[Any], Done[Any] | Raised]]:
    """Make calls whose outcomes are of use only together: the first in this thread, which has nothing else to do."""
    first, *others = tickets
    futures = [threads.submit(_outcome, ticket) for ticket in others]
    outcome = contextvars.copy_context().run(_outcome, first) if others else _outcome(first)
    return [(first, outcome), *((t, future.result()) for t, future in zip(others, futures, strict=True))]


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
