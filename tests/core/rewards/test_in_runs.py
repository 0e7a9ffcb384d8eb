"""Rewards that compare (pairwise judges, ensembles) and held-out rewards, in whole runs of several rounds."""

import hashlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_core import TPOConfig, arun, run
from tpo_core.errors import UnsupportedError
from tpo_core.rewards import EnsembleReward, FunctionReward, JudgeReward, RewardModel
from tpo_core.testing import ScriptedPolicy
from tpo_core.values import Completion, Usage


def quality(text, salt=""):
    """Return a number between -3 and 3 that only the text decides."""
    return int(hashlib.sha256((salt + text).encode()).hexdigest()[:6], 16) / 0xFFFFFF * 6 - 3


class Comparer:
    """A judge that prefers the response of higher quality, by as much as it is higher, and likes the first place."""

    name = "comparer"
    takes_n = False

    def chat(self, messages, **settings):
        shown = messages[1]["content"]
        a, b = (shown.split(f"<response-{x}>\n")[1].split(f"\n</response-{x}>")[0] for x in "ab")
        odds = quality(a) - quality(b) + 1.0
        top = {"A": -math.log1p(math.exp(-odds)), "B": -math.log1p(math.exp(odds))}
        return [Completion("A", logprobs=(top,), usage=Usage(1, 1, 30, 1))]

    async def achat(self, messages, **settings):
        return self.chat(messages, **settings)


def policy(seed):
    return ScriptedPolicy(
        sample=lambda request, n: f"sample {seed}.{n}", update=lambda request, n: f"update {seed}.{n}"
    )


CONFIG = TPOConfig(width=3, depth=2)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_pairwise_rewards_of_all_rounds_are_on_one_scale(seed):
    trajectory = run(f"q{seed}", policy(seed), JudgeReward(Comparer(), mode="pairwise"), CONFIG)
    assert len(trajectory.candidates) == 9
    anchor = quality(trajectory.candidates[0].response)
    for candidate in trajectory.candidates:
        assert candidate.reward == pytest.approx(quality(candidate.response) - anchor)
    assert trajectory.best.response == max((c.response for c in trajectory.candidates), key=quality)
    assert trajectory.reward_usage == Usage(9, 16, 16 * 30, 16)  # nine scored, all but the anchor asked about twice


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["mean", "min", "lcb"]))
def test_an_ensembles_rewards_of_all_rounds_are_on_one_scale(seed, how):
    members = [FunctionReward(lambda p, r, s=salt: 10 * quality(r, s), name=salt, kind="pair") for salt in "xyz"]
    ensemble = EnsembleReward(members, how=how)
    query = f"q{seed}"
    trajectory = run(query, policy(seed), ensemble, CONFIG)
    together = ensemble.score(query, [c.response for c in trajectory.candidates])
    assert [c.reward for c in trajectory.candidates] == pytest.approx(together)
    first = [c.reward for c in trajectory.candidates if c.step == 0]
    assert how != "mean" or sum(first) == pytest.approx(0.0, abs=1e-9)


class Gold(RewardModel):
    """A held-out reward that does what it is told to."""

    def __init__(self, does):
        self.does = does

    def score_batch(self, pairs):
        return self.does(pairs)


def fails(error):
    def does(pairs):
        raise error

    return does


def said(trajectory):
    """Return everything a run decided."""
    return [(c.response, c.reward, c.step) for c in trajectory.candidates], trajectory.steps, trajectory.best


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["", "other", "against"]))
def test_a_held_out_reward_decides_nothing(seed, salt):
    reward = FunctionReward(lambda prompt, response: quality(response))
    sign = -1.0 if salt == "against" else 1.0
    gold = Gold(lambda pairs: [sign * quality(p.response, salt if sign > 0 else "") for p in pairs])
    plain = run("q", policy(seed), reward, CONFIG)
    held = run("q", policy(seed), reward, CONFIG, gold=gold)
    assert said(held) == said(plain)
    assert held.gold == {
        c.index: pytest.approx(sign * quality(c.response, salt if sign > 0 else "")) for c in held.candidates
    }


@pytest.mark.parametrize(
    ("does", "gold"),
    [
        (fails(ConnectionError("down")), {}),
        (fails(UnsupportedError("no log-probabilities")), {}),
        (lambda pairs: [1.0], {}),
        (lambda pairs: None, {}),
        (lambda pairs: [math.nan, 1.0], {1: 1.0}),
        (lambda pairs: [math.inf, 1.0], {1: 1.0}),
    ],
)
async def test_a_held_out_reward_that_fails_costs_only_itself(does, gold):
    config = TPOConfig(mode="bon", width=2)
    reward = FunctionReward(lambda prompt, response: quality(response))
    for trajectory in (
        run("q", policy(1), reward, config, gold=Gold(does)),
        await arun("q", policy(1), reward, config, gold=Gold(does)),
    ):
        assert trajectory.gold == gold and trajectory.best.reward is not None
