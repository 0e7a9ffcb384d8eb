"""Chat models over the network, on both clients, against a real server on this machine."""

from __future__ import annotations

import asyncio
import pickle

import pytest

from tpo_core import (
    ChatPolicy,
    GenerationError,
    InvalidInputError,
    LiteLLMChat,
    ModelError,
    OpenAIChat,
    TPOConfig,
    arun,
    run,
)
from tpo_core.models.resolving import as_chat
from tpo_core.rewards import FunctionReward

LENGTH = FunctionReward(lambda prompt, response: float(len(response)))
USER = [{"role": "user", "content": "hi"}]


@pytest.fixture(params=[LiteLLMChat, OpenAIChat], ids=["litellm", "openai"])
def served(request):
    """Return the class of a chat model."""
    return request.param


@pytest.mark.parametrize(("n", "requests", "calls"), [("honour", 7, 19), ("ignore", 19, 27), ("reject", 21, 29)])
def test_a_run_takes_as_few_requests_as_the_server_allows(served, loopback, n, requests, calls):
    server = loopback(lambda request, number: f"answer {number}" * (number + 1), n=n)
    policy = served("openai/smol", api_base=server.url, max_retries=0)
    trajectory = run("hi", ChatPolicy(policy), LENGTH, TPOConfig())
    assert len({c.response for c in trajectory.candidates}) == 15
    # what a server does with n is found out once for samples and once for updates
    assert len(server.requests) == trajectory.usage.requests == requests
    assert sum(r.get("n") or 1 for r in server.requests) == trajectory.usage.calls == calls
    assert trajectory.usage.prompt_tokens > 0


async def test_async_takes_the_same_requests(served, loopback):
    server = loopback(lambda request, number: f"answer {number}" * (number + 1))
    trajectory = await arun("hi", served("openai/smol", api_base=server.url), LENGTH)
    assert len(server.requests) == 7 and trajectory.stop_reason == "depth"


def sampling(request):
    return {key: request[key] for key in ("n", "temperature", "top_p", "max_tokens", "seed") if key in request}


def test_the_paper_s_sampling_settings_are_sent_where_they_are_asked_for(served, loopback):
    server = loopback()
    run("hi", served("openai/smol", api_base=server.url), LENGTH, TPOConfig.paper(mode="bon", width=3, seed=4))
    wanted = {"n": 3, "temperature": 0.7, "top_p": 0.95, "max_tokens": 2048, "seed": 4 * 1_000_003}
    assert [sampling(r) for r in server.requests] == [wanted]


def test_by_default_a_temperature_is_sent_and_never_top_p_beside_it(served, loopback):
    """Anthropic answers 400 to both; a token limit would cut models that think."""
    server = loopback()
    run("hi", served("openai/smol", api_base=server.url), LENGTH, TPOConfig(mode="bon", width=3))
    assert [sampling(r) for r in server.requests] == [{"n": 3, "temperature": 0.7}]


def test_what_none_leaves_to_the_model_is_what_its_owner_set(served, loopback):
    server, own = loopback(), {"temperature": 0.2, "top_p": 0.5, "max_tokens": 77}
    config = TPOConfig(mode="bon", width=3, temperature=None)
    run("hi", served("openai/smol", api_base=server.url, **own), LENGTH, config)
    assert [sampling(r) for r in server.requests] == [{"n": 3, **own}]


def refusing(*names, together=False):
    """Return an answer that refuses settings as OpenAI does, or, as Anthropic does, one beside another."""

    def answer(request, number):
        sent = [name for name in names if name in request]
        if together and len(sent) > 1:
            return 400, {"error": {"message": f"`{sent[0]}` and `{sent[1]}` cannot both be specified for this model."}}
        if sent and not together:
            message = f"Unsupported value: '{sent[0]}' does not support {request[sent[0]]} with this model."
            return 400, {"error": {"message": message, "param": sent[0], "code": "unsupported_value"}}
        return f"answer {number}"

    return answer


