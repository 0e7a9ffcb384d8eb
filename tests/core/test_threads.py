"""Threads for calls that may hang: as many as there are calls, reused, and waited for by nobody."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest
from hanging import PATIENCE, hang

from tpo_core.threads import AT_ONCE, Threads, in_thread


def test_there_are_as_many_threads_as_calls_at_once():
    threads = Threads("tpo-test")
    names = {threads.submit(lambda: threading.current_thread().name).result(PATIENCE) for _ in range(50)}
    together = threading.Barrier(3)
    threads.close()
    assert len(names) == 1

    threads = Threads("tpo-test", most=3)
    calls = [threads.submit(together.wait, PATIENCE) for _ in range(6)]
    assert sorted(call.result(PATIENCE) for call in calls) == [0, 0, 1, 1, 2, 2]
    threads.close()


def test_calls_that_have_not_begun_when_the_threads_are_closed_never_do(hanging):
    threads, begun = Threads("tpo-test", most=1), threading.Event()
    first, second = threads.submit(lambda: (begun.set(), hang(hanging))), threads.submit(hang, hanging)
    assert begun.wait(PATIENCE)
    threads.close()
    assert second.cancelled() and not first.done()


async def test_threads_that_nobody_waits_for_leave_room_for_the_next_calls(hanging):
    begun = threading.Semaphore(0)

    def counted() -> Any:
        begun.release()
        return hang(hanging)

    calls = [asyncio.create_task(in_thread(counted)) for _ in range(AT_ONCE + 8)]
    for _ in range(AT_ONCE):
        assert await asyncio.to_thread(begun.acquire, timeout=PATIENCE / 2)
    assert not begun.acquire(blocking=False)
    for call in calls[1:]:
        call.cancel()
    await asyncio.wait(calls[1:])
    assert await asyncio.wait_for(in_thread(sum, [1, 2]), PATIENCE / 2) == 3
    hanging.set()
    assert await calls[0] == "late"


async def test_a_call_in_a_thread_has_the_caller_s_context_and_raises_what_it_raised():
    here: contextvars.ContextVar[str] = contextvars.ContextVar("here")
    here.set("caller")
    assert await in_thread(here.get) == "caller"
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 1, 0)
