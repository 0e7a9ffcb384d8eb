"""What a reward is known by in caches of whole answers: the same in every process, another for other scores."""

import json
import subprocess
import sys
from pathlib import Path

import dspy
import pytest
from brevity import Brevity
from judges import Judge
from langchain_core.language_models import FakeListChatModel

from tpo_core.cache_keys import made_of, unsigned
from tpo_core.errors import InvalidInputError
from tpo_core.models.litellm_chat import LiteLLMChat
from tpo_core.rewards import EnsembleReward, FunctionReward, JudgeReward, LengthPenalty, RemoteRewardModel, as_reward

URL = "http://127.0.0.1:9"
SECRET = "sk-SECRET-7731"


def longest(prompt, response):
    return len(response)


def shortest(prompt, response):
    return -len(response)


def made():
    def inner(prompt, response):
        return 1.0

    return inner


class Versioned:
    cache_key = "mine-1"

    def __call__(self, prompt, response):
        return 1.0


def test_a_function_at_the_top_of_a_module_has_a_key_and_what_its_name_does_not_tell_has_none():
    assert FunctionReward(longest).cache_key == as_reward(longest).cache_key is not None
    assert FunctionReward(longest).cache_key != FunctionReward(shortest).cache_key
    assert FunctionReward(longest, kind="args").cache_key != FunctionReward(longest).cache_key
    assert FunctionReward(lambda prompt, response: 1.0).cache_key is None
    assert FunctionReward(made()).cache_key is None and Brevity().cache_key is None
    assert FunctionReward(Brevity().score, kind="batch").cache_key is None


def test_a_user_may_say_what_tells_a_callable_from_others():
    one, two = (FunctionReward(lambda prompt, response: 1.0, cache_key=key) for key in ("v1", "v2"))
    assert None not in (one.cache_key, two.cache_key) and one.cache_key != two.cache_key
    assert FunctionReward(Versioned()).cache_key is not None
    with pytest.raises(InvalidInputError, match="cache_key"):
        FunctionReward(longest, cache_key=3)


@pytest.mark.parametrize(
    "other",
    [
        {"lm": "openai/other"},
        {"lm": LiteLLMChat("openai/a", api_base=URL)},
        {"rubric": "be long"},
        {"rubric": ["be short"]},
        {"question": "is it short?", "rubric": None},
        {"scale": (1, 5)},
        {"mode": "pairwise"},
        {"reference": "a correct answer"},
        {"reference": longest},
        {"logprobs": "never"},
        {"temperature": 0.5},
        {"max_tokens": 9},
        {"top_logprobs": 5},
    ],
)
def test_judges_that_judge_otherwise_have_other_keys(other):
    settings = {"lm": "openai/a", "rubric": "be short"}
    key = JudgeReward(**settings).cache_key
    assert key is not None and key == JudgeReward(**settings, workers=2, name="mine").cache_key
    assert JudgeReward(**{**settings, **other}).cache_key not in (None, key)


def test_a_judge_that_cannot_be_told_from_others_has_no_key():
    assert JudgeReward(Judge(lambda shown, logprobs: None)).cache_key is None
    assert JudgeReward("openai/a", reference=lambda pair: "x").cache_key is None
    assert JudgeReward("openai/a", rubric="be short").cache_key != JudgeReward("openai/a").cache_key


def test_a_judges_model_may_be_another_hosts():
    models = [FakeListChatModel(responses=["1"]), FakeListChatModel(responses=["2"]), dspy.LM("openai/a"),
              dspy.LM("openai/a", temperature=0.3)]  # fmt: skip
    keys = [JudgeReward(model).cache_key for model in models]
    assert None not in keys and len(set(keys)) == 4
    assert JudgeReward(FakeListChatModel(responses=["1"])).cache_key == keys[0]
    assert JudgeReward(FakeListChatModel(responses=["1"]).bind(stop=["x"])).cache_key is None


