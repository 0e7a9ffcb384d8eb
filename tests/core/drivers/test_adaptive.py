"""The limit that follows what a server takes, by hand and in both drivers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpo_core import InvalidInputError, TPOConfig, Trajectory
from tpo_core.drivers.adaptive import TRIES, AdaptiveLimit
from tpo_core.drivers.driving import adrive, drive
from tpo_core.drivers.scheduler import Run, Scheduler
from tpo_core.drivers.serving import Models, serve
from tpo_core.loop.ledger import Ledger
from tpo_core.testing import ScriptedPolicy, ScriptedReward

BON = TPOConfig(mode="bon", width=1)


class Busy(Exception):
    """What a client raises for a 429."""

    status_code = 429

    def __init__(self, after: str | None = None) -> None:
        headers = {} if after is None else {"retry-after": after}
        self.response = type("Response", (), {"status_code": 429, "headers": headers})()


def limit_of(most: int, now: list[float]) -> AdaptiveLimit:
    return AdaptiveLimit(most, clock=lambda: now[0])


def test_an_overload_halves_the_limit_once_for_all_that_were_out_together():
    now = [10.0]
    limit = limit_of(32, now)
    for _ in range(20):
        limit.overloaded(sent=9.0)
    assert limit.now == 16 and limit.allowed == 0 and limit.rests_until == 10.5
    now[0] = 11.0
    assert limit.allowed == 16
    limit.overloaded(sent=10.6)
    assert limit.now == 8 and limit.rests_until == 12.0  # the second in a row rests for twice as long


def test_answers_raise_it_by_one_a_round_and_never_above_the_most():
    limit = limit_of(10, [0.0])
    limit.overloaded(sent=0.0)
    assert limit.now == 5
    for _ in range(6):
        limit.succeeded()
    assert limit.now == 6
    for _ in range(1000):
        limit.succeeded()
    assert limit.now == 10


def test_a_servers_own_word_is_how_long_it_is_left_alone():
    now = [0.0]
    limit = limit_of(4, now)
    limit.overloaded(sent=0.0, rest=30.0)
    limit.overloaded(sent=-1.0, rest=40.0)  # of another that was out at the same time
    assert limit.rests_until == 40.0 and limit.now == 2


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 64))
def test_it_is_always_between_one_and_the_most(answers: list[bool], most: int):
    now = [0.0]
    limit = limit_of(most, now)
    for number, good in enumerate(answers):
        now[0] = 100.0 * number
        limit.succeeded() if good else limit.overloaded(sent=now[0])
        assert 1 <= limit.now <= most and limit.allowed in (0, limit.now)


def test_a_limit_below_one_is_an_error():
    with pytest.raises(InvalidInputError, match="at least 1"):
        AdaptiveLimit(0)


# -- in the drivers ----------------------------------------------------------------------------------------------------


def scheduler_of(policy: Any, queries: int, limit: AdaptiveLimit) -> Scheduler:
    models = Models(policy, ScriptedReward({"a": 1.0}))
    ledgers = [Ledger(f"query {n}", None, BON, time.monotonic) for n in range(queries)]
    return Scheduler((Run(ledger, serve(ledger, models, n), n) for n, ledger in enumerate(ledgers)), limit)


def in_threads(scheduler: Scheduler) -> list[Run]:
    return list(drive(scheduler))


def in_a_loop(scheduler: Scheduler) -> list[Run]:
    async def collect() -> list[Run]:
        return [run async for run in adrive(scheduler)]

    return asyncio.run(collect())


both = pytest.mark.parametrize("driver", [in_threads, in_a_loop])


@both
def test_what_met_an_overload_goes_out_again_and_its_run_never_knows(driver: Any):
    left = {f"query {n}": 2 for n in range(6)}

    def answer(request: Any, seed: int) -> Any:
        left[request.inputs] -= 1
        return Busy("0.01") if left[request.inputs] >= 0 else "a"

    policy, limit = ScriptedPolicy(sample=answer), AdaptiveLimit(4)
    ended = driver(scheduler_of(policy, 6, limit))
    assert len(ended) == 6 and len(policy.requests) == 18
    assert all(isinstance(run.result, Trajectory) and run.result.usage.calls == 1 for run in ended)
    assert limit.now < 4


@both
def test_an_overload_that_does_not_end_is_the_answer_at_last(driver: Any):
    policy = ScriptedPolicy(sample=lambda request, seed: Busy("0"))
    [run] = driver(scheduler_of(policy, 1, AdaptiveLimit(4)))
    assert "Busy" in str(run.result)
    assert len(policy.requests) % TRIES == 0


@both
def test_an_error_that_is_no_overload_goes_to_its_run_at_once(driver: Any):
    policy = ScriptedPolicy(sample=lambda request, seed: ValueError("no"))
    limit = AdaptiveLimit(4)
    [run] = driver(scheduler_of(policy, 1, limit))
    assert isinstance(run.result, Exception) and limit.now == 4 and len(policy.requests) < TRIES
