"""Hosts copy and pickle whole programs: a reward stays one object in a copy, and comes back working from a pickle."""

import copy

import cloudpickle
import pytest

from tpo_core.rewards import EnsembleReward, FunctionReward, JudgeReward, LengthPenalty, RemoteRewardModel
from tpo_core.values import Completion


class Judge:
    name = "judge"
    takes_n = False

    def chat(self, messages, **settings):
        return [Completion("Yes", logprobs=({"Yes": -1.0, "No": -2.0},))]

    async def achat(self, messages, **settings):
        return self.chat(messages, **settings)


def length(prompt, response):
    return float(len(response))


@pytest.mark.parametrize("kind", ["function", "judge", "remote", "ensemble", "penalty"])
def test_a_reward_survives_a_copy_and_a_pickle(kind, fakes):
    with fakes.serving(fakes.Vllm()) as (url, _):
        reward = {
            "function": lambda: FunctionReward(length),
            "judge": lambda: JudgeReward(Judge()),
            "remote": lambda: RemoteRewardModel(url),
            "ensemble": lambda: EnsembleReward([length, length]),
            "penalty": lambda: LengthPenalty(length, per_word=1.0),
        }[kind]()
        scores = reward.score("q", ["a", "bcd"])  # whatever it holds by now, threads and connections included
        assert copy.deepcopy({"program": reward})["program"] is reward
        assert cloudpickle.loads(cloudpickle.dumps(reward)).score("q", ["a", "bcd"]) == scores
        assert reward.score("q", ["a", "bcd"]) == scores
        assert repr(reward).startswith(type(reward).__name__)
