"""What a run's figures cannot show, said beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tpo_core.report.moments import Mean

if TYPE_CHECKING:
    from tpo_core.report.summary import RunSummary

__all__ = ["caveats", "span"]

FEW = 30
"""Queries below which the mean of a skewed gain is far from normal, and so is its interval."""


def caveats(run: RunSummary) -> tuple[str, ...]:
    """Return the sentences, the weightiest first; none for a run without an answer."""
    if run.answered == 0:
        return ()
    return tuple(said for part in (_metric, _sampling, _few, _length, _lost, _seen) for said in part(run))


def span(mean: Mean, sign: bool = False) -> str:
    """Write a mean with its interval.

    Example:
        >>> span(Mean(2, 1.5, 0.5, 2.5, 1.0), sign=True)
        '+1.5 (95 % interval 0.5 to 2.5)'
    """
    if mean.mean is None:
        return "unknown"
    text = f"{_number(mean.mean):+g}" if sign else f"{_number(mean.mean):g}"
    if mean.low is None or mean.high is None:
        return text
    return f"{text} (95 % interval {_number(mean.low):g} to {_number(mean.high):g})"


def _metric(run: RunSummary) -> Iterator[str]:
    if run.gold_gain.mean is None:
        yield (
            "The reward shown is the one that was optimised, so a gain in it does not prove better answers. "
            "A held-out reward (gold=) or a human would; this run has none."
        )
        return
    verdict = "" if (run.gold_gain.low or 0) > 0 else ", which does not show better answers"
    yield (
        "The reward shown is the one that was optimised. By the held-out reward the gain is "
        f"{span(run.gold_gain, sign=True)} over {_queries(run.gold_gain.n)}{verdict}."
    )


def _sampling(run: RunSummary) -> Iterator[str]:
    if run.gain.mean is None:
        return
    text = "The gain is never negative: the best of more candidates is at least the best of fewer. "
    if run.updates == 0 or run.sampling_gain.mean is None:
        yield text + "Compare it with a best-of-N run (mode='bon') at the same cost; none is on this page."
        return
    calls = run.usage.calls / run.queries
    text += (
        f"Were a query's rewards normal, sampling alone with as many calls ({calls:.0f} a query) would gain about "
        f"{_number(run.sampling_gain.mean):+g}, the loop gained {_number(run.gain.mean):+g}: "
    )
    low, high = run.gain.low or run.gain.mean, run.sampling_gain.high or run.sampling_gain.mean
    text += "best-of-N may be as good. " if low <= high else "this estimate speaks for the loop. "
    yield text + "Only a best-of-N run (mode='bon') at the same cost settles it."


def _few(run: RunSummary) -> Iterator[str]:
    if run.gain.n < FEW:
        yield f"{_queries(run.gain.n)} with a gain to measure: too few to generalise; the intervals are rough."


def _length(run: RunSummary) -> Iterator[str]:
    first, last = run.words_first.mean, run.words_best.mean
    if not first or last is None:
        return
    change = last / first - 1
    if abs(change) < 0.1:
        yield f"Answers are about as long as the first best ones ({last:.0f} and {first:.0f} words on average)."
    else:
        kind, liking = ("longer", "length") if change > 0 else ("shorter", "brevity")
        yield (
            f"Answers are {abs(change):.0%} {kind} than the first best ones ({first:.0f} to {last:.0f} words on "
            f"average): a reward that likes {liking} would show this gain, too.{_at_equal_length(run)}"
        )


def _at_equal_length(run: RunSummary) -> str:
    """Set the gain that is left at equal length beside the gain."""
    left = run.equal_length_gain
    if left.mean is None or run.gain.mean is None:
        return ""
    verdict = "" if (left.low or 0) > 0 else ": length may explain it"
    return f" The gain is {span(run.gain, sign=True)}, at equal length {span(left, sign=True)}{verdict}."


def _lost(run: RunSummary) -> Iterator[str]:
    if failed := sum(run.failures.values()):
        share = f"{failed / run.candidates:.0%}"
        yield f"{failed:,} of {run.candidates:,} candidates failed ({share}); means leave them out."
    if missing := run.queries - run.answered:
        yield f"{missing:,} of {run.queries:,} queries have no scored answer; means leave them out."
    if run.weak_policy:
        yield (
            f"In {_queries(run.weak_policy)} updates said nothing or scored lower than the samples: the policy may be "
            "too weak to follow its feedback there."
        )


def _seen(run: RunSummary) -> Iterator[str]:
    if run.truncated:
        yield f"The reward model saw a shortened prompt for {run.truncated:,} candidates."
    if run.without_tokens:
        yield f"Servers reported no tokens for {_queries(run.without_tokens)}; they count as 0."
    if run.estimated_tokens:
        yield f"Tokens of {_queries(run.estimated_tokens)} are estimated, not counted by the server."


def _queries(count: int) -> str:
    return f"{count:,} {'query' if count == 1 else 'queries'}"


def _number(value: float) -> float:
    """Round to three significant digits."""
    return float(f"{value:.3g}")
