"""How rewards grow with rounds and width, against as many samples and as many tokens of best-of-N.

The arm ``NONE`` has sampled alone for as many tokens as the dearest arm took for that query; best-of-N for any fewer
samples or tokens is the best of its first ones. All comparisons are paired by query.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, TypeAlias

from tpo_core.studies.arms import NONE, Study
from tpo_core.studies.intervals import Estimate, at_equal_length, mean_of
from tpo_core.trajectory import Trajectory
from tpo_core.values import Candidate, Pair, Prompt, Usage

__all__ = ["Answer", "Outcome", "Point", "compared", "outcome", "points", "warnings"]

FEW = 30
"""Queries below which intervals are rough."""

Answer: TypeAlias = tuple[str, str]
"""A query by its name, and a response to it."""


@dataclass(frozen=True)
class Outcome:
    """What one arm made of one query with one seed."""

    arm: str
    query: str
    seed: int
    rounds: tuple[tuple[Candidate, ...], ...]
    """The scored candidates by round."""
    calls: int
    tokens: float
    """As they are priced; 0 where the server tells none."""
    prompt: Prompt = ""
    """What the query asks."""

    @property
    def scored(self) -> tuple[Candidate, ...]:
        """Return all scored candidates, in the order they were made."""
        return tuple(c for made in self.rounds for c in made)


@dataclass(frozen=True)
class Point:
    """One arm after one round, over all queries."""

    arm: str
    round: int
    queries: int
    best: Estimate
    """Reward of the best so far."""
    mean: Estimate | None
    """Mean reward of the candidates of this round, where it has any."""
    sd: Estimate | None
    """Their standard deviation within a query, where there are at least two."""
    samples: float
    """Samples and updates so far, a query."""
    tokens: float
    """Tokens so far, a query: what rounds after the first take is shared among them equally."""
    over_samples: Estimate | None = None
    """Best so far less that of best-of-N for as many samples; None for ``NONE`` itself."""
    over_tokens: Estimate | None = None
    """Likewise for as many tokens."""
    win_rate: Estimate | None = None
    """Queries won against best-of-N for as many tokens; a tie counts half."""
    at_equal_length: Estimate | None = None
    """``over_tokens``, were the answers as long as best-of-N's."""
    held_out: Estimate | None = None
    """``over_tokens`` by a held-out reward, of the queries for both of whose answers it has one."""


def outcome(arm: str, query: str, trajectory: Trajectory, *, prompt_price: float) -> Outcome:
    """Return what a study keeps of a trajectory."""
    steps = 1 + max((c.step for c in trajectory.candidates), default=0)
    scored = [c for c in trajectory.candidates if c.reward is not None and c.failure is None]
    rounds = tuple(tuple(c for c in scored if c.step == step) for step in range(steps))
    spent: Usage = trajectory.usage
    priced = spent.completion_tokens + prompt_price * spent.prompt_tokens
    return Outcome(arm, query, trajectory.seed or 0, rounds, spent.calls, priced, trajectory.query)


def points(study: Study, outcomes: Iterable[Outcome], held: Mapping[Answer, float] | None = None) -> list[Point]:
    """Return the points of a study, of the queries that every arm answered; the same outcomes give the same numbers.

    Args:
        study: Whose arms.
        outcomes: Of all arms, and of ``NONE``.
        held: Held-out rewards of what ``compared`` returns.
    """
    whole = _whole(study, outcomes)
    if not whole:
        return []
    made = [_point(name, number, depth, whole, held or {}) for name, number, depth in _places(study)]
    if study.by_round:
        width = int(study.arms[0].settings.get("width", 5))
        rounds = range(1 + max(int(arm.settings.get("depth", 2)) for arm in study.arms))
        made += [_of_none(number, width, whole) for number in rounds]
    return made


def compared(study: Study, outcomes: Iterable[Outcome]) -> dict[Answer, Pair]:
    """Return the answers that the points of a study hold against each other for as many tokens, to be scored again."""
    found: dict[Answer, Pair] = {}
    whole = _whole(study, outcomes)
    for name, number, depth in _places(study):
        for arms in whole:
            query, prompt = arms[name].query, arms[name].prompt
            for c in _sides(arms[name], arms[NONE], number, depth)[:2]:
                found[query, c.response] = Pair(c.answers(prompt), c.response, c.value, None, prompt)
    return found


