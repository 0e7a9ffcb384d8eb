"""An event loop in a thread of its own, through which sync callers await."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

from tpo_core.threads import Mutex

__all__ = ["Portal", "portal"]

logger = logging.getLogger(__name__)

_Leave: TypeAlias = "Callable[[], Coroutine[Any, Any, None]]"

T = TypeVar("T")

_awaiting: contextvars.ContextVar[tuple[Portal, ...]] = contextvars.ContextVar("tpo_awaiting", default=())
"""The portals whose loops run what is under way here, in this thread or in one that waits for this."""


class Portal:
    """One event loop in one thread through which sync callers await: until it is closed, or nobody has it any more.

    A loop per call (``asyncio.run``) would close under the connection pools that async clients keep.

    Args:
        leave: Closes, in the loop, what was opened there; called once nobody has the portal, which it must not keep.
    """

    def __init__(self, leave: _Leave | None = None) -> None:
        self._leave = leave
        self._lock = Mutex()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._inner: Portal | None = None
        self._finalizer: weakref.finalize[..., Portal] | None = None

    def __reduce__(self) -> tuple[type[Portal], tuple[Any, ...]]:
        """Pickle as a new one."""
        return Portal, (self._leave,)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work`` in a copy of the caller's context and return its result."""
        # Async code here called sync code, perhaps in threads it waits for: to wait for this loop would never end.
        if threading.current_thread() is self._thread or self in _awaiting.get():
            with self._lock:
                self._inner = self._inner or Portal(self._leave)
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
            self._forget()

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._thread is None or not self._thread.is_alive():  # no thread follows into a fork
            self._forget()
            self._loop = loop = contextvars.Context().run(asyncio.new_event_loop)  # it keeps the one it is made in
            self._thread = threading.Thread(target=_serve, args=(loop,), name="tpo-rewards", daemon=True)
            self._thread.start()
            self._finalizer = weakref.finalize(self, _dropped, loop, self._thread, self._leave)
            self._finalizer.atexit = False  # there is no time to close anything in
        return self._loop

    def _forget(self) -> None:
        if self._finalizer is not None:
            self._finalizer.detach()
        self._loop = self._thread = self._finalizer = None


def _dropped(loop: asyncio.AbstractEventLoop, thread: threading.Thread, leave: _Leave | None) -> None:
    """End the loop of a portal that is gone, from whatever thread that happens to be noticed in."""
    if thread.is_alive():  # else it was closed, or stayed behind in the process that this one was forked from
        with suppress(RuntimeError):  # it has just been closed
            loop.call_soon_threadsafe(_end, loop, leave)


def _end(loop: asyncio.AbstractEventLoop, leave: _Leave | None) -> None:
    if leave is None:
        loop.stop()
    else:
        loop.create_task(leave()).add_done_callback(lambda _: loop.stop())


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
