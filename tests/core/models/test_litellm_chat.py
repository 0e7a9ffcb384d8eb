"""Chat models over the network, against a real server on this machine."""

from __future__ import annotations

import asyncio

import pytest

from tpo_core import ChatPolicy, GenerationError, InvalidInputError, LiteLLMChat, ModelError, TPOConfig, arun, run
from tpo_core.rewards import FunctionReward

LENGTH = FunctionReward(lambda prompt, response: float(len(response)))
USER = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(("n", "requests", "calls"), [("honour", 7, 19), ("ignore", 19, 27), ("reject", 21, 29)])
def test_a_run_takes_as_few_requests_as_the_server_allows(loopback, n, requests, calls):
    server = loopback(lambda request, number: f"answer {number}" * (number + 1), n=n)
    policy = LiteLLMChat("openai/smol", api_base=server.url, max_retries=0)
    trajectory = run("hi", ChatPolicy(policy), LENGTH, TPOConfig())
    assert len({c.response for c in trajectory.candidates}) == 15
    # what a server does with n is found out once for samples and once for updates
    assert len(server.requests) == trajectory.usage.requests == requests
    assert sum(r.get("n") or 1 for r in server.requests) == trajectory.usage.calls == calls
    assert trajectory.usage.prompt_tokens > 0


async def test_async_takes_the_same_requests(loopback):
    server = loopback(lambda request, number: f"answer {number}" * (number + 1))
    trajectory = await arun("hi", LiteLLMChat("openai/smol", api_base=server.url), LENGTH)
    assert len(server.requests) == 7 and trajectory.stop_reason == "depth"


def test_the_paper_s_sampling_settings_are_sent(loopback):
    server = loopback()
    run("hi", LiteLLMChat("openai/smol", api_base=server.url), LENGTH, TPOConfig(mode="bon", width=3, seed=4))
    [request] = server.requests
    wanted = {"n": 3, "temperature": 0.7, "top_p": 0.95, "max_tokens": 2048, "seed": 4 * 1_000_003}
    assert {key: request[key] for key in wanted} == wanted


def test_critic_and_editor_may_be_other_models(loopback):
    server = loopback(lambda request, number: f"answer {number}" * (number + 1))
    small, large, editor = (LiteLLMChat(f"openai/{name}", api_base=server.url) for name in ("small", "large", "editor"))
    run("hi", ChatPolicy(small, critic=large, editor=editor), LENGTH, TPOConfig(width=2, depth=1))
    assert [r["model"] for r in server.requests] == ["small", "large", "large", "editor"]


def test_log_probabilities_come_where_asked_for(loopback):
    server = loopback(lambda request, number: {"content": "Yes", "logprobs": [{"Yes": -0.1, "No": -2.5}]})
    [completion] = LiteLLMChat("openai/smol", api_base=server.url).chat(USER, logprobs=2)
    assert completion.logprobs[0] == pytest.approx({"Yes": -0.1, "No": -2.5})


def test_a_tool_call_is_no_candidate(loopback):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    server = loopback(lambda request, number: {"content": None, "tool_calls": [call]} if number == 0 else "text")
    trajectory = run("hi", LiteLLMChat("openai/smol", api_base=server.url), LENGTH, TPOConfig(mode="bon", width=2))
    assert [c.failure.reason for c in trajectory.failures] == ["tool_call"]


def test_an_unfinished_response_is_no_candidate(loopback):
    server = loopback(lambda request, number: "word " * (100 if number == 0 else 3))
    config = TPOConfig(mode="bon", width=2, max_response_tokens=10)
    trajectory = run("hi", LiteLLMChat("openai/smol", api_base=server.url), LENGTH, config)
    assert [c.failure.reason for c in trajectory.failures] == ["length"]


def test_a_server_that_is_not_there_is_named():
    gone = LiteLLMChat("openai/smol", api_base="http://127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(ModelError, match=r"openai/smol cannot be used at http://127\.0\.0\.1:9/v1"):
        gone.chat(USER)
    with pytest.raises(GenerationError, match="cannot be used at"):
        run("hi", gone, LENGTH, TPOConfig(width=2))


def test_a_model_without_a_provider_is_refused_before_anything_is_sampled():
    with pytest.raises(InvalidInputError, match=r"write provider/model, such as openai/gpt-9"):
        run("hi", "gpt-9", LENGTH)
    with pytest.raises(InvalidInputError, match="provider/model"):
        asyncio.run(arun("hi", "gpt-9", LENGTH))


def test_no_key_is_shown():
    assert "secret" not in repr(LiteLLMChat("openai/smol", api_key="secret"))
