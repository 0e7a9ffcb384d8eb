"""The drivers: what runs together, what is asked once, what a failure costs."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import subprocess
import sys
import threading
from typing import Any

import pytest
from full import either

from tpo_core import (
    GenerationError,
    InvalidInputError,
    RewardError,
    TPOConfig,
    arun,
    arun_many,
    run,
    run_many,
)
from tpo_core.rewards import RewardModel
from tpo_core.testing import RubricReward, ScriptedPolicy, ScriptedReward, SimulatedPolicy
from tpo_core.trajectory import Trajectory
from tpo_core.values import Completion, Usage


class Length(RewardModel):
    def score_batch(self, pairs):
        return [len(p.response) for p in pairs]


class Counting:
    """A policy whose model brings at most ``brings`` samples a request; keeps every request's size."""

    fatal: tuple[type[Exception], ...] = ()

    def __init__(self, brings: int | Exception) -> None:
        self.brings, self.sizes, self.takes_n = brings, [], {}  # type: ignore[var-annotated]

    def generate(self, request, seeds):
        self.sizes.append(len(seeds))
        if len(seeds) > 1 and isinstance(self.brings, Exception):
            raise self.brings
        most = self.brings if isinstance(self.brings, int) else 1
        return [Completion("x" * (seed + 1)) for seed in seeds[:most]]

    async def agenerate(self, request, seeds):
        return self.generate(request, seeds)


def test_a_model_that_takes_n_is_asked_once_for_all():
    policy = Counting(9)
    trajectory = run("q", policy, Length(), TPOConfig(mode="bon", width=5))
    assert policy.sizes == [5] and policy.takes_n == {"sample": True}
    assert trajectory.usage == Usage(calls=5, requests=1)


def test_a_model_that_ignores_n_is_topped_up_and_remembered():
    policy = Counting(1)
    first = run("q", policy, Length(), TPOConfig(mode="bon", width=5))
    assert policy.sizes == [5, 1, 1, 1, 1] and len(first.candidates) == 5
    run("q", policy, Length(), TPOConfig(mode="bon", width=5))
    assert policy.sizes[5:] == [1] * 5


def test_a_model_that_rejects_n_is_asked_one_by_one_and_remembered():
    policy = Counting(ValueError("n is not supported"))
    trajectory = run("q", policy, Length(), TPOConfig(mode="bon", width=4))
    assert policy.sizes == [4, 1, 1, 1, 1] and not trajectory.failures
    assert policy.takes_n == {"sample": False}


def test_a_dead_model_is_asked_four_times_a_round_and_not_n_times():
    policy = ScriptedPolicy(sample=[ConnectionError("down")])
    policy.takes_n.clear()
    with pytest.raises(GenerationError, match="20 x error: ConnectionError: down") as caught:
        run("q", policy, Length(), TPOConfig(width=10))
    assert len(policy.requests) == 8 and caught.value.trajectory.usage == Usage(calls=26, requests=8)


def test_samples_of_a_round_are_asked_at_the_same_time():
    width = 4
    together = threading.Barrier(width, timeout=10)

    def meet(request, seed):
        together.wait()
        return f"sample {seed}"

    assert len(run("q", ScriptedPolicy(sample=meet), Length(), TPOConfig(mode="bon", width=width)).candidates) == width


async def test_async_samples_are_asked_at_the_same_time():
    arrived, everyone = 0, asyncio.Event()

    class Meeting(ScriptedPolicy):
        async def agenerate(self, request, seeds):
            nonlocal arrived
            arrived += 1
            if arrived == 4:
                everyone.set()
            await asyncio.wait_for(everyone.wait(), 10)
            return [Completion(f"sample {seeds[0]}")]

    await arun("q", Meeting(), Length(), TPOConfig(mode="bon", width=4))


def test_max_concurrency_bounds_the_requests_in_flight():
    lock, now, peak = threading.Lock(), 0, 0
    two = threading.Barrier(2, timeout=10)

    def busy(request, seed):
        nonlocal now, peak
        with lock:
            now += 1
            peak = max(peak, now)
        two.wait()
        with lock:
            now -= 1
        return f"sample {seed}"

    run("q", ScriptedPolicy(sample=busy), Length(), TPOConfig(mode="bon", width=6), max_concurrency=2)
    assert peak == 2