def warnings(study: Study, found: Sequence[Point], *, left_out: int = 0) -> list[str]:
    """Return what the numbers cannot show, the weightiest first."""
    said = []
    if all(point.held_out is None for point in found):
        said.append("The reward shown is the one that was optimised: a gain in it does not prove better answers.")
    for point in _last(found):
        said += _by_held_out(point)
        tokens, length = point.over_tokens, point.at_equal_length
        if tokens is None or length is None:
            continue
        if tokens.low <= 0:
            verdict = "is better" if tokens.high < 0 else "may be as good"
            said.append(f"{point.arm}: best-of-N for as many tokens {verdict} ({_span(tokens)}).")
        elif length.low <= 0:
            said.append(
                f"{point.arm}: length may explain what it is ahead of best-of-N: {_span(tokens)} as it is, "
                f"{_span(length)} at equal length."
            )
    queries = min((point.queries for point in found), default=0)
    if queries < FEW:
        said.append(f"{queries} queries are few: intervals are rough.")
    if left_out:
        said.append(f"{left_out} queries that an arm could not answer are left out of all arms.")
    return said


def _by_held_out(point: Point) -> Iterator[str]:
    held, tokens = point.held_out, point.over_tokens
    if held is None or tokens is None:
        return
    verdict = "which does not show better answers"
    if held.low > 0:
        verdict = "which confirms the gain" if tokens.low > 0 else "which alone shows better answers"
    elif tokens.low > 0 > held.high:
        verdict = "so that the gain is in what the optimised reward likes"
    yield (
        f"{point.arm}: against best-of-N for as many tokens {_span(tokens)} by the optimised reward, {_span(held)} by "
        f"the held-out one, {verdict}."
    )


def _last(found: Sequence[Point]) -> list[Point]:
    """Return each arm's last point."""
    return list({point.arm: point for point in found}.values())


def _span(estimate: Estimate) -> str:
    return f"{estimate.value:+.3g}, {estimate.low:+.3g} to {estimate.high:+.3g}"


def _whole(study: Study, outcomes: Iterable[Outcome]) -> list[Mapping[str, Outcome]]:
    """Return the outcomes by arm of each query and seed that every arm answered."""
    found: dict[tuple[str, int], dict[str, Outcome]] = {}
    for each in outcomes:
        if each.rounds[0]:
            found.setdefault((each.query, each.seed), {})[each.arm] = each
    names = {arm.name for arm in study.arms} | {NONE}
    return [arms for _, arms in sorted(found.items()) if set(arms) >= names]


def _places(study: Study) -> Iterator[tuple[str, int, int]]:
    """Yield the arm, the round and the arm's depth of each point but those of ``NONE``."""
    for arm in study.arms:
        depth = int(arm.settings.get("depth", 2))
        for number in range(depth + 1) if study.by_round else (depth,):
            yield arm.name, number, depth


def _sides(ours: Outcome, none: Outcome, number: int, depth: int) -> tuple[Candidate, Candidate, float]:
    """Return an arm's best after a round, that of best-of-N for as many tokens, and the tokens."""
    tokens = _tokens(ours, number, depth, none)
    best = _best(c for made in ours.rounds[: number + 1] for c in made)
    return best, _best(none.scored[: _affordable(none, tokens)]), tokens


