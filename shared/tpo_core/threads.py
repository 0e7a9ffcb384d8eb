"""Calls in threads that nothing waits for: no deadline, no other call, not the end of the process.

The threads of ``concurrent.futures`` are as many as they were made, and joined when the process ends, so that requests
that hang hold up both. These are daemons, and there are as many as there are calls at once. A thread takes as long to
start as a short call, so one that has nothing to do waits a while for the next call, whoever makes it.

A forked process has none of the threads of its parent, and locks as they were: what another thread held, nobody will
ever let go. What is kept for long has its locks, and counts of calls under way, made anew there: ``in_each_fork``.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, Generic, ParamSpec, Protocol, TypeAlias, TypeVar
from weakref import WeakSet

__all__ = ["AT_ONCE", "Mutex", "PerLoop", "Threads", "after_fork", "in_each_fork", "in_thread", "resting"]

P = ParamSpec("P")
T = TypeVar("T")

AT_ONCE = 32
"""Calls at once in threads, unless the caller says otherwise; those that nobody awaits any more do not count."""

IDLE = 10.0
"""Seconds for which a thread waits for its next call."""


class Threads:
    """Runs calls at once, each in a copy of its caller's context. One caller submits; any thread may run.

    Args:
        most: Most threads; further calls wait for one. None for as many as there are calls at once.
    """

    def __init__(self, most: int | None = None) -> None:
        """Start no thread yet."""
        self._most, self._busy = most, 0
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._lock = threading.Lock()

    def submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call in a thread, and return the future of what it returns or raises."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.append((future, partial(contextvars.copy_context().run, call, *args, **kwargs)))
            if self._busy == self._most:
                return future
            self._busy += 1
        _in_some_thread(self._serve)
        return future

    def close(self) -> None:
        """Cancel the calls that have not begun; those that have go on."""
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
        for future, _ in waiting:
            future.cancel()

    def _serve(self, rest: Callable[[], None]) -> None:
        """Make the calls that wait; the thread rests before anyone hears of the last, so that the next call finds it.

        Args:
            rest: Lets the thread be given something else.
        """
        tell: Callable[[], None] | None = None
        while (taken := self._next()) is not None:
            if tell is not None:
                tell()
            tell = _made(*taken)
        rest()
        if tell is not None:
            tell()

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._busy -= 1
            return None


def _made(future: Future[Any], call: Callable[[], Any]) -> Callable[[], None] | None:
    """Make a call, unless it was cancelled; returns what tells its outcome."""
    if not future.set_running_or_notify_cancel():
        return None
    try:
        return partial(future.set_result, call())
    except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
        return partial(future.set_exception, error)
    finally:
        del future, call  # the error's traceback leads here, and back to the error


_Job: TypeAlias = "Callable[[Callable[[], None]], None]"
"""What a thread is given to do, with what it calls when the thread may be given something else."""

_numbers = count(1)


class _Worker:
    """A thread of this process. The one that rested last is given the next job: it is warm, and the others end."""

    def __init__(self, job: _Job) -> None:
        """Start with a job."""
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self.give = self._jobs.put
        self.thread = threading.Thread(target=self._serve, args=(job,), name=f"tpo-{next(_numbers)}", daemon=True)
        self.thread.start()

    def _serve(self, job: _Job) -> None:
        while True:
            job(self._rest)
            del job  # it may hold much, and the next may be long in coming
            try:
                job = self._jobs.get(timeout=IDLE)
            except queue.Empty:
                if _resting.pop(self, False):
                    return
                job = self._jobs.get()  # somebody has just chosen this one

    def _rest(self) -> None:
        _resting[self] = True


_resting: dict[_Worker, bool] = {}  # its own operations are atomic


def resting() -> set[threading.Thread]:
    """Return the threads that have nothing to do."""
    return {worker.thread for worker in list(_resting)}


def _in_some_thread(job: _Job) -> None:
    try:
        worker, _ = _resting.popitem()
    except KeyError:
        _Worker(job)
    else:
        worker.give(job)


class PerLoop(Generic[T]):
    """One thing for each event loop, there while a task of it uses it: what is kept longer would keep its loop.

    Args:
        make: Makes one.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        """Begin with none."""
        self._make = make
        self._used: dict[asyncio.AbstractEventLoop, list[T]] = {}  # as often as it is in use

    @contextmanager
    def lent(self) -> Iterator[T]:
        """Give the one of the event loop that runs in this thread."""
        loop = asyncio.get_running_loop()
        uses = self._used.setdefault(loop, [])
        uses.append(uses[0] if uses else self._make())
        try:
            yield uses[0]
        finally:
            uses.pop()
            if not uses:
                del self._used[loop]


class _LoopThreads:
    """The threads of one event loop."""

    def __init__(self) -> None:
        self.threads, self.gate = Threads(), asyncio.Semaphore(AT_ONCE)


_of_loops = PerLoop(_LoopThreads)


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call in a thread without blocking the event loop.

    Unlike with ``asyncio.to_thread``, a call that hangs after its caller was cancelled holds up neither other calls nor
    the end of the loop.
    """
    with _of_loops.lent() as ours:
        async with ours.gate:
            return await asyncio.wrap_future(ours.threads.submit(call, *args, **kwargs))


class Renewable(Protocol):
    """What a forked process must not go on with as it is."""

    def renew(self) -> None:
        """Begin anew: no other thread is here, and none of the calls that were under way."""


_renewables: WeakSet[Renewable] = WeakSet()


def in_each_fork(thing: Renewable) -> None:
    """Have something renewed in each process that is forked from now on, while it lives."""
    _renewables.add(thing)


def _forked() -> None:
    _resting.clear()
    for thing in list(_renewables):
        thing.renew()


def after_fork(call: Callable[[], None]) -> None:
    """Have a function called in each process that is forked from now on, first of all; nothing where none can be."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


after_fork(_forked)


class Mutex:
    """A lock that a pickle leaves behind, and that is open in a forked process: hosts copy whole programs."""

    def __init__(self) -> None:
        self.renew()
        in_each_fork(self)

    def renew(self) -> None:
        """Open it, whoever holds it."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *raised: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Mutex], tuple[()]]:
        """Pickle as a new one."""
        return Mutex, ()
