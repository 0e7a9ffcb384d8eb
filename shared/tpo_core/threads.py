"""Calls in threads that nothing waits for: no deadline, no other call, not the end of the process.

The threads of ``concurrent.futures`` are as many as they were made, and joined when the process ends, so that requests
that hang hold up both. These are daemons, and there are as many as there are calls at once.

A forked process has none of the threads of its parent, and locks as they were: what another thread held, nobody will
ever let go. What is kept for long has its locks, and counts of calls under way, made anew there: ``in_each_fork``.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar
from weakref import WeakSet

__all__ = ["AT_ONCE", "Mutex", "Threads", "in_each_fork", "in_thread"]

P = ParamSpec("P")
T = TypeVar("T")

AT_ONCE = 32
"""Calls at once in threads, unless the caller says otherwise; those that nobody awaits any more do not count."""


class Threads:
    """Runs calls at once, each in a copy of its caller's context. One caller submits; any thread may run.

    Args:
        name: The threads' name.
        most: Most threads; further calls wait for one. None for as many as there are calls at once.
    """

    def __init__(self, name: str, most: int | None = None) -> None:
        """Start no thread yet."""
        self._name, self._most = name, most
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0

    def submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call in a thread, and return the future of what it returns or raises."""
        future: Future[T] = Future()
        self._calls.put((future, partial(contextvars.copy_context().run, call, *args, **kwargs)))
        if not self._idle.acquire(blocking=False) and (self._most is None or self._started < self._most):
            self._started += 1
            threading.Thread(target=self._serve, name=f"{self._name}-{self._started}", daemon=True).start()
        return future

    def close(self) -> None:
        """Cancel the calls that have not begun, and let each thread end with the call that it is in."""
        while not self._calls.empty():
            try:
                waiting = self._calls.get_nowait()
            except queue.Empty:
                break
            if waiting is not None:
                waiting[0].cancel()
        self._calls.put(None)

    def _serve(self) -> None:
        while (taken := self._calls.get()) is not None:
            self._run(*taken)
            del taken  # it may hold much, and the next may be long in coming
        self._calls.put(None)  # for the next thread

    def _run(self, future: Future[Any], call: Callable[[], Any]) -> None:
        """Run one call; the thread is idle again before anyone hears of its end, so that the next call finds it."""
        if not future.set_running_or_notify_cancel():
            self._idle.release()
            return
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            self._idle.release()
            future.set_exception(error)
        else:
            self._idle.release()
            future.set_result(result)
        finally:
            del future, call  # the error's traceback leads here, and back to the error


class _LoopThreads:
    """The threads of one event loop, there while a call of it is under way."""

    def __init__(self) -> None:
        self.threads, self.gate, self.calls = Threads("tpo-async"), asyncio.Semaphore(AT_ONCE), 0


_by_loop: dict[asyncio.AbstractEventLoop, _LoopThreads] = {}


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call in a thread without blocking the event loop.

    Unlike with ``asyncio.to_thread``, a call that hangs after its caller was cancelled holds up neither other calls nor
    the end of the loop.
    """
    loop = asyncio.get_running_loop()
    ours = _by_loop.setdefault(loop, _LoopThreads())
    ours.calls += 1
    try:
        async with ours.gate:
            return await asyncio.wrap_future(ours.threads.submit(call, *args, **kwargs))
    finally:
        ours.calls -= 1
        if not ours.calls:
            del _by_loop[loop]
            ours.threads.close()


class Renewable(Protocol):
    """What a forked process must not go on with as it is."""

    def renew(self) -> None:
        """Begin anew: no other thread is here, and none of the calls that were under way."""


_renewables: WeakSet[Renewable] = WeakSet()


def in_each_fork(thing: Renewable) -> None:
    """Have something renewed in each process that is forked from now on, while it lives."""
    _renewables.add(thing)


def _forked() -> None:
    for thing in list(_renewables):
        thing.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


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
