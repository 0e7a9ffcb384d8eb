"""The adaptive plan's law against brute force, and its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_core.config.experience import Evidence
from tpo_core.loop.estimates import BETA, DELTA, TAILS, Value, log_spread_error, spread_of, value_of_updates
from tpo_core.loop.planner import Costs, Outlook, best_split, gain

COSTS = Costs(1.0, 2.0, 1.0)
HARMFUL = Value(beta=0.3, delta=-0.8, beta_var=0.001, delta_var=0.001)
OUTLOOKS = (Outlook(0.0, math.inf), Outlook(1.5, math.inf), Outlook(1.0, 1.8, 0.5), Outlook(1.0, 4.0, 1.0, 0.4))
FOLLOWS = Value(beta=0.9, delta=0.6, beta_var=0.001, delta_var=0.001)


def brute(outlook: Outlook, value: Value, critiques: int, updates: int, fresh: int, runs: int = 60_000) -> float:
    """Return the mean gain of the best when the law is played out."""
    draw = np.random.default_rng(0)
    best = np.full(runs, outlook.best)
    spread = outlook.fresh_sd * math.sqrt((TAILS - 2) / TAILS)
    if fresh:
        error = np.exp(outlook.log_sd * draw.standard_normal(runs) + outlook.log_sd**2)
        best = np.maximum(best, spread * error * draw.standard_t(TAILS, (runs, fresh)).max(axis=1))
    mean = value.mean(outlook.best) + value.sd(outlook.best) * draw.standard_normal(runs)
    for _ in range(critiques):
        critique = mean + value.critique_sd * draw.standard_normal(runs)
        made = critique[:, None] + value.child_sd * draw.standard_normal((runs, updates))
        best = np.maximum(best, made.max(axis=1))
    return float((np.minimum(best, max(outlook.ceiling, outlook.best)) - outlook.best).mean())


@pytest.mark.parametrize("split", [(0, 0, 10), (1, 1, 0), (2, 3, 4), (4, 5, 0)])
@pytest.mark.parametrize("value", [Value(), HARMFUL, FOLLOWS])
@pytest.mark.parametrize("outlook", OUTLOOKS)
def test_the_expected_gain_is_that_of_the_law_played_out(split, value, outlook):
    assert gain(outlook, value, *split) == pytest.approx(brute(outlook, value, *split), abs=0.02)


@given(
    best=st.floats(-3, 8),
    beta=st.floats(-1, 1.5),
    delta=st.floats(-2, 2),
    budget=st.floats(0, 60),
    sample=st.floats(0.5, 5),
)
@settings(max_examples=60, deadline=None)
def test_the_best_split_is_affordable_and_never_expected_to_be_worse_than_sampling(best, beta, delta, budget, sample):
    outlook, value, costs = Outlook(best, math.inf), Value(beta, delta), Costs(sample, 2.0, 1.0)
    split = best_split(outlook, value, costs, budget)
    assert split.price(costs) + split.fresh * sample <= budget + 1e-9
    assert split.gain >= gain(outlook, value, 0, 0, int(budget / sample)) - 1e-12


def test_a_policy_known_to_follow_is_critiqued_and_one_known_to_harm_is_sampled():
    outlook = Outlook(1.0, math.inf)
    assert best_split(outlook, FOLLOWS, COSTS, 14).critiques > 0
    assert best_split(outlook, HARMFUL, COSTS, 14).critiques == 0
    assert best_split(outlook, FOLLOWS, COSTS, 14, critiques=False).fresh == 14


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


@pytest.mark.parametrize("s", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize(("beta", "delta", "critique", "child"), [(0.9, 0.6, 0.5, 0.3), (0.1, -1.0, 0.3, 0.8)])
def test_evidence_tells_what_updates_are_worth_on_any_scale(s, beta, delta, critique, child):
    draw, evidence = np.random.default_rng(1), Evidence()
    for _ in range(400):
        x = draw.normal(1.0, 0.7)
        made = beta * x + delta + critique * draw.normal() + child * draw.normal(size=3)
        x, made = x * s, made * s
        y, squares = made.mean(), ((made - made.mean()) ** 2).sum()
        evidence += Evidence(
            critiques=1, x=x, y=y, xx=x * x, xy=x * y, yy=y * y,
            child_shares=1 / 3, child_squares=squares, child_degrees=2,
        )  # fmt: skip
    value = value_of_updates(evidence, s)
    assert (value.beta, value.delta) == (pytest.approx(beta, abs=0.15), pytest.approx(delta, abs=0.2))
    assert (value.critique_sd, value.child_sd) == (pytest.approx(critique, abs=0.12), pytest.approx(child, abs=0.08))
    assert value.sd(1.0) < 0.1