async def test_settings_that_a_model_refuses_are_left_out_and_from_then_on_not_sent(served, loopback):
    server = loopback(refusing("temperature", "top_p", "seed"))
    chat = served("openai/smol", api_base=server.url, max_retries=0)
    settings = {"temperature": 0.7, "top_p": 0.95, "seed": 5, "max_tokens": 9}
    assert (await chat.achat(USER, **settings))[0].text == "answer 3"
    assert [sorted(sampling(r)) for r in server.requests] == [
        ["max_tokens", "seed", "temperature", "top_p"],
        ["max_tokens", "seed", "top_p"],
        ["max_tokens", "seed"],
        ["max_tokens"],
    ]
    server.clear()
    assert chat.chat(USER, **settings)[0].text and [sampling(r) for r in server.requests] == [{"max_tokens": 9}]


def test_of_two_settings_that_are_refused_together_the_temperature_stays(served, loopback):
    server = loopback(refusing("temperature", "top_p", together=True))
    trajectory = run("hi", served("openai/smol", api_base=server.url), LENGTH, TPOConfig.paper(mode="bon", width=3))
    assert not trajectory.failures
    assert [sorted(sampling(r)) for r in server.requests] == [
        ["max_tokens", "n", "temperature", "top_p"],
        ["max_tokens", "n", "temperature"],
    ]


def test_a_refusal_for_another_reason_is_raised_and_teaches_nothing(served, loopback):
    server = loopback(lambda request, number: (400, {"error": {"message": f"bad prompt in {request}"}}))
    chat = served("openai/smol", api_base=server.url, max_retries=0)
    for _ in range(2):
        server.clear()
        with pytest.raises(Exception, match="bad prompt"):
            chat.chat(USER, temperature=0.7)
        assert [sampling(r) for r in server.requests] == [{"temperature": 0.7}, {}]  # it named what was sent


def test_what_litellm_refuses_by_itself_is_not_sent_and_nothing_is_printed(loopback, capfd):
    server = loopback()
    chat = LiteLLMChat("openai/gpt-5-mini", api_base=server.url)
    trajectory = run("hi", chat, LENGTH, TPOConfig.paper(mode="bon", width=3, max_response_tokens=None))
    assert [sampling(r) for r in server.requests] == [{"n": 3}] and not trajectory.failures
    assert capfd.readouterr().out == ""


def test_critic_and_editor_may_be_other_models(served, loopback):
    server = loopback(lambda request, number: f"answer {number}" * (number + 1))
    small, large, editor = (served(f"openai/{name}", api_base=server.url) for name in ("small", "large", "editor"))
    run("hi", ChatPolicy(small, critic=large, editor=editor), LENGTH, TPOConfig(width=2, depth=1))
    assert [r["model"] for r in server.requests] == ["small", "large", "large", "editor"]


def test_log_probabilities_come_where_asked_for(served, loopback):
    server = loopback(lambda request, number: {"content": "Yes", "logprobs": [{"Yes": -0.1, "No": -2.5}]})
    [completion] = served("openai/smol", api_base=server.url).chat(USER, logprobs=2)
    assert completion.logprobs[0] == pytest.approx({"Yes": -0.1, "No": -2.5})


def test_a_tool_call_is_no_candidate(served, loopback):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    server = loopback(lambda request, number: {"content": None, "tool_calls": [call]} if number == 0 else "text")
    trajectory = run("hi", served("openai/smol", api_base=server.url), LENGTH, TPOConfig(mode="bon", width=2))
    assert [c.failure.reason for c in trajectory.failures] == ["tool_call"]


def test_an_unfinished_response_is_no_candidate(served, loopback):
    server = loopback(lambda request, number: "word " * (100 if number == 0 else 3))
    config = TPOConfig(mode="bon", width=2, max_response_tokens=10)
    trajectory = run("hi", served("openai/smol", api_base=server.url), LENGTH, config)
    assert [c.failure.reason for c in trajectory.failures] == ["length"]


