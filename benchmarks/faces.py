"""What the faces cost beside their hosts, against the host's bare calls in one run.

A refinement (D2-N5) makes seven requests of LangChain's models: five samples, then twice a loss, a gradient and five
updates; DSPy's are asked singly, nineteen times. The same requests are made by the host's own calls.

``langchain`` and ``dspy`` print milliseconds of this process's processor time a query, of a model that takes no time.
``sockets`` prints the seconds that 64 queries at once take with a server in a process of its own, which takes 0.8 s a
request; the ideal is 5.6 s. The two ways are gone in turn, query by query, each first in every other pair, so that
neither has the warmer caches; all print the least and the median of either way and the ratios of both.

    python benchmarks/faces.py [langchain] [dspy] [sockets] [--rounds 60]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp(prefix="tpo-bench-"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

import dspy
from instant import Bare, Forgetful, Instant, scattered
from instant_lm import BareCalls, instant_lm
from langchain_core.output_parsers import StrOutputParser
from langchain_openai import ChatOpenAI

from loopback import LoopbackServer
from tpo_dspy import TPO
from tpo_langchain import RunnableTPO

AT_ONCE = 64  # queries, through sockets
LATENCY = 0.8  # seconds of a request there


@dataclass(frozen=True)
class Comparison:
    """Two ways to make the same requests."""

    name: str
    bare: Callable[[], Any]
    ours: Callable[[], Any]
    most: float
    """The ratio that is not to be exceeded."""
    clock: Callable[[], float] = time.process_time
    scale: float = 1000
    """What a second is in the unit that is printed."""
    warm: int = 30
    """Calls before the first round: what is found out once is found out."""
    calls: int = 4
    """How often each way is gone in a round; each time is measured by itself."""
    rounds: int | None = None
    """How many rounds; None for as many as the command line says."""


def langchain() -> Iterator[Comparison]:
    """Compare ``RunnableTPO`` over a model and a parser with the model's own ``invoke`` and ``generate``."""
    asked: list[Any] = []
    RunnableTPO(Instant(asked=asked) | StrOutputParser(), reward=scattered).invoke("How?")
    bare, refined = Bare(Instant(), asked), RunnableTPO(Instant() | StrOutputParser(), reward=scattered)
    for told, config, most in (("no callbacks", None, 3.0), ("one tracer", {"callbacks": [Forgetful()]}, 5.0)):
        yield Comparison(
            f"LangChain, sync, {told}",
            lambda c=config: bare.invoke(c),
            lambda c=config: refined.invoke("How?", c),
            most,
        )
        yield Comparison(
            f"LangChain, async, {told}",
            lambda c=config: bare.ainvoke(c),
            lambda c=config: refined.ainvoke("How?", c),
            most,
        )


def of_dspy() -> Iterator[Comparison]:
    """Compare ``TPO`` over ``dspy.Predict`` with the predictors' own calls, one after the other."""
    dspy.configure(lm=instant_lm())
    refined = TPO(dspy.Predict("question -> answer"), scattered)
    bare = BareCalls.of(refined, question="How?")
    yield Comparison("DSPy, sync", bare.call, lambda: refined(question="How?"), 2.0)
    yield Comparison("DSPy, async", bare.acall, lambda: refined.acall(question="How?"), 2.0)


def sockets() -> Iterator[Comparison]:
    """Compare many queries at once, through OpenAI's client, with the model's own calls for as many."""
    asked: list[Any] = []
    RunnableTPO(Instant(asked=asked) | StrOutputParser(), reward=scattered).invoke("How?")
    with served() as url:
        model = ChatOpenAI(model="bench", base_url=url, api_key="none", max_retries=0)
        bare, refined = Bare(model, asked), RunnableTPO(model | StrOutputParser(), reward=scattered)
        queries, config = [f"How, in case {n}?" for n in range(AT_ONCE)], {"max_concurrency": AT_ONCE}

        async def gathered() -> None:
            await asyncio.gather(*[bare.ainvoke() for _ in queries])

        def in_threads() -> None:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(lambda _: bare.invoke(), queries))

        for name, plain, ours in (
            ("abatch", gathered, lambda: refined.abatch(queries, config)),
            ("batch", in_threads, lambda: refined.batch(queries, config)),
        ):
            yield Comparison(
                f"LangChain, {name}, {AT_ONCE} at once, s", plain, ours, 1.15, time.perf_counter, 1, 0, 1, rounds=3
            )


PARTS: dict[str, Callable[[], Iterator[Comparison]]] = {"langchain": langchain, "dspy": of_dspy, "sockets": sockets}


@contextmanager
def served() -> Iterator[str]:
    """Run a server in a process of its own; yields its address."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        here.send("stop")
        process.join(5)


def serve(pipe: Connection) -> None:
    """Serve until the pipe says stop."""
    with LoopbackServer(
        lambda request, number: f"An answer of a few words, number {number}", latency=LATENCY
    ) as server:
        pipe.send(server.url)
        pipe.recv()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all by default")
    parser.add_argument("--rounds", type=int, default=60, help="of a few queries each, for each way; of sockets 3")
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # random answers do not improve, and the loop would say so
    print(f"{'ms of processor time a query':34} {'bare':>13} {'ours':>13}   ratio of least, of medians (at most)")
    for part in given.parts or PARTS:
        for comparison in PARTS[part]():
            bare, ours = asyncio.run(measured(comparison, comparison.rounds or given.rounds))
            least, middle = min(ours) / min(bare), median(ours) / median(bare)
            ratios = f"{least:5.2f}  {middle:5.2f}  ({comparison.most:g})"
            print(f"{comparison.name:34} {shown(bare)} {shown(ours)}   {ratios}", flush=True)


async def measured(comparison: Comparison, rounds: int) -> tuple[list[float], list[float]]:
    """Return what each call took, of both ways in turn.

    Garbage is collected as ever, but what was there before the first round is not gone through: the two ways differ in
    when that would be due, and it is the size of all that is imported here.
    """
    bare: list[float] = []
    ours: list[float] = []
    both = ((comparison.bare, bare), (comparison.ours, ours))
    for way, _ in both:
        await calls(way, comparison.warm)
    gc.collect()
    gc.freeze()
    for number in range(rounds * comparison.calls):
        for way, spent in both if number % 2 else reversed(both):
            began = comparison.clock()
            await calls(way, 1)
            spent.append(comparison.scale * (comparison.clock() - began))
    gc.unfreeze()
    return bare, ours


async def calls(way: Callable[[], Any], count: int) -> None:
    """Go one way some times, awaiting what is to be awaited."""
    for _ in range(count):
        made = way()
        if isinstance(made, Awaitable):
            await made


def shown(spent: list[float]) -> str:
    """Write the least and the median."""
    return f"{min(spent):6.2f} {median(spent):6.2f}"


if __name__ == "__main__":
    main()
