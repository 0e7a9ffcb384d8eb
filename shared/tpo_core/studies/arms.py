"""What ``tpo study width|depth|modes|stability`` compares: arms as data.

Each arm answers the same queries with the same seeds, so that arms share their first samples. ``NONE`` samples alone,
for as many tokens as the dearest arm took for that query.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["NONE", "STUDIES", "Arm", "Study", "sampling"]

NONE = "none"
"""The arm without feedback."""
AT_ONCE = 8
"""Samples of ``NONE`` asked for together."""


@dataclass(frozen=True)
class Arm:
    """One way to answer all queries."""

    name: str
    settings: Mapping[str, Any]
    """Fields of ``TPOConfig``."""


@dataclass(frozen=True)
class Study:
    """Which arms are compared, and what is drawn of them."""

    question: str
    arms: tuple[Arm, ...]
    by_round: bool = True
    """Whether each round is a point; else the last round of each arm is one."""
    shown: Literal["best", "sd"] = "best"
    """What the figure shows: the best reward so far, or the spread of a round's rewards."""


STUDIES: Mapping[str, Study] = {
    "modes": Study(
        "reward over rounds with feedback, with revision, and with none",
        (Arm("tpo", {"depth": 4}), Arm("revision", {"mode": "revision", "depth": 4})),
    ),
    "depth": Study("how many rounds pay", (Arm("tpo", {"depth": 6}),)),
    "width": Study(
        "how many updates a round pay",
        tuple(Arm(f"width {n}", {"width": n, "depth": 2}) for n in (2, 3, 5, 8)),
        by_round=False,
    ),
    "stability": Study(
        "standard deviation of a round's rewards",
        (
            Arm("tpo", {"depth": 4}),
            Arm("tpo fresh=2", {"depth": 4, "fresh": 2}),
            Arm("revision", {"mode": "revision", "depth": 4}),
        ),
        shown="sd",
    ),
}
"""The studies of ``tpo study``."""


def sampling(tokens: float, calls: int, *, prompt_price: float) -> dict[str, Any]:
    """Return the settings of ``NONE`` for one query.

    Args:
        tokens: Of its dearest arm, as they are priced; 0 where the server tells none.
        calls: The most that an arm made: the budget where no tokens are told.
        prompt_price: What a prompt token counts.
    """
    if not tokens:
        return {"mode": "bon", "width": calls}
    budget = {"max_tokens": round(tokens), "prompt_price": prompt_price}
    return {"mode": "bon", "plan": "adaptive", "width": AT_ONCE, **budget}
