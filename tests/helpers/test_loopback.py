"""The loopback server behaves as OpenAI-compatible servers do, seen through a real client."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import httpx
import openai
import pytest

from loopback import LoopbackServer

Start = Callable[..., LoopbackServer]
HELLO: Any = [{"role": "user", "content": "hello there"}]


def client(server: LoopbackServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)


def texts(server: LoopbackServer, **settings: Any) -> list[str]:
    answer: Any = client(server).chat.completions.create(model="smol", messages=HELLO, **settings)
    return [choice.message.content for choice in answer.choices]


def test_n_is_honoured_ignored_or_rejected_as_asked(loopback: Start) -> None:
    assert len(set(texts(loopback(), n=3))) == 3
    assert len(texts(loopback(n="ignore"), n=3)) == 1
    with pytest.raises(openai.BadRequestError, match="n must be 1"):
        texts(loopback(n="reject"), n=3)
    assert len(texts(loopback(n="reject"))) == 1


def test_answers_differ_each_time_unless_a_seed_or_temperature_0_fixes_them(loopback: Start) -> None:
    server = loopback()
    assert texts(server) != texts(server)
    assert texts(server, seed=1) == texts(server, seed=1) != texts(server, seed=2)
    assert texts(server, seed=1, n=2) == texts(server, seed=1, n=2)
    assert texts(server, temperature=0) == texts(server, temperature=0)


def test_the_script_sees_the_request_and_the_running_number(loopback: Start) -> None:
    server = loopback(lambda request, number: f"{number} {request['messages'][0]['content']}")
    assert texts(server, n=2) + texts(server) == ["0 hello there", "1 hello there", "2 hello there"]
    assert [r.get("n") for r in server.requests] == [2, None]


def test_a_long_answer_is_cut_at_the_limit_and_counted(loopback: Start) -> None:
    server = loopback(lambda request, number: "one two three")
    answer = client(server).chat.completions.create(model="smol", messages=HELLO, max_tokens=2, n=2)
    assert answer.choices[0].message.content == "one two" and answer.choices[0].finish_reason == "length"
    assert answer.usage is not None and (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 4)


def test_a_stream_carries_the_same_text_and_the_usage_if_asked(loopback: Start) -> None:
    server = loopback(lambda request, number: "one two  three")
    stream: Any = client(server).chat.completions.create(
        model="smol", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    *events, last = list(stream)
    assert "".join(e.choices[0].delta.content or "" for e in events) == "one two  three"
    assert events[-1].choices[0].finish_reason == "stop" and last.usage.completion_tokens == 3


def test_log_probabilities_are_the_scripted_ones_or_follow_from_the_text(loopback: Start) -> None:
    scripted = loopback(lambda request, number: {"content": "Yes", "logprobs": [{"Yes": -0.1, "No": -2.0}]})
    for server in (scripted, loopback()):
        answer = client(server).chat.completions.create(model="smol", messages=HELLO, logprobs=True, top_logprobs=5)
        assert answer.choices[0].logprobs is not None and answer.choices[0].logprobs.content is not None
        first = answer.choices[0].logprobs.content[0]
        assert {"Yes", "No"} <= {top.token for top in first.top_logprobs}
    assert texts(scripted) == ["Yes"]


def test_tool_calls_are_scripted(loopback: Start) -> None:
    server = loopback(lambda request, number: {"tool_calls": [{"name": "look_up", "arguments": {"x": 1}}]})
    answer: Any = client(server).chat.completions.create(model="smol", messages=HELLO)
    [call] = answer.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("look_up", '{"x": 1}')
    assert answer.choices[0].finish_reason == "tool_calls"


def test_a_response_format_is_met(loopback: Start) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {"enum": [4]}}},
    }
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    [text] = texts(loopback(), response_format=form)
    assert '"a": ' in text and '"b": [4]' in text


def test_failures_are_injected_then_over(loopback: Start) -> None:
    server = loopback(failures=[500, 200, 429])
    with pytest.raises(openai.InternalServerError):
        texts(server)
    assert texts(server)
    with pytest.raises(openai.RateLimitError):
        texts(server)
    assert texts(server) and len(server.requests) == 4
    with pytest.raises(openai.AuthenticationError, match="who are you"):
        texts(loopback(lambda request, number: (401, {"error": {"message": "who are you"}})))


def test_requests_overlap_and_the_most_at_once_is_counted(loopback: Start) -> None:
    all_there = Barrier(4, timeout=60)

    def answer(request: Any, number: int) -> str:
        all_there.wait()
        return f"answer {number}"

    server = loopback(answer)
    with ThreadPoolExecutor(4) as pool:
        assert len({tuple(found) for found in pool.map(lambda _: texts(server), range(4))}) == 4
    assert server.max_in_flight == 4


def test_the_model_is_listed_and_other_paths_are_not_found(loopback: Start) -> None:
    server = loopback(model="tiny")
    with httpx.Client() as http:  # one connection, kept alive
        assert http.get(f"{server.url}/models").json()["data"][0]["id"] == "tiny"
        assert http.get(f"{server.url}/nothing").status_code == 404
        assert http.post(f"{server.url}/chat/completions", content="{").status_code == 400
