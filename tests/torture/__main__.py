"""Try to break it: scenarios by the thousand, each attempt by a seed that brings it back. ``make torture`` runs all.

    python tests/torture [--share 0.01] [--processes 4] [--first 0] [--output FILE.md] [--png FILE.png] [NAME ...]

Prints a table of what was tried, what was seen and what failed; the exit code is 1 where anything did. All scenarios
run beside each other, and so does the soak, in a process of its own: what it measures is its own. How far each has
come is told once a minute. Control-C and SIGTERM end it with the table of what was tried until then, and exit code 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import chain, zip_longest
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
os.environ["DSPY_CACHEDIR"] = os.environ.get("DSPY_CACHEDIR") or tempfile.mkdtemp(prefix="tpo-dspy-cache-")

from all_scenarios import SCENARIOS, Report, quiet, run_part
from soak import soak_for

PART = 0.02
"""Share of a scenario that a process takes at once."""

SOAK = "soak"

SOAK_SECONDS = 600.0

TOLD = 60.0
"""Seconds from one line of how far it has come to the next."""

CORES = os.cpu_count() or 1


def main() -> int:
    """Run the scenarios; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*SCENARIOS, SOAK]))
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts, and of the soak's time (1)")
    parser.add_argument("--processes", type=int, default=2 * CORES, help="twice the cores, since many wait")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="first seed (0)")
    parser.add_argument("--output", metavar="FILE", help="write the table as Markdown")
    parser.add_argument("--png", metavar="FILE", help="draw what the soak measured")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.perf_counter()
    tried = _Tried(args.names or [*SCENARIOS, SOAK], args.share)
    print(f"{'scenario':<24} {'tried':>9} {'failed':>8} {'processor':>10}", flush=True)
    stopped = False
    try:
        _run(args, tried)
    except KeyboardInterrupt:
        stopped = True
        print("stopped; of the rest until now:")
        for report in tried.unfinished():
            print(report)
    reports = list(tried.reports.values())
    failed = sum(len(report.failures) for report in reports)
    end = f"{failed} failures, {time.perf_counter() - began:.0f} s on {CORES} cores, Python {platform.python_version()}"
    end = f"stopped before the end: {end}" if stopped else end
    print(end, flush=True)
    if args.output:
        Path(args.output).write_text(_table(reports, end), encoding="utf-8")
    if stopped:
        for process in multiprocessing.active_children():
            process.kill()
        os._exit(1)  # what is under way is not waited for
    return 1 if failed else 0


class _Tried:
    """What each scenario was tried for, and what came of it until now."""

    def __init__(self, names: list[str], share: float) -> None:
        self.reports = {name: Report(name) for name in names}
        self.of = {name: _count(name, share) for name in names}
        self.parts = dict.fromkeys(names, 0)
        """Left of each."""

    def unfinished(self) -> list[Report]:
        return [report for name, report in self.reports.items() if self.parts[name]]

    def __str__(self) -> str:
        left = [f"{report.name} {report.tried:,} of {self.of[report.name]:,}" for report in self.unfinished()]
        return "under way: " + ", ".join(left)


def _run(args: argparse.Namespace, tried: _Tried) -> None:
    """Run all parts side by side; print each scenario's report when it is complete, in the order in which they end."""
    context = multiprocessing.get_context("spawn")
    processes = ProcessPoolExecutor(args.processes, context, quiet)
    own = ProcessPoolExecutor(1, context, quiet)
    parts: dict[Future[Report], str] = {}
    if SOAK in tried.reports:
        parts[own.submit(soak_for, SOAK_SECONDS * args.share, args.png)] = SOAK
    each = [_parts(name, tried.of[name], args.first) for name in tried.reports if name != SOAK]
    for part in filter(None, chain.from_iterable(zip_longest(*each))):  # those that wait beside those that compute
        parts[processes.submit(run_part, part)] = part[0]
    for name in parts.values():
        tried.parts[name] += 1
    waiting, told = set(parts), time.monotonic()
    while waiting:
        done, waiting = wait(waiting, TOLD, FIRST_COMPLETED)
        for part in done:
            name = parts[part]
            error = part.exception()
            tried.reports[name] += Report(name, failures=[f"a process ended: {error!r}"]) if error else part.result()
            tried.parts[name] -= 1
            if not tried.parts[name]:
                print(tried.reports[name], flush=True)
        if waiting and time.monotonic() > told + TOLD:
            told = time.monotonic()
            print(tried, file=sys.stderr, flush=True)
    processes.shutdown()
    own.shutdown()


def _count(name: str, share: float) -> int:
    return 1 if name == SOAK else max(1, round(SCENARIOS[name].full * share))


def _parts(name: str, count: int, first: int) -> list[tuple[str, int, int]]:
    """Return what processes take at once: a scenario's name, how many seeds, and the first."""
    size = max(1, round(count * PART))
    return [(name, min(size, count - n), first + n) for n in range(0, count, size)]


def _table(reports: list[Report], end: str) -> str:
    head = "| scenario | tried | failed | processor time | seen |\n|---|--:|--:|--:|---|\n"
    return head + "".join(f"{report.row()}\n" for report in reports) + f"\n{end}.\n"


if __name__ == "__main__":
    sys.exit(main())
