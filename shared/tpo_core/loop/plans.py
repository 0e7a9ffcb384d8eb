"""What a round spends on what: contrasts to critique, updates of each, fresh samples. A plan is data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from tpo_core.loop.ledger import Ledger
from tpo_core.trajectory import StopReason
from tpo_core.values import Candidate

__all__ = ["Contrast", "Plan", "Repeat", "contrasts", "paper_plan"]


@dataclass(frozen=True)
class Contrast:
    """One critique: what it compares, and how many updates are made from it."""

    chosen: Candidate
    """The parent: what the critique is about and the updates rewrite."""
    rejected: Candidate | None
    """What it is contrasted with; None critiques the chosen alone."""
    updates: int


@dataclass(frozen=True)
class Repeat:
    """Further updates of the same parent by the instructions of an earlier critique."""

    place: int
    """Of the critique in the trajectory's steps."""
    updates: int


@dataclass(frozen=True)
class Plan:
    """How one round spends its samples."""

    contrasts: tuple[Contrast, ...] = ()
    """The critiques: they do not wait for each other."""
    fresh: int = 0
    """Samples of the program itself."""
    repeat: Repeat | None = None
    """Instead of both."""
    final: bool = True
    """Whether the round ends with it; else another plan of the same round follows."""


def paper_plan(ledger: Ledger, number: int) -> Plan | StopReason:
    """Return the paper's round: N updates of the best of C against the worst of C.

    Mode ``revision`` needs no contrast. ``fresh`` of the N samples are the program's own instead of updates, and
    ``critiques`` share the updates. Without contrast the round samples once more, and then is the last.
    """
    config, best = ledger.config, ledger.best
    if number > config.rounds:
        return "depth"
    if best is None or (config.mode == "tpo" and not ledger.has_contrast()):
        return "no_contrast" if ledger.of_step(number) else Plan(fresh=config.width, final=False)
    rejected = ledger.worst if config.mode == "tpo" else None
    first = Contrast(best, rejected, config.width - config.fresh)
    return Plan(_shared(ledger, first) if config.critiques > 1 else (first,), config.fresh)


def _shared(ledger: Ledger, first: Contrast) -> tuple[Contrast, ...]:
    """Return a contrast and others that share its updates, as many as ``critiques`` says and the calls left pay."""
    wanted, calls, shown = ledger.config.critiques, ledger.config.critique_calls, _texts(first)
    most = max(1, ledger.affordable(wanted * (calls + 1)) // (calls + 1))  # without an update a critique buys nothing
    found = [first, *(c for c in contrasts(ledger, wanted, 0) if _texts(c) != shown)][:most]
    paid = len(found) * calls
    each, more = divmod(ledger.affordable(paid + first.updates) - paid, len(found))
    return tuple(replace(c, updates=each + (place < more)) for place, c in enumerate(found))


def _texts(contrast: Contrast) -> tuple[str, str | None]:
    return contrast.chosen.response, None if contrast.rejected is None else contrast.rejected.response


def contrasts(ledger: Ledger, critiques: int, updates: int) -> tuple[Contrast, ...]:
    """Return this many contrasts, no two alike: of the best against the worst, then others of the lower half.

    Pairs that were critiqued before come last. Where the lower half holds too few, the next best are parents; and with
    no contrast to the best, or in mode ``revision``, candidates are critiqued alone, the best first.
    """
    told = {(s.chosen.index, s.rejected.index if s.rejected else None) for s in ledger.steps if s.chosen}
    pairs = list(_pairs(ledger))
    pairs.sort(key=lambda pair: (pair[0].index, pair[1].index if pair[1] else None) in told)  # stable
    return tuple(Contrast(chosen, rejected, updates) for chosen, rejected in islice(pairs, critiques))


def _pairs(ledger: Ledger) -> Iterator[tuple[Candidate, Candidate | None]]:
    ranked = _distinct(ledger)
    lower = ranked[: len(ranked) // 2 : -1] if len(ranked) > 2 else ranked[:0:-1]
    for chosen in ranked[:2]:
        below = [c for c in lower if _reward(chosen) - _reward(c) > ledger.config.min_spread]
        if ledger.config.mode == "tpo":
            yield from ((chosen, rejected) for rejected in below)
        if ledger.config.mode == "revision" or not below:
            yield chosen, None


def _distinct(ledger: Ledger) -> Sequence[Candidate]:
    """Return the scored candidates from the best down, one per response, the earliest of equals first."""
    first = {c.response: c for c in reversed(ledger.scored)}
    return sorted(first.values(), key=lambda c: (-_reward(c), c.index))


def _reward(candidate: Candidate) -> float:
    return candidate.reward if candidate.reward is not None else float("-inf")
