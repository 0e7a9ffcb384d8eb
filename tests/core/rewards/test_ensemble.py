"""Ensembles and length penalties: how members are put on one scale, and what is passed on."""

import math
import statistics
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_core.errors import InvalidInputError, RewardError
from tpo_core.rewards import EnsembleReward, FunctionReward, LengthPenalty
from tpo_core.values import Reward, Usage


def table(name, **scores):
    return FunctionReward(lambda prompt, response: scores[response], name=name)


ONE = table("one", a=1.0, b=2.0, c=3.0, d=4.0)
TWO = table("two", a=300.0, b=100.0, c=200.0, d=600.0)
Z = math.sqrt(1.5)  # the z-score of the highest of three evenly spaced numbers


@pytest.mark.parametrize(
    ("chosen", "rewards"),
    [
        ({}, [0.0, -Z / 2, Z / 2]),
        ({"how": "min"}, [-Z, -Z, 0.0]),
        ({"how": "weighted", "weights": [3, 1]}, [-Z / 2, -Z / 4, 3 * Z / 4]),
        ({"how": "lcb", "k": 2.0}, [-2 * Z, -Z / 2 - Z, Z / 2 - Z]),
        ({"how": "mean", "normalize": False}, [150.5, 51.0, 101.5]),
    ],
)
async def test_members_are_combined_on_one_scale(chosen, rewards):
    ensemble = EnsembleReward([ONE, TWO], **chosen)
    assert ensemble.score("q", ["a", "b", "c"]) == pytest.approx(rewards)
    assert await ensemble.ascore("q", ["a", "b", "c"]) == pytest.approx(rewards)
    assert ensemble.score("q", ["a"])[0].heads == {"one": 1.0, "two": 300.0}


def test_a_prompts_scale_is_kept_so_that_rounds_compare():
    ensemble = EnsembleReward([ONE, TWO])
    ensemble.score("q", ["a", "b", "c"])
    (later,) = ensemble.score("q", ["d"])  # z-scored alone it would be 0
    assert later == pytest.approx((2 * Z + 4 * Z) / 2)
    assert ensemble.score("q", ["a", "d"]) == pytest.approx([0.0, later])


def test_equal_scores_get_their_deviation_when_one_differs_and_those_given_stay_right():
    percent = table("percent", a=0.0, b=0.0, c=0.0, d=100.0)  # whether it cites: none of the first does
    ensemble = EnsembleReward([percent, table("taste", a=1.0, b=3.0, c=1.0, d=1.0)])
    assert ensemble.score("q", ["a", "b"]) == pytest.approx([-0.5, 0.5])
    cites = (100 / statistics.pstdev([0, 0, 0, 100]) - 1) / 2  # not 100 deviations of 1, beside which taste is nothing
    assert ensemble.score("q", ["c", "d"]) == pytest.approx([-0.5, cites])
    assert ensemble.score("q", ["a", "b", "d"]) == pytest.approx([-0.5, 0.5, cites])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=3), min_size=1, max_size=5))
def test_a_response_has_one_reward_in_whichever_round_it_is_scored(rounds):
    member = FunctionReward(lambda prompt, response: float(response.split(":")[1]), name="one")
    texts = [[f"{n}.{i}:{v}" for i, v in enumerate(values)] for n, values in enumerate(rounds)]
    ensemble = EnsembleReward([member, FunctionReward(lambda p, r: -(float(r.split(":")[1]) ** 2), name="two")])
    given = [r for batch in texts for r in ensemble.score("q", batch)]
    assert ensemble.score("q", [t for batch in texts for t in batch]) == pytest.approx(given)


def test_given_scales_make_each_score_stand_for_itself(caplog):
    ensemble = EnsembleReward([ONE, TWO], scales=[(2.0, 1.0), (200.0, 100.0)])
    assert ensemble.score("q", ["a"]) == [0.0] and ensemble.score("q", ["d"]) == [3.0]
    assert not caplog.records
    assert EnsembleReward([ONE, TWO]).score("q", ["d"]) == [0.0]
    assert "scales=" in caplog.text


def test_each_prompt_has_its_own_scale():
    ensemble = EnsembleReward([ONE, TWO])
    mixed = ensemble.score(["p", "q", "p", "q"], ["a", "b", "c", "d"])
    assert mixed == pytest.approx([0.0, -1.0, 0.0, 1.0])


def test_members_run_at_once():
    meet = threading.Barrier(2, timeout=10)

    def waits(prompt, response):
        meet.wait()  # passes only when both members are under way together
        return 1.0

    assert EnsembleReward([waits, waits], normalize=False).score("q", ["a"]) == [1.0]


def test_a_member_that_cannot_score_a_response_leaves_it_without_a_reward_and_others_with_theirs():
    picky = FunctionReward(lambda prompt, response: None if response == "b" else 1.0, name="picky")
    good, bad, other = EnsembleReward([ONE, picky]).score("q", ["a", "b", "c"])
    assert math.isnan(bad) and bad.failure.startswith("picky: ")
    assert [good, other] == pytest.approx([-0.5, 0.5])  # the scale is that of the two


