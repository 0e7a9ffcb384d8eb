"""Checks as a reward: what is met counts, what is not is named."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpo_core import InvalidInputError, RewardError, TPOConfig, run
from tpo_core.rewards import Check, ChecksReward, checks
from tpo_core.testing import ScriptedPolicy

TEXT = "First, oil the wood. Then wait!\n\n- one day\n- two days"


@pytest.mark.parametrize(
    ("check", "met"),
    [
        (checks.uses("Oil", "wood"), True),
        (checks.uses("oi"), False),
        (checks.avoids("water"), True),
        (checks.avoids("day", "days"), False),
        (checks.words(10), True),
        (checks.words(most=9), False),
        (checks.words(least=3, most=10), True),
        (checks.sentences(2), True),
        (checks.paragraphs(2), True),
        (checks.bullets(2), True),
        (checks.bullets(least=3), False),
        (checks.starts_with("first"), True),
        (checks.ends_with("days"), True),
        (checks.is_json(), False),
        (checks.matches(r"\bone\b", "says one"), True),
        (checks.matches(r"\d", "has a digit"), False),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_the_checks_that_are_there_read_as_a_reader_does(check, met):
    assert check(TEXT) is met


def test_names_say_what_is_asked_for():
    made = [checks.words(1), checks.words(least=2, most=5), checks.uses("a", "b"), checks.sentences(most=1)]
    assert [check.name for check in made] == [
        "has exactly 1 word",
        "has at least 2 and at most 5 words",
        'uses "a", "b"',
        "has at most 1 sentence",
    ]


@given(st.text(), st.lists(st.sampled_from([True, False]), min_size=1, max_size=6))
def test_the_reward_is_the_share_that_is_met_and_names_the_rest(text, outcomes):
    reward = ChecksReward({f"check {i}": lambda _, met=met: met for i, met in enumerate(outcomes)})
    text = text.encode("utf-8", "ignore").decode()
    [score] = reward.score("q", [text])
    assert score == sum(outcomes) / len(outcomes) and asyncio.run(reward.ascore("q", [text])) == [score]
    failed = [f"check {i}" for i, met in enumerate(outcomes) if not met]
    assert score.feedback == (f"not met: {'; '.join(failed)}" if failed else None)
    assert [name for name, met in score.heads.items() if not met] == failed


def test_each_query_may_have_checks_of_its_own():
    reward = ChecksReward(lambda pair: [checks.uses(pair.inputs["word"]), checks.words(2)])
    policy = ScriptedPolicy(sample=["an oil", "oil"])
    trajectory = run("q", policy, reward, TPOConfig(width=2, mode="bon"), inputs={"word": "oil"})
    assert trajectory.best.response == "an oil" and trajectory.best.reward == 1.0
    assert trajectory.candidates[1].feedback == "not met: has exactly 2 words"


def test_a_check_that_raises_costs_its_response_and_all_of_them_is_an_error():
    reward = ChecksReward({"first letter": lambda text: text[0].isupper()})
    good, bad = reward.score("q", ["Yes", ""])
    assert good == 1.0 and "IndexError" in bad.failure
    with pytest.raises(RewardError, match="IndexError"):
        reward.score("q", [""])


def test_a_cache_may_know_what_the_names_tell_and_nothing_else():
    assert ChecksReward([checks.words(2)]).cache_key not in (None, ChecksReward([checks.words(3)]).cache_key)
    assert ChecksReward({"mine": str.isupper}).cache_key is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([], "empty"),
        ([str.isupper], "must hold Check objects"),
        ([checks.words(1), Check("has exactly 1 word", str.isupper)], "two called"),
    ],
)
def test_what_are_no_checks_is_refused(wrong, said):
    with pytest.raises(InvalidInputError, match=said):
        ChecksReward(wrong)
    for bad in ({"exactly": 1, "most": 2}, {}):
        with pytest.raises(InvalidInputError, match="give a number of words"):
            checks.words(**bad)
