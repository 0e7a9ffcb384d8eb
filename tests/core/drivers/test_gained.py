"""What a run has gained when it ends with an error: each query's trajectory, whoever raised what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from tpo_core import GenerationError, InvalidInputError, TPOConfig, UnsupportedError, arun_many, run, run_many
from tpo_core.loop.effects import Progress
from tpo_core.rewards import RewardModel
from tpo_core.testing import ScriptedPolicy, ScriptedReward

BON = TPOConfig(mode="bon", width=1)
LENGTHS = ScriptedReward({"a": 1, "bb": 2, "ccc": 3})


class Interrupt(Exception):
    """A host's control flow."""


class Raising(RewardModel):
    def __init__(self, error: BaseException) -> None:
        self._error = error

    def score_batch(self, pairs):
        raise self._error

    def score_pairs(self, pairs):
        raise self._error

    async def ascore_pairs(self, pairs):
        raise self._error


def sync(*args: Any, **kwargs: Any) -> Any:
    return run_many(*args, **kwargs, max_concurrency=1)


def in_a_loop(*args: Any, **kwargs: Any) -> Any:
    return asyncio.run(arun_many(*args, **kwargs, max_concurrency=1))


both = pytest.mark.parametrize("run_all", [sync, in_a_loop])


def failing(error: BaseException) -> ScriptedPolicy:
    """Answer the queries before "bad", raise at "bad", and let nobody come after it."""

    def answer(request: Any, seed: int) -> Any:
        assert request.inputs <= "bad", "nothing is asked after the error"
        return error if request.inputs == "bad" else "a"

    policy = ScriptedPolicy(sample=answer)
    policy.fatal = (Interrupt,)
    return policy


@both
@pytest.mark.parametrize("kind", [OSError, Interrupt, InvalidInputError])
def test_an_error_of_many_queries_carries_the_trajectory_of_each(
    run_all: Callable[..., Any], kind: type[Exception]
) -> None:
    with pytest.raises((GenerationError, Interrupt, InvalidInputError)) as caught:
        run_all(["a", "b", "bad", "later"], failing(kind("no")), LENGTHS, BON)
    gained = caught.value.trajectories  # type: ignore[attr-defined]
    assert [t.query for t in gained] == ["a", "b", "bad", "later"]
    assert [t.best.response for t in gained[:2]] == ["a", "a"]
    assert [t.stop_reason for t in gained[:2]] == ["depth", "depth"] and gained[3].stop_reason == "cancelled"
    assert gained[2] is caught.value.trajectory and gained[2].best_or_none is None  # type: ignore[attr-defined]


def test_an_interrupt_of_many_queries_carries_the_trajectory_of_each() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        sync(["a", "bad", "later"], failing(KeyboardInterrupt()), LENGTHS, BON)
    gained = caught.value.trajectories  # type: ignore[attr-defined]
    assert [t.stop_reason for t in gained] == ["depth", "cancelled", "cancelled"]


async def test_a_cancellation_of_many_queries_carries_the_trajectory_of_each() -> None:
    hanging, caught = asyncio.Event(), []

    class Hanging(ScriptedPolicy):
        async def agenerate(self, request, seeds):
            if request.inputs == "b":
                hanging.set()
                await asyncio.Event().wait()
            return self.generate(request, seeds)

    async def running() -> None:
        try:
            await arun_many(["a", "b"], Hanging(sample=["a"]), LENGTHS, BON, max_concurrency=1)
        except asyncio.CancelledError as error:
            caught.append(error)
            raise

    task = asyncio.create_task(running())
    await hanging.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [t.stop_reason for t in caught[0].trajectories] == ["depth", "cancelled"]


async def test_a_cancellation_while_the_run_ends_carries_the_trajectory_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tpo_core.drivers.driving.GRACE", 60.0)  # however long this machine takes to get there
    ending, over, caught = asyncio.Event(), asyncio.Event(), []

    class Deaf(ScriptedPolicy):
        async def agenerate(self, request, seeds):
            try:
                await over.wait()
            except asyncio.CancelledError:  # at its deadline, which ends the run
                ending.set()
            await over.wait()
            return []

    async def running() -> None:
        try:
            await arun_many(["a"], Deaf(), LENGTHS, TPOConfig(mode="bon", width=1, deadline=0.1))
        except asyncio.CancelledError as error:
            caught.append(error)
            raise

    task = asyncio.create_task(running())
    await ending.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    over.set()
    assert [t.query for t in caught[0].trajectories] == ["a"]


def test_two_queries_that_fail_with_one_exception_keep_what_each_had() -> None:
    error = Interrupt()
    policy = ScriptedPolicy(sample=["a", "bb"], loss=[error])
    policy.fatal = (Interrupt,)
    results = run_many(["q", "r"], policy, LENGTHS, TPOConfig(width=1, mode="revision"), return_exceptions=True)
    assert results == [error, error]
    with pytest.raises(Interrupt) as caught:
        run_many(["s", "t"], policy, LENGTHS, TPOConfig(width=1, mode="revision"))
    assert [t.query for t in caught.value.trajectories] == ["s", "t"]  # type: ignore[attr-defined]


# -- observers ---------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("kind", ["scored", "loss", "gradient", "stopped"])
def test_an_observer_that_raises_ends_the_run_and_costs_nothing_that_was_gained(
    run_all: Callable[..., Any], kind: str
) -> None:
    def observer(progress: Progress) -> None:
        if progress.kind == kind:
            raise ZeroDivisionError("in the observer")

    policy = ScriptedPolicy(sample=["a", "bb"], update=["ccc"])
    with pytest.raises(ZeroDivisionError) as caught:
        run_all(["q"], policy, LENGTHS, TPOConfig(width=2, depth=1), on_progress=observer)
    trajectory = caught.value.trajectory  # type: ignore[attr-defined]
    assert trajectory.best.response == ("ccc" if kind == "stopped" else "bb") and trajectory.stop_reason == "error"


# -- what ends a run, whoever raises it --------------------------------------------------------------------------------


def _raised_by(who: str, error: Exception) -> Any:
    samples = ["a", "bb"]
    policy = ScriptedPolicy(sample=[error] if who == "sample" else samples, loss=[error] if who == "loss" else ["l"])
    policy.fatal = (Interrupt,)

    def observer(progress: Progress) -> None:
        if who == "observer":
            raise error

    reward = Raising(error) if who == "reward" else LENGTHS
    gold = Raising(error) if who == "gold" else None
    return run("q", policy, reward, TPOConfig(width=2, depth=1), gold=gold, on_progress=observer)


@pytest.mark.parametrize(
    ("who", "kind"),
    [
        *product(["sample", "loss", "reward", "observer"], [Interrupt, InvalidInputError, UnsupportedError]),
        ("gold", Interrupt),
    ],
)
def test_what_ends_a_run_is_raised_as_it_is_whoever_raises_it(who: str, kind: type[Exception]) -> None:
    error = kind("no")
    with pytest.raises(kind) as caught:
        _raised_by(who, error)
    trajectory = caught.value.trajectory  # type: ignore[attr-defined]
    assert caught.value is error and trajectory.query == "q"
    if who in ("loss", "observer", "gold"):
        assert trajectory.best.response == "bb"


@pytest.mark.parametrize("kind", [OSError, InvalidInputError, UnsupportedError])
def test_a_gold_reward_that_fails_costs_the_gold_rewards_alone(kind: type[Exception]) -> None:
    assert _raised_by("gold", kind("no")).gold == {}
