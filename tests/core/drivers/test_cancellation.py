"""A cancelled run is cancelled: whatever it waits for, and whatever has just come in."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from full import either

from tpo_core import TPOConfig, arun
from tpo_core.rewards import RewardModel
from tpo_core.testing import ScriptedPolicy
from tpo_core.values import Completion

LONG = TPOConfig(width=3, depth=40, deadline=600.0)


class Rising(RewardModel):
    """Finds a contrast in every round, so that a loop goes on for long."""

    def __init__(self) -> None:
        self._last = 0.0

    def score_batch(self, pairs):
        raise NotImplementedError

    async def ascore_batch(self, pairs):
        self._last += 1.0
        return [self._last + place for place, _ in enumerate(pairs)]


class Answering(ScriptedPolicy):
    """Answers at once, or after as many seconds as ``takes`` says."""

    def __init__(self, takes: Callable[[], float] | None = None) -> None:
        super().__init__(sample=_text, loss=_text, gradient=_text, update=_text)
        self._takes = takes

    async def agenerate(self, request, seeds):
        if self._takes is None:
            return self.generate(request, seeds)
        self.requests.append(request)
        await asyncio.sleep(self._takes())
        return [Completion(_text(request, seed)) for seed in seeds]


def _text(request, seed):
    return f"{request.task} {seed}"


async def _heard(policy: Answering, wait: Callable[[], Awaitable[None]]) -> bool:
    """Cancel a run after a while; return whether it was cancelled and asked for nothing more."""
    task = asyncio.create_task(arun("q", policy, Rising(), LONG))
    await wait()
    assert not task.done(), "the run ended by itself"
    task.cancel()
    await asyncio.sleep(0)  # the loop delivers it; requests that were to begin in this same turn do
    asked = len(policy.requests)
    while not task.done() and len(policy.requests) == asked:
        await asyncio.sleep(0)
    heard = task.cancelled() and len(policy.requests) == asked
    await asyncio.wait({task})
    return heard


async def test_a_run_with_a_deadline_and_instant_answers_is_cancelled_at_any_moment():
    draw = random.Random(1)

    async def ticks() -> None:
        for _ in range(draw.randrange(60)):
            await asyncio.sleep(0)

    assert [await _heard(Answering(), ticks) for _ in range(either(1600, short=300))].count(False) == 0


async def test_a_run_with_a_deadline_and_answers_that_take_milliseconds_is_cancelled_at_any_moment():
    draw = random.Random(2)

    def cancelled() -> Awaitable[bool]:
        moment = draw.uniform(0.001, 0.05)
        return _heard(Answering(lambda: draw.uniform(0.001, 0.005)), lambda: asyncio.sleep(moment))

    heard = [await asyncio.gather(*(cancelled() for _ in range(20))) for _ in range(either(20, short=5))]
    assert [some for some in heard if False in some] == []
