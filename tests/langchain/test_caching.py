"""Refined answers in LLM caches: kept under all that they follow from, or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from file_cache import FileCache
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import ConfigurableField
from langchain_openai import ChatOpenAI

from tpo_core import InvalidInputError
from tpo_core.rewards import FunctionReward, JudgeReward
from tpo_langchain import ChatTPO, SaltedCache, TunedPrompt

SECRET = "sk-SECRET-7731"


def longest(prompt: Any, response: str) -> float:
    return len(response)


def count(messages: Any, number: int) -> str:
    return "x" * (number + 1)


def refined(chat: Any, reward: Any, **settings: Any) -> str:
    return str(ChatTPO(llm=chat, reward=reward, **{"width": 3, "depth": 0, **settings}).invoke("how?").text)


def test_two_lambdas_do_not_serve_each_others_answers(chat: Any) -> None:
    set_llm_cache(InMemoryCache())
    model = chat(answer=count)
    assert refined(model, lambda prompt, response: len(response)) == "xxx"
    assert refined(model, lambda prompt, response: -len(response)) == "x"


def test_two_judges_with_other_rubrics_do_not_serve_each_others_answers(chat: Any, loopback: Any) -> None:
    def judge(request: Any, number: int) -> str:
        asked = request["messages"][1]["content"]
        length = asked.split("<response>")[1].count("x")
        return str(length if "be long" in asked else 9 - length)

    set_llm_cache(InMemoryCache())
    llm = ChatOpenAI(model="judge", base_url=loopback(answer=judge).url, api_key="none")
    model = chat(answer=count)
    assert refined(model, JudgeReward(llm, rubric="be long", logprobs="never")) == "xxx"
    assert refined(model, JudgeReward(llm, rubric="be short", logprobs="never")) == "x"


def test_a_reward_that_cannot_be_named_costs_no_model_call_again_but_is_asked_again(chat: Any) -> None:
    set_llm_cache(InMemoryCache())
    model, asked = chat(answer=count), []

    def reward(prompt: Any, response: str) -> float:
        asked.append(response)
        return len(response)

    assert refined(model, reward) == refined(model, reward) == "xxx"
    assert model.calls == 3 and len(asked) == 6


def test_a_reward_with_a_name_is_not_asked_again(chat: Any) -> None:
    set_llm_cache(InMemoryCache())
    model, asked = chat(answer=count), []

    def reward(prompt: Any, response: str) -> float:
        asked.append(response)
        return len(response)

    named = FunctionReward(reward, cache_key="length, 1")
    assert refined(model, named) == refined(model, named) == "xxx"
    assert model.calls == 3 and len(asked) == 3
    assert refined(model, FunctionReward(reward, cache_key="length, 2")) == "xxx" and len(asked) == 6


@pytest.mark.parametrize("change", ["reward", "llm", "critic", "prompts", "settings", "stop"])
def test_an_answer_is_kept_under_all_that_it_follows_from(chat: Any, loopback: Any, change: str) -> None:
    def model(**settings: Any) -> Any:
        return ChatOpenAI(model="smol", base_url="http://127.0.0.1:9/v1", api_key="none", **settings)

    whole: dict[str, Any] = {"llm": model(), "reward": longest}
    other: dict[str, Any] = {
        "reward": FunctionReward(longest, kind="args"),
        "llm": model(temperature=0.3),
        "critic": model(),
        "prompts": {"loss": TunedPrompt("Compare them.")},
        "settings": 3,
        "stop": ["."],
    }
    changed = {**whole, **({"width": 3} if change == "settings" else {change: other[change]})}
    keys = [ChatTPO(**given).answer_key() for given in (whole, whole, changed)]
    assert keys[0] == keys[1] and None not in keys and keys[2] != keys[0]
    bound = ChatTPO(**whole)
    assert bound.answer_key(tools=["a"]) not in (keys[0], bound.answer_key(tools=["b"]))


def test_what_a_call_configures_is_part_of_the_name(chat: Any) -> None:
    set_llm_cache(InMemoryCache())
    model = chat(answer=count, cache=False)
    chain = ChatTPO(llm=model, reward=longest, width=3, depth=0) | StrOutputParser()
    assert chain.invoke("how?") == "xxx"
    assert chain.invoke("how?", {"configurable": {"tpo_width": 2}}) == "xxxxx"
    assert chain.invoke("how?") == "xxx"


def test_a_model_that_a_call_may_configure_is_not_cached_whole(chat: Any) -> None:
    llm = chat(answer=count).configurable_fields(temperature=ConfigurableField(id="t"))
    assert ChatTPO(llm=llm, reward=longest).answer_key() is None
    fixed = chat(answer=count)
    assert ChatTPO(llm=fixed.with_retry(), reward=longest).answer_key() is not None
    assert ChatTPO(llm=fixed.with_fallbacks([llm]), reward=longest).answer_key() is None
    assert ChatTPO(llm=ChatTPO(llm=fixed, reward=lambda p, r: 1.0), reward=longest).answer_key() is None


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_an_answer_that_an_outage_cut_short_is_not_kept(chat: Any, way: str) -> None:
    out = [True]

    def reward(prompt: Any, response: str) -> float:
        if len(response) > 3 and out[0]:
            raise ConnectionError("the reward is out")
        return len(response)

    def answer(messages: Any, number: int) -> str:
        return "x" * (number + 1) if len(messages) == 1 else "a much longer answer"

    set_llm_cache(InMemoryCache())
    named = FunctionReward(reward, cache_key="length")
    model = ChatTPO(llm=chat(answer=answer, cache=False), reward=named, width=2, depth=1)
    first = await model.ainvoke("how?") if way == "ainvoke" else model.invoke("how?")
    assert first.text == "xx" and first.response_metadata["tpo"]["stop_reason"] == "reward_failed"
    out[0] = False
    second = await model.ainvoke("how?") if way == "ainvoke" else model.invoke("how?")
    assert second.text == "a much longer answer"


def test_a_cache_that_was_asked_for_needs_a_reward_with_a_name(chat: Any) -> None:
    with pytest.raises(InvalidInputError, match="cache_key"):
        ChatTPO(llm=chat(answer=count), reward=lambda p, r: 1.0, cache=InMemoryCache())
    assert ChatTPO(llm=chat(answer=count), reward=longest, cache=InMemoryCache()).answer_key() is not None


PROGRAM = """
import sys
sys.path[:0] = [{tests!r}, {here!r}]
from file_cache import FileCache
from langchain_core.globals import set_llm_cache
from langchain_openai import ChatOpenAI
from test_caching import longest
from tpo_core.rewards import JudgeReward
from tpo_langchain import ChatTPO
set_llm_cache(FileCache(sys.argv[1]))
headers = {{"X-Tenant": "{secret}"}}
def model(**more):
    return ChatOpenAI(model="smol", base_url=sys.argv[2], api_key="{secret}", default_headers=headers, **more)
