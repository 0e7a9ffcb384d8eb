"""Try to break it: scenarios by the thousand, each attempt by a seed that brings it back. ``make torture`` runs all.

    python tests/torture [--share 0.01] [--processes 4] [--first 0] [--output FILE.md] [--png FILE.png] [NAME ...]

Prints a table of what was tried, what was seen and what failed; the exit code is 1 where anything did. All scenarios
run beside each other, and so does the soak, in a process of its own: what it measures is its own.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from itertools import chain, zip_longest
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
os.environ["DSPY_CACHEDIR"] = os.environ.get("DSPY_CACHEDIR") or tempfile.mkdtemp(prefix="tpo-dspy-cache-")

from all_scenarios import SCENARIOS, Report, run_part
from soak import soak_for

PART = 0.02
"""Share of a scenario that a process takes at once."""

SOAK = "soak"

SOAK_SECONDS = 600.0

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
    began, reports = time.perf_counter(), []
    print(f"{'scenario':<24} {'tried':>9} {'failed':>8} {'processor':>10}", flush=True)
    for report in _reports(args):
        print(report, flush=True)
        reports.append(report)
    failed = sum(len(report.failures) for report in reports)
    end = f"{failed} failures, {time.perf_counter() - began:.0f} s on {CORES} cores, Python {platform.python_version()}"
    print(end)
    if args.output:
        Path(args.output).write_text(_table(reports, end), encoding="utf-8")
    return 1 if failed else 0


def _reports(args: argparse.Namespace) -> Iterator[Report]:
    """Yield each scenario's report when it is complete, in the order in which they end."""
    names = args.names or [*SCENARIOS, SOAK]
    context = multiprocessing.get_context("spawn")
    quiet = (logging.CRITICAL,)
    with (
        ProcessPoolExecutor(args.processes, context, logging.disable, quiet) as processes,
        ProcessPoolExecutor(1, context, logging.disable, quiet) as own,
    ):
        parts: dict[Future[Report], str] = {}
        if SOAK in names:
            parts[own.submit(soak_for, SOAK_SECONDS * args.share, args.png)] = SOAK
        each = [_parts(name, args.share, args.first) for name in names if name != SOAK]
        for part in filter(None, chain.from_iterable(zip_longest(*each))):  # those that wait beside those that compute
            parts[processes.submit(run_part, part)] = part[0]
        reports = {name: Report(name) for name in names}
        left = list(parts.values())
        for part in as_completed(parts):
            name = parts[part]
            reports[name] += part.result()
            left.remove(name)
            if name not in left:
                yield reports[name]


def _parts(name: str, share: float, first: int) -> list[tuple[str, int, int]]:
    """Return what processes take at once: a scenario's name, how many seeds, and the first."""
    count = max(1, round(SCENARIOS[name].full * share))
    size = max(1, round(count * PART))
    return [(name, min(size, count - n), first + n) for n in range(0, count, size)]


def _table(reports: list[Report], end: str) -> str:
    head = "| scenario | tried | failed | processor time | seen |\n|---|--:|--:|--:|---|\n"
    return head + "".join(f"{report.row()}\n" for report in reports) + f"\n{end}.\n"


if __name__ == "__main__":
    sys.exit(main())
