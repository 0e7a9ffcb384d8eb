"""Ask for minutes on end, by every way, of a server that answers at once: memory, threads and descriptors stay flat.

    python tests/torture/soak.py [--seconds 600] [--png docs/images/soak.png]

What grows while caches fill and pools open, in the first ``WARM`` of the rounds, does not count. ``flatness.py`` has
the law of the rest. The server is a process of its own, so that what is measured is the side that asks.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1] / "helpers"))
    os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "OMP_NUM_THREADS": "1"}
    os.environ["DSPY_CACHEDIR"] = os.environ.get("DSPY_CACHEDIR") or tempfile.mkdtemp(prefix="tpo-dspy-cache-")

import dspy
from flatness import Trend, trend
from scenarios import Report
from sockets import FACES

from tpo_core import TPOConfig

__all__ = ["Soaked", "soak", "soak_for"]

WARM = 0.25

FEWEST = 12
"""Rounds of the shortest soak."""

CONFIG = TPOConfig(width=2, depth=1)

MIB = 2.0**20


@dataclass(frozen=True)
class Sample:
    """What the process holds at one moment."""

    memory: float
    """MiB that are resident."""
    objects: float
    """That the garbage collector knows, those from before the first round left out."""
    descriptors: float
    threads: float


GRAINS = Sample(memory=4.0, objects=500.0, descriptors=1.0, threads=1.0)
"""The least growth that counts: all of the engine's own objects of one query are more."""


@dataclass
class Soaked:
    """What was measured."""

    at: list[float] = field(default_factory=list)
    """Seconds since the first round."""
    samples: list[Sample] = field(default_factory=list)
    queries: int = 0
    seconds: float = 0.0
    """Of processor time."""

    def values(self, name: str) -> list[float]:
        """Return one quantity over time."""
        return [getattr(sample, name) for sample in self.samples]

    def trends(self) -> dict[str, Trend]:
        """Return how each quantity goes on when all is warm."""
        warm = int(WARM * len(self.at))
        return {name: trend(self.at[warm:], self.values(name)[warm:], grain) for name, grain in asdict(GRAINS).items()}

    def report(self) -> Report:
        """Return the line of the table."""
        trends = self.trends()
        failures = [f"{name} grow: {found}" for name, found in trends.items() if not found.flat]
        warm = self.at[-1] - self.at[int(WARM * len(self.at))]
        notes = [f"growth of {name} in {warm:.0f} s: {found}" for name, found in trends.items()]
        return Report("soak", self.queries, failures, self.seconds, notes=notes)


def soak(go_on: Callable[[Soaked], bool]) -> Soaked:
    """Ask by one way after the other, round by round; measures after each.

    Args:
        go_on: Whether another round follows, by what was measured until then.
    """
    soaked = Soaked()
    with _server() as url:
        _round(url)
        _fill_litellm()
        gc.collect()
        gc.freeze()
        try:
            began, used = time.perf_counter(), time.process_time()
            while go_on(soaked):
                soaked.queries += _round(url)
                soaked.samples.append(_sample())
                soaked.at.append(time.perf_counter() - began)
            soaked.seconds = time.process_time() - used
        finally:
            gc.unfreeze()
    return soaked


def _round(url: str) -> int:
    """Ask by every way; returns how many queries were answered."""
    answered = 0
    for name, ask in FACES.items():
        with dspy.context(disable_history=True, trace=[]):  # DSPy itself keeps the last 10,000 calls in each
            found = ask(url, CONFIG)
        results = found if isinstance(found, list) else [found]
        assert not any(isinstance(result, Exception) for result in results), f"{name}: {results}"
        answered += len(results)
    return answered


def _fill_litellm() -> None:
    """Start all threads of litellm's pool now: it makes one more now and then, up to a hundred, as it is used."""
    from litellm.litellm_core_utils.thread_pool_executor import executor

    gate = threading.Barrier(executor._max_workers + 1, timeout=60)
    for _ in range(executor._max_workers):
        executor.submit(gate.wait)
    gate.wait()


def _sample() -> Sample:
    gc.collect()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return Sample(
        memory=pages * os.sysconf("SC_PAGE_SIZE") / MIB,
        objects=float(len(gc.get_objects())),
        descriptors=float(len(os.listdir("/proc/self/fd"))),
        threads=float(threading.active_count()),
    )


@contextmanager
def _server() -> Iterator[str]:
    """Run ``faulty_server.py`` as a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("faulty_server.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


LABELS = ("resident memory, MiB", "Python objects", "descriptors", "threads")


def draw(path: str | Path, soaked: Soaked) -> None:
    """Draw each quantity over time, with its line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    panels = figure.subplots(len(LABELS), sharex=True)
    warm = soaked.at[int(WARM * len(soaked.at))]
    for axes, label, (name, found) in zip(panels, LABELS, soaked.trends().items(), strict=True):
        axes.plot(soaked.at, soaked.values(name), color="#1b6ca8", linewidth=0.8)
        axes.plot([warm, soaked.at[-1]], [found.start, found.start + found.growth], color="#b3263b")
        axes.axvspan(0, warm, color="#777777", alpha=0.15)
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.25 * max(soaked.values(name)))
    panels[0].set_title(f"{soaked.queries:,} queries by {len(FACES)} ways; grey: caches fill; red: Theil-Sen's line")
    panels[-1].set_xlabel("seconds")
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


def soak_for(seconds: float, png: str | None = None) -> Report:
    """Soak for some seconds, and draw what was measured if there is a file for it."""
    soaked = soak(lambda so_far: len(so_far.at) < FEWEST or so_far.at[-1] < seconds)
    if png:
        draw(png, soaked)
    return soaked.report()


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak for some seconds; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--png", metavar="FILE", help="draw what was measured")
    args = parser.parse_args(arguments)
    report = soak_for(args.seconds, args.png)
    print(report)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
