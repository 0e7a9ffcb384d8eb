"""What ``tpo check`` concludes, for policies and rewards whose law is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpo_core import Experience, TPOConfig
from tpo_core.config.experience import Cost, Evidence
from tpo_core.report.moments import Share
from tpo_core.studies.checking import Check, check, probe
from tpo_core.studies.playing import play
from tpo_core.studies.worlds import WORLDS, World, WorldPolicy, WorldReward

NAMED = {world.name: world for world in WORLDS}


def evidence_of(world: World, seed: int, queries: int = 12) -> Evidence:
    experience, policy, reward = Experience(), WorldPolicy(world, seed), WorldReward(world)
    for number in range(queries):
        play(f"{seed} {number}", policy, reward, probe(experience, seed=seed))
    return experience.evidence


def checked(name: str, seed: int) -> Check:
    return check(evidence_of(NAMED[name], seed), 12)


def test_a_query_of_the_check_has_five_fresh_samples_and_two_critiques_of_two_updates() -> None:
    evidence = evidence_of(NAMED["follows"], 0, queries=1)
    assert (evidence.sample.asked, evidence.critique.asked, evidence.update.asked) == (5, 2, 4)
    assert evidence.critiques == 2


@pytest.mark.parametrize("name", ["deaf", "harmful", "neutral"])
def test_where_feedback_is_no_use_it_is_best_of_n_and_no_gain_is_ever_promised(name: str) -> None:
    verdicts = [checked(name, seed).verdict for seed in range(20)]
    assert sum(verdict.plan == "bon" for verdict in verdicts) >= 17  # of 100 seeds 94, 100 and 95
    assert all("do not pay" in v.reason or (v.plan == "adaptive" and "may pay" in v.reason) for v in verdicts)
    assert {TPOConfig(**verdict.settings).plan for verdict in verdicts} <= {"paper", "adaptive"}


@pytest.mark.parametrize("seed", range(8))
def test_where_feedback_is_followed_updates_pay(seed: int) -> None:
    found = checked("follows", seed)
    assert found.verdict.plan in ("adaptive", "paper") and "updates pay" in found.verdict.reason
    assert TPOConfig(**found.verdict.settings).mode == "tpo"
    assert found.expected["adaptive"] > found.expected["bon"] + 0.3


def test_intervals_hold_the_true_values_of_a_policy_that_follows() -> None:
    found = [checked("follows", seed) for seed in range(20)]
    spreads = [each.spread for each in found if each.spread is not None]
    assert sum(each.low <= 1 <= each.high for each in spreads) >= 16
    true = NAMED["follows"]
    assert sum(each.delta.low <= true.delta <= each.delta.high for each in found) >= 15
    assert all(each.usable_updates is not None and each.usable_updates.value == 1 for each in found)
    assert found[0].tokens == {"sample": 150, "critique": 720, "update": 360}


def test_more_queries_narrow_the_intervals() -> None:
    few, many = (check(evidence_of(NAMED["follows"], 0, n), n) for n in (4, 40))
    assert many.delta.high - many.delta.low < few.delta.high - few.delta.low
    assert many.beta.high - many.beta.low < few.beta.high - few.beta.low


def test_updates_that_are_lost_make_the_plan_that_makes_them_dearer() -> None:
    evidence = evidence_of(NAMED["follows"], 0)
    lost = replace(evidence.update, asked=20 * evidence.update.usable, completion_tokens=10**6)
    assert check(replace(evidence, update=lost), 12).verdict.plan == "bon"


@pytest.mark.parametrize(("kind", "what"), [("critique", "not one of 9 critiques"), ("update", "not one of 9 updates")])
def test_a_critic_or_editor_of_no_use_is_named(kind: str, what: str) -> None:
    evidence = Evidence(fresh_squares=9.0, fresh_degrees=9, sample=Cost(12, 12, 100, 100))
    verdict = check(replace(evidence, **{kind: Cost(9, 0, 90, 90)}), 3).verdict
    assert verdict.plan == "bon" and what in verdict.reason


def test_rewards_that_tell_nothing_apart_are_named() -> None:
    found = check(Evidence(fresh_degrees=9, sample=Cost(12, 12, 100, 100)), 3)
    assert found.spread is None and found.critiques == 0
    assert found.verdict.plan == "adaptive" and "too few samples apart" in found.verdict.reason


def test_where_no_tokens_are_reported_the_budget_is_in_calls() -> None:
    evidence = evidence_of(NAMED["follows"], 0)
    bare = {
        name: replace(getattr(evidence, name), prompt_tokens=0, completion_tokens=0)
        for name in ("sample", "critique", "update")
    }
    verdict = check(replace(evidence, **bare), 12).verdict
    assert verdict.settings.get("max_calls") == 19 or verdict.settings.get("depth")


@given(st.integers(0, 400), st.integers(1, 400))
def test_a_share_lies_in_its_interval_and_both_between_0_and_1(successes: int, trials: int) -> None:
    share = Share.build(min(successes, trials), trials)
    assert 0 <= share.low <= share.share <= share.high <= 1 and share.high - share.low < 1.96 / math.sqrt(trials)