def test_worker_threads_see_the_caller_s_context():
    here: contextvars.ContextVar[str] = contextvars.ContextVar("here")
    here.set("caller")
    trajectory = run(
        "q", ScriptedPolicy(sample=lambda r, s: f"{here.get()} {s}"), Length(), TPOConfig(width=3, depth=0)
    )
    assert {c.response.split()[0] for c in trajectory.candidates} == {"caller"}


def test_one_sample_that_raises_costs_only_itself():
    policy = ScriptedPolicy(sample=["a", ValueError("boom"), "ccc"])
    trajectory = run("q", policy, Length(), TPOConfig(mode="bon", width=3))
    [failed] = trajectory.failures
    assert failed.failure.message == "ValueError: boom" and isinstance(failed.failure.exception, ValueError)
    assert trajectory.best.response == "ccc"


def test_the_host_s_control_flow_ends_the_run_and_is_not_a_failed_sample():
    class Interrupt(Exception):
        pass

    policy = ScriptedPolicy(sample=["a", Interrupt()])
    policy.fatal = (Interrupt,)
    with pytest.raises(Interrupt):
        run("q", policy, Length(), TPOConfig(width=3))


class Breaks(RewardModel):
    """Scores the two samples, and does something else at the one update."""

    def __init__(self, does):
        self.does = does

    def score_batch(self, pairs):
        return self.does() if len(pairs) == 1 else [1.0, 2.0]


async def test_a_reward_that_raises_in_a_later_round_ends_the_run_with_the_best_so_far(caplog):
    def does():
        raise OSError("gone")

    policy = ScriptedPolicy(sample=lambda request, seed: "ab"[seed], update=["c"])
    given = ("q", policy, Breaks(does), TPOConfig(width=2))
    for trajectory in (run(*given), await arun(*given)):
        assert trajectory.stop_reason == "reward_failed" and trajectory.best.response == "b"
        assert "'Breaks' raised OSError: gone" in trajectory.candidates[-1].failure.message
    assert "the best answer so far is returned" in caplog.text


@pytest.mark.parametrize("answer", [[1.0, 2.0], [], None, {"a": 1}])
async def test_a_reward_that_breaks_its_contract_is_an_error_that_names_it_and_carries_the_trajectory(answer):
    policy = ScriptedPolicy(sample=lambda request, seed: "ab"[seed], update=["c"])
    given = ("q", policy, Breaks(lambda: answer), TPOConfig(width=2))
    with pytest.raises(RewardError, match=r"reward model 'Breaks' returned") as caught:
        run(*given)
    with pytest.raises(RewardError, match=r"reward model 'Breaks' returned") as later:
        await arun(*given)
    assert caught.value.best.response == later.value.best.response == "b"


def test_many_loops_share_one_reward_batch():
    reward = ScriptedReward({f"s{i}": i for i in range(200)}, merges=True)
    answers = [f"s{i}" for i in range(200)]
    run_many([f"q{i}" for i in range(50)], ScriptedPolicy(sample=answers), reward, TPOConfig(mode="bon", width=4))
    assert sum(reward.batches) == 200 and len(reward.batches) < 50


async def test_a_merged_batch_that_fails_costs_the_other_loops_nothing():
    class Picky(RewardModel):
        merges = True

        def score_batch(self, pairs):
            if any(p.prompt == "bad" for p in pairs):
                raise ValueError("cannot read this")
            return [1.0 for _ in pairs]

    queries = ["a", "bad", "b", "c"]
    results = await arun_many(
        queries, ScriptedPolicy(), Picky(), TPOConfig(mode="bon", width=1), return_exceptions=True
    )
    assert [type(r) for r in results] == [Trajectory, RewardError, Trajectory, Trajectory]


async def test_the_parts_of_a_merged_batch_that_failed_are_scored_one_at_a_time():
    class Picky(ScriptedReward):
        at_once = most = 0

        async def ascore_batch(self, pairs):
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            for _ in range(20):  # long enough for all that may run to begin
                await asyncio.sleep(0)
            self.at_once -= 1
            if any(p.prompt == "bad" for p in pairs):
                raise ValueError("cannot read this")
            return self.score_batch(pairs)

    reward = Picky({}, default=1.0, merges=True)
    queries = ["a", "bad", *"bcdefghijk"]
    results = await arun_many(queries, ScriptedPolicy(), reward, TPOConfig(mode="bon", width=1), return_exceptions=True)
    assert [type(r) for r in results] == [Trajectory, RewardError] + [Trajectory] * 10
    assert reward.most == 1


