"""What a round spends on what: which parent, which contrast, how many updates and fresh samples. A plan is data."""

from __future__ import annotations

from dataclasses import dataclass

from tpo_core.loop.ledger import Ledger
from tpo_core.values import Candidate

__all__ = [
    "Plan",
]


@dataclass(frozen=True)
class Plan:
    """One round: what to contrast, and how to spend its samples."""

    chosen: Candidate
    """The parent: what the critique is about and the updates rewrite."""
    rejected: Candidate | None
    """What it is contrasted with; None critiques the chosen alone."""
    updates: int
    fresh: int


def plan_round(ledger: Ledger) -> Plan | None:
    """Return the paper's round: N updates of the best of C against the worst of C; None without contrast.

    Mode ``revision`` needs no contrast. ``fresh`` of the N samples are the program's own instead of updates.
    """
    config, best = ledger.config, ledger.best
    if best is None or (config.mode == "tpo" and not ledger.has_contrast()):
        return None
    return Plan(
        chosen=best,
        rejected=ledger.worst if config.mode == "tpo" else None,
        updates=config.width - config.fresh,
        fresh=config.fresh,
    )
