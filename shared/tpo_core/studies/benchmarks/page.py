"""The page of ``tpo bench``: the paper's tables and figures, made of whatever runs there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tpo_core.report.cost import PAPER_DPO, PAPER_PARAMETERS
from tpo_core.report.figures import Figures, Table
from tpo_core.report.moments import Mean
from tpo_core.studies.benchmarks.charts import charts, spreads
from tpo_core.studies.benchmarks.collecting import Collected, Metric, collect
from tpo_core.studies.benchmarks.folder import BenchFolder

__all__ = ["bench_figures"]


def bench_figures(
    folders: Sequence[BenchFolder],
    *,
    policy: float | None = None,
    reward: float | None = None,
    title: str = "tpo bench",
) -> Figures:
    """Return everything that folders of benchmarks show so far.

    Args:
        folders: Where ``tpo bench`` keeps its runs; several for several policies or rewards, which stand in one table
            and never in one chart.
        policy: Parameters of the policy: operations are then said, beside those of DPO.
        reward: Parameters of the reward model; its tokens count where it reports them.
        title: The page's.

    Raises:
        StoreError: A run cannot be read.
    """
    groups: dict[tuple[int, str], list[Collected]] = {}
    for place, folder in enumerate(folders):
        group = folder.path.resolve().name if len(folders) > 1 else ""
        for made in folder.made():
            groups.setdefault((place, made.benchmark.name), []).append(collect(made, group))
    runs = [run for group in groups.values() for run in group]
    return Figures(
        title,
        _about(runs),
        (*_warnings(runs), *(warning for folder in folders for warning in _limits(folder))),
        tuple(table for table in _tables(runs, policy, reward) if table.rows),
        tuple(chart for group in groups.values() for chart in charts(group)),
    )


def _tables(runs: Sequence[Collected], policy: float | None, reward: float | None) -> Sequence[Table]:
    return _results(runs), _further(runs), _rewards(runs), _costs(runs, policy, reward)


def _about(runs: Sequence[Collected]) -> Mapping[str, str]:
    shown = {"policy": "model", "reward": "reward", "critic": "critic", "editor": "editor"}
    found = {name: _each(str(run.settings[key]) for run in runs if key in run.settings) for name, key in shown.items()}
    found["held-out reward"] = _each(run.gold_name for run in runs)
    found["judge"] = _each(run.judge for run in runs)
    return {name: value for name, value in found.items() if value}


def _each(words: Iterator[str]) -> str:
    return ", ".join(dict.fromkeys(word for word in words if word))


# -- what the figures cannot show -------------------------------------------------------------------------------------


def _warnings(runs: Sequence[Collected]) -> Iterator[str]:
    if not runs:
        yield "There are no runs yet."
        return
    yield from _optimised(runs)
    for run in runs:
        yield from _of_run(run)


def _limits(folder: BenchFolder) -> Iterator[str]:
    for benchmark in dict.fromkeys(made.benchmark for made in folder.made()):
        about = folder.about(benchmark)
        if about.get("limit"):
            yield f"{benchmark.name}: only the first {about['count']:,} of {about['of']:,} queries, as --limit said."


def _optimised(runs: Sequence[Collected]) -> Iterator[str]:
    same = list(dict.fromkeys(run.made.benchmark.title for run in runs if run.made.benchmark.scored == "reward"))
    if same:
        yield (
            f"The figure of {' and '.join(same)} is the reward that was optimised: a gain in it does not prove better "
            "answers."
        )
    if not any(run.gold.n for run in runs):
        yield (
            "There is no held-out reward (--gold): whether rewards, and win rates by them, stand for better answers is "
            "not shown."
        )
    worse = [run for run in runs if (run.summary.gain.low or 0) > 0 and (run.summary.gold_gain.high or 0) < 0]
    if worse:
        names = ", ".join(run.name for run in worse)
        yield (
            f"In {names} the optimised reward rises and the held-out one falls: the gain is in what the reward model "
            "gets wrong."
        )
    longer = [run for run in runs if _longer(run) > 1.1]
    if longer:
        names = ", ".join(f"{run.name} ({_longer(run) - 1:+.0%})" for run in longer[:6])
        yield f"Answers are longer than the first best ones in {names}: part of a gain may be a liking for length."


def _longer(run: Collected) -> float:
    first, last = run.summary.words_first.mean, run.summary.words_best.mean
    return last / first if first and last else 1.0


def _of_run(run: Collected) -> Iterator[str]:
    counts, name = run.counts, run.name
    if counts.total is None or counts.done < counts.total:
        of = "" if counts.total is None else f" of {counts.total:,}"
        failed = f", {counts.failed:,} failed" if counts.failed else ""
        yield f"{name} is not complete: {counts.done:,}{of} queries answered{failed}; its figures are of those."
    if run.unscored:
        what = {
            "official": "no win rate was brought back (--import)",
            "refusal": "no judge has scored them (--judge)",
        }.get(run.made.benchmark.scored, "they are not scored yet: tpo bench -o FOLDER --report PAGE scores them")
        yield f"{name}: {run.unscored:,} answers have no score: {what}."
    if run.lost:
        queries = "query" if run.lost == 1 else "queries"
        yield f"{name}: {run.lost:,} {queries} without an answer, failed or cut off: counted as wrong."
    for reason, count in run.left_out.most_common(3):
        yield f"{name}: {count:,} answers are left out of the score: {reason}."


# -- tables -----------------------------------------------------------------------------------------------------------


def _results(runs: Sequence[Collected]) -> Table:
    """Return the main table: a row a plan, a column a benchmark; of win rates the length-controlled beside the raw."""
    shown = [(run, [m for i, m in enumerate(run.metrics) if i == 0 or "win rate" in m.name]) for run in runs]
    note = "Means with their 95 % intervals; win rates of Arena-Hard with its tool's own 90 %. Shares in per cent."
    return _by_plan("Results", note, shown)


def _further(runs: Sequence[Collected]) -> Table:
    """Return the benchmarks' other figures."""
    shown = [(run, [m for i, m in enumerate(run.metrics) if i and "win rate" not in m.name]) for run in runs]
    return _by_plan("Further figures", "", shown)