def test_without_return_exceptions_the_first_error_is_raised():
    policy = ScriptedPolicy(sample=lambda r, s: ValueError("no") if r.inputs == "bad" else "fine")
    policy = ScriptedPolicy(sample=lambda r, s: _raise() if r.inputs == "bad" else "fine")
    with pytest.raises(GenerationError):
        run_many(["a", "bad"], policy, Length(), TPOConfig(mode="bon", width=1))


def _raise() -> Any:
    raise ValueError("no")


async def test_the_deadline_cuts_off_what_hangs_and_keeps_the_rest():
    forever = asyncio.Event()

    class Hanging(ScriptedPolicy):
        async def agenerate(self, request, seeds):
            if request.task == "update" and seeds[0] % 2:
                await forever.wait()
            return self.generate(request, seeds)

    policy = Hanging(sample=["a", "bb"], update=["cccc"])
    trajectory = await arun("q", policy, Length(), TPOConfig(width=2, depth=9, deadline=1.0))
    assert trajectory.stop_reason == "deadline" and trajectory.best.response == "bb"
    assert sorted(c.failure.reason for c in trajectory.failures) == ["deadline", "unscored"]


def test_the_deadline_cuts_off_hanging_threads_too():
    release = threading.Event()

    def hang(request, seed):
        release.wait(10)
        return "late"

    try:
        trajectory = run("q", ScriptedPolicy(sample=["a", "bb"], loss=hang), Length(), TPOConfig(width=2, deadline=1.0))
    finally:
        release.set()
    assert trajectory.stop_reason == "deadline" and trajectory.best.response == "bb"


async def test_a_cancelled_run_stops_its_requests_and_carries_the_best_so_far():
    started, stopped = asyncio.Event(), asyncio.Event()

    class Hanging(ScriptedPolicy):
        async def agenerate(self, request, seeds):
            if request.task != "loss":
                return self.generate(request, seeds)
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
            return []

    caught: list[BaseException] = []

    async def running() -> None:
        try:
            await arun("q", Hanging(sample=["a", "bb"]), Length(), TPOConfig(width=2))
        except asyncio.CancelledError as error:
            caught.append(error)
            raise

    task = asyncio.create_task(running())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopped.is_set() and caught[0].trajectory.best.response == "bb"  # type: ignore[attr-defined]


def test_an_interrupt_carries_the_best_so_far():
    policy = ScriptedPolicy(sample=["a", "bb"], loss=[KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt) as caught:
        run("q", policy, Length(), TPOConfig(width=2))
    assert caught.value.trajectory.best.response == "bb"  # type: ignore[attr-defined]


def test_a_gold_reward_is_reported_and_never_optimised():
    gold = ScriptedReward({"a": 5, "bb": 1})
    trajectory = run(
        "q", ScriptedPolicy(sample=["a", "bb"], takes_n=True), Length(), TPOConfig(mode="bon", width=2), gold=gold
    )
    assert trajectory.best.response == "bb" and trajectory.gold == {0: 5.0, 1: 1.0} and gold.batches == [2]


def test_progress_is_told_in_the_caller_s_thread():
    seen: list[tuple[str, str]] = []
    run(
        "q",
        ScriptedPolicy(sample=["a", "bb"]),
        Length(),
        TPOConfig(width=2, depth=1),
        on_progress=lambda p: seen.append((p.kind, threading.current_thread().name)),
    )
    assert [kind for kind, _ in seen] == ["scored", "loss", "gradient", "scored", "stopped"]
    assert {name for _, name in seen} == {threading.current_thread().name}


async def test_an_async_observer_is_awaited():
    seen = []

    async def observer(progress):
        await asyncio.sleep(0)
        seen.append(progress.kind)

    await arun("q", ScriptedPolicy(sample=["a", "bb"]), Length(), TPOConfig(width=2, depth=1), on_progress=observer)
    assert seen[-1] == "stopped"
    with pytest.raises(InvalidInputError, match="on_progress"):
        run("q", ScriptedPolicy(), Length(), on_progress=observer)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"query": ""}, "query"),
        ({"policy": 3}, "policy"),
        ({"policy": ""}, "model"),
        ({"reward": None}, "reward"),
        ({"config": {"width": 5}}, "config"),
        ({"max_concurrency": 0}, "max_concurrency"),
    ],
)
def test_bad_arguments_are_named_before_any_model_is_called(arguments, name):
    policy = ScriptedPolicy()
    with pytest.raises(InvalidInputError, match=name):
        run(**{"query": "q", "policy": policy, "reward": Length(), **arguments})
    assert not policy.requests


