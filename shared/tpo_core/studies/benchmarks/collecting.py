"""What one run of a benchmark shows, read once from its folder: done, half done, scored or not yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tpo_core.report.entries import Entry, best, scored
from tpo_core.report.moments import Mean, Moments, Share
from tpo_core.report.summary import RunSummary, SummaryTally
from tpo_core.runs.reader import Counts, RunReader
from tpo_core.studies.benchmarks.against import Sample
from tpo_core.studies.benchmarks.checkers import CHECKERS, WEIGHT, Verdict
from tpo_core.studies.benchmarks.folder import Made
from tpo_core.studies.benchmarks.official import imported
from tpo_core.studies.benchmarks.scores import Scores
from tpo_core.studies.benchmarks.scoring import GOLD, golds

__all__ = ["Collected", "Metric", "collect"]


@dataclass(frozen=True)
class Metric:
    """One figure of a run."""

    name: str
    mean: Mean
    share: bool = True
    """A share, shown in per cent; else a reward."""
    level: int = 95
    """Per cent of its interval."""


@dataclass
class Collected:
    """What a run shows."""

    made: Made
    settings: Mapping[str, Any]
    counts: Counts
    summary: RunSummary
    metrics: list[Metric] = field(default_factory=list)
    """The benchmark's own figures, the main one first; none where nothing is scored yet."""
    lost: int = 0
    """Queries without an answer, failed or cut off, that count as wrong."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Answers without a score, by the reason."""
    unscored: int = 0
    """Answers that nobody has scored yet."""
    gold: Mean = field(default_factory=Mean)
    """The answers' held-out reward."""
    gold_name: str = ""
    judge: str = ""
    answers: dict[str, Sample] = field(default_factory=dict)
    """Each answer's reward and held-out reward (the reward again where it has none), by query."""
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    """Every scored candidate of best-of-N, likewise; empty for other plans."""
    group: str = ""
    """Its folder's name, where there are several."""
    has_gold: bool = False
    """Whether every answer has a held-out reward."""

    @property
    def title(self) -> str:
        """Return the benchmark's title, after the folder's name where there are several."""
        return f"{self.group}, {self.made.benchmark.title}" if self.group else self.made.benchmark.title

    @property
    def name(self) -> str:
        """Return what tells it from the page's other runs."""
        return " ".join(filter(None, (self.group, self.made.benchmark.name, str(self.made.plan))))


def collect(made: Made, group: str = "") -> Collected:
    """Read a run.

    Args:
        made: Which.
        group: Its folder's name, where there are several.

    Raises:
        StoreError: Its folder cannot be read.
    """
    gold = Scores(made.folder, GOLD)
    tally, worth = SummaryTally(), Moments()
    with RunReader(made.folder) as reader:
        found = Collected(made, reader.settings, reader.counts, RunSummary(), gold_name=gold.by or "", group=group)
        responses: dict[str, str] = {}
        lost: list[Mapping[str, Any]] = []
        for each, trajectory in golds(reader, gold):
            tally.add(Entry(trajectory, each.item.id))
            if (top := best(trajectory)) is None:
                lost.append(each.item.row["row"])
                continue
            responses[each.item.id] = top[0].response
            held_out = trajectory.gold.get(top[0].index)
            if held_out is not None:
                worth.add(held_out)
            found.answers[each.item.id] = Sample(top[1], top[1] if held_out is None else held_out)
            if made.plan.kind == "bon":
                found.samples[each.item.id] = [
                    Sample(reward, trajectory.gold.get(candidate.index, reward))
                    for candidate, reward in scored(trajectory)
                ]
        for failed in reader.failed():
            tally.add(Entry(failed.trajectory, failed.item.id, f"{failed.error}: {failed.message}"))
            lost.append(failed.item.row["row"])
    found.summary, found.gold = tally.result(), worth.result()
    found.has_gold = bool(found.answers) and found.gold.n == len(found.answers)
    _metrics(found, responses, lost)
    return found


def _metrics(found: Collected, responses: Mapping[str, str], lost: Sequence[Mapping[str, Any]]) -> None:
    kind = found.made.benchmark.scored
    if kind == "reward":
        found.metrics.append(Metric("reward", found.summary.best, share=False))
    elif kind == "official":
        for figure in imported(found.made):
            ends = [None if end is None else end / 100 for end in (figure.low, figure.high)]
            mean = Mean(figure.n or 0, figure.mean / 100, *ends)
            found.metrics.append(Metric(figure.metric, mean, level=figure.level))
        found.metrics.sort(key=lambda metric: "controlled" not in metric.name)  # beside the raw one, and before it
        found.unscored = 0 if found.metrics else len(responses)
    else:
        _scores(found, responses, lost if kind in CHECKERS else ())


_MAIN: Mapping[str, str] = {"math": "pass@1", "ifeval": "prompts, strict", "refusal": "accuracy"}
_NAMES: Mapping[str, str] = {
    "loose": "prompts, loose",
    "instructions": "instructions, strict",
    "instructions loose": "instructions, loose",
}


def _scores(found: Collected, responses: Mapping[str, str], lost: Sequence[Mapping[str, Any]]) -> None:
    scores = Scores(found.made.folder, found.made.benchmark.scored)
    found.judge = scores.by or ""
    verdicts: list[Verdict] = []
    for id, response in responses.items():
        verdict = scores.get(id, response)
        if verdict is None:
            found.unscored += 1
        elif verdict.value is None:
            found.left_out[verdict.left_out] += 1
        else:
            verdicts.append(verdict)
    if found.unscored == 0:
        names = {name: 0.0 for each in verdicts for name in each.parts}
        verdicts += [Verdict(0.0, names | {WEIGHT: len(row.get("instruction_id_list", ()))}) for row in lost]
        found.lost = len(lost)
    if verdicts:
        main = _share((each.value or 0.0, 1) for each in verdicts)
        found.metrics.append(Metric(_MAIN[found.made.benchmark.scored], main))
        for name in sorted({name for each in verdicts for name in each.parts} - {WEIGHT}):
            weighed = name.startswith("instructions")
            pairs = ((v.parts[name], int(v.parts[WEIGHT]) if weighed else 1) for v in verdicts if name in v.parts)
            found.metrics.append(Metric(_NAMES.get(name, name), _share(pairs)))


def _share(shares: Iterable[tuple[float, int]]) -> Mean:
    """Return the share of all counted together, each given with how many it is of, with Wilson's interval."""
    counts = [(round(share * of), of) for share, of in shares]
    found = Share.build(sum(count for count, _ in counts), sum(of for _, of in counts))
    return Mean(found.of, found.share, found.low, found.high)
