"""Try to break it: scenarios by the thousand, each attempt by a seed that brings it back. ``make torture`` runs all.

    python tests/torture [--share 0.01] [--processes 2] [--first 0] [NAME ...]

Prints a table of what was tried, what was seen and what failed; the exit code is 1 where anything did.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
os.environ["DSPY_CACHEDIR"] = os.environ.get("DSPY_CACHEDIR") or tempfile.mkdtemp(prefix="tpo-dspy-cache-")

from all_scenarios import SCENARIOS, Report, run_part

PART = 0.02
"""Share of a scenario that a process takes at once."""


def main() -> int:
    """Run the scenarios; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts (1)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="first seed (0)")
    args = parser.parse_args()
    began, failed = time.perf_counter(), 0
    print(f"{'scenario':<24} {'tried':>9} {'failed':>8} {'processor':>10}", flush=True)
    with multiprocessing.get_context("spawn").Pool(args.processes, logging.disable, (logging.CRITICAL,)) as pool:
        for name in args.names or SCENARIOS:
            count = max(1, round(SCENARIOS[name].full * args.share))
            size = max(1, round(count * PART))
            parts = [(name, min(size, count - n), args.first + n) for n in range(0, count, size)]
            report = Report(name)
            for part in pool.imap_unordered(run_part, parts):
                report += part
            print(report, flush=True)
            failed += len(report.failures)
    print(f"{failed} failures, {time.perf_counter() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
