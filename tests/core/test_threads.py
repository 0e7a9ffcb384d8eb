"""Threads for calls that may hang: as many as there are calls, reused, and waited for by nobody."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from hanging import PATIENCE, hang

from tpo_core import threads as module
from tpo_core.threads import AT_ONCE, Threads, in_thread, resting


def test_there_are_as_many_threads_as_calls_at_once():
    threads = Threads()
    names = {threads.submit(lambda: threading.current_thread().name).result(PATIENCE) for _ in range(50)}
    together = threading.Barrier(3)
    threads.close()
    assert len(names) == 1

    threads = Threads(most=3)
    calls = [threads.submit(together.wait, PATIENCE) for _ in range(6)]
    assert sorted(call.result(PATIENCE) for call in calls) == [0, 0, 1, 1, 2, 2]
    threads.close()


def test_a_thread_rests_until_the_next_call_of_whoever_makes_it():
    first = Threads().submit(threading.current_thread).result(PATIENCE)
    assert first in resting()
    assert Threads(most=1).submit(threading.current_thread).result(PATIENCE) is first


def test_a_thread_that_nobody_gives_anything_to_do_ends(monkeypatch):
    together = threading.Barrier(2)

    def call() -> threading.Thread:
        together.wait(PATIENCE)
        return threading.current_thread()

    monkeypatch.setattr(module, "IDLE", 0.01)
    threads = Threads()
    calls = [threads.submit(call) for _ in range(2)]
    for thread in [call.result(PATIENCE) for call in calls]:
        thread.join(PATIENCE)
        assert not thread.is_alive() and thread not in resting()
    assert Threads().submit(sum, [1, 2]).result(PATIENCE) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_that_was_forked_starts_threads_of_its_own():
    script = (
        "import os\n"
        "from tpo_core.threads import Threads\n"
        "assert Threads().submit(sum, [1, 2]).result() == 3\n"
        "child = os.fork()\n"
        f"assert Threads().submit(sum, [1, 2]).result({PATIENCE}) == 3\n"
        "os._exit(0 if child == 0 else os.waitpid(child, 0)[1])\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=2 * PATIENCE)


def test_calls_that_have_not_begun_when_the_threads_are_closed_never_do(hanging):
    threads, begun = Threads(most=1), threading.Event()
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
