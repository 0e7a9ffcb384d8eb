"""Do many calls at once: threads with copied contexts for sync callers, gather for async ones.

A call that raises costs only itself: its exception stands in its place. When every one raised, it is the reward that is
broken, not an answer, and the cause is raised.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from tpo_core.errors import InvalidInputError, RewardError, UnsupportedError
from tpo_core.masking import masked
from tpo_core.models.refusals import one_line
from tpo_core.pace import Pace
from tpo_core.threads import Mutex, Threads, in_thread
from tpo_core.values import Reward

__all__ = ["Portal", "aeach", "aeach_sync", "each", "is_control_flow", "portal", "raise_if_broken", "settle"]

logger = logging.getLogger(__name__)

_ALONE = 0.02
"""Most seconds that calls are made one at a time, to be measured, of a function not known to take longer."""

_NOTHING = nullcontext()

S = TypeVar("S")
T = TypeVar("T")


def each(call: Callable[[S], T], items: Sequence[S], workers: int, pace: Pace | None = None) -> list[T | Exception]:
    """Call with each item, up to ``workers`` at a time, every one in a copy of the caller's context.

    Args:
        call: A sync function.
        items: What it is called with, one at a time.
        workers: Most threads.
        pace: What is known of the function: a quick one needs no threads. Without it, none is taken for quick.

    Returns:
        The result or the exception of each, in the order of the items.
    """
    if pace is not None and pace.quick:
        with _unstreamed():
            found = _masked(pace.here(call, items, math.inf))
        if len(found) == len(items):
            return found
        alone = len(found) + pace.in_doubt  # one call tells, and needs no thread
        doubtful, rest = items[len(found) : alone], items[alone:]
        return [*found, *each(call, doubtful, workers, pace), *each(call, rest, workers, pace)]

    def one(item: S) -> T | Exception:
        try:
            return call(item) if pace is None else pace.timed(call, item)
        except Exception as error:  # noqa: BLE001  whatever a user's function raises costs one item
            return masked(error)

    if len(items) <= 1 or workers == 1:
        with _unstreamed():
            return [one(item) for item in items]
    threads = Threads(min(workers, len(items)))
    try:
        with _unstreamed():
            futures, alone = [], pace is not None and pace.short
            for item in items:
                futures.append(threads.submit(one, item))
                if alone and wait(futures[-1:], _ALONE).not_done:
                    alone = False
        return [f.result() for f in futures]
    finally:
        threads.close()  # nothing waits here unless the caller was interrupted


async def aeach_sync(call: Callable[[S], T], items: Sequence[S], workers: int, pace: Pace) -> list[T | Exception]:
    """Call a sync function as ``each`` does: in place where it is quick, else in threads, without blocking."""
    found: list[T | Exception] = []
    if pace.quick:
        with _unstreamed():
            found = _masked(pace.here(call, items))
    if len(found) < len(items):
        found += await in_thread(each, call, items[len(found) :], workers, pace)
    return found


async def aeach(call: Callable[[S], Awaitable[T]], items: Sequence[S], workers: int) -> list[T | Exception]:
    """Call as ``each`` does, without blocking."""
    gate = asyncio.Semaphore(workers)

    async def one(item: S) -> T | Exception:
        async with gate:
            try:
                return await call(item)
            except Exception as error:  # noqa: BLE001  as in each
                return masked(error)

    with _unstreamed():
        return list(await asyncio.gather(*[one(item) for item in items]))


def _masked(outcomes: Sequence[T | Exception]) -> list[T | Exception]:
    return [masked(outcome) if isinstance(outcome, Exception) else outcome for outcome in outcomes]


def _unstreamed() -> AbstractContextManager[object]:
    """Keep what a reward's own DSPy models write out of the stream of the program that is being refined.

    It is nobody's answer, and DSPy cannot stream from threads that are not its own.
    """
    settings = getattr(sys.modules.get("dspy"), "settings", None)
    return _NOTHING if settings is None or settings.send_stream is None else settings.context(send_stream=None)


def settle(results: Sequence[Reward | Exception], name: str) -> list[Reward]:
    """Turn exceptions into NaN rewards that say why.

    Raises:
        RewardError: Every one is an exception; the first is chained.
    """
    raise_if_broken(results, name)
    return [Reward(math.nan, failure=_said(r)) if isinstance(r, Exception) else r for r in results]


def raise_if_broken(results: Sequence[object], name: str) -> None:
    """Raise what no single answer is to blame for: a host's control flow, something unsupported, or every call failing.

    Raises:
        RewardError: Every result is an exception; the first is chained.
    """
    errors = [r for r in results if isinstance(r, Exception)]
    for error in errors:
        if is_control_flow(error) or isinstance(error, UnsupportedError):
            raise error
    if errors and len(errors) == len(results):
        first = errors[0]
        if isinstance(first, (RewardError, InvalidInputError)):
            raise first
        raise RewardError(f"reward {name!r} failed on all {len(errors)} calls; the first: {one_line(first)}") from first


def is_control_flow(error: BaseException) -> bool:
    """Return whether an exception is a host's way to stop or suspend a run (LangGraph's interrupts) and no error."""
    module = sys.modules.get("langgraph.errors")
    return module is not None and isinstance(error, module.GraphBubbleUp)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


_awaiting: contextvars.ContextVar[tuple[Portal, ...]] = contextvars.ContextVar("tpo_awaiting", default=())
"""The portals whose loops run what is under way here, in this thread or in one that waits for this."""


class Portal:
    """One event loop in one thread, kept for the life of the process, through which sync callers await.

    A loop per call (``asyncio.run``) would close under the connection pools that async clients keep.
    """

    def __init__(self) -> None:
        self._lock = Mutex()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._inner: Portal | None = None

    def __reduce__(self) -> tuple[type[Portal], tuple[()]]:
        """Pickle as a new one."""
        return Portal, ()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work`` in a copy of the caller's context and return its result."""
        # Async code here called sync code, perhaps in threads it waits for: to wait for this loop would never end.
        if threading.current_thread() is self._thread or self in _awaiting.get():
            with self._lock:
                self._inner = self._inner or Portal()
            return self._inner.run(work)
        future = self.submit(self._awaited(work))
        try:
            return future.result()
        except BaseException:
            future.cancel()  # the caller is gone (an interrupt): do not go on without it
            raise

    async def _awaited(self, work: Coroutine[Any, Any, T]) -> T:
        _awaiting.set((*_awaiting.get(), self))
        return await work

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start ``work`` in a copy of the caller's context."""
        with self._lock:  # so that no close comes between, after which nothing would run it
            return asyncio.run_coroutine_threadsafe(work, self._running())

    def close(self) -> None:
        """Stop the loop; the next call starts another."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = self._thread = None

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._thread is None or not self._thread.is_alive():  # no thread follows into a fork
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_serve, args=(self._loop,), name="tpo-rewards", daemon=True)
            self._thread.start()
        return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    stopped = False
    while not stopped:
        try:
            loop.run_forever()
            stopped = True
        except BaseException:  # an exit or interrupt that a task raised: whoever awaits the task gets it
            logger.debug("a task ended with an exit or an interrupt", exc_info=True)
    loop.run_until_complete(_wind_up())
    loop.close()


async def _wind_up() -> None:
    """End what is left, so that nobody waits for it for ever."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
    await asyncio.get_running_loop().shutdown_default_executor()


portal = Portal()
"""The one that rewards share."""
