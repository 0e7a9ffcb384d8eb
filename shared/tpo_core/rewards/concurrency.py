"""Do many calls at once: threads with copied contexts for sync callers, gather for async ones.

A call that raises costs only itself: its exception stands in its place. When every one raised, it is the reward that is
broken, not an answer, and the cause is raised.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import wait
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from tpo_core.errors import InvalidInputError, RewardError, UnsupportedError
from tpo_core.masking import masked
from tpo_core.models.refusals import one_line
from tpo_core.pace import Pace
from tpo_core.threads import Threads, in_thread
from tpo_core.values import Reward

__all__ = ["aeach", "aeach_sync", "each", "is_control_flow", "raise_if_broken", "settle"]

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
