"""What cannot work is found before anything is paid for, said in one line, and not asked again."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys

import dspy
import pytest

import tpo_dspy
from tpo_core import GenerationError, ModelError, RewardError, TPOConfig, TPOError, arun, run, run_many
from tpo_core.models.openai_chat import OpenAIChat
from tpo_core.rewards import EnsembleReward, FunctionReward, JudgeReward, LengthPenalty, RemoteRewardModel
from tpo_core.testing import ScriptedPolicy

GONE = "http://127.0.0.1:9"


def refuse(status):
    return lambda request, number: (status, {"error": {"message": "Incorrect API key provided"}})


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RemoteRewardModel(GONE), "cannot be reached"),
        (lambda: LengthPenalty(RemoteRewardModel(GONE), per_word=0.1), "cannot be reached"),
        (lambda: EnsembleReward([lambda prompt, response: 1.0, RemoteRewardModel(GONE)]), "cannot be reached"),
        (lambda: JudgeReward("openai/gpt-4o-mini"), "set OPENAI_API_KEY"),
        (lambda: JudgeReward("anthropic/claude-sonnet-4-5"), "set ANTHROPIC_API_KEY"),
        (lambda: JudgeReward(dspy.LM("openai/gpt-4o-mini")), "set OPENAI_API_KEY"),
        (lambda: JudgeReward(dspy.LM("anthropic/claude-sonnet-4-5")), "set ANTHROPIC_API_KEY"),
        (lambda: JudgeReward(OpenAIChat("m", api_base=f"{GONE}/v1")), "no server answers at http://127.0.0.1:9/v1"),
    ],
)
def test_a_reward_that_cannot_be_reached_is_found_before_a_sample_is_paid_for(loopback, make, said):
    server = loopback()
    policy = OpenAIChat("m", api_base=server.url)
    for go in (lambda: run("q", policy, make()), lambda: asyncio.run(arun("q", policy, make()))):
        with pytest.raises(TPOError, match=said) as caught:
            go()
        assert isinstance(caught.value, (RewardError, ModelError)) and "\n" not in str(caught.value)
    program = tpo_dspy.TPO(dspy.Predict("question -> answer"), make())
    lm = dspy.LM("openai/m", api_base=server.url, api_key="k")
    with pytest.raises(TPOError, match=said), dspy.context(lm=lm):
        program(question="q")
    assert server.requests == []


def test_a_server_that_is_no_reward_server_is_found_before_a_sample_is_paid_for(loopback):
    server, other = loopback(), loopback()
    with pytest.raises(TPOError, match="a URL here ends before the /v1"):
        run("q", OpenAIChat("m", api_base=server.url), other.url)
    assert server.requests == []


def test_a_hub_name_is_found_missing_before_torch_is_imported():
    pytest.importorskip("transformers")
    code = (
        "import sys\nfrom tpo_core.rewards import HFRewardModel\n"
        "try: HFRewardModel('Skywork/No-Such-Model')\n"
        "except Exception as error: print(error)\nprint(*sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    said, loaded = shown.strip().splitlines()
    assert re.match("cannot (find|load) the reward model 'Skywork/No-Such-Model'", said)
    assert not {"torch", "transformers"} & set(loaded.split())  # which take seconds


@pytest.mark.parametrize(("status", "hint"), [(401, "OPENAI_API_KEY"), (404, "404")])
def test_what_is_refused_for_good_is_asked_once(loopback, status, hint):
    server = loopback(refuse(status))
    with pytest.raises(GenerationError, match=f"not one of 5 samples.*{hint}") as caught:
        run("q", OpenAIChat("m", api_base=server.url), lambda prompt, response: 1.0)
    assert len(server.requests) == 1 and "\n" not in str(caught.value)
    assert caught.value.trajectory.failures[0].failure.lasting


def test_a_dspy_program_is_not_run_again_after_a_refusal_and_the_error_is_one_line(loopback):
    server = loopback(refuse(401))
    lm = dspy.LM("openai/m", api_base=server.url, api_key="wrong", cache=False)
    refined = tpo_dspy.TPO(dspy.Predict("question -> answer"), lambda prompt, response: 1.0, width=3)
    with dspy.context(lm=lm), pytest.raises(GenerationError, match="Incorrect API key provided; set OPENAI_") as caught:
        refined(question="q")
    assert len(server.requests) == 3 and "\n" not in str(caught.value)
    with dspy.context(lm=dspy.LM("openai/gpt-4o-mini", cache=False)), pytest.raises(GenerationError) as caught:
        refined(question="q")
    assert "Set OPENAI_API_KEY" in str(caught.value) and len(caught.value.trajectory.candidates) == 3


def test_what_may_pass_is_still_asked_again(loopback):
    server = loopback(failures=[500, 500, 500, 500])
    policy = OpenAIChat("m", api_base=server.url, max_retries=0)
    trajectory = run("q", policy, lambda prompt, response: 1.0, TPOConfig(width=2, mode="bon"))
    assert trajectory.best.response


def test_a_weakness_is_warned_of_once_a_reward_and_then_counted(caplog):
    config = TPOConfig(width=4, depth=1)

    def weak(*, reward):
        policy = ScriptedPolicy(sample=["good 1", "good 22", "good 333", "good 4444"], update=[""])
        return run_many(["q"], policy, reward, config)

    reward = FunctionReward(lambda prompt, response: len(response))
    with caplog.at_level(logging.WARNING, "tpo_core.drivers.stream"):
        for _ in range(12):
            weak(reward=reward)
    said = [record.getMessage() for record in caplog.records if "too weak" in record.getMessage()]
    assert len(said) == 2 and said[1].endswith("(said 10 times by now)")
    with caplog.at_level(logging.WARNING, "tpo_core.drivers.stream"):
        weak(reward=lambda prompt, response: len(response))
    assert len([r for r in caplog.records if "too weak" in r.getMessage()]) == 3
