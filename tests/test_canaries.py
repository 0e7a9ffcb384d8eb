"""What was asked and what was answered stand in no log, no message or traceback of an error, and no object's repr.

Keys are looked for in ``core/test_masking.py`` and ``test_secrets.py`` of either face. What a user holds is another
matter: a candidate's text is its ``response``, and a trajectory's page is there to show it. Dataclasses are in
``test_reprs.py``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser, StrOutputParser
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from loopback import LoopbackServer
from tpo_core import ChatPolicy, OpenAIChat, Progress, TPOConfig, TPOError, arun, run
from tpo_core.cli.main import main
from tpo_core.rewards import ChrFReward, CodeTestsReward, EnsembleReward, FunctionReward
from tpo_core.runs import Item, RunStore
from tpo_dspy import TPO
from tpo_langchain import ChatTPO, RunnableTPO

PROMPT = "What does the canary of the prompt sing?"
ANSWER = "The canary of the answer"
CONFIG = TPOConfig(width=2, depth=1)


class Shape(BaseModel):
    number: int


def raising(prompt: Any, response: str) -> float:
    raise ValueError("the reward is broken")


def no_number(prompt: Any, response: str) -> float:
    return float("nan")


def length(prompt: Any, response: str) -> float:
    return float(sum(map(ord, response)))


REWARDS: dict[str, Any] = {
    "good": length,
    "raises": raising,
    "no number": no_number,
    "no reference": ChrFReward({"another": ["x"]}),
    "no tests": CodeTestsReward({"another": "assert True"}),
    "ensemble": EnsembleReward([FunctionReward(length, name="a"), FunctionReward(no_number, name="b")]),
}

WAYS: dict[str, Callable[[str, Any], Any]] = {
    "run": lambda url, reward: run(PROMPT, _policy(url), reward, CONFIG),
    "arun": lambda url, reward: asyncio.run(arun(PROMPT, _policy(url), reward, CONFIG)),
    "RunnableTPO": lambda url, reward: _chain(url, StrOutputParser(), reward).invoke(PROMPT),
    "RunnableTPO.ainvoke": lambda url, reward: asyncio.run(_chain(url, StrOutputParser(), reward).ainvoke(PROMPT)),
    "a chain with JSON": lambda url, reward: _chain(url, JsonOutputParser(), reward).invoke(PROMPT),
    "a chain with a class": lambda url, reward: _chain(url, PydanticOutputParser(pydantic_object=Shape), reward).invoke(
        PROMPT
    ),
    "a chain that is no text": lambda url, reward: _chain(url, RunnableLambda(lambda m: {m.content}), reward).invoke(
        PROMPT
    ),
    "an input that says nothing": lambda url, reward: _chain(url, StrOutputParser(), reward).invoke({"a": {PROMPT}}),
    "ChatTPO": lambda url, reward: ChatTPO(llm=_model(url), reward=reward, config=CONFIG).invoke(PROMPT),
    "TPO": lambda url, reward: _program(url, "question -> answer", reward),
    "TPO of types": lambda url, reward: _program(url, "question -> answer: int, why: list[int]", reward),
}


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("way", WAYS)
def test_no_error_and_no_log_says_what_was_asked_or_answered(
    way: str, reward: str, loopback: type[LoopbackServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = loopback(_answer)
    said = ""
    with caplog.at_level(logging.DEBUG):
        try:
            WAYS[way](server.url, REWARDS[reward])
        except TPOError as error:
            said = "".join(traceback.format_exception(error)) + repr(error) + str(error.args)
            gained = error.trajectory
            said += "" if gained is None else f"{gained!r} {gained.candidates} {gained.steps}"
    ours = [record for record in caplog.records if record.name.startswith("tpo")]
    _check(said, *(logging.Formatter().format(record) for record in ours))


def test_objects_that_work_say_nothing_of_their_work(loopback: type[LoopbackServer], tmp_path: Path) -> None:
    url = loopback(_answer).url
    policy, reward = _policy(url), FunctionReward(length)
    chain, chat = _chain(url, StrOutputParser(), reward), ChatTPO(llm=_model(url), reward=reward, config=CONFIG)
    program = TPO(dspy.Predict("question -> answer"), reward, config=CONFIG)
    told: list[Progress] = []
    trajectory = run(PROMPT, policy, reward, CONFIG, on_progress=told.append)
    _check(repr(trajectory), repr(trajectory.candidates), repr(trajectory.steps), repr(told))
    assert f"response=<{len(ANSWER) + 2} characters>" in repr(trajectory)
    chain.invoke(PROMPT)
    chat.invoke(PROMPT)
    with RunStore.open(tmp_path) as store:
        store.admit(Item("a", PROMPT))
        with pytest.raises(TPOError) as twice:
            store.admit(Item("a", PROMPT))
        _check(*map(repr, (policy, reward, chain, chat, program, store)), str(twice.value), repr(twice.value))


@pytest.mark.parametrize("kind", ["good", "refused", "nothing", "cut"])
def test_the_command_says_nothing_of_prompts_and_answers_on_standard_error(
    kind: str, loopback: type[LoopbackServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    refused = (400, {"error": {"message": "no such setting"}})
    cut = {"content": ANSWER, "finish_reason": "length"}
    answers = {"good": ANSWER, "refused": refused, "nothing": {"content": ""}, "cut": cut}
    server = loopback(lambda request, number: answers[kind])
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def score(prompt, response):\n    return float(len(response))\n")
    Path("p.jsonl").write_text(json.dumps({"id": 1, "prompt": PROMPT}) + "\n")
    Path("bad.jsonl").write_text(json.dumps({"id": 1, "prompt": PROMPT}) + "\n" + PROMPT + "\n")
    more = ["--api-base", server.url, "--reward", "mine.py:score", "--width", "2", "--depth", "1"]
    main(["run", "p.jsonl", "-o", "out", *more])
    main(["run", "bad.jsonl", "-o", "bad", *more])
    main(["run", "p.jsonl", "-o", "loud", "--verbose", *more])
    Path("out", "run.sqlite").write_bytes(b"no database")
    main(["show", "out"])
    _check(capfd.readouterr().err)


def _answer(request: dict[str, Any], number: int) -> str:
    return f"{ANSWER} {number}"


def _policy(url: str) -> ChatPolicy:
    return ChatPolicy(OpenAIChat("smol", api_base=url))


def _model(url: str) -> ChatOpenAI:
    return ChatOpenAI(model="smol", base_url=url, api_key="none", max_retries=0)


def _chain(url: str, parser: Any, reward: Any) -> RunnableTPO:
    return RunnableTPO(_model(url) | parser, reward=reward, llm=_model(url), config=CONFIG)


def _program(url: str, signature: str, reward: Any) -> Any:
    lm = dspy.LM("openai/smol", api_base=url, api_key="none", cache=False, num_retries=0)
    with dspy.context(lm=lm):
        return TPO(dspy.Predict(signature), reward, config=CONFIG)(question=PROMPT)


def _check(*texts: str) -> None:
    for text in texts:
        place = text.find("canary of the")
        assert place < 0, text[max(0, place - 300) : place + 60]