def test_a_configuration_is_fixed_and_two_calls_give_equal_results():
    policy, reward, config = SimulatedPolicy(), RubricReward(), TPOConfig(width=3, depth=2)
    first, second = (dataclasses.replace(run("q", policy, reward, config), seconds={}) for _ in range(2))
    assert first == second
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.width = 3  # type: ignore[misc]


# VmHWM and not ru_maxrss, which counts the process that forked this one, too
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_ten_thousand_loops_in_flight_stay_under_a_gigabyte():
    loops = either(10_000, short=1_000)
    program = (
        f"""
LOOPS = {loops}"""
        + """
import asyncio, re
from tpo_core import TPOConfig, arun_many
from tpo_core.values import Completion
from tpo_core.rewards import RewardModel
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024
class Together:
    fatal, takes_n, waiting, everyone = (), {}, 0, asyncio.Event()
    async def agenerate(self, request, seeds):
        if request.task == "sample":  # nobody goes on before all are here
            Together.waiting += 1
            if Together.waiting == LOOPS:
                Together.everyone.set()
            await Together.everyone.wait()
        return [Completion(f"{request.task} {seed} " * 100) for seed in seeds]
    def generate(self, request, seeds):
        raise NotImplementedError
class Length(RewardModel):
    def score_batch(self, pairs):
        return [float(hash(p.response)) for p in pairs]
queries = [f"query {i}" for i in range(LOOPS)]
before = peak()
done = asyncio.run(arun_many(queries, Together(), Length(), TPOConfig(width=2, depth=1)))
print(len(done), before, peak())
"""
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    done, before, after = map(int, out.split())
    assert done == loops and before + (after - before) * 10_000 / loops < 1000  # megabytes


def test_a_gold_reward_sees_the_call_s_inputs():
    class NeedsInputs(RewardModel):
        def score_batch(self, pairs):
            return [float(p.inputs["answer"] == p.response) for p in pairs]

    policy = ScriptedPolicy(sample=["a", "bb"], takes_n=True)
    config = TPOConfig(mode="bon", width=2)
    trajectory = run("q", policy, Length(), config, inputs={"answer": "a"}, gold=NeedsInputs())
    assert trajectory.gold == {0: 1.0, 1: 0.0}


async def test_what_hangs_past_its_deadline_does_not_block_the_other_loops():
    class Hanging(ScriptedPolicy):
        async def agenerate(self, request, seeds):
            if request.inputs in ("a", "b"):
                await asyncio.Event().wait()
            return self.generate(request, seeds)

    queries = ["a", "b", "c", "d"]
    config = TPOConfig(mode="bon", width=1, deadline=1.0)
    results = await arun_many(queries, Hanging(), Length(), config, max_concurrency=2, return_exceptions=True)
    assert [type(r) for r in results] == [GenerationError, GenerationError, Trajectory, Trajectory]


def test_an_interrupt_in_a_worker_thread_interrupts_the_run():
    policy = ScriptedPolicy(sample=lambda r, seed: _interrupt() if seed == 1 else "fine")
    with pytest.raises(KeyboardInterrupt):
        run("q", policy, Length(), TPOConfig(width=3))


def _interrupt() -> Any:
    raise KeyboardInterrupt


async def test_a_request_that_is_cancelled_from_inside_is_one_failed_sample():
    class Cancelling(ScriptedPolicy):
        async def agenerate(self, request, seeds):
            if seeds[0] == 1:
                raise asyncio.CancelledError
            return self.generate(request, seeds)

    trajectory = await arun("q", Cancelling(), Length(), TPOConfig(mode="bon", width=2))
    assert [c.failure.message for c in trajectory.failures] == ["ConnectionAbortedError: the request was cancelled"]