def _by_plan(title: str, note: str, shown: Sequence[tuple[Collected, Sequence[Metric]]]) -> Table:
    columns = list(dict.fromkeys((run.made.benchmark.title, m.name) for run, metrics in shown for m in metrics))
    first = {name: place for place, name in reversed(list(enumerate(title for title, _ in columns)))}
    columns.sort(key=lambda column: first[column[0]])
    rows: dict[tuple[str, ...], dict[tuple[str, str], Metric]] = {}
    for run, metrics in shown:
        row = rows.setdefault(_row_of(run), {})
        row.update({(run.made.benchmark.title, metric.name): metric for metric in metrics})
    head = ("plan", "policy", "reward", "D", "N", *(f"{benchmark}: {name}" for benchmark, name in columns))
    cells = tuple((*key, *(_metric(row.get(column)) for column in columns)) for key, row in rows.items())
    return Table(title, head, cells if columns else (), note)


def _row_of(run: Collected) -> tuple[str, ...]:
    """Return plan, policy, reward, D and N, which tell a row from others."""
    settings = run.settings
    depth = "0" if settings.get("mode") == "bon" else str(settings.get("depth", ""))
    free = settings.get("plan") == "adaptive"
    found = (settings.get("model"), settings.get("reward"), "" if free else depth, settings.get("width"))
    return (" ".join(filter(None, (run.group, str(run.made.plan)))), *(str(each) for each in found))


def _metric(metric: Metric | None) -> str:
    if metric is None or metric.mean.mean is None:
        return ""
    return _span(metric.mean, percent=metric.share)


def _span(mean: Mean, *, percent: bool = False) -> str:
    if mean.mean is None:
        return ""

    def said(value: float) -> str:
        return f"{100 * value:.1f}" if percent else f"{value:.4g}"

    if mean.low is None or mean.high is None:
        return said(mean.mean)
    return f"{said(mean.mean)} ({said(mean.low)} to {said(mean.high)})"


def _rewards(runs: Sequence[Collected]) -> Table:
    head = (
        "benchmark, plan", "answered", "first best", "answer", "gain", "held-out", "held-out gain", "words first",
        "words answer", "sd first round", "sd last round",
    )  # fmt: skip
    return Table(
        "Rewards",
        head,
        tuple(_reward_row(run) for run in runs if run.summary.answered),
        "The reward that was optimised, of the best first sample and of the answer; a held-out reward where --gold "
        "named one. sd is the standard deviation of a round's rewards within a query: what the paper calls stability.",
    )


def _reward_row(run: Collected) -> tuple[str, ...]:
    summary, (first, last) = run.summary, _spreads(run)
    words = [_plain(mean, 0) for mean in (summary.words_first, summary.words_best)]
    return (
        run.name,
        f"{summary.answered:,} of {run.counts.total or run.counts.queries:,}",
        _span(summary.first_best),
        _span(summary.best),
        _span(summary.gain),
        _span(run.gold),
        _span(summary.gold_gain),
        *words,
        _plain(first, 3),
        _plain(last, 3),
    )


def _plain(mean: Mean, digits: int) -> str:
    return "" if mean.mean is None else f"{mean.mean:.{digits}f}"


def _spreads(run: Collected) -> tuple[Mean, Mean]:
    found = spreads(run)
    known = [mean for mean in found[1:] if mean.mean is not None]
    return (found[0] if found else Mean()), (known[-1] if known else Mean())


def _costs(runs: Sequence[Collected], policy: float | None, reward: float | None) -> Table:
    head = ["benchmark, plan", "calls", "prompt tokens", "answer tokens", "reward tokens", "seconds"]
    note = "Of one query, on average."
    if policy is not None:
        head += ["PFLOP", "of one epoch of DPO", "queries that equal it"]
        note += (
            f" Operations are 2 x {policy:.3g} parameters x tokens; the epoch of DPO is the paper's, on 64,000 pairs, "
            f"at this size: {PAPER_DPO * policy / PAPER_PARAMETERS / 1e15:,.0f} PFLOP."
        )
    rows = tuple(_cost_row(run, policy, reward) for run in runs if run.summary.queries)
    return Table("Cost", tuple(head), rows, note)


def _cost_row(run: Collected, policy: float | None, reward: float | None) -> tuple[str, ...]:
    summary, queries = run.summary, run.summary.queries
    usage, judged = summary.usage, summary.reward_usage
    numbers = (usage.prompt_tokens, usage.completion_tokens, judged.tokens)
    cells = [run.name, f"{usage.calls / queries:.1f}", *(f"{number / queries:,.0f}" for number in numbers)]
    cells.append(_plain(summary.seconds, 1))
    if policy is not None:
        operations = 2 * (policy * usage.tokens + (reward or 0) * judged.tokens) / queries
        epoch = PAPER_DPO * policy / PAPER_PARAMETERS
        cells += [f"{operations / 1e15:.3g}", f"{operations / epoch:.2%}" if operations / epoch >= 1e-4 else "< 0.01%"]
        cells.append(f"{epoch / operations:,.0f}" if operations else "")
    return tuple(cells)
