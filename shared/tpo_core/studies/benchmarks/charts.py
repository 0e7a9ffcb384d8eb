"""The charts of ``tpo bench``: the paper's figures, of whatever runs there are of a benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tpo_core.report.figures import Chart, Series
from tpo_core.report.moments import Mean
from tpo_core.studies.benchmarks.against import Sample, win_rates
from tpo_core.studies.benchmarks.collecting import Collected

__all__ = ["charts", "spreads"]


def charts(group: Sequence[Collected]) -> Iterator[Chart]:
    title = group[0].title
    loops = [run for run in group if run.summary.rounds and run.made.plan.kind not in ("single", "bon")]
    if loops:
        last = max(len(run.summary.rounds) for run in loops)
        yield Chart(
            f"{title}: reward over test-time steps",
            tuple(range(last)),
            "step",
            "best reward so far",
            tuple(_series(run, [each.best for each in run.summary.rounds], last) for run in loops),
            "Of the best candidate so far, averaged over queries; one that ended early keeps its best.",
        )
        yield Chart(
            f"{title}: spread of a step's rewards",
            tuple(range(last)),
            "step",
            "standard deviation",
            tuple(_series(run, spreads(run), last) for run in loops),
            "Within a query: of its first samples at step 0, of the step's updates after.",
        )
    yield from _against_best_of_n(title, group, loops)
    yield from _width_and_depth(title, group)


def _series(run: Collected, means: Sequence[Mean], length: int) -> Series:
    return Series(str(run.made.plan), (*means, *[Mean()] * (length - len(means))))


def _against_best_of_n(title: str, group: Sequence[Collected], loops: Sequence[Collected]) -> Iterator[Chart]:
    widest = max((run for run in group if run.samples), key=lambda run: _most(run), default=None)
    if widest is None or not loops or (most := _most(widest)) < 2:
        return
    samples = widest.samples
    series = [
        Series(str(run.made.plan), tuple(win_rates(_rewards_of(run), _by_reward(samples), most))) for run in loops
    ]
    if widest.has_gold:
        series += [
            Series(f"{run.made.plan}, held-out", tuple(win_rates(_worths_of(run), samples, most)))
            for run in loops
            if run.has_gold
        ]
    tokens = {str(run.made.plan): run.summary.usage.tokens / max(1, run.summary.queries) for run in (*loops, widest)}
    told = ", ".join(f"{name} {count:,.0f}" for name, count in tokens.items())
    yield Chart(
        f"{title}: win rate against best-of-N",
        tuple(range(1, most + 1)),
        "N",
        "share of queries won",
        tuple(series),
        "By the reward that was optimised unless said otherwise; ties count half. N counts samples, not cost: tokens a "
        f"query are {told}.",
    )


def _most(run: Collected) -> int:
    return max(map(len, run.samples.values()), default=0)


def _rewards_of(run: Collected) -> dict[str, float]:
    return {query: answer.reward for query, answer in run.answers.items()}


def _worths_of(run: Collected) -> dict[str, float]:
    return {query: answer.worth for query, answer in run.answers.items()}


def _by_reward(samples: Mapping[str, Sequence[Sample]]) -> dict[str, list[Sample]]:
    return {query: [each._replace(worth=each.reward) for each in some] for query, some in samples.items()}


def _width_and_depth(title: str, group: Sequence[Collected]) -> Iterator[Chart]:
    """Yield the chart of the paper's loop at several widths, a line a depth, where there are several."""
    found: dict[int, dict[int, Mean]] = {}
    for run in group:
        if run.made.plan.kind == "paper" and run.summary.answered:
            found.setdefault(int(run.settings["depth"]), {})[int(run.settings["width"])] = run.summary.best
    widths = sorted({width for by_width in found.values() for width in by_width})
    if sum(map(len, found.values())) < 3:
        return
    yield Chart(
        f"{title}: reward by width and depth",
        tuple(widths),
        "N",
        "reward of the answer",
        tuple(
            Series(f"D = {depth}", tuple(by_width.get(width, Mean()) for width in widths))
            for depth, by_width in sorted(found.items())
        ),
        "The paper's loop, as far as it was run: --plans paper@D2-N5,paper@D2-N10,...",
    )


def spreads(run: Collected) -> list[Mean]:
    """Return each round's spread: that of its updates, or of its samples where it made none."""
    return [each.updates_sd if each.updates_sd.n else each.samples_sd for each in run.summary.rounds]
