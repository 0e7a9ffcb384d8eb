"""Processes that write into a run's store until they are stopped, for tests that stop them."""

from __future__ import annotations

import asyncio
import os
import resource
import threading
from itertools import count

from tpo_core import Candidate, StoreError, Trajectory, Usage
from tpo_core.runs import Item, RunStore
from tpo_core.runs.store import Answer

QUERIES = 6
ANSWERS = 25
"""Answers of a query before its trajectory."""

TRAJECTORY = Trajectory("q", (Candidate("best" * 50, reward=1.0),), usage=Usage(ANSWERS, ANSWERS, 10, 10))


def write_until_killed(folder: str, fifo: str, attempt: int) -> None:
    """Answer queries in an event loop and in threads; write what is acknowledged to the pipe ``fifo``.

    Lines: ``answer POSITION SEED`` and ``done POSITION``, each after its commit. Queries go on where they stood.
    """
    told = os.open(fifo, os.O_WRONLY)
    store = RunStore.open(folder, settings={"run": 1})
    queries = [store.admit(Item(f"q{n}", f"ask {n}")) for n in range(QUERIES * (attempt + 1))]
    todo = [query for query in queries if query.state == "open"]
    os.write(told, b"begun\n")

    def seeds(query):
        had = {answer.seeds for answer in store.answers(query)}
        return [seed for seed in range(ANSWERS) if str(seed) not in had]

    def row(query, seed):
        return Answer(query.position, "sample", 0, str(seed), b"hash", str(seed), True, b"text" * 200)

    async def awaited(query):
        for seed in seeds(query):
            await store.keep([row(query, seed)])
            os.write(told, f"answer {query.position} {seed}\n".encode())
        await store.finish(query.position, TRAJECTORY)
        os.write(told, f"done {query.position}\n".encode())

    def waited(query):
        for seed in seeds(query):
            store.keep([row(query, seed)]).wait()
            os.write(told, f"answer {query.position} {seed}\n".encode())
        store.finish(query.position, TRAJECTORY).wait()
        os.write(told, f"done {query.position}\n".encode())

    async def all_of_them():
        await asyncio.gather(*map(awaited, todo[::2]))

    for query in todo[1::2]:
        threading.Thread(target=waited, args=(query,), daemon=True).start()
    asyncio.run(all_of_them())
    threading.Event().wait()


def write_until_full(folder: str, fifo: str, limit: int) -> None:
    """Write until no file may grow beyond ``limit`` bytes; tell what was acknowledged, then the error."""
    told = os.open(fifo, os.O_WRONLY)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        with RunStore.open(folder) as store:
            store.admit(Item("a", "ask"))
            for seed in count():
                store.keep([Answer(0, "sample", 0, str(seed), b"h", str(seed), True, b"text" * 300)]).wait()
                os.write(told, f"answer 0 {seed}\n".encode())
    except StoreError as error:
        os.write(told, f"error {error}\n".encode())
