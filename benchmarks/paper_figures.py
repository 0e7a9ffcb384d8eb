"""The article's figures (arXiv:2501.12895) from stored answers; the notebook ``notebooks/04_paper.ipynb`` shows them.

    python benchmarks/paper_figures.py docs/images        writes paper-*.png

What is drawn is computed, and said, in ``paper_numbers.py``. Bands and bars are 95 % bootstrap intervals over prompts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import paper_numbers as numbers
from matplotlib.figure import Figure
from paper_numbers import ARMS, NAMES, TASKS, WIDTHS, Point

COLOURS = dict(zip(ARMS, ("#777777", "#1b6ca8", "#c77700", "#b3263b", "#3a7d44"), strict=True))
TITLES = {"checks": "reward: the prompt's checks", "judge": "reward: the policy's own verdict"}


def training() -> Figure:
    """Draw the best reward over test-time steps, by completion tokens (the article's figure 3)."""
    figure, panels = _panels(2)
    for axes, task in zip(panels, TASKS, strict=True):
        for arm in ("paper", "revision"):
            rows = numbers.answered(task, arm)
            steps = numbers.rounds(rows)
            spent = [numbers.spent_after(rows, step) for step in steps]
            _curve(axes, arm, spent, [numbers.best_after(rows, step) for step in steps])
        spent = [numbers.spent_on(task, width) for width in WIDTHS]
        _curve(axes, "best-of-N", spent, [numbers.best_of(task, width) for width in WIDTHS])
        _label(axes, task, "completion tokens a query", f"best so far, {TASKS[task]}")
    return figure


def stability() -> Figure:
    """Draw the standard deviation of rewards in a round, beside that of the same queries' first samples (figure 4)."""
    figure, panels = _panels(2)
    for axes, task in zip(panels, TASKS, strict=True):
        found = numbers.deviations(task)
        for place, (_, _, *points) in enumerate(found):
            for side, (mean, low, high), shade in zip((-0.2, 0.2), points, (0.35, 1.0), strict=True):
                axes.bar(place + side, mean, 0.36, color=COLOURS["paper"], alpha=shade)
                axes.errorbar(place + side, mean, [[mean - low], [high - mean]], color="black", capsize=3)
        axes.set_xticks(range(len(found)), [f"first samples | round {n}\n({count} queries)" for n, count, *_ in found])
        axes.set_xlim(-0.7, len(found) - 0.3)
        _label(axes, task, "", "standard deviation of rewards")
    return figure


def width() -> Figure:
    """Draw best-of-N as N grows, beside the end of TPO: prompts passed, and rewards (figures 5 and 6)."""
    figure, panels = _panels(3)
    _curve(panels[0], "best-of-N", WIDTHS, [numbers.passed_of(n) for n in WIDTHS])
    passed = numbers.mean_of(numbers.load("checks")["paper"], lambda row: float(row["passed"]))
    _level(panels[0], passed, "paper")
    _label(panels[0], "checks", "N", "prompts passed whole")
    for axes, task in zip(panels[1:], TASKS, strict=True):
        _curve(axes, "best-of-N", WIDTHS, [numbers.best_of(task, n) for n in WIDTHS])
        _level(axes, numbers.mean_of(numbers.answered(task, "paper"), lambda row: float(row["reward"])), "paper")
        _label(axes, task, "N", f"best, {TASKS[task]}")
    return figure


def depth() -> Figure:
    """Draw the best reward after each round of TPO and of revision (figure 5)."""
    figure, panels = _panels(2)
    for axes, task in zip(panels, TASKS, strict=True):
        for arm in ("paper", "revision"):
            rows = numbers.answered(task, arm)
            steps = numbers.rounds(rows)
            _curve(axes, arm, steps, [numbers.best_after(rows, step) for step in steps])
        _label(axes, task, "round", f"best so far, {TASKS[task]}")
    return figure


def wins() -> Figure:
    """Draw how often an arm's reward is above, at and below best-of-N's for the same prompt and seed (figure 6)."""
    figure, panels = _panels(2)
    for axes, task in zip(panels, TASKS, strict=True):
        found = numbers.win_rates(task)
        for place, (_, _, *shares, _) in enumerate(found):
            left = 0.0
            for share, colour in zip(shares, ("#3a7d44", "#cccccc", "#b3263b"), strict=True):
                axes.barh(place, share, left=left, color=colour)
                if share > 0.04:
                    axes.text(left + share / 2, place, f"{share:.0%}", ha="center", va="center", fontsize=8)
                left += share
        axes.set_yticks(range(len(found)), [NAMES.get(arm, arm) for arm, *_ in found])
        _label(axes, task, "queries with a reward above, equal to, below best-of-N's", "")
    return figure


def cost() -> Figure:
    """Draw how many queries take as many operations as one epoch of DPO, by arm (section 7.3)."""
    figure, panels = _panels(2)
    for axes, task in zip(panels, TASKS, strict=True):
        for place, (arm, *_, queries) in enumerate(numbers.operations(task)):
            axes.barh(place, queries / 1e3, color=COLOURS[arm])
            axes.text(queries / 1e3, place, f" {queries / 1e3:,.0f}", va="center", fontsize=8)
        axes.set_yticks(range(len(ARMS)), [NAMES.get(arm, arm) for arm in ARMS])
        axes.margins(x=0.15)
        _label(axes, task, "thousand queries that equal one epoch of DPO", "")
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    figure.__name__: figure for figure in (training, stability, width, depth, wins, cost)
}


def save(folder: Path) -> list[Path]:
    """Write all figures into a folder; returns their files."""
    files = [folder / f"paper-{name}.png" for name in FIGURES]
    for file, draw in zip(files, FIGURES.values(), strict=True):
        draw().savefig(file, dpi=110, metadata={"Software": None})
    return files


def _panels(count: int) -> tuple[Figure, Sequence[Any]]:
    figure = Figure(figsize=(4.6 * count, 3.6), dpi=75, layout="constrained")
    return figure, list(figure.subplots(1, count))


def _curve(axes: Any, arm: str, places: Sequence[float], points: Sequence[Point]) -> None:
    means, lows, highs = zip(*points, strict=True)
    axes.plot(places, means, marker="o", markersize=4, color=COLOURS[arm], label=NAMES.get(arm, arm))
    if all(isinstance(place, int) for place in places):
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.fill_between(places, lows, highs, color=COLOURS[arm], alpha=0.12, linewidth=0)


def _level(axes: Any, point: Point, arm: str) -> None:
    axes.axhline(point[0], color=COLOURS[arm], linestyle="--", label=f"{NAMES[arm]}, at its end")
    axes.axhspan(*point[1:], color=COLOURS[arm], alpha=0.08, linewidth=0)


def _label(axes: Any, task: str, below: str, beside: str) -> None:
    axes.set_title(TITLES[task], fontsize=10)
    axes.set_xlabel(below, fontsize=9)
    axes.set_ylabel(beside, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=8, loc="lower right")


def main() -> None:
    """Write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs/images"))
    for file in save(parser.parse_args().folder):
        print(file)


if __name__ == "__main__":
    main()
