"""A module that is cancelled ends, and asks for nothing more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import dspy

import tpo_dspy


def longer(prompt: str, response: str) -> float:
    """Find a contrast in every round."""
    return float(response.split()[-1])


def numbered(prompt: str, number: int) -> dict[str, Any]:
    """Answer every field with something new."""
    fields = ("answer", "textual_loss", "textual_gradient", "improved_answer")
    return dict.fromkeys(fields, f"text {number}")


async def test_a_module_with_a_deadline_is_cancelled_at_any_moment(scripted: Callable[..., dspy.LM]) -> None:
    draw = random.Random(3)
    lm = scripted([("", numbered)], cache=False)
    module = tpo_dspy.TPO(dspy.Predict("question -> answer"), longer, width=3, depth=40, deadline=600.0)

    async def heard() -> bool:
        with dspy.context(lm=lm):
            task = asyncio.create_task(module.acall(question="why?"))
        for _ in range(draw.randrange(200)):
            await asyncio.sleep(0)
        assert not task.done(), "the run ended by itself"
        task.cancel()
        await asyncio.sleep(0)  # the loop delivers it; requests that were to begin in this same turn do
        asked = len(lm.engine.requests)
        while not task.done() and len(lm.engine.requests) == asked:
            await asyncio.sleep(0)
        cancelled = task.cancelled() and len(lm.engine.requests) == asked
        await asyncio.wait({task})
        return cancelled

    assert [await heard() for _ in range(100)].count(False) == 0