def test_a_server_that_is_not_there_is_named(served):
    gone = served("openai/smol", api_base="http://127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(ModelError, match=r"openai/smol cannot be used at http://127\.0\.0\.1:9/v1"):
        gone.chat(USER)
    with pytest.raises(GenerationError, match="cannot be used at"):
        run("hi", gone, LENGTH, TPOConfig(width=2))


def test_a_model_without_a_provider_is_refused_before_anything_is_sampled():
    with pytest.raises(InvalidInputError, match=r"write provider/model, such as openai/gpt-9"):
        run("hi", "gpt-9", LENGTH)
    with pytest.raises(InvalidInputError, match="provider/model"):
        asyncio.run(arun("hi", "gpt-9", LENGTH))


def test_no_key_is_shown(served):
    assert "secret" not in repr(served("openai/smol", api_key="secret"))


@pytest.mark.parametrize(
    ("base", "field"), [(None, "max_tokens"), ("https://api.openai.com/v1", "max_completion_tokens")]
)
def test_the_limit_goes_by_the_name_that_the_address_knows(base, field, loopback):
    chat = OpenAIChat("smol", api_base=base or loopback().url)
    assert chat._given({"messages": USER, "max_tokens": 5})["body"][field] == 5


def test_settings_of_a_request_go_where_openais_client_puts_them(loopback):
    server = loopback(lambda request, number: str(request.get("top_k")))
    beside = {"extra_body": {"top_k": 7}, "extra_headers": {"x-tenant": "a"}, "extra_query": {"version": "1"}}
    with pytest.raises(ModelError, match=r"/v1/chat/completions\?version=1"):  # loopback knows no query strings
        OpenAIChat("smol", api_base=server.url, max_retries=0, **beside).chat(USER)
    [said] = OpenAIChat("smol", api_base=server.url, stop=["."], extra_body={"top_k": 7}).chat(USER)
    assert said.text == "7" and server.requests[-1]["stop"] == ["."] and server.requests[-1]["model"] == "smol"


def test_a_setting_that_openais_client_does_not_know_is_refused_before_it_is_asked(loopback):
    server = loopback()
    with pytest.raises(InvalidInputError, match=r"takes no tmeperature, top_k; .* extra_body="):
        OpenAIChat("smol", api_base=server.url, tmeperature=1.0, top_k=7).chat(USER)
    assert not server.requests


def test_what_the_client_asked_again_is_counted(loopback):
    server = loopback(failures=[503])
    [completion] = OpenAIChat("smol", api_base=server.url, max_retries=1).chat(USER)
    assert completion.usage.requests == len(server.requests) == 2


def test_an_answer_without_choices_is_no_completion(served, loopback):
    server = loopback(lambda request, number: (200, {"id": "1", "object": "chat.completion", "choices": []}))
    assert served("openai/smol", api_base=server.url, max_retries=0).chat(USER) == []


def test_without_a_key_openai_is_not_asked(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ModelError, match="set OPENAI_API_KEY"):
        OpenAIChat("gpt-4o-mini").chat(USER)


def test_one_object_serves_several_event_loops_and_threads(loopback):
    chat = OpenAIChat("smol", api_base=loopback().url)

    async def together():
        return await asyncio.gather(*(chat.achat(USER) for _ in range(8)))

    for _ in range(3):
        assert len(asyncio.run(together())) == 8
        assert chat.chat(USER)[0].text


def test_models_that_differ_share_connections_and_nothing_else(loopback):
    one, two = loopback(lambda request, number: "one"), loopback(lambda request, number: "two")
    models = [OpenAIChat("a", api_base=one.url, api_key="first"), OpenAIChat("b", api_base=two.url, timeout=5)]
    assert [m.chat(USER)[0].text for m in models for _ in range(2)] == ["one", "one", "two", "two"]
    assert [r["model"] for r in one.requests + two.requests] == ["a", "a", "b", "b"]


def test_a_model_is_pickled_without_its_connections(loopback):
    chat = OpenAIChat("smol", api_base=loopback().url)
    chat.chat(USER)
    assert pickle.loads(pickle.dumps(chat)).chat(USER)[0].text  # noqa: S301 - our own


def test_a_model_string_of_openai_is_asked_through_its_own_client():
    assert isinstance(as_chat("openai/gpt-4o-mini"), OpenAIChat)
    assert isinstance(as_chat("anthropic/claude-sonnet-4-5"), LiteLLMChat)
