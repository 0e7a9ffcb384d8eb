"""The article's quantities (arXiv:2501.12895) from stored answers: a policy of 1.5B parameters on IFEval.

    python benchmarks/paper_numbers.py        prints the tables of docs/paper.md

``benchmarks/results/`` holds, for every prompt, seed and arm, each scored candidate's round and reward, what the server
counted, and whether the answer passes the prompt's checks (``real_policy.py`` made them). Nothing is asked of a model.

How many tokens a query had used at which candidate was not stored. Where a curve needs it, the query's tokens are
shared out equally among its calls: N for the first samples, 2 + N for a round of TPO, 3 for a round of revision.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from real_policy import by_prompt, interval, read

from tpo_core.report.cost import PAPER_DPO, PAPER_PARAMETERS

RESULTS = Path(__file__).parent / "results"
TASKS = {"checks": "share of checks passed", "judge": "log-odds of its own verdict"}
ARMS = ("single", "best-of-N", "revision", "paper", "adaptive warm")
NAMES = {"paper": "TPO, D2-N5", "adaptive warm": "adaptive"}
WIDTHS = (1, 2, 3, 4, 5, 8, 12, 16, 20)
WIDTH = 5
PARAMETERS = 1.5e9

Row = dict[str, Any]
Point = tuple[float, float, float]
"""A mean and its 95 % interval."""


@cache
def load(task: str) -> dict[str, list[Row]]:
    """Return a task's rows by arm, those included that have no answer."""
    rows = read(RESULTS / f"ifeval-{task}.jsonl.xz")
    return {arm: [row for row in rows if row["arm"] == arm] for arm in ARMS}


def answered(task: str, arm: str) -> list[Row]:
    """Return the rows with a scored answer: all but those in which every sample was cut off."""
    return [row for row in load(task)[arm] if row["candidates"]]


def mean_of(rows: Iterable[Row], value: Callable[[Row], float]) -> Point:
    """Return the mean over prompts, each the mean of its seeds, with its 95 % bootstrap interval."""
    return interval(by_prompt({(row["key"], row["seed"]): value(row) for row in rows}))


# -- depth -------------------------------------------------------------------------------------------------------------


def rewards_in(row: Row, step: int) -> list[float]:
    """Return the rewards of a round's candidates; round 0 are the first samples."""
    return [reward for at, reward in row["candidates"] if at == step]


def rounds(rows: Sequence[Row]) -> range:
    """Return the rounds that at least a tenth of the queries came to."""
    last = [max(step for step, _ in row["candidates"]) for row in rows]
    return range(1 + max(step for step in set(last) if sum(other >= step for other in last) >= len(rows) / 10))


def best_after(rows: Sequence[Row], step: int) -> Point:
    """Return the best reward until a round's end; queries that had ended before keep theirs."""
    return mean_of(rows, lambda row: max(reward for at, reward in row["candidates"] if at <= step))


def spent_after(rows: Sequence[Row], step: int) -> float:
    """Return the completion tokens a query until a round's end, as its share of the calls."""
    first, each = (1, 3) if rows[0]["arm"] == "revision" else (WIDTH, 2 + WIDTH)
    return statistics.fmean(row["tokens"] * min(1.0, (first + each * step) / row["calls"]) for row in rows)


@cache
def within(task: str, figure: Callable[[list[float]], float]) -> list[tuple[int, int, Point, Point]]:
    """Return, for each later round of TPO: it, the queries compared, a figure of the first samples' rewards and of its.

    Compared are queries with two scored candidates at least among their first samples and in that round.
    """
    found = []
    rows = answered(task, "paper")
    for later in rounds(rows)[1:]:
        both = [row for row in rows if min(len(rewards_in(row, 0)), len(rewards_in(row, later))) > 1]
        first = mean_of(both, lambda row: figure(rewards_in(row, 0)))
        then = mean_of(both, lambda row, step=later: figure(rewards_in(row, step)))
        found.append((later, len(both), first, then))
    return found


def deviations(task: str) -> list[tuple[int, int, Point, Point]]:
    """Return the rewards' standard deviation among the first samples and in each later round; see ``within``."""
    return within(task, statistics.stdev)


# -- width -------------------------------------------------------------------------------------------------------------


@cache
def best_of(task: str, width: int) -> Point:
    """Return the best reward of N samples of best-of-N; of all a query has where its tokens ended before.

    The judge's queries sampled until their tokens ended, so that any N of them will do: their expected best is taken.
    The checks' ended at the first perfect answer, so that these are the first N in the order in which they were made.
    """
    pick = _first if task == "checks" else expected_best
    return mean_of(answered(task, "best-of-N"), lambda row: pick([reward for _, reward in row["candidates"]], width))


def passed_of(width: int) -> Point:
    """Return the share of prompts for which one of the first N samples passes all checks; without samples none does."""
    return mean_of(
        load("checks")["best-of-N"], lambda row: float(_first([r for _, r in row["candidates"]], width) == 1)
    )


def had(task: str, width: int) -> float:
    """Return the share of best-of-N's queries that had N samples, or needed no more."""
    rows = answered(task, "best-of-N")
    return sum(len(row["candidates"]) >= width or row["stop"] == "stop_at" for row in rows) / len(rows)


