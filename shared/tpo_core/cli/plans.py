"""``tpo study plans``: plans in simulated worlds, and whether the adaptive one is what it must be."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tpo_core.errors import InvalidInputError

if TYPE_CHECKING:
    from tpo_core.studies.plans import Difference, Row

__all__ = ["run_plans"]


def run_plans(args: argparse.Namespace) -> int:
    """Play the plans, print the table and the verdicts; returns the exit code."""
    from tpo_core.studies.output import write_rows
    from tpo_core.studies.plans import study_plans
    from tpo_core.studies.worlds import WORLDS

    queries = QUERIES if args.queries is None else args.queries
    for name, given in (("runs", args.runs), ("queries", queries)):
        if given < 2:
            raise InvalidInputError(f"--{name} must be at least 2, not {given}")
    names = [world.name for world in WORLDS]
    if unknown := [name for name in args.world or () if name not in names]:
        raise InvalidInputError(f"--world: there is no {unknown[0]!r}; the worlds are {', '.join(names)}")
    worlds = [world for world in WORLDS if not args.world or world.name in args.world]
    sys.stdout.write(_HEAD)
    rows = []
    for row in study_plans(args.runs, queries, args.seed, worlds):
        sys.stdout.write(_line(row))
        sys.stdout.flush()
        rows.append(row)
    sys.stdout.write(_FOOT + _verdicts(rows))
    if args.csv:
        write_rows(args.csv, [_flat(row) for row in rows])
    if args.png:
        _draw(args.png, rows)
    return 0


QUERIES = 40
"""Queries of one run, where the user gives none."""
_HEAD = (
    f"{'world':16} {'queries':>7} {'best-of-N':>9} {'paper':>6} {'adaptive':>8}   "
    f"{'adaptive - best-of-N':22} {'first 20 queries':22} {'adaptive - paper':22} {'true worth':22}\n"
)
_FOOT = (
    "Rewards above the mean of fresh samples, in their spreads s; equal tokens a query; 95 % intervals over runs.\n"
    "True worth: what adaptive is ahead of best-of-N by what is not optimised.\n\n"
)


def _line(row: Row) -> str:
    spans = (row.over_bon, row.over_bon_cold, row.over_paper, row.gold_over_bon)
    return (
        f"{row.world:16} {row.queries:7d} {row.bon:9.3f} {row.paper:6.3f} {row.adaptive:8.3f}   "
        + " ".join(f"{_span(each):22}" for each in spans).rstrip()
        + "\n"
    )


def _span(each: Difference) -> str:
    return f"{each.mean:+.3f} ({each.low:+.3f} {each.high:+.3f})"


def _verdicts(rows: Sequence[Row]) -> str:
    """Write, world by world, whether the adaptive plan is what it must be."""
    from tpo_core.studies.plans import requirements

    lines = []
    for row in rows:
        said = [f"{each.name} by at least {each.least:+g}: {each.verdict}" for each in requirements(row)]
        lines.append(f"{row.world:16} " + "; ".join(said))
    foot = "met: the interval's lower end is; mean only: the mean is, the lower end is not."
    return "\n".join(["The adaptive plan must be", *lines, foot]) + "\n"


def _flat(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in asdict(row).items():
        found |= {f"{name}_{part}": v for part, v in value.items()} if isinstance(value, dict) else {name: value}
    return found


def _draw(path: str, rows: list[Row]) -> None:
    from tpo_core.studies.output import new_figure

    figure = new_figure()
    ax = figure.subplots()
    for place, arm in enumerate(("bon", "paper", "adaptive")):
        ax.bar([n + 0.27 * (place - 1) for n in range(len(rows))], [getattr(r, arm) for r in rows], 0.25, label=arm)
    ax.set_xticks(range(len(rows)), [row.world for row in rows], rotation=20)
    ax.set_ylabel("best reward above the mean, in spreads")
    ax.legend()
    figure.savefig(path, format="png")