def test_a_member_that_fails_altogether_fails_the_ensemble_by_name():
    def broken(prompt, response):
        raise ConnectionError("down")

    with pytest.raises(RewardError, match=r"'broken' failed.*down"):
        EnsembleReward([ONE, broken]).score("q", ["a"])


def test_usage_feedback_and_truncation_come_along():
    said = FunctionReward(
        lambda p, r: Reward(1.0, feedback="shorter", truncated=True, usage=Usage(1, 1, 5, 1)), name="x"
    )
    (reward,) = EnsembleReward([said, said]).score("q", ["a"])
    assert reward.feedback == "x#1: shorter\nx#2: shorter"
    assert reward.truncated and reward.usage == Usage(2, 2, 10, 2)
    assert set(reward.heads) == {"x#1", "x#2"}


def test_the_heads_of_a_member_come_along():
    priced = LengthPenalty(ONE, per_word=1.0, name="priced")
    (reward,) = EnsembleReward([priced, TWO], normalize=False).score("q", ["a"])
    assert reward.heads == {"priced": 0.0, "two": 300.0, "priced/reward": 1.0, "priced/length": 1.0}


def test_ensembles_nest_and_take_anything_that_is_a_reward():
    inner = EnsembleReward([ONE, TWO], normalize=False)
    outer = EnsembleReward([inner, LengthPenalty(ONE, per_word=1.0)], normalize=False)
    assert outer.score("q", ["a"]) == [(150.5 + 0.0) / 2]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8, unique=True), st.floats(0.0, 5.0))
def test_pessimism_never_exceeds_the_mean(scores, k):
    values = {str(i): s for i, s in enumerate(scores)}
    shifted = {key: -s for key, s in values.items()}
    members = [FunctionReward(lambda p, r, d=d: d[r], name=n, kind="pair") for n, d in (("x", values), ("y", shifted))]
    mean = EnsembleReward(members).score("q", list(values))
    for chosen in ({"how": "lcb", "k": k}, {"how": "min"}):
        careful = EnsembleReward(members, **chosen).score("q", list(values))
        assert all(c <= m + 1e-9 for c, m in zip(careful, mean, strict=True))
    assert statistics.fmean(mean) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("models", "chosen", "message"),
    [
        ([ONE], {}, "at least two"),
        ("ab", {}, "at least two"),
        ([ONE, 3], {}, "reward must be"),
        ([ONE, TWO], {"how": "max"}, "how must be"),
        ([ONE, TWO], {"weights": [1, 2]}, "weights go with"),
        ([ONE, TWO], {"how": "weighted"}, "weights go with"),
        ([ONE, TWO], {"how": "weighted", "weights": [1]}, "weights must be 2"),
        ([ONE, TWO], {"how": "weighted", "weights": [0, 0]}, "weights must be 2"),
        ([ONE, TWO], {"how": "weighted", "weights": ["1", 1]}, "weights must be 2"),
        ([ONE, TWO], {"k": -1}, "k must be"),
        ([ONE, TWO], {"k": math.inf}, "k must be"),
        ([ONE, TWO], {"k": "1"}, "k must be"),
        ([ONE, TWO], {"scales": [(0.0, 1.0)]}, "scales must be 2"),
        ([ONE, TWO], {"scales": [(0.0, 1.0), (0.0, 0.0)]}, "scales must be 2"),
        ([ONE, TWO], {"scales": [(0.0, 1.0)] * 2, "normalize": False}, "not both"),
    ],
)
def test_bad_ensembles_are_refused_by_name(models, chosen, message):
    with pytest.raises(InvalidInputError, match=message):
        EnsembleReward(models, **chosen)


async def test_length_costs_beyond_what_is_free():
    flat = FunctionReward(lambda prompt, response: 10.0)
    words = LengthPenalty(flat, per_word=2.0, free=2)
    short, long = words.score("q", ["one two", "one  two\nthree four"])
    assert (short, long) == (10.0, 6.0)
    assert short.feedback is None and "4 words long" in long.feedback
    assert long.heads == {"reward": 10.0, "length": 4.0}
    assert await LengthPenalty(flat, per_character=0.5).ascore("q", ["abcd"]) == [8.0]


def test_a_missing_reward_stays_missing_under_a_penalty():
    (reward,) = LengthPenalty(FunctionReward(lambda p, r: None), per_word=1.0).score("q", ["a"])
    assert math.isnan(reward) and reward.failure


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({}, "per_word or per_character"),
        ({"per_word": 1.0, "per_character": 1.0}, "one of them"),
        ({"per_word": 0.0}, "per_word must be above 0"),
        ({"per_character": -1.0}, "per_character must be above 0"),
        ({"per_word": "1"}, "per_word must be above 0"),
        ({"per_word": math.nan}, "per_word must be above 0"),
        ({"per_word": 1.0, "free": -1}, "free"),
    ],
)
def test_bad_penalties_are_refused_by_name(chosen, message):
    with pytest.raises(InvalidInputError, match=message):
        LengthPenalty(ONE, **chosen)
