"""Calls that hang: they delay no deadline, no other call and not the end of the process."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import time
from typing import Any

import pytest
from hanging import PATIENCE, hang

from tpo_core import GenerationError, TPOConfig, arun, arun_many, run, run_many
from tpo_core.rewards import RewardModel
from tpo_core.testing import ScriptedPolicy
from tpo_core.trajectory import Trajectory


class Length(RewardModel):
    def score_batch(self, pairs):
        return [len(p.response) for p in pairs]


def in_process(program: str) -> str:
    """Run a program to its end; it must not take half of what a hung call in it does."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE / 2)
    assert done.returncode == 0 and "Error" not in done.stderr, done.stderr
    return done.stdout


# -- deadlines and the other calls, in threads ------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "most"), [(2, 1), (33, None)], ids=["one at a time", "more than there are threads"])
def test_a_deadline_holds_where_calls_that_hang_fill_every_place(hanging, width, most):
    begun = time.monotonic()
    with pytest.raises(GenerationError) as caught:
        run(
            "q",
            ScriptedPolicy(sample=lambda request, seed: hang(hanging)),
            Length(),
            TPOConfig(mode="bon", width=width, deadline=0.3),
            max_concurrency=most,
        )
    assert time.monotonic() - begun < PATIENCE / 2
    assert {c.failure.reason for c in caught.value.trajectory.candidates} == {"deadline"}


def test_loops_go_on_where_the_calls_of_others_hang_past_their_deadline(hanging):
    policy = ScriptedPolicy(sample=lambda request, seed: hang(hanging) if request.inputs < "c" else "fine")
    config = TPOConfig(mode="bon", width=1, deadline=0.3)
    results = run_many(["a", "b", "c", "d"], policy, Length(), config, max_concurrency=1, return_exceptions=True)
    assert [type(r) for r in results] == [GenerationError, GenerationError, Trajectory, Trajectory]


def test_the_results_of_a_run_with_calls_that_hang_come_from_threads_with_the_caller_s_context(hanging):
    here: contextvars.ContextVar[str] = contextvars.ContextVar("here")
    here.set("caller")
    policy = ScriptedPolicy(sample=lambda request, seed: here.get() + str(seed) if seed else hang(hanging))
    trajectory = run("q", policy, Length(), TPOConfig(mode="bon", width=3, deadline=0.3), max_concurrency=3)
    assert [c.response for c in trajectory.candidates if c.failure is None] == ["caller1", "caller2"]


# -- deadlines and the other calls, in an event loop ------------------------------------------------------------------


class Deaf(ScriptedPolicy):
    """Hangs where the query is one of ``deaf``, and hears of no cancellation."""

    def __init__(self, deaf: str, release: asyncio.Event, **scripts: Any) -> None:
        super().__init__(**scripts)
        self._deaf, self._release = deaf, release

    async def agenerate(self, request, seeds):
        while request.inputs in self._deaf and not self._release.is_set():
            try:
                await asyncio.wait_for(self._release.wait(), PATIENCE)
            except asyncio.CancelledError:
                continue
        return self.generate(request, seeds)


async def test_a_call_that_hears_of_no_cancellation_delays_no_other_loop_and_no_end():
    release = asyncio.Event()
    policy = Deaf("ab", release, sample=["fine"])
    config = TPOConfig(mode="bon", width=1, deadline=0.3)
    begun = time.monotonic()
    results = await arun_many(["a", "b", "c", "d"], policy, Length(), config, max_concurrency=1, return_exceptions=True)
    release.set()
    assert [type(r) for r in results] == [GenerationError, GenerationError, Trajectory, Trajectory]
    assert time.monotonic() - begun < PATIENCE / 2


async def test_what_ended_before_the_deadline_counts_though_the_loop_was_too_busy_to_look():
    class Blocking(ScriptedPolicy):
        async def agenerate(self, request, seeds):
            await asyncio.sleep(0)
            time.sleep(0.1)  # a program that computes in the event loop
            return self.generate(request, seeds)

    policy = Blocking(sample=["a", "bb", "ccc"])
    trajectory = await arun("q", policy, Length(), TPOConfig(mode="bon", width=3, deadline=0.15))
    assert [c.response for c in trajectory.candidates] == ["a", "bb", "ccc"]


# -- the end of the process -------------------------------------------------------------------------------------------

HANGS = f"""
import asyncio, sys, time
from tpo_core import TPOConfig, arun, run, run_many
from tpo_core.rewards import FunctionReward, RewardModel
from tpo_core.testing import ScriptedPolicy
def hang(*_):
    time.sleep({PATIENCE})
class Slow(RewardModel):
    def score_batch(self, pairs):
        return [len(pair.response) if len(pairs) > 1 else hang() for pair in pairs]
def function(prompt, response):
    return hang() if response == "an update" else float(len(response))
config = TPOConfig(width=2, depth=1, deadline=0.5)
samples = ["a", "bb"]
def show(trajectory):
    print(trajectory.stop_reason, trajectory.best.response)
"""


@pytest.mark.parametrize(
    "program",
    [
        "show(run('q', ScriptedPolicy(sample=samples, loss=hang), len_, config))",
        "show(asyncio.run(arun('q', ScriptedPolicy(sample=samples), function, config)))",
        "show(run('q', ScriptedPolicy(sample=samples), function, config))",
        "show(asyncio.run(arun('q', ScriptedPolicy(sample=samples), Slow(), config)))",
    ],
    ids=["a request", "a function in an event loop", "a function", "a reward model in an event loop"],
)
def test_a_call_that_hangs_past_its_deadline_does_not_keep_the_process_from_ending(program):
    said = in_process(f"{HANGS}\nlen_ = lambda prompt, response: float(len(response))\n{program}").split()
    assert said[0] == "deadline" and said[1] in ("a", "bb")
