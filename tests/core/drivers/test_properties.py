"""What holds for every policy, reward and configuration, and on average for one that follows feedback."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from statistics import mean

import pytest
from full import either
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_core import TPOConfig, Trajectory, arun, run, run_many
from tpo_core.config.experience import Evidence
from tpo_core.errors import GenerationError, RewardError
from tpo_core.loop.estimates import spread_of, value_of_updates
from tpo_core.loop.learning import shown
from tpo_core.rewards import RewardModel
from tpo_core.testing import RubricReward, ScriptedPolicy, SimulatedPolicy
from tpo_core.values import Completion, Failure

QUERIES = [f"query {i}" for i in range(100)]
configs = st.builds(
    lambda critiques, **given: TPOConfig(critiques=min(critiques, given["width"] - given["fresh"]), **given),
    mode=st.sampled_from(["tpo", "revision", "bon"]),
    width=st.integers(2, 5),
    depth=st.integers(0, 3),
    fresh=st.integers(0, 1),
    critiques=st.integers(1, 3),
    samples_at_once=st.none() | st.integers(1, 3),
    min_spread=st.sampled_from([0.0, 1.0]),
    max_calls=st.none() | st.integers(1, 30),
    stop_at=st.none() | st.floats(-1, 5),
    patience=st.none() | st.integers(1, 2),
    max_shown_chars=st.none() | st.just(64),
)
answers = st.one_of(
    st.text(max_size=8),
    st.builds(Completion, st.text(max_size=8), finish_reason=st.sampled_from(["stop", "length"])),
    st.just(Failure("error", "scripted")),
)


class Hash(RewardModel):
    """Any number, NaN and infinities included, the same for the same text; the first time it may be busy."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def score_batch(self, pairs):
        return [self.one(p.response) for p in pairs]

    def one(self, text):
        number, new = sum(map(ord, text)), text not in self.seen
        self.seen.add(text)
        if len(text) % 7 == 6 or (new and number % 5 == 4):
            return [math.nan, math.inf, -math.inf][len(text) % 3]
        return number % 10


def frozen(trajectory: Trajectory) -> Trajectory:
    return dataclasses.replace(trajectory, seconds={})


@settings(max_examples=either(150, short=50), deadline=None)
@given(
    configs, st.lists(answers, min_size=1, max_size=8), st.lists(answers, min_size=1, max_size=8), st.text(max_size=5)
)
def test_whatever_happens_the_best_is_kept_and_the_books_balance(config, samples, updates, critique):
    def policy() -> ScriptedPolicy:
        # answers by seed, so that the order in which threads or tasks ask does not matter
        return ScriptedPolicy(
            sample=lambda r, seed: samples[seed % len(samples)],
            loss=[critique],
            update=lambda r, seed: updates[seed % len(updates)],
        )

    try:
        trajectory = run("query", policy(), Hash(), config)
    except (GenerationError, RewardError) as error:
        trajectory = error.trajectory  # type: ignore[assignment]
        assert trajectory.best_or_none is None
        return
    scored = [c for c in trajectory.candidates if c.reward is not None]
    assert trajectory.best.reward == max(c.reward for c in scored)
    assert trajectory.initial_best is None or trajectory.best.reward >= trajectory.initial_best.reward
    assert all(math.isfinite(c.reward) and c.failure is None for c in scored)
    assert len(scored) + len(trajectory.failures) == len(trajectory.candidates)
    assert [c.index for c in trajectory.candidates] == list(range(len(trajectory.candidates)))
    by_text: dict[str, set[float]] = {}
    for candidate in scored:
        by_text.setdefault(candidate.response, set()).add(candidate.reward)
    assert all(len(rewards) == 1 for rewards in by_text.values())
    assert not {c.response for c in trajectory.failures if c.failure.reason == "unscored"} & set(by_text)
    for step in trajectory.steps:
        if step.rejected is not None:
            assert step.chosen.reward - step.rejected.reward > config.min_spread
    assert config.max_calls is None or trajectory.usage.calls <= config.max_calls
    assert list(trajectory.best_by_step) == sorted(trajectory.best_by_step)
    assert Trajectory.from_json(trajectory.to_json()) == trajectory
    assert frozen(asyncio.run(arun("query", policy(), Hash(), config))) == frozen(trajectory)


