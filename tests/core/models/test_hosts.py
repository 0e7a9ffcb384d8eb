"""The hosts' own models as a run's policy, through their real clients."""

from __future__ import annotations

from typing import Any

import dspy
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_openai import ChatOpenAI

from loopback import LoopbackServer
from tpo_core import InvalidInputError, TPOConfig, arun, run, run_many
from tpo_core.models.openai_chat import OpenAIChat
from tpo_core.models.resolving import as_chat


def langchain_model(server: LoopbackServer, **settings: Any) -> Any:
    return ChatOpenAI(model="smol", base_url=server.url, api_key="none", **settings)


def dspy_lm(server: LoopbackServer, **settings: Any) -> Any:
    return dspy.LM("openai/smol", api_base=server.url, api_key="none", **settings)


def bound(server: LoopbackServer, **settings: Any) -> Any:
    return langchain_model(server, **settings).bind(stop=["END"])


HOSTS = [langchain_model, dspy_lm, bound]


def longer(prompt: Any, response: str) -> float:
    return len(response)


def says(request: dict[str, Any], number: int) -> str:
    return f"Answer {number}: " + "d" * number


@pytest.mark.parametrize("host", HOSTS)
async def test_a_host_s_model_is_a_run_s_policy_sync_and_async_and_of_many(loopback: Any, host: Any) -> None:
    server: LoopbackServer = loopback(says)
    model, config = host(server), TPOConfig(width=2, depth=1)
    for trajectory in (
        run("ha", model, longer, config),
        await arun("he", model, longer, config),
        *run_many(["hi", "ho"], model, longer, config),
    ):
        assert trajectory.stop_reason == "depth" and len(trajectory.candidates) == 4
        assert trajectory.best.response.startswith("Answer") and trajectory.usage.tokens > 0
        assert trajectory.usage.calls == trajectory.usage.requests == 6


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_s_model_is_sent_the_messages_and_the_run_s_sampling_settings(loopback: Any, host: Any) -> None:
    server: LoopbackServer = loopback(says)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    run(messages, host(server), longer, TPOConfig(mode="bon", width=1, temperature=0.3, max_response_tokens=77, seed=5))
    [request] = server.requests
    assert [(m["role"], m["content"]) for m in request["messages"]] == [("system", "Be brief."), ("user", "hi")]
    assert request["temperature"] == 0.3 and request["seed"] == 5_000_015
    assert 77 in (request.get("max_tokens"), request.get("max_completion_tokens"))


@pytest.mark.parametrize("host", HOSTS)
def test_samples_stay_several_where_the_host_caches(loopback: Any, host: Any) -> None:
    server: LoopbackServer = loopback(says)
    set_llm_cache(InMemoryCache())
    try:
        trajectory = run("cached?", host(server, temperature=0.5), longer, TPOConfig(mode="bon", width=4))
    finally:
        set_llm_cache(None)
    assert len({c.response for c in trajectory.candidates}) == 4


@pytest.mark.parametrize("host", HOSTS)
def test_an_answer_that_was_cut_off_is_no_candidate(loopback: Any, host: Any) -> None:
    def cut(request: dict[str, Any], number: int) -> Any:
        return {"content": "d" * (9 - number), "finish_reason": "length" if number == 0 else "stop"}

    trajectory = run("cut", host(loopback(cut)), longer, TPOConfig(mode="bon", width=2), max_concurrency=1)
    assert sorted(c.failure.reason if c.failure else "" for c in trajectory.candidates) == ["", "length"]


def test_a_chat_model_stays_what_it_is_and_what_is_none_is_refused_by_name() -> None:
    model = OpenAIChat("smol")
    assert as_chat(model) is model
    with pytest.raises(InvalidInputError, match=r"^policy must be a chat model, a dspy\.LM"):
        run("hi", object(), longer)  # type: ignore[arg-type]