def _point(
    name: str, number: int, depth: int, whole: Sequence[Mapping[str, Outcome]], held: Mapping[Answer, float]
) -> Point:
    ours, none = [arms[name] for arms in whole], [arms[NONE] for arms in whole]
    sides = [_sides(o, n, number, depth) for o, n in zip(ours, none, strict=True)]
    best, paid, tokens = [b for b, _, _ in sides], [p for _, p, _ in sides], [t for _, _, t in sides]
    samples = [sum(map(len, o.rounds[: number + 1])) for o in ours]
    alike = [_best(n.scored[:count]) for n, count in zip(none, samples, strict=True)]
    gold = [[held.get((o.query, c.response)) for c in side[:2]] for o, side in zip(ours, sides, strict=True)]
    known = [(o, b - p) for o, (b, p) in zip(ours, gold, strict=True) if b is not None and p is not None]
    apart = [_reward(a) - _reward(b) for a, b in zip(best, paid, strict=True)]
    longer = [math.log(_words(a) / _words(b)) for a, b in zip(best, paid, strict=True)]

    def over(values: Iterable[float]) -> list[float]:
        return _by_query(ours, values)

    return Point(
        **_shape(name, number, ours, [_of_round(o, number) for o in ours], best),
        samples=fmean(samples),
        tokens=fmean(tokens),
        over_samples=mean_of(over(_reward(a) - _reward(b) for a, b in zip(best, alike, strict=True))),
        over_tokens=mean_of(over(apart)),
        win_rate=mean_of(over(0.5 + 0.5 * ((d > 0) - (d < 0)) for d in apart)),
        at_equal_length=at_equal_length(over(apart), over(longer)),
        held_out=mean_of(_by_query([o for o, _ in known], (d for _, d in known))) if known else None,
    )


def _of_none(number: int, width: int, whole: Sequence[Mapping[str, Outcome]]) -> Point:
    none = [arms[NONE] for arms in whole]
    made = [n.scored[number * width : (number + 1) * width] for n in none]
    best = [_best(n.scored[: (number + 1) * width]) for n in none]
    each = fmean(_price(n) for n in none)
    samples = (number + 1) * width
    return Point(**_shape(NONE, number, none, made, best), samples=samples, tokens=samples * each)


def _shape(
    name: str,
    number: int,
    outcomes: Sequence[Outcome],
    made: Sequence[Sequence[Candidate]],
    best: Sequence[Candidate],
) -> dict[str, Any]:
    """Return the part of a point that all arms have."""
    rewards = [(o, [_reward(c) for c in candidates]) for o, candidates in zip(outcomes, made, strict=True)]
    some, several = [(o, r) for o, r in rewards if r], [(o, r) for o, r in rewards if len(r) > 1]
    means = _by_query([o for o, _ in some], (fmean(r) for _, r in some))
    sds = _by_query([o for o, _ in several], (stdev(r) for _, r in several))
    return {
        "arm": name,
        "round": number,
        "queries": len({o.query for o in outcomes}),
        "best": mean_of(_by_query(outcomes, map(_reward, best))),
        "mean": mean_of(means) if means else None,
        "sd": mean_of(sds) if sds else None,
    }


def _by_query(outcomes: Sequence[Outcome], values: Iterable[float]) -> list[float]:
    """Return each query's mean over its seeds."""
    found: dict[str, list[float]] = {}
    for each, value in zip(outcomes, values, strict=True):
        found.setdefault(each.query, []).append(value)
    return [fmean(seeds) for seeds in found.values()]


def _of_round(outcome: Outcome, number: int) -> tuple[Candidate, ...]:
    return outcome.rounds[number] if number < len(outcome.rounds) else ()


def _tokens(outcome: Outcome, number: int, depth: int, none: Outcome) -> float:
    """Return what an arm had spent after a round."""
    spent = outcome.tokens or outcome.calls
    first = min(spent, len(outcome.rounds[0]) * _price(none)) if depth else spent
    return first + (spent - first) * number / max(1, depth)


def _price(none: Outcome) -> float:
    """Return what one sample takes: tokens, or one call where no tokens are told."""
    return (none.tokens or none.calls) / max(1, none.calls)


def _affordable(none: Outcome, tokens: float) -> int:
    return max(1, int(tokens / _price(none) + 1e-9))


def _best(candidates: Iterable[Candidate]) -> Candidate:
    return max(candidates, key=_reward)


def _reward(candidate: Candidate) -> float:
    return candidate.reward if candidate.reward is not None else -math.inf


def _words(candidate: Candidate) -> int:
    return max(1, len(candidate.response.split()))
