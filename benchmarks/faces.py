"""What the faces cost beside their hosts: processor time of this process, against the host's bare calls in one run.

A refinement (D2-N5) asks a model that takes no time seven times: five samples, then twice a loss, a gradient and five
updates. The same seven requests are made by the host's own calls, one after the other. Prints milliseconds of processor
time a query, the least and the median of many short rounds that alternate between the two, and their ratio.

    python benchmarks/faces.py [langchain] [--rounds 60]
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from instant import Bare, Forgetful, Instant, scattered
from langchain_core.output_parsers import StrOutputParser

from tpo_langchain import RunnableTPO

QUERIES = 4  # in a round
WARM = 12  # queries before the first round: what is found out once is found out


@dataclass(frozen=True)
class Comparison:
    """Two ways to make the same requests, each for one query."""

    name: str
    bare: Callable[[], Any]
    ours: Callable[[], Any]
    most: float
    """The ratio that is not to be exceeded."""


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


PARTS: dict[str, Callable[[], Iterator[Comparison]]] = {"langchain": langchain}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all by default")
    parser.add_argument("--rounds", type=int, default=60, help=f"of {QUERIES} queries each, for each way")
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # random answers do not improve, and the loop would say so
    print(f"{'processor time, ms a query':34} {'bare':>13} {'ours':>13}   ratio of least, of medians (at most)")
    for part in given.parts or PARTS:
        for comparison in PARTS[part]():
            bare, ours = asyncio.run(measured(comparison, given.rounds))
            least, middle = min(ours) / min(bare), median(ours) / median(bare)
            print(
                f"{comparison.name:34} {shown(bare)} {shown(ours)}   {least:5.2f}  {middle:5.2f}  ({comparison.most:g})"
            )


async def measured(comparison: Comparison, rounds: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds a query of each round, of both ways in turn."""
    ways = (comparison.bare, comparison.ours)
    for way in ways:
        await queries(way, WARM)
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for way, spent in zip(ways, found, strict=True):
            began = time.process_time()
            await queries(way, QUERIES)
            spent.append(1000 * (time.process_time() - began) / QUERIES)
    return found


async def queries(way: Callable[[], Any], count: int) -> None:
    """Make some queries one after the other, awaiting those that are to be awaited."""
    for _ in range(count):
        made = way()
        if isinstance(made, Awaitable):
            await made


def shown(spent: list[float]) -> str:
    """Write the least and the median."""
    return f"{min(spent):6.2f} {median(spent):6.2f}"


if __name__ == "__main__":
    main()
