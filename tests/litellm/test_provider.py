"""litellm on both sides: its models under LangChain, and the loop as one of its providers, its proxy included."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import httpx
import litellm
import openai
import pytest
from langchain_core.output_parsers import StrOutputParser

from loopback import LoopbackServer
from tpo_core import InvalidInputError, TPOConfig
from tpo_langchain import ChatTPO, RunnableTPO
from tpo_litellm import TPOHandler, register

HOW: Any = [{"role": "system", "content": "Answer in English."}, {"role": "user", "content": "how?"}]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]


def checksum(prompt: Any, response: str) -> float:
    return sum(map(ord, response)) % 1009


@pytest.fixture
def tpo() -> Iterator[TPOHandler]:
    yield register(checksum, TPOConfig(width=3, depth=1))
    litellm.custom_provider_map = []


async def ask(way: str, **settings: Any) -> Any:
    asked = {"model": "tpo/openai/smol", "messages": HOW, "num_retries": 0, **settings}
    return await litellm.acompletion(**asked) if way == "acompletion" else litellm.completion(**asked)


async def drained(way: str, **settings: Any) -> list[Any]:
    stream = await ask(way, **settings)
    return list(stream) if way == "completion" else [chunk async for chunk in stream]


def where(server: LoopbackServer) -> dict[str, Any]:
    return {"api_base": server.url, "api_key": "none"}


# -- LangChain over litellm -----------------------------------------------------------------------------------------


async def test_any_litellm_model_string_works_through_langchain(loopback: Any) -> None:
    ChatLiteLLM = pytest.importorskip("langchain_litellm").ChatLiteLLM  # for Python 3.11 and later
    server = loopback()
    model = ChatLiteLLM(model="openai/smol", **where(server))
    refined = RunnableTPO(model | StrOutputParser(), reward=checksum, width=3, depth=1, return_trajectory=True)
    for trajectory in (refined.invoke("how?"), await refined.ainvoke("how?")):
        assert len({c.response for c in trajectory.candidates}) == 6 and not trajectory.failures
        assert trajectory.usage.prompt_tokens > 0
    assert ChatTPO(llm=model, reward=checksum, width=2, depth=0).invoke("how?").text


# -- litellm over the loop ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["completion", "acompletion"])
async def test_a_completion_is_the_best_of_the_loop(loopback: Any, tpo: Any, way: str) -> None:
    server = loopback()
    response = await ask(way, **where(server), temperature=0.3, max_tokens=77)
    assert [r.get("n") for r in server.requests] == [3, None, None, 3]
    assert {r["temperature"] for r in server.requests} == {0.3} and {r["max_tokens"] for r in server.requests} == {77}
    said, told = response.choices[0].message.content, response.choices[0].message.provider_specific_fields["tpo"]
    assert told["reward"] == checksum("", said) >= told["initial_reward"]
    assert told["usage"]["calls"] == 8 and response.usage.total_tokens > 100 and response.model.endswith("smol")


@pytest.mark.parametrize("way", ["completion", "acompletion"])
async def test_n_brings_the_n_best_and_the_loop_is_set_per_request(loopback: Any, tpo: Any, way: str) -> None:
    response = await ask(way, **where(loopback()), n=4, tpo_depth=0)
    texts = [choice.message.content for choice in response.choices]
    assert len(set(texts)) == 4 and texts == sorted(texts, key=lambda text: -checksum("", text))


@pytest.mark.parametrize("way", ["completion", "acompletion"])
async def test_the_answer_is_streamed_with_its_usage(loopback: Any, tpo: Any, way: str) -> None:
    chunks = await drained(way, **where(loopback()), stream=True, stream_options={"include_usage": True})
    texts = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert len(texts) > 3 and "".join(texts).startswith("Answer ")
    assert any(getattr(c, "usage", None) and c.usage.total_tokens > 100 for c in chunks)
    server = loopback()
    with pytest.raises(litellm.BadRequestError, match="n must be 1 with stream"):
        await drained(way, **where(server), stream=True, n=2)
    assert not server.requests


@pytest.mark.parametrize("way", ["completion", "acompletion"])
@pytest.mark.parametrize("n", [-2, 0, 1.5, True, "two"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_count_that_is_none_is_refused_before_anything_is_asked(
    tpo: TPOHandler, loopback: Any, way: str, n: Any, stream: bool
) -> None:
    server = loopback()
    with pytest.raises(litellm.BadRequestError, match="n must be an integer of at least 1"):
        await drained(way, **where(server), n=n, stream=stream)
    assert not server.requests


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_call_passes_through_for_one_request(loopback: Any, tpo: Any, stream: bool) -> None:
    server = loopback(lambda request, number: {"tool_calls": [{"name": "look", "arguments": {}}] * 2})
    asked = {"model": "tpo/openai/smol", "messages": HOW, "tools": TOOLS, **where(server)}
    response = litellm.completion(**asked, stream=stream)
    if stream:
        response = litellm.stream_chunk_builder(list(response))
    assert [call.function.name for call in response.choices[0].message.tool_calls] == ["look"] * 2
    assert response.choices[0].finish_reason == "tool_calls" and len(server.requests) == 1


def test_with_tools_the_answer_in_words_is_refined_and_its_first_sample_kept(loopback: Any, tpo: Any) -> None:
    server = loopback()
    response = litellm.completion(model="tpo/openai/smol", messages=HOW, tools=TOOLS, **where(server))
    assert response.choices[0].message.provider_specific_fields["tpo"]["usage"]["calls"] == 8
    assert [(r.get("n"), "tools" in r) for r in server.requests] == [
        (None, True), (2, True), (None, False), (None, False), (3, False)]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, litellm.AuthenticationError),
        (404, litellm.NotFoundError),
        (429, litellm.RateLimitError),
        (400, litellm.BadRequestError),
        (503, litellm.ServiceUnavailableError),
    ],
)
async def test_the_models_errors_are_litellms(loopback: Any, tpo: Any, status: int, kind: Any) -> None:
    server = loopback(lambda request, number: (status, {"error": {"message": "no", "code": status}}))
    for way in ("completion", "acompletion"):
        with pytest.raises(kind):
            await ask(way, **where(server), max_retries=0)


def test_a_wrong_setting_is_a_bad_request_before_any_call(loopback: Any, tpo: Any) -> None:
    server = loopback()
    for setting in ({"tpo_width": 0}, {"tpo_wide": 3}):
        with pytest.raises(litellm.BadRequestError, match="|".join(setting)[4:]):
            litellm.completion(model="tpo/openai/smol", messages=HOW, **where(server), **setting)
    assert not server.requests


def test_the_owner_says_what_requests_may_set(loopback: Any) -> None:
    server = loopback()
    register(checksum, TPOConfig(width=2, depth=0), adjustable=["depth"])
    asked = {"model": "tpo/openai/smol", "messages": HOW, **where(server)}
    for setting, word in (({"tpo_width": 3}, "tpo_width"), ({"n": 3}, "n must be at most 2")):
        with pytest.raises(litellm.BadRequestError, match=word):
            litellm.completion(**asked, **setting)
    assert not server.requests
    assert litellm.completion(**asked, tpo_depth=1).choices[0].message.content
    assert [r.get("n") for r in server.requests] == [2, None, None, 2]
    litellm.custom_provider_map = []
    with pytest.raises(InvalidInputError, match="adjustable names wide"):
        TPOHandler(checksum, adjustable=["wide"])


@pytest.mark.parametrize("tools", [{}, {"tools": TOOLS}])
@pytest.mark.parametrize(
    ("model", "asked", "sent"),
    [
        ("smol", {}, {"temperature": 0.7}),
        ("smol", {"temperature": 0.2, "top_p": 0.5}, {"temperature": 0.2, "top_p": 0.5}),
        ("gpt-5-mini", {}, {}),
    ],
)
def test_the_sampling_settings_are_the_engine_s_unless_a_request_says_otherwise(
    loopback: Any, model: str, asked: Any, sent: Any, tools: Any
) -> None:
    server = loopback()
    register(checksum)
    litellm.completion(model=f"tpo/openai/{model}", messages=HOW, tpo_depth=0, **where(server), **asked, **tools)
    litellm.custom_provider_map = []
    for request in server.requests:
        assert {k: request[k] for k in ("temperature", "top_p", "max_tokens") if k in request} == sent


def test_without_a_reward_the_model_judges_itself(loopback: Any) -> None:
    register()
    server = loopback()
    response = litellm.completion(model="tpo/openai/smol", messages=HOW, tpo_width=2, tpo_depth=0, **where(server))
    assert response.choices[0].message.content.startswith("Answer") and len(server.requests) >= 3
    litellm.custom_provider_map = []


def test_langchain_reaches_it_by_its_litellm_model(loopback: Any, tpo: Any) -> None:
    model = pytest.importorskip("langchain_litellm").ChatLiteLLM
    assert model(model="tpo/openai/smol", **where(loopback())).invoke("how?").text


def test_other_providers_and_whatever_calls_litellm_reach_it(loopback: Any, tpo: Any) -> None:
    server = loopback()
    register(checksum, TPOConfig(mode="bon", width=2), provider="bon")
    assert litellm.completion(model="bon/openai/smol", messages=HOW, **where(server)).choices[0].message.content
    assert len(server.requests) == 1
    router = litellm.Router([{"model_name": "best", "litellm_params": {"model": "tpo/openai/smol", **where(server)}}])
    answer = router.completion(model="best", messages=HOW)
    assert answer.choices[0].message.provider_specific_fields["tpo"]["usage"]["calls"] == 8
    [text] = dspy.LM("tpo/openai/smol", cache=False, **where(server))("how?")
    assert str(text).startswith("Answer")


# -- the proxy --------------------------------------------------------------------------------------------------------

KEY = "sk-tpo-test-0123456789abcdef0123456789abcdef"
NEEDS = ("fastapi", "apscheduler", "backoff", "uvloop", "fastapi_sso", "orjson")
MISSING = [name for name in NEEDS if importlib.util.find_spec(name) is None]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: Any) -> Iterator[str]:
    """Start litellm's own proxy over a loopback server, from the config that docs/litellm.md shows."""
    folder: Path = tmp_path_factory.mktemp("proxy")
    text = (Path(__file__).parents[2] / "docs" / "litellm.md").read_text()
    with LoopbackServer() as server:
        for name, fence in (
            ("tpo_proxy.py", "```python no-run\n# tpo_proxy.py"),
            ("config.yaml", "```yaml\n# config.yaml"),
        ):
            block = text[text.index(fence) :].split("\n", 1)[1].split("```")[0]
            (folder / name).write_text(block.replace("http://127.0.0.1:8080/v1", server.url))
        with httpx.Client() as http, (folder / "log").open("w") as log:
            port = _free_port()
            command = [str(Path(sys.executable).parent / "litellm"), "--config", "config.yaml", "--host", "127.0.0.1"]
            env = {**os.environ, "LITELLM_MASTER_KEY": KEY}
            process = subprocess.Popen([*command, "--port", str(port)], cwd=folder, env=env, stdout=log, stderr=log)
            try:
                url = f"http://127.0.0.1:{port}"
                _wait(http, f"{url}/health/liveliness", process, folder / "log")
                yield f"{url}/v1"
            finally:
                process.terminate()
                process.wait(20)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(http: httpx.Client, url: str, process: Any, log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        try:
            if http.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)  # nothing to wait on in another process but its port
    pytest.fail(f"the proxy did not start:\n{log.read_text()[-2000:]}")


@pytest.mark.skipif(bool(MISSING), reason=f"litellm[proxy] is not installed: {', '.join(MISSING)}")
def test_any_openai_client_gets_refined_answers_from_the_proxy(proxy: str) -> None:
    client = openai.OpenAI(base_url=proxy, api_key=KEY, max_retries=0)
    assert "refined" in [model.id for model in client.models.list()]
    answer: Any = client.chat.completions.create(model="refined", messages=HOW, n=2, extra_body={"tpo_width": 2})
    assert len({choice.message.content for choice in answer.choices}) == 2
    told = answer.choices[0].message.provider_specific_fields["tpo"]
    assert (
        told["usage"]["calls"] == 2 + 2 and answer.usage.total_tokens > 0
    )  # equal rewards: no contrast, asked once more
    stream: Any = client.chat.completions.create(model="refined", messages=HOW, stream=True)
    texts = [c.choices[0].delta.content for c in stream if c.choices and c.choices[0].delta.content]
    assert len(texts) > 3 and "".join(texts).startswith("Answer ")
    with pytest.raises(openai.BadRequestError, match="width"):
        client.chat.completions.create(model="refined", messages=HOW, extra_body={"tpo_width": 0})
