"""A limit on how much is under way at once, shared by whoever asks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from tpo_core.threads import PerLoop, in_each_fork

__all__ = ["ConcurrencyLimit"]

T = TypeVar("T")


class ConcurrencyLimit:
    """Lets so many through at once: threads together, and the tasks of each event loop together.

    A thread cannot be cancelled, so what hangs in one keeps its place. Where that is true of every place, the next
    thread goes through all the same: this limits load, and must stop nobody for ever.

    Args:
        width: How many.
        stuck: After how many seconds a call in a thread is taken to hang.
    """

    def __init__(self, width: int, *, stuck: float = 120.0) -> None:
        self._width = width
        self._stuck = stuck
        self.renew()
        in_each_fork(self)

    def renew(self) -> None:
        """Begin with nothing under way."""
        self._entered: dict[object, float] = {}  # when, by call
        self._threads = threading.Condition()
        self._tasks = PerLoop(partial(asyncio.Semaphore, self._width))

    def __reduce__(self) -> tuple[type[ConcurrencyLimit], tuple[int]]:
        """Pickle as a new one."""
        return ConcurrencyLimit, (self._width,)

    def through(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call when there is room."""
        place = object()
        with self._threads:
            while not self._room():
                self._threads.wait(self._stuck / 8)
            self._entered[place] = time.monotonic()
        try:
            return call(*args, **kwargs)
        finally:
            with self._threads:
                del self._entered[place]
                self._threads.notify()

    async def athrough(self, call: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Call and await when there is room."""
        with self._tasks.lent() as places:
            async with places:
                return await call(*args, **kwargs)

    def _room(self) -> bool:
        late = time.monotonic() - self._stuck
        return sum(since > late for since in self._entered.values()) < self._width
