"""A run in figures, computed in one pass over its trajectories with memory that does not grow with them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tpo_core.report.caveats import caveats
from tpo_core.report.entries import Entry, Item, best, finite, initial_best, label, scored, winner
from tpo_core.report.histograms import Histogram, HistogramTally
from tpo_core.report.moments import Line, Mean, Moments, Share, expected_maximum, unbiased_sd
from tpo_core.report.rounds import RoundSummary, RoundTally
from tpo_core.values import Usage

if TYPE_CHECKING:
    from tpo_core.trajectory import Trajectory

__all__ = ["RunSummary", "SummaryTally", "summarize"]


@dataclass(frozen=True)
class RunSummary:
    """What a run gained and what it cost. Means are over the queries that have a scored answer."""

    queries: int = 0
    answered: int = 0
    """Queries with a scored candidate."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """Queries that ended with an error, by its kind."""
    stop_reasons: Mapping[str, int] = field(default_factory=dict)
    winners: Mapping[str, int] = field(default_factory=dict)
    """Where the best answers came from: ``first`` samples, ``fresh`` samples of later rounds, or an ``update``."""
    candidates: int = 0
    """Everything sampled, failures included."""
    updates: int = 0
    """How many of them are updates."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Candidates that failed, by reason."""
    rounds_failed: Mapping[str, int] = field(default_factory=dict)
    """Rounds that gave no candidates, by reason."""
    first_best: Mean = field(default_factory=Mean)
    """Reward of the best first sample."""
    best: Mean = field(default_factory=Mean)
    """Reward of the answer."""
    gain: Mean = field(default_factory=Mean)
    """Reward of the answer less that of the best first sample; never negative."""
    gold_gain: Mean = field(default_factory=Mean)
    """The same by the held-out reward, where both have one."""
    update_won: Share = field(default_factory=Share)
    """Queries whose answer is an update."""
    sampling_gain: Mean = field(default_factory=Mean)
    """What sampling alone would gain with as many calls, if a query's rewards were normal: an estimate, where at
    least three first samples were scored."""
    words_first: Mean = field(default_factory=Mean)
    """Words of the best first sample."""
    words_best: Mean = field(default_factory=Mean)
    """Words of the answer."""
    equal_length_gain: Mean = field(default_factory=Mean)
    """The gain where an answer is as long as the best first sample: of a line over the logarithm of their ratio."""
    usage: Usage = field(default_factory=Usage)
    reward_usage: Usage = field(default_factory=Usage)
    without_tokens: int = 0
    """Queries whose servers reported no tokens."""
    estimated_tokens: int = 0
    """Queries whose tokens are estimated, in whole or in part."""
    truncated: int = 0
    """Candidates whose reward model saw a shortened prompt."""
    weak_policy: int = 0
    """Queries whose updates say nothing or score lower; see ``Trajectory.weak_policy``."""
    seconds: Mean = field(default_factory=Mean)
    """Wall-clock seconds of a query."""
    gains: Histogram = field(default_factory=Histogram)
    rounds: tuple[RoundSummary, ...] = ()

    @property
    def tokens(self) -> int:
        """Return all tokens, those of the reward model included."""
        return self.usage.tokens + self.reward_usage.tokens

    @property
    def caveats(self) -> tuple[str, ...]:
        """Return what these figures cannot show, in sentences."""
        return caveats(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with the properties."""
        return {**asdict(self), "tokens": self.tokens, "caveats": list(self.caveats)}


def summarize(trajectories: Iterable[Item]) -> RunSummary:
    """Return the figures of a run.

    Args:
        trajectories: Trajectories, exceptions of queries that failed, or entries; read once, never kept.

    Example:
        >>> from tpo_core import Candidate, Trajectory
        >>> run = [Trajectory("q", (Candidate("a", reward=1.0), Candidate("b", reward=3.0, step=1, fresh=False)))]
        >>> summary = summarize([*run, ValueError("no server")])
        >>> summary.queries, summary.answered, summary.gain.mean, summary.update_won.share, dict(summary.errors)
        (2, 1, 2.0, 1.0, {'ValueError': 1})
    """
    tally = SummaryTally()
    for item in trajectories:
        tally.add(Entry.of(item))
    return tally.result()


_MEANS = (
    "first_best", "best", "gain", "gold_gain", "sampling_gain", "words_first", "words_best", "seconds",
)  # fmt: skip
_COUNTERS = ("errors", "stop_reasons", "winners", "failures", "rounds_failed")
_KINDS = 200  # different words kept a counter: reasons come from files, which may hold anything


class SummaryTally:
    """Adds up entries one by one."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._counts: Counter[str] = Counter()
        self._counters = {name: Counter[str]() for name in _COUNTERS}
        self._means = {name: Moments() for name in _MEANS}
        self._usage, self._reward_usage = Usage(), Usage()
        self._gains, self._rounds = HistogramTally(), RoundTally()
        self._by_length = Line()

    def add(self, entry: Entry) -> None:
        """Take one more query."""
        self._counts["queries"] += 1
        if entry.error:
            self._count("errors", entry.error.split(":")[0])
        if entry.trajectory is not None:
            self._costs(entry.trajectory)
            self._candidates(entry.trajectory)
            self._rewards(entry.trajectory)
            if not entry.error:
                self._count("stop_reasons", entry.trajectory.stop_reason)

    def result(self) -> RunSummary:
        """Return the figures so far."""
        figures: dict[str, Any] = {name: moments.result() for name, moments in self._means.items()}
        figures.update(self._counts)
        figures.update({name: dict(counter.most_common()) for name, counter in self._counters.items()})
        return RunSummary(
            **figures,
            update_won=Share.build(self._counters["winners"]["update"], self._counts["answered"]),
            usage=self._usage,
            reward_usage=self._reward_usage,
            equal_length_gain=self._by_length.intercept(),
            gains=self._gains.result(),
            rounds=self._rounds.result(),
        )

    def _costs(self, trajectory: Trajectory) -> None:
        self._usage += trajectory.usage
        self._reward_usage += trajectory.reward_usage
        self._counts["without_tokens"] += trajectory.usage.tokens == 0
        self._counts["estimated_tokens"] += trajectory.usage.estimated
        if (seconds := finite(trajectory.seconds.get("total"))) is not None:
            self._means["seconds"].add(seconds)

    def _candidates(self, trajectory: Trajectory) -> None:
        for candidate in trajectory.candidates:
            self._counts["candidates"] += 1
            self._counts["updates"] += not candidate.fresh
            self._counts["truncated"] += bool(candidate.truncated)
            if candidate.failure is not None:
                self._count("failures", candidate.failure.reason)
        for step in trajectory.steps:
            if step.failure is not None:
                self._count("rounds_failed", step.failure.reason)
        self._counts["weak_policy"] += trajectory.weak_policy

    def _rewards(self, trajectory: Trajectory) -> None:
        found, first = best(trajectory), initial_best(trajectory)
        if found is None:
            return
        self._counts["answered"] += 1
        self._count("winners", winner(found[0]))
        self._means["best"].add(found[1])
        if first is None:
            return
        self._means["first_best"].add(first[1])
        self._means["gain"].add(found[1] - first[1])
        self._gains.add(found[1] - first[1])
        words_first, words_best = (len(candidate.response.split()) for candidate in (first[0], found[0]))
        self._means["words_first"].add(words_first)
        self._means["words_best"].add(words_best)
        self._by_length.add(math.log(max(1, words_best) / max(1, words_first)), found[1] - first[1])
        self._rounds.add(trajectory)
        self._compare(trajectory, first[0].index, found[0].index)

    def _compare(self, trajectory: Trajectory, first: int, found: int) -> None:
        """Hold the gain against a held-out reward, and against more samples."""
        gold = [finite(trajectory.gold.get(index)) for index in (first, found)]
        if gold[0] is not None and gold[1] is not None:
            self._means["gold_gain"].add(gold[1] - gold[0])
        initial = [reward for candidate, reward in scored(trajectory) if candidate.step == 0]
        calls = max(trajectory.usage.calls, len(trajectory.candidates))
        if len(initial) >= 3:
            more = expected_maximum(max(calls, len(initial))) - expected_maximum(len(initial))
            self._means["sampling_gain"].add(unbiased_sd(initial) * more)

    def _count(self, name: str, word: Any) -> None:
        counter, word = self._counters[name], label(word)
        counter[word if word in counter or len(counter) < _KINDS else "others"] += 1
