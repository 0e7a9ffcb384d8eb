"""Event loops that come and go, processes that are forked and spawned, and interpreters that end in the middle."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import weakref
from collections import Counter
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asked import Chain, Engine, Judged, Program

from loopback import LoopbackServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

__all__ = ["endings", "event_loops", "forks", "spawns"]

LOOPS = 20
"""Event loops of one object."""

CHILDREN = 3
"""Processes forked one right after the other."""

PATIENCE = 60.0
"""Seconds after which what has not ended hangs."""

HELPERS = str(Path(__file__).parents[1] / "helpers")


def _answer(request: dict[str, Any], number: int) -> str:
    """Repeat the query, in the form in which it is wanted; a judge's answer has a grade."""
    asked = request["messages"][-1]["content"]
    query = asked[asked.find("query") :].split("?")[0]
    if "[[ ## answer ## ]]" in asked:
        return f"[[ ## answer ## ]]\n{query}: answer {number}\n\n[[ ## completed ## ]]"
    return f"{query}: answer {number}. Grade: {number % 9 + 1}"


@cache
def _url() -> str:
    """Return the address of a server that is there until the process ends."""
    return LoopbackServer(_answer).__enter__().url


def event_loops(seed: int, seen: Counter[str]) -> None:
    """Use one object in event loops that come and go, and from the sync side between them."""
    kind = (Engine, Judged, Chain, Program)[seed % 4]
    one, loops = kind(_url()), list[weakref.ref[asyncio.AbstractEventLoop]]()

    async def ask(query: str) -> str:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        return await one.aask(f"{query}?")

    for number in range(LOOPS):
        query = f"query {seed}.{number}"
        answer = one.ask(f"{query}?") if number % 7 == 3 else asyncio.run(ask(query))
        assert query in answer, f"{query} was answered {answer!r}"
        seen[f"{kind.__name__} answers"] += 1
    gc.collect()
    held = sum(loop() is not None for loop in loops)
    assert held <= 1 or kind in (Chain, Program), f"{held} of {len(loops)} event loops that have ended are still held"


def forks(seed: int, seen: Counter[str]) -> None:
    """Use an object, then fork: each child is answered, and so is the parent, while other threads of it go on asking.

    The clients of LangChain and DSPy share their connections with what is forked, so their children come one by one,
    with nothing under way.
    """
    kind = (Engine, Chain, Judged, Program)[seed % 4]
    one = kind(_url())
    assert "query 0" in one.ask("query 0?")
    ours = kind in (Engine, Judged)
    with _busy(one) if ours else ExitStack():
        if ours:
            _children("fork", one, range(CHILDREN), seed, seen)
        else:
            for child in range(CHILDREN):
                _children("fork", one, [child], seed, seen)
        assert "query after" in one.ask("query after?")


def spawns(seed: int, seen: Counter[str]) -> None:
    """Take a used object into a process that is spawned, or forked by a server of processes."""
    one = Engine(_url())
    assert "query 0" in one.ask("query 0?")
    _children(("spawn", "forkserver")[seed % 2], one, [0], seed, seen)


def _children(method: str, one: Any, children: Any, seed: int, seen: Counter[str]) -> None:
    """Start processes that ask a query each, and check what they were answered."""
    context: Any = multiprocessing.get_context(method)
    started = []
    for child in children:
        here, there = context.Pipe(duplex=False)
        query = f"query {seed}.{child}"
        process = context.Process(target=_child, args=(one, f"{query}?", there))
        process.start()
        there.close()
        started.append((process, here, query))
    for process, here, query in started:
        answered = here.poll(PATIENCE)
        answer = here.recv() if answered else "nothing"
        process.join(PATIENCE if answered else 0)
        if process.exitcode is None:
            process.kill()
            raise AssertionError(f"a process started by {method} hangs; it was answered {answer!r}")
        assert query in answer and process.exitcode == 0, f"{method}: {query} was answered {answer!r}"
        seen[f"{type(one).__name__} by {method}"] += 1


def _child(one: Any, query: str, pipe: Connection) -> None:
    try:
        pipe.send(one.ask(query))
    except BaseException as error:
        pipe.send(repr(error))
        raise


@contextmanager
def _busy(one: Any) -> Iterator[None]:
    """Have threads ask all the while, so that a fork finds locks held and calls under way."""
    over, failed = threading.Event(), list[str]()

    def ask(name: int) -> None:
        number = 0
        while not over.is_set():
            number += 1
            query = f"query busy {name}.{number}"
            if query not in (answer := one.ask(f"{query}?")):
                failed.append(f"{query} was answered {answer!r}")

    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert not failed and not any(thread.is_alive() for thread in threads), failed


ENDINGS = {
    "the main thread ends while a thread asks": "threading.Thread(target=ask).start()",
    "the main thread ends while a daemon asks": "threading.Thread(target=ask, daemon=True).start()",
    "a daemon asks by an event loop": "threading.Thread(target=lambda: asyncio.run(aask()), daemon=True).start()",
    "a task is left behind": "asyncio.run(left_behind())",
    "an exit in a task": "asyncio.run(exiting())",
    "an exit in the main thread": "threading.Thread(target=ask, daemon=True).start(); begun.wait(); sys.exit(3)",
    "an executor's thread": "concurrent.futures.ThreadPoolExecutor().submit(ask)",
}
"""What a program's last lines are; another answer is under way behind each of them."""

PROGRAM = """
import asyncio, concurrent.futures, sys, threading
from asked import {kind}
begun = threading.Event()
one = {kind}({url!r})
one.ask("query 0?")
def ask():
    begun.set()
    for number in range(3): one.ask("query 1?")
async def aask():
    for number in range(3): await one.aask("query 1?")
async def left_behind():
    asyncio.ensure_future(aask()); await asyncio.sleep(0.01)
async def exiting():
    asyncio.ensure_future(aask()); await asyncio.sleep(0.01); sys.exit(3)
{ending}
begun.wait(0.1)
"""


def endings(seed: int, seen: Counter[str]) -> None:
    """End an interpreter while something asks: it ends in time, and nothing of ours complains."""
    name = list(ENDINGS)[seed % len(ENDINGS)]
    kind = (Engine, Judged, Chain, Program)[seed // len(ENDINGS) % 4]
    program = PROGRAM.format(kind=kind.__name__, url=_url(), ending=ENDINGS[name])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([HELPERS, *sys.path])}
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{name}: it does not end") from None
    assert done.returncode == (3 if name.startswith("an exit") else 0), (
        f"{name}: code {done.returncode}: {done.stderr[-1500:]}"
    )
    assert "tpo_" not in done.stderr and "Traceback" not in done.stderr, f"{name}: {done.stderr[-1500:]}"
    seen[name] += 1
