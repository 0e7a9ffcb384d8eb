"""How many answers a second a run's store takes, each in the file before its caller goes on.

Callers keep one answer after another and wait for each: in an event loop, in threads, or all in one thread. What waits
together is committed together, so that more callers get more done. Then queries: each is taken up, answered 19 times
(D2-N5), replayed once, and ended with its trajectory. Prints one line a case: a second, CPU seconds of this process for
each thousand, and the file's size.

    python benchmarks/store.py [--answers 20000] [--characters 1500] [--queries 500] [--folder /tmp]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tpo_core import Candidate, Trajectory, Usage
from tpo_core.loop.effects import Generate
from tpo_core.runs import Item, ReplayPolicy, RunStore, UnderWay
from tpo_core.runs.codec import completion_to_bytes
from tpo_core.runs.store import Answer
from tpo_core.testing import ScriptedPolicy
from tpo_core.values import Completion


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--characters", type=int, default=1500, help="of each answer")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--folder", help="on the disk to measure")
    args = parser.parse_args()
    text = "An answer of words. " * (args.characters // 20)
    for callers in (1, 16, 256, 2000):
        measure(f"answers, {callers} tasks", args, lambda store, k=callers: asyncio.run(in_tasks(store, k, args, text)))
    for callers in (1, 16, 64):
        measure(f"answers, {callers} threads", args, lambda store, k=callers: in_threads(store, k, args, text))
    measure("queries, 64 tasks", args, lambda store: asyncio.run(whole_queries(store, args, text)), args.queries)


def measure(name: str, args: argparse.Namespace, work: Callable[[RunStore], None], count: int | None = None) -> None:
    """Time one case in a folder of its own."""
    count = count or args.answers
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        with RunStore.open(folder) as store:
            store.admit(Item("0", "What is asked?"))
            wall, cpu = time.perf_counter(), time.process_time()
            work(store)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        size = (Path(folder) / "run.sqlite").stat().st_size
    print(f"{name:<22} {count / wall:>9,.0f} /s   {1e3 * cpu / count:7.3f} CPU s/1,000   {size / 1e6:7.1f} MB")


def answer(caller: int, number: int, text: str) -> Answer:
    """Write an answer as a policy's is kept."""
    data = completion_to_bytes(Completion(text, finish_reason="stop", usage=Usage(1, 1, 500, 300)))
    return Answer(0, "update", caller, str(number), b"0123456789abcdef", str(number), True, data)


async def in_tasks(store: RunStore, callers: int, args: argparse.Namespace, text: str) -> None:
    """Keep answers from tasks of one event loop."""

    async def keep(caller: int) -> None:
        for number in range(args.answers // callers):
            await store.keep([answer(caller, number, text)])

    await asyncio.gather(*map(keep, range(callers)))


def in_threads(store: RunStore, callers: int, args: argparse.Namespace, text: str) -> None:
    """Keep answers from threads."""

    def keep(caller: int) -> None:
        for number in range(args.answers // callers):
            store.keep([answer(caller, number, text)]).wait()

    threads = [threading.Thread(target=keep, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def whole_queries(store: RunStore, args: argparse.Namespace, text: str) -> None:
    """Take queries up, answer them through the policy's wrapper, and end them."""
    under_way, policy = UnderWay(store), ScriptedPolicy([text], update=[text], takes_n=True)
    items = iter([Item(str(number), f"What is asked? {number}") for number in range(1, args.queries + 1)])

    async def worker() -> None:
        for item in items:
            answers = under_way.begin(store.admit(item))
            wrapped = ReplayPolicy(policy, answers)
            for number in range(19):
                await wrapped.agenerate(Generate("update", None, text, 1, number, (number,)), (number,))
            candidates = tuple(Candidate(f"{text}{n}", reward=float(n), index=n) for n in range(15))
            await answers.finish(Trajectory(item.prompt, candidates))

    await asyncio.gather(*(worker() for _ in range(64)))


if __name__ == "__main__":
    main()
