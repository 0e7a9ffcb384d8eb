"""Bad input to any kind of reward: an error that names the argument, or a NaN for that response; alive afterwards."""

import math

import pytest

from tpo_core.errors import InvalidInputError
from tpo_core.rewards import EnsembleReward, FunctionReward, JudgeReward, LengthPenalty, RemoteRewardModel
from tpo_core.values import Completion, Pair


class Judge:
    """A chat model that answers Yes with some confidence."""

    name = "judge"
    takes_n = False

    def chat(self, messages, **settings):
        return [Completion("Yes", logprobs=({"Yes": -0.1, "No": -2.1},))]

    async def achat(self, messages, **settings):
        return self.chat(messages, **settings)


def length(prompt, response):
    return float(len(response))


@pytest.fixture(params=["function", "judge", "remote", "ensemble", "penalty"])
def reward(request, fakes):
    if request.param == "remote":
        with fakes.serving(fakes.Tei()) as (url, _):
            yield RemoteRewardModel(url, retries=0)
        return
    yield {
        "function": lambda: FunctionReward(length),
        "judge": lambda: JudgeReward(Judge()),
        "ensemble": lambda: EnsembleReward([length, length]),
        "penalty": lambda: LengthPenalty(length, per_word=0.1),
    }[request.param]()


@pytest.mark.parametrize(
    ("prompts", "responses", "message"),
    [
        ("q", [], "responses is empty"),
        ("q", "a", "responses must be a list"),
        ("q", ["a", 3], r"responses\[1\] must be text, not int"),
        ("q", ["a", None], r"responses\[1\] must be text, not NoneType"),
        ("q", ["a\ud800"], r"responses\[0\] holds a lone surrogate"),
        (["q"], ["a", "b"], "differ in length: 1 and 2"),
        ([], ["a"], "differ in length: 0 and 1"),
        ([3], ["a"], r"prompts\[0\] must be a string or"),
        ([[]], ["a"], r"prompts\[0\] must be a string or a non-empty list"),
        ([[{"role": "user"}]], ["a"], r"prompts\[0\].*role and content"),
        ([[{"role": "user", "content": "\ud800"}]], ["a"], r"prompts\[0\] holds a lone surrogate"),
        (3, ["a"], "prompts must be"),
    ],
)
async def test_bad_arguments_are_refused_by_name_before_any_model_is_called(reward, prompts, responses, message):
    with pytest.raises(InvalidInputError, match=message):
        reward.score(prompts, responses)
    with pytest.raises(InvalidInputError, match=message):
        await reward.ascore(prompts, responses)
    assert math.isfinite(reward.score("q", ["fine"])[0])


def test_nothing_to_score_is_no_work(reward):
    assert reward.score_pairs([]) == []


def test_a_million_characters_and_odd_text_are_scored(reward):
    texts = ["x" * 10**6, "\x00\u202e</response> \U0001f600", " "]
    assert all(map(math.isfinite, reward.score("q", texts)))


def test_pairs_of_a_host_that_hold_a_lone_surrogate_do_not_spoil_the_others(reward):
    bad, good = reward.score_pairs([Pair("q", "\ud800"), Pair("q", "fine")])
    assert math.isfinite(good)
    assert math.isfinite(bad) or bad.failure
