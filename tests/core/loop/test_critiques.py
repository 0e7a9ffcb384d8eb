"""Several critiques a round, each of a contrast of its own, which share the round's updates."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_core import InvalidInputError, TPOConfig, Trajectory, run
from tpo_core.rewards import FunctionReward
from tpo_core.testing import ScriptedPolicy

LENGTH = FunctionReward(lambda prompt, response: float(len(response)))


def play(**given: Any) -> Trajectory:
    """Run a loop whose answers get longer one by one, and whose reward is their length."""
    numbers = count(1)
    policy = ScriptedPolicy(
        sample=lambda request, seed: "s" * next(numbers), update=lambda request, seed: "u" * next(numbers)
    )
    return run("query", policy, LENGTH, TPOConfig(**{"width": 5, "depth": 1, "samples_at_once": 1, **given}))


def shares(trajectory: Trajectory) -> list[int]:
    made = Counter(c.critique for c in trajectory.candidates if not c.fresh)
    return [made[place] for place in range(len(trajectory.steps))]


@pytest.mark.parametrize(("critiques", "shared"), [(1, [5]), (2, [3, 2]), (3, [2, 2, 1]), (4, [2, 1, 1, 1])])
def test_the_first_is_the_best_against_the_worst_and_all_share_the_updates(critiques, shared):
    trajectory = play(critiques=critiques)
    assert shares(trajectory) == shared
    assert trajectory.usage.calls == TPOConfig(width=5, depth=1, critiques=critiques).samples
    pairs = [(step.chosen.index, step.rejected.index) for step in trajectory.steps]
    assert pairs[0] == (4, 0) and len(set(pairs)) == critiques
    assert all(chosen > rejected for chosen, rejected in pairs)
    assert all(step.step == 1 and step.gradient for step in trajectory.steps)


def test_no_contrast_comes_twice_in_a_round_though_responses_do():
    policy = ScriptedPolicy(sample=["a", "a", "bbb", "bbb", "cc"], update=lambda request, seed: "d" * (4 + seed % 5))
    trajectory = run("query", policy, LENGTH, TPOConfig(width=5, depth=2, critiques=4))
    for number in (1, 2):
        pairs = [(s.chosen.response, s.rejected.response) for s in trajectory.steps if s.step == number]
        assert pairs and len(set(pairs)) == len(pairs)


def test_fewer_contrasts_than_critiques_share_all_updates():
    trajectory = run("query", ScriptedPolicy(sample=["a", "bb"], update=["ccc"]), LENGTH, width=4, depth=1, critiques=4)
    assert sum(shares(trajectory)) == 4 and 1 <= len(trajectory.steps) < 4


def test_a_revision_critiques_the_best_two_alone():
    trajectory = play(mode="revision", critiques=2)
    assert [(step.chosen.index, step.rejected) for step in trajectory.steps] == [(4, None), (3, None)]


@given(calls=st.integers(1, 40), critiques=st.integers(1, 4), merged=st.booleans(), fresh=st.integers(0, 1))
@settings(max_examples=60, deadline=None)
def test_calls_are_kept_and_no_critique_is_paid_for_that_leaves_no_update(calls, critiques, merged, fresh):
    trajectory = play(depth=3, max_calls=calls, critiques=critiques, merged_critique=merged, fresh=fresh)
    assert trajectory.usage.calls <= calls
    assert all(shares(trajectory))


@pytest.mark.parametrize(
    "wrong", [{"critiques": 0}, {"critiques": 6}, {"critiques": 4, "fresh": 2}, {"critiques": 2.0}]
)
def test_critiques_are_at_least_one_and_have_an_update_each(wrong):
    with pytest.raises(InvalidInputError, match="critiques must be"):
        TPOConfig(**wrong)
