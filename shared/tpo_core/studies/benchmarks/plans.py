"""The plans that a benchmark is run with: words for what ``tpo run`` calls mode, plan, width and depth."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from tpo_core.errors import InvalidInputError, nearest

__all__ = ["Kind", "Plan", "plans"]

Kind = Literal["single", "bon", "revision", "paper", "adaptive"]

_PLAN = re.compile(r"(?P<kind>\w+)(?:@(?:D(?P<depth>\d+))?-?(?:N(?P<width>\d+))?)?")


@dataclass(frozen=True)
class Plan:
    """One plan.

    ``single`` is one sample, ``bon`` the best of N, ``revision`` a critique of the best alone, ``paper`` the paper's
    loop and ``adaptive`` the plan that divides a budget by what it has learned.

    Example:
        >>> Plan.read("paper@D5-N20")
        Plan(kind='paper', depth=5, width=20)
        >>> str(Plan.read("bon@N60"))
        'bon@N60'
    """

    kind: Kind
    depth: int | None = None
    """D; None for that of the command."""
    width: int | None = None
    """N; likewise."""

    @classmethod
    def read(cls, text: str) -> Plan:
        """Read a plan's name, which may have its own D and N.

        Raises:
            InvalidInputError: It is none.
        """
        found = _PLAN.fullmatch(text)
        kinds = get_args(Kind)
        if found is None or found["kind"] not in kinds:
            kind = text.partition("@")[0]
            hint = nearest(kind, kinds) if kind not in kinds else ""
            hint = hint or f"; they are {', '.join(kinds)}, with @D2-N5 where one has its own D and N"
            raise InvalidInputError(f"there is no plan {text!r}{hint}")
        depth, width = (None if found[name] is None else int(found[name]) for name in ("depth", "width"))
        if found["kind"] in ("single", "bon") and depth is not None:
            raise InvalidInputError(f"{text!r}: {found['kind']} has no rounds; write bon@N60")
        if found["kind"] == "single" and width is not None:
            raise InvalidInputError(f"{text!r}: single is one sample; write bon@N{width}")
        return cls(cast(Kind, found["kind"]), depth, width)

    def __str__(self) -> str:
        """Return the name, which is also the folder's."""
        own = "-".join(f"{letter}{n}" for letter, n in (("D", self.depth), ("N", self.width)) if n is not None)
        return f"{self.kind}@{own}" if own else self.kind

    def options(self, width: int, depth: int, tokens: int | None) -> Mapping[str, Any]:
        """Return the options of ``tpo run`` that make it this plan.

        Args:
            width: N of the command.
            depth: D of the command.
            tokens: The command's budget of a query: best-of-N then samples until it is used up. Without one it makes
                as many samples as the paper's loop has candidates, N * (D + 1).
        """
        width, depth = self.width or width, depth if self.depth is None else self.depth
        if self.kind == "single":
            return {"mode": "bon", "plan": None, "width": 1, "depth": None, "fresh": None}
        if self.kind == "bon":
            to_the_end = tokens is not None and self.width is None
            samples = width if to_the_end or self.width is not None else width * (depth + 1)
            plan = "adaptive" if to_the_end else None
            return {"mode": "bon", "plan": plan, "width": samples, "depth": None, "fresh": None}
        mode = "revision" if self.kind == "revision" else "tpo"
        plan = "adaptive" if self.kind == "adaptive" else None
        return {"mode": mode, "plan": plan, "width": width, "depth": depth}


def plans(text: str) -> list[Plan]:
    """Read plans between commas.

    Raises:
        InvalidInputError: One is none, or stands there twice.
    """
    found = [Plan.read(part.strip()) for part in text.split(",") if part.strip()]
    if not found:
        raise InvalidInputError("--plans names no plan; write, say, --plans single,bon,paper")
    if twice := [str(plan) for plan in found if found.count(plan) > 1]:
        raise InvalidInputError(f"--plans names {twice[0]} twice")
    return found