@pytest.mark.parametrize(
    "other",
    [{"url": "http://127.0.0.1:8"}, {"model": "b"}, {"label": 1}, {"raw": False}, {"headers": {"X-Tier": "b"}},
     {"server": "vllm"}, {"text": longest}],
)  # fmt: skip
def test_rewards_on_other_servers_have_other_keys_and_who_asks_makes_no_difference(other):
    settings = {"url": URL, "model": "a", "headers": {"X-Tier": "a"}}
    key = RemoteRewardModel(**settings).cache_key
    assert key is not None
    mine = {"url": f"http://me:{SECRET}@127.0.0.1:9", "headers": {"X-Tier": "a", "authorization": f"Bearer {SECRET}"}}
    assert RemoteRewardModel(**{**settings, **mine, "retries": 1, "name": "n"}).cache_key == key
    assert RemoteRewardModel(**{**settings, **other}).cache_key not in (None, key)


def test_a_server_that_may_serve_any_model_has_no_key():
    assert RemoteRewardModel(URL).cache_key is None
    assert RemoteRewardModel(URL, request=lambda pairs: {}, parse=json.loads).cache_key is None
    assert RemoteRewardModel(URL, request=longest, parse=shortest).cache_key is not None


def test_what_is_made_of_rewards_has_a_key_where_all_of_them_have():
    members = [FunctionReward(longest), FunctionReward(shortest)]
    keys = [
        EnsembleReward(members).cache_key,
        EnsembleReward(members[::-1]).cache_key,
        EnsembleReward(members, how="min").cache_key,
        EnsembleReward(members, how="lcb", k=2).cache_key,
        EnsembleReward(members, how="lcb").cache_key,
        EnsembleReward(members, how="weighted", weights=[1, 2]).cache_key,
        EnsembleReward(members, normalize=False).cache_key,
        EnsembleReward(members, scales=[(0, 1), (0, 2)]).cache_key,
        LengthPenalty(longest, per_word=1).cache_key,
        LengthPenalty(longest, per_word=1, free=3).cache_key,
        LengthPenalty(longest, per_word=2).cache_key,
        LengthPenalty(longest, per_character=1).cache_key,
        LengthPenalty(shortest, per_word=1).cache_key,
    ]
    assert None not in keys and len(set(keys)) == len(keys)
    assert EnsembleReward([longest, lambda prompt, response: 1.0]).cache_key is None
    assert LengthPenalty(lambda prompt, response: 1.0, per_word=1).cache_key is None


REWARDS = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2] / "helpers")]!r}
from langchain_openai import ChatOpenAI
from test_cache_keys import *
llm = ChatOpenAI(model="a", base_url="http://me:{SECRET}@h/v1", api_key="{SECRET}", default_headers={{"X": "{SECRET}"}})
judge = LiteLLMChat("openai/a", api_key="{SECRET}", extra_headers={{"Authorization": "{SECRET}", "X": "{SECRET}"}})
print([r.cache_key for r in (
    FunctionReward(longest), JudgeReward(judge, rubric={{"a": "b", "c": "d"}}), JudgeReward(llm),
    RemoteRewardModel("http://h/x?key={SECRET}", model="m", headers={{"X-Key": "{SECRET}"}}),
    EnsembleReward([longest, JudgeReward(llm)]),
)])
"""


def test_keys_are_equal_in_every_process_and_hold_no_secret():
    told = [subprocess.run([sys.executable, "-c", REWARDS], capture_output=True, text=True) for _ in range(2)]
    assert told[0].stdout == told[1].stdout and "None" not in told[0].stdout, told[0].stderr
    assert told[0].stdout.count("'") == 10 and SECRET not in told[0].stdout


def test_settings_that_are_no_data_have_no_key():
    assert made_of("a", thing=object()) is None and made_of("a", thing={object(): 1}) is None
    assert unsigned({"api_key": SECRET, "urls": [f"http://u:{SECRET}@h/p@q"]}) == {"urls": ["http://h/p@q"]}


def test_another_source_of_the_same_function_is_another_key(tmp_path):
    program = "import sys; sys.path.insert(0, sys.argv[1]); import mine; from tpo_core.rewards import FunctionReward; "
    program += "print(FunctionReward(mine.score).cache_key)"
    keys = []
    for length in (1, 2):
        (tmp_path / "mine.py").write_text(f"def score(prompt, response):\n    return len(response) * {length}\n")
        ran = subprocess.run([sys.executable, "-B", "-c", program, str(tmp_path)], capture_output=True, text=True)
        keys.append(ran.stdout.strip())
    assert keys[0] != keys[1] and "None" not in keys and all(keys)