def spent_on(task: str, width: int) -> float:
    """Return the completion tokens a query for N samples, as their share of the calls."""
    rows = answered(task, "best-of-N")
    return statistics.fmean(row["tokens"] * min(1.0, width / row["calls"]) for row in rows)


def _first(rewards: Sequence[float], width: int) -> float:
    return max(rewards[:width], default=math.nan)


def expected_best(rewards: Sequence[float], width: int) -> float:
    """Return the expected largest of so many drawn without replacement.

    >>> expected_best([1.0, 3.0, 2.0], 2)  # (2 + 3 + 3) / 3
    2.6666666666666665
    """
    ordered, width = sorted(rewards), min(width, len(rewards))
    ways = math.comb(len(ordered), width)
    return sum(reward * (math.comb(place, width - 1) / ways) for place, reward in enumerate(ordered))


# -- beside best-of-N, and beside training -----------------------------------------------------------------------------


@cache
def win_rates(task: str) -> list[tuple[str, int, float, float, float, Point]]:
    """Return, by arm: it, the queries, the shares above, at and below best-of-N's reward, the win rate (ties half)."""
    other = {(row["key"], row["seed"]): row["reward"] for row in answered(task, "best-of-N")}
    found = []
    for arm in (arm for arm in ARMS if arm != "best-of-N"):
        rows = [row for row in answered(task, arm) if (row["key"], row["seed"]) in other]
        signs = {id(row): int(np.sign(row["reward"] - other[row["key"], row["seed"]])) for row in rows}
        above, equal, below = (sum(sign == s for sign in signs.values()) / len(rows) for s in (1, 0, -1))
        rate = mean_of(rows, lambda row, signs=signs: (1 + signs[id(row)]) / 2)
        found.append((arm, len(rows), above, equal, below, rate))
    return found


@cache
def operations(task: str) -> list[tuple[str, float, float, float, float]]:
    """Return, by arm: it, completion and prompt tokens a query, operations a query, the queries that equal DPO.

    ``2 * parameters * tokens``, as ``tpo show --policy-params`` counts; DPO is one epoch on 64,000 pairs, by the
    article's count for 70B parameters, at this size.
    """
    found = []
    for arm, rows in load(task).items():
        completion, prompt = (statistics.fmean(row[name] for row in rows) for name in ("tokens", "prompt_tokens"))
        each = 2 * PARAMETERS * (completion + prompt)
        found.append((arm, completion, prompt, each, PAPER_DPO * PARAMETERS / PAPER_PARAMETERS / each))
    return found


# -- tables ------------------------------------------------------------------------------------------------------------


@cache
def tables() -> dict[str, str]:
    """Return the tables, in Markdown, by what they show."""
    depth = [["task", "plan", "queries", "round 0", "round 1", "round 2", "came to round 1", "to round 2"]]
    stability = [["task", "round", "queries", "", "first samples", "that round"]]
    widths = [["best-of-N", *map(str, WIDTHS)], ["checks: passed whole", *(f"{passed_of(n)[0]:.1%}" for n in WIDTHS)]]
    wins = [["task", "plan", "queries", "above", "equal", "below", "win rate, ties for half"]]
    costs = [["task", "plan", "completion tokens", "prompt tokens", "TFLOP a query", "queries that equal DPO"]]
    for task in TASKS:
        for arm in ("paper", "revision"):
            rows = answered(task, arm)
            came = [sum(max(at for at, _ in row["candidates"]) >= step for row in rows) / len(rows) for step in (1, 2)]
            after = [_shown(best_after(rows, step)) for step in range(3)]
            depth.append([task, NAMES.get(arm, arm), str(len(rows)), *after, *(f"{share:.0%}" for share in came)])
        for name, figure in (("standard deviation", statistics.stdev), ("mean", statistics.fmean), ("best", max)):
            stability += [[task, str(d), str(n), name, _shown(a), _shown(b)] for d, n, a, b in within(task, figure)]
        widths.append([f"{task}: reward", *(f"{best_of(task, n)[0]:.3f}" for n in WIDTHS)])
        widths.append([f"{task}: had as many", *(f"{had(task, n):.0%}" for n in WIDTHS)])
        for arm, count, *shares, rate in win_rates(task):
            cells = [*(f"{share:.1%}" for share in shares), _shown(rate, ".1%")]
            wins.append([task, NAMES.get(arm, arm), str(count), *cells])
        for arm, completion, prompt, each, queries in operations(task):
            cells = [f"{completion:,.0f}", f"{prompt:,.0f}", f"{each / 1e12:.1f}", f"{queries:,.0f}"]
            costs.append([task, NAMES.get(arm, arm), *cells])
    made = {"depth": depth, "stability": stability, "width": widths, "wins": wins, "cost": costs}
    return {name: _markdown(lines) for name, lines in made.items()}


def _shown(point: Point, digits: str = ".3f") -> str:
    mean, low, high = (format(number, digits) for number in point)
    return f"{mean} [{low}, {high}]"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *body = lines
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body))


if __name__ == "__main__":
    for name, table in tables().items():
        print(f"{name}\n\n{table}\n")
