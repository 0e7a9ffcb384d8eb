"""The adaptive plan's law against brute force, and its limits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_core.config.experience import Evidence, Experience
from tpo_core.loop.estimates import (
    BETA,
    DELTA,
    TAILS,
    Value,
    heavy_share,
    log_spread_error,
    spread_of,
    value_of_updates,
)
from tpo_core.loop.learning import shown
from tpo_core.loop.planner import Again, Costs, Outlook, best_split, gain
from tpo_core.values import Candidate, Step

COSTS = Costs(1.0, 2.0, 1.0)
HARMFUL = Value(beta=0.3, delta=-0.8, beta_var=0.001, delta_var=0.001)
OUTLOOKS = (
    Outlook(0.0, math.inf),
    Outlook(1.5, math.inf, heavy=0.0),
    Outlook(1.0, 1.8, 0.5),
    Outlook(1.0, 4.0, 1.0, 0.4, heavy=0.3),
)
FOLLOWS = Value(beta=0.9, delta=0.6, beta_var=0.001, delta_var=0.001)


def brute(outlook: Outlook, value: Value, critiques: int, updates: int, fresh: int, runs: int = 60_000) -> float:
    """Return the mean gain of the best when the law is played out."""
    draw = np.random.default_rng(0)
    best = np.full(runs, outlook.best)
    if fresh:
        error = np.exp(outlook.log_sd * draw.standard_normal(runs) + outlook.log_sd**2)
        heavy = math.sqrt((TAILS - 2) / TAILS) * draw.standard_t(TAILS, (runs, fresh))
        light = draw.standard_normal((runs, fresh))
        sampled = np.where(draw.random((runs, fresh)) < outlook.heavy, heavy, light)
        best = np.maximum(best, outlook.fresh_sd * error * sampled.max(axis=1))
    mean = value.mean(outlook.best) + value.sd(outlook.best) * draw.standard_normal(runs)
    for _ in range(critiques):
        critique = mean + value.critique_sd * draw.standard_normal(runs)
        made = critique[:, None] + value.child_sd * draw.standard_normal((runs, updates))
        brings = draw.random(runs) < value.upside
        best = np.where(brings, np.maximum(best, made.max(axis=1)), best)
    return float((np.minimum(best, max(outlook.ceiling, outlook.best)) - outlook.best).mean())


@pytest.mark.parametrize("split", [(0, 0, 10), (1, 1, 0), (2, 3, 4), (4, 5, 0)])
@pytest.mark.parametrize("value", [Value(), HARMFUL, FOLLOWS, replace(FOLLOWS, upside=0.4)])
@pytest.mark.parametrize("outlook", OUTLOOKS)
def test_the_expected_gain_is_that_of_the_law_played_out(split, value, outlook):
    assert gain(outlook, value, *split) == pytest.approx(brute(outlook, value, *split), abs=0.02)


@given(
    best=st.floats(-3, 8),
    beta=st.floats(-1, 1.5),
    delta=st.floats(-2, 2),
    budget=st.floats(0, 60),
    sample=st.floats(0.5, 5),
    again=st.none() | st.builds(Again, st.floats(-3, 8), st.floats(0, 1)),
)
@settings(max_examples=60, deadline=None)
def test_the_best_split_is_affordable_and_never_expected_to_be_worse_than_sampling(
    best, beta, delta, budget, sample, again
):
    outlook, value, costs = Outlook(best, math.inf), Value(beta, delta), Costs(sample, 2.0, 1.0)
    split = best_split(outlook, value, costs, budget, again=again)
    assert split.price(costs) + split.fresh * sample <= budget + 1e-9
    assert split.gain >= gain(outlook, value, 0, 0, int(budget / sample)) - 1e-12


def test_a_policy_known_to_follow_is_critiqued_and_one_known_to_harm_is_sampled():
    outlook = Outlook(1.0, math.inf)
    assert best_split(outlook, FOLLOWS, COSTS, 14).critiques > 0
    assert best_split(outlook, HARMFUL, COSTS, 14).critiques == 0
    assert best_split(outlook, FOLLOWS, COSTS, 14, critiques=False).fresh == 14


@pytest.mark.parametrize(("mean", "sd"), [(1.5, 0.3), (0.5, 0.2)])
@pytest.mark.parametrize("outlook", OUTLOOKS)
def test_instructions_followed_again_gain_what_the_law_does_played_out(mean, sd, outlook):
    value = replace(HARMFUL, critique_sd=sd, beta=0.0, delta=mean, beta_var=0.0, delta_var=0.0)  # of one such critique
    split = best_split(outlook, HARMFUL, Costs(1.0, 2.0, 0.8), 4, again=Again(mean, sd))
    assert split.price(Costs(1.0, 2.0, 0.8)) + split.fresh <= 4
    assert split.gain == pytest.approx(brute(outlook, value, split.critiques, split.updates, split.fresh), abs=0.02)


def test_instructions_that_did_well_are_followed_again_and_others_not():
    outlook = Outlook(1.0, math.inf)
    assert best_split(outlook, HARMFUL, COSTS, 14, again=Again(2.0, 0.2)).again
    assert not best_split(outlook, HARMFUL, COSTS, 14, again=Again(-1.0, 0.2)).critiques
    assert not best_split(outlook, FOLLOWS, COSTS, 12, again=Again(0.0, 0.2)).again
    assert not best_split(outlook, HARMFUL, COSTS, 14, again=Again(2.0, 0.2), critiques=False).critiques


def test_nothing_is_gained_at_the_ceiling():
    assert best_split(Outlook(1.0, 1.0), FOLLOWS, COSTS, 14).gain == 0


def test_without_evidence_updates_are_worth_the_prior():
    value = value_of_updates(Evidence(), 1.0)
    assert (value.beta, value.delta) == (BETA, DELTA) and spread_of(Evidence()) is None


def test_the_error_of_the_spread_is_that_of_samples_with_tails():
    draw = np.random.default_rng(2)
    squares = draw.standard_t(TAILS, (4000, 200)).var(axis=1, ddof=1)
    [told] = {log_spread_error(Evidence(fresh_squares=each, fresh_degrees=199)) for each in squares}
    assert told == pytest.approx(float(np.log(squares).std()) / 2, rel=0.2)
    assert log_spread_error(Evidence(fresh_degrees=5)) == 0 == log_spread_error(Evidence())


def samples_of(draws: Any) -> Evidence:
    """Return the evidence of queries, one a row, that were sampled alone."""
    rows = [[Candidate("", reward=float(reward)) for reward in row] for row in draws]
    return sum((shown(row, []) for row in rows), Evidence())


@pytest.mark.parametrize("s", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("width", [2, 5, 20])
def test_samples_show_whether_their_tails_are_heavy_on_any_scale(s, width):
    draw, queries = np.random.default_rng(3), 20_000 // width
    means = draw.normal(size=(queries, 1))
    normal = heavy_share(samples_of(s * (means + draw.normal(size=(queries, width)))))
    heavy = heavy_share(samples_of(s * (means + draw.standard_t(4, (queries, width)))))
    assert normal < 0.1
    assert heavy > 0.9 or width < 20  # means of few samples hide far ones
    assert heavy > normal + 0.4


def test_tails_are_heavy_until_many_samples_say_otherwise():
    draw = np.random.default_rng(4)
    few, many = (heavy_share(samples_of(draw.normal(size=(queries, 10)))) for queries in (2, 100))
    assert heavy_share(Evidence()) == 1 == heavy_share(Evidence(fresh_squares=4.0, fresh_degrees=4))
    assert 0.5 < few <= 1 and many < 0.3
    assert heavy_share(samples_of([[1.0, 1.0, 1.0]])) == 1  # they tell nothing
    assert heavy_share(samples_of([[0.0, 1.0]] * 400)) == 0  # no sample can be far


def critiques_of(
    s: float, count: int, beta: float, delta: float, critique: float, child: Callable[[], Any]
) -> Evidence:
    """Return the evidence of critiques with three updates each, whose own parts ``child`` draws."""
    draw, evidence = np.random.default_rng(1), Evidence()
    for _ in range(count):
        x = draw.normal(1.0, 0.7)
        made = beta * x + delta + critique * draw.normal() + child()
        fresh = [Candidate("", reward=reward * s) for reward in (-x, x)]  # their mean is 0
        updates = [Candidate("", step=1, reward=reward * s, fresh=False, critique=0) for reward in made]
        evidence += shown([*fresh, *updates], [Step(1, chosen=fresh[1])])
    return evidence


@pytest.mark.parametrize("s", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize(("beta", "delta", "critique", "child"), [(0.9, 0.6, 0.5, 0.3), (0.1, -1.0, 0.3, 0.8)])
def test_evidence_tells_what_updates_are_worth_on_any_scale(s, beta, delta, critique, child):
    draw = np.random.default_rng(2)
    value = value_of_updates(critiques_of(s, 400, beta, delta, critique, lambda: child * draw.normal(size=3)), s)
    assert (value.beta, value.delta) == (pytest.approx(beta, abs=0.15), pytest.approx(delta, abs=0.2))
    assert (value.critique_sd, value.child_sd) == (pytest.approx(critique, abs=0.12), pytest.approx(child, abs=0.08))
    assert value.sd(1.0) < 0.1 and value.upside == pytest.approx(1, abs=0.15)


def test_where_bad_updates_are_far_worse_than_good_ones_are_better_what_is_promised_comes_true():
    draw, outlook = np.random.default_rng(2), Outlook(1.0, math.inf)
    value = value_of_updates(
        critiques_of(1.0, 400, 0.9, 0.2, 0.3, lambda: 0.3 * draw.normal(size=3) - 3.0 * (draw.random(3) < 0.2)), 1.0
    )
    made = 1.1 + 0.3 * draw.normal(size=(20_000, 1)) + 0.3 * draw.normal(size=(20_000, 3))
    made -= 3.0 * (draw.random(made.shape) < 0.2)
    true = float(np.maximum(0.0, made.max(axis=1) - outlook.best).mean())
    told, normal = (gain(outlook, each, 1, 3, 0) for each in (value, replace(value, upside=1.0)))
    assert value.upside < 0.9 and normal > 1.5 * true
    assert abs(told - true) < 0.7 * abs(normal - true)


def test_evidence_that_was_saved_before_gains_were_kept_promises_what_the_law_does():
    saved = json.loads(Experience(critiques_of(1.0, 20, 0.9, 0.6, 0.5, lambda: np.zeros(3))).to_json())
    del saved["gains"], saved["gains_of"]
    assert value_of_updates(Experience.from_json(json.dumps(saved)).evidence, 1.0).upside == 1


def test_only_the_updates_of_its_own_round_are_evidence_of_a_critique():
    fresh = [Candidate("", reward=-1.0), Candidate("", reward=1.0)]
    first = [Candidate("", step=1, reward=reward, fresh=False, critique=0) for reward in (2.0, 3.0)]
    later = [Candidate("", step=2, reward=9.0, fresh=False, critique=0)]
    steps = [Step(1, chosen=fresh[1])]
    assert shown([*fresh, *first, *later], steps) == shown([*fresh, *first], steps)