def average(policy: SimulatedPolicy, **config: object) -> float:
    trajectories = run_many(QUERIES, policy, RubricReward(), TPOConfig(**config))  # type: ignore[arg-type]
    assert all(t.best.reward >= t.initial_best.reward for t in trajectories)
    return mean(t.best.reward for t in trajectories)


@pytest.mark.parametrize("seed", range(either(3, short=1)))
def test_at_equal_samples_tpo_beats_revision_beats_best_of_n(seed):
    policy = SimulatedPolicy(seed=seed)
    tpo, revision = (average(policy, mode=mode, width=5, depth=2) for mode in ("tpo", "revision"))
    assert tpo > revision > average(policy, mode="bon", width=15)


@pytest.mark.parametrize("seed", range(either(3, short=1)))
def test_deeper_is_better_for_a_policy_that_follows_feedback(seed):
    by_depth = [average(SimulatedPolicy(seed=seed), width=5, depth=depth) for depth in (0, 1, 2, 4)]
    assert by_depth == sorted(by_depth)


@pytest.mark.parametrize("seed", range(either(3, short=1)))
def test_a_policy_that_ignores_feedback_makes_tpo_no_worse_than_best_of_n(seed):
    deaf = SimulatedPolicy(follows=0, seed=seed)
    assert average(deaf, width=5, depth=2) >= average(deaf, mode="bon", width=15) - 0.25  # three standard errors


def test_a_policy_too_weak_to_follow_feedback_is_called_so():
    policy = ScriptedPolicy(sample=["good answer", "a fine answer"], update=["worse", "bad"])
    trajectory = run("q", policy, RewardByLength(), TPOConfig(width=2, depth=2))
    assert "too weak" in trajectory.diagnosis and trajectory.best.response == "a fine answer"


def test_a_run_of_many_says_once_what_updates_are_worth_in_the_numbers_of_a_check(caplog):
    policy = ScriptedPolicy(
        sample=lambda request, seed: "long answer" + "!" * (seed % 4), update=lambda request, seed: "bad" * (seed % 3)
    )
    queries = [f"q{number}" for number in range(6)]
    with caplog.at_level(logging.WARNING, logger="tpo_core"):
        done = run_many(queries, policy, RewardByLength(), TPOConfig(width=4, depth=1, seed=3))
    [said] = [record.message for record in caplog.records if "queries" in record.message]
    worth = [shown(t.candidates, t.steps) for t in done]
    value = value_of_updates(total := sum(worth, Evidence()), spread_of(total))
    assert said.startswith("6 of 6 queries: ") and f"gains delta {value.delta:.2f} (" in said and value.delta < 0
    assert f"beta {value.beta:.2f} (" in said and "% of updates could be used" in said and "tpo check" in said


def test_errors_are_not_said_to_be_weakness_in_a_run_of_many(caplog):
    policy = ScriptedPolicy(sample=lambda request, seed: "a" * (1 + seed % 2), update=[ConnectionError("down")])
    with caplog.at_level(logging.WARNING, logger="tpo_core"):
        run_many([f"q{number}" for number in range(3)], policy, RewardByLength(), TPOConfig(width=2, depth=2, seed=3))
    [said] = [record.message for record in caplog.records if "3 of 3 queries" in record.message]
    assert "of them error" in said and "weak" not in said and "delta" not in said


def test_a_policy_whose_updates_are_mostly_empty_is_called_so():
    trajectory = run("q", ScriptedPolicy(sample=["a", "bb"], update=[""]), RewardByLength(), TPOConfig(width=2))
    assert "4 of 4 updates were no candidates, 4 of them empty" in trajectory.diagnosis and trajectory.weak_policy


class RewardByLength(RewardModel):
    def score_batch(self, pairs):
        return [len(p.response) for p in pairs]
