"""How long the recipes of ``recipes/*.yaml`` take, by arithmetic: nothing was run on their machines.

    python benchmarks/recipes.py        prints the table of docs/recipes.md

A query of ``x`` prompt tokens, answers of ``y`` and critiques of ``c`` takes what docs/cost.md counts. A server writes
as many tokens a second as the slower of memory and arithmetic lets it, times ``EFFICIENCY``: at each step it reads its
weights and the keys and values of all sequences in flight, as many as there is room for, and multiplies. It reads
prompts, and the reward model all candidates, at ``EFFICIENCY`` of the arithmetic. These times are added up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "recipes"
EFFICIENCY = 0.4
"""Share of a limit that a server reaches. Assumed, as in docs/scale.md: measure your own with ``vllm bench serve``."""
X, Y, C = 200, 400, 150
"""Tokens of a prompt, an answer and a critique. Assumed, as in docs/cost.md."""
QUERIES = {
    "alpaca-eval-2": 805,
    "arena-hard-v0.1": 500,
    "hh-rlhf": 500,
    "beavertails": 700,
    "xstest": 450,
    "math-500": 500,
}
"""Of the paper's benchmarks."""
MOST_SEQUENCES = 256
BYTES = {"bfloat16": 2.0, "4-bit": 0.55}
"""Of a weight; four bits with their scales, and embeddings that stay in 16."""


@dataclass(frozen=True)
class Card:
    """An H100 SXM, as its data sheet has it."""

    operations: float = 0.989e15
    """A second, dense in bfloat16."""
    bandwidth: float = 3.35e12
    memory: float = 80e9


@cache
def recipes() -> dict[str, dict[str, Any]]:
    """Return the recipes by their files' names."""
    return {path.stem: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))}


def hours(recipe: Mapping[str, Any], cards: int, plan: str) -> float:
    """Return the hours of one plan on all of the paper's benchmarks.

    Args:
        recipe: As it is read.
        cards: How many H100s; a key of ``recipe["machines"]``.
        plan: ``single``, or depth and width as in ``D2-N5``.
    """
    depth, width = (0, 1) if plan == "single" else (int(part[1:]) for part in plan.split("-"))
    card, policy, machine = Card(), recipe["policy"], recipe["machines"][cards]
    rounds, candidates = depth * (3 * X + 4 * Y + 2 * C), width * (depth + 1)
    prompt, completion = X + rounds, candidates * Y + depth * 2 * C
    arithmetic = cards * card.operations * EFFICIENCY
    writing = completion / (EFFICIENCY * written(policy, machine, cards, card))
    reading = 2 * policy["parameters"] * prompt / arithmetic
    scoring = 2 * recipe["reward"]["parameters"] * candidates * (X + Y) / (card.operations * EFFICIENCY)
    return sum(QUERIES.values()) * (writing + reading + scoring) / 3600


def written(policy: Mapping[str, Any], machine: Mapping[str, Any], cards: int, card: Card) -> float:
    """Return the tokens a second that memory and arithmetic let a server write."""
    weights = policy["parameters"] * BYTES[machine["weights"]]
    kept = 2 * policy["layers"] * policy["kv_heads"] * policy["head_size"] * 2 * (X + C + 1.5 * Y)
    room = machine["memory_share"] * cards * card.memory - weights
    sequences = min(MOST_SEQUENCES, int(room / kept))
    memory = (weights + sequences * kept) / (cards * card.bandwidth)
    arithmetic = 2 * policy["parameters"] * sequences / (cards * card.operations)
    return sequences / max(memory, arithmetic)


def table() -> str:
    """Return the hours of every recipe, in Markdown."""
    lines = [["recipe", "plan", "8 H100s", "1 H100", "weights on 1"], ["---"] * 5]
    for name, recipe in recipes().items():
        for plan in recipe["plans"]:
            cells = [_shown(hours(recipe, cards, plan)) for cards in (8, 1)]
            lines.append([name, plan, *cells, recipe["machines"][1]["weights"]])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _shown(duration: float) -> str:
    return f"{duration:.1f} h" if duration >= 1 else f"{60 * duration:.0f} min"


if __name__ == "__main__":
    print(table())