judge = JudgeReward(model(cache=False), rubric="be good", logprobs="never")
for reward in (longest, judge):
    print(ChatTPO(llm=model(cache=False), reward=reward, width=2, depth=1).invoke("how?").text)
print(ChatTPO(llm=model(), reward=lambda prompt, response: len(response), width=2, depth=0).invoke("how?").text)
"""


def test_another_process_finds_the_answers_and_no_secret_is_in_the_file(loopback: Any, tmp_path: Path) -> None:
    def answer(request: Any, number: int) -> str:
        return "7" if "grade" in request["messages"][0]["content"] else f"said {number}"

    server, path = loopback(answer=answer), tmp_path / "cache.sqlite"
    here = Path(__file__).parent
    program = PROGRAM.format(tests=str(here.parent / "helpers"), here=str(here), secret=SECRET)
    told = []
    for _ in range(2):
        command = [sys.executable, "-c", program, str(path), server.url]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        told.append((ran.stdout, len(server.requests)))
    assert told[0][0] == told[1][0] and 0 < told[0][1] == told[1][1]
    assert SECRET.encode() not in path.read_bytes()
    assert FileCache(path)._do("SELECT count(*) FROM entries")[0][0] >= 3


def test_traces_show_nothing_secret_of_it(tree: Any, loopback: Any) -> None:
    llm = ChatOpenAI(
        model="smol", base_url=loopback().url, api_key=SECRET, default_headers={"X-Tenant": SECRET}, cache=False
    )
    ChatTPO(llm=llm, reward=longest, width=2, depth=0).invoke("how?", {"callbacks": [tree]})
    shown = tree.root.extra["invocation_params"]
    assert SECRET not in str(shown) and shown["width"] == 2 and shown["llm"] == "ChatOpenAI"


def test_the_salt_of_a_sample_stands_beside_a_digest(chat: Any) -> None:
    base = InMemoryCache()
    SaltedCache(SaltedCache(base, "1"), "2").update("p", f"headers {SECRET}", ["v"])  # type: ignore[list-item]
    [(_, name)] = base._cache
    assert SECRET not in name and name.endswith("|tpo:1")
    assert SaltedCache(SaltedCache(base, "1"), "2").lookup("p", f"headers {SECRET}") == ["v"]
