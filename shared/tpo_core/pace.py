"""Sync functions that are too quick for a thread: found out by measuring, and called where their caller is.

A hand-over to a thread costs some 100 microseconds of processor time, and a reward or a parser may take two. An event
loop, though, must not be held for long. So a function is called in threads until it was quick five times with no slow
call between, and from then on in place, for at most ``LIMIT`` at a time, still measured.

A call is quick that took less than ``EACH`` of processor time and waited for no lock, socket or other thread. It is
slow if it took ``FAR`` times that, or waited though nobody took the processor from it. Any other is in doubt: a busy
machine or the garbage collector makes one of a quick one now and then. The next call is then made in a thread, and is
slow if it is in doubt, too. After a slow one, more and more quick ones are asked for, so that a function with two faces
is seldom trusted. The clock is asked only to see that a call waited: on a busy machine, most of what it shows is the
time of others. So an event loop is held for ``LIMIT`` and what one call takes; if that was not quick, it was the last.

That it waits shows in the processor that it gave away, and in time that passed without it. Both are looked at: of 3,000
calls that waited for another thread for some 30 microseconds, 150 to 2,900 gave nothing away, and at most 5 seemed to
wait by neither, no two of them in a row.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["EACH", "FAR", "LIMIT", "Pace"]

S = TypeVar("S")
T = TypeVar("T")

EACH = 0.000_2
"""Most seconds of processor time of a quick call."""

FAR = 5
"""How many times that makes a single call slow, whatever the machine did beside it."""

LIMIT = 0.001
"""Most seconds of processor time that calls are made in place, one after the other; the rest then goes to a thread."""

_AT_FIRST, _AT_MOST = 5, 320  # quick calls in a row before a function is called in place
_MANY = 1000
_NEVER = 1 << 62
_APART = 0.000_001  # seconds by which two clocks may differ
_COUNTED = hasattr(resource, "RUSAGE_THREAD")  # whether this system counts how often a thread waits


class Pace:
    """What is known about one function's pace; any number of threads may ask and tell.

    Args:
        each: Most seconds of processor time of a quick call.

    Example:
        >>> pace = Pace(each=1.0)
        >>> for _ in range(100):
        ...     _ = pace.timed(len, "abc")
        >>> pace.quick, pace.here(len, ["a", "bb"])
        (True, [1, 2])
    """

    def __init__(self, each: float = EACH) -> None:
        """Know nothing: a thread is the safe place."""
        self._each, self._row, self._needed = each, 0, _AT_FIRST
        self._took, self._doubted = 0.0, False

    @property
    def quick(self) -> bool:
        """Return whether the function may be called in place."""
        return self._row >= self._needed and not self._doubted

    @property
    def in_doubt(self) -> bool:
        """Return whether the next call tells if the function is quick still."""
        return self._row >= self._needed and self._doubted

    @property
    def short(self) -> bool:
        """Return whether no call or a short one was the last to be measured: the next is worth measuring undisturbed.

        Threads that run at once take the interpreter from each other, which looks as if each of them waited.
        """
        return self._took < LIMIT

    def timed(self, call: Callable[[S], T], item: S) -> T:
        """Call, in whatever thread this is, and learn from how long it took."""
        (waits, losses), ran, began = _switches(), time.thread_time(), time.perf_counter()
        try:
            return call(item)
        finally:
            took = time.perf_counter() - began  # within what is counted as processor time
            ran = time.thread_time() - ran
            waited, lost = _switches()
            self._took = took
            self._judge(ran, waited > waits, lost > losses, idle=took > 1.1 * ran + _APART)

    def here(self, call: Callable[[S], T], items: Sequence[S], limit: float = LIMIT) -> list[T | Exception]:
        """Call with items in place, each in a copy of the context, until ``limit`` is used up or a call was slow.

        Returns:
            The result or the exception of each of the first items, of all of them if all goes well.
        """
        found: list[T | Exception] = []
        if not self.quick:
            return found
        began = now = time.perf_counter()
        (waits, losses), ran, since = _switches(), time.thread_time(), 0
        held = ran + limit
        for item in items:
            if found and now - began > limit and time.thread_time() > held:
                break
            since += 1
            try:
                found.append(contextvars.copy_context().run(call, item))
            except Exception as error:  # noqa: BLE001 - whatever a user's function raises costs one item
                if _needs_a_thread(error):
                    self._row, self._needed = 0, _NEVER
                    break
                found.append(error)
            before, now = now, time.perf_counter()
            if now - before <= self._each:
                self._row += 1
            else:  # not quick, unless the processor was merely taken from it
                (waited, lost), spent = _switches(), time.thread_time()
                self._judge(spent - ran - (since - 1) * self._each, waited > waits, lost > losses)
                waits, losses, ran, since = waited, lost, spent, 0
                if not self.quick:
                    break
        return found

    def _judge(self, ran: float, waited: bool, lost: bool, idle: bool = False) -> None:
        """Learn of a call.

        Args:
            ran: Seconds of processor time.
            waited: Whether it gave the processor away.
            lost: Whether the processor was taken from it.
            idle: Whether more time passed than it ran; where the processor was taken from it, this tells nothing.
        """
        if ran < self._each and not waited and not idle:
            self._row, self._doubted = self._row + 1, False
        elif ran >= self._each or waited or not lost:
            if self._doubted or ran >= FAR * self._each or (waited and not lost):
                if self._row >= self._needed:  # after very many quick ones, it is the garbage collector's fault, say
                    self._needed = _AT_FIRST if self._row > _MANY else min(4 * self._needed, _AT_MOST)
                self._row = 0
            self._doubted = True


def _switches() -> tuple[int, int]:
    """Return how often this thread has given the processor away to wait for something, and how often it lost it."""
    if not _COUNTED:
        return 0, 0
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_nvcsw, usage.ru_nivcsw


def _needs_a_thread(error: Exception) -> bool:
    """Return whether a call failed because an event loop runs where it was made: it has one of its own."""
    return isinstance(error, RuntimeError) and "event loop" in str(error)
