"""The same seed and the same answers of a model make the same trajectory, whoever asks: driver, face or engine."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_openai import ChatOpenAI

from loopback import LoopbackServer
from tpo_core import ChatPolicy, LiteLLMChat, OpenAIChat, TPOConfig, Trajectory, arun, arun_many, run, run_many
from tpo_core.cli.main import main
from tpo_core.runs import RunReader
from tpo_dspy import TPO
from tpo_langchain import RunnableTPO

QUERY = "How do bees sleep?"
OTHERS = [QUERY, "Why is the sky blue?", "What is wax?"]
CONFIG = TPOConfig(width=3, depth=2, seed=5)

FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]")
KINDS = ("improved response", "improved_response", "instructions for an editor", "critique", "were graded")


def checksum(prompt: Any, response: str) -> float:
    """Score a response."""
    return float(sum(map(ord, response)) % 1009)


@pytest.fixture
def serve(loopback: type[LoopbackServer]) -> Callable[[], str]:
    """Start a server that answers the k-th request of each kind alike, whatever the words around it."""

    def start() -> str:
        turns: dict[str, int] = {}

        def answer(request: dict[str, Any], number: int) -> str:
            said = " ".join(str(message["content"]) for message in request["messages"])
            query = next(query for query in OTHERS if query in said)
            kind = next((kind for kind in KINDS if kind in said), "sample").replace("_", " ")
            with lock:
                turns[query + kind] = turn = turns.get(query + kind, -1) + 1
            text = f"{kind} {turn} about {query.lower()}"
            fields = FIELD.findall(str(request["messages"][-1]["content"]))
            return f"[[ ## {fields[-2]} ## ]]\n{text}\n\n[[ ## completed ## ]]" if len(fields) > 1 else text

        server = loopback(answer)
        lock = server._lock
        return server.url

    return start


def made(trajectory: Trajectory) -> Any:
    """Return what does not depend on which of the samples of one round came first, nor on the time they took."""
    rounds: dict[int, list[Any]] = {}
    for c in trajectory.candidates:
        rounds.setdefault(c.step, []).append((c.response, c.reward, c.failure and c.failure.reason))
    steps = [
        (s.chosen.response, s.rejected and s.rejected.response, s.loss, s.gradient)
        for s in trajectory.steps
        if s.chosen is not None
    ]
    return (
        {step: sorted(found) for step, found in rounds.items()},
        steps,
        trajectory.best.response,
        trajectory.stop_reason,
        trajectory.usage.calls,
    )


def policy(url: str, kind: Any = OpenAIChat) -> ChatPolicy:
    return ChatPolicy(kind("openai/smol", api_base=url, api_key="none"))


def chain(url: str) -> RunnableTPO:
    model = ChatOpenAI(model="smol", base_url=url, api_key="none")
    return RunnableTPO(model | StrOutputParser(), reward=checksum, llm=model, config=CONFIG, return_trajectory=True)


def program(url: str, *, awaited: bool = False) -> Trajectory:
    lm = dspy.LM("openai/smol", api_base=url, api_key="none", cache=False)
    refined = TPO(dspy.Predict("question -> answer"), checksum, config=CONFIG)
    with dspy.context(lm=lm):
        found: Any = asyncio.run(refined.acall(question=QUERY)) if awaited else refined(question=QUERY)
    return found.trajectory  # type: ignore[no-any-return]


WAYS: dict[str, Callable[[str], Trajectory]] = {
    "run": lambda url: run(QUERY, policy(url), checksum, CONFIG),
    "run, one call at a time": lambda url: run(QUERY, policy(url), checksum, CONFIG, max_concurrency=1),
    "arun": lambda url: asyncio.run(arun(QUERY, policy(url), checksum, CONFIG)),
    "run_many": lambda url: run_many(OTHERS, policy(url), checksum, CONFIG)[0],
    "arun_many": lambda url: asyncio.run(arun_many(OTHERS, policy(url), checksum, CONFIG))[0],
    "litellm": lambda url: run(QUERY, policy(url, LiteLLMChat), checksum, CONFIG),
    "RunnableTPO.invoke": lambda url: chain(url).invoke(QUERY),
    "RunnableTPO.ainvoke": lambda url: asyncio.run(chain(url).ainvoke(QUERY)),
    "TPO": program,
    "TPO.acall": lambda url: program(url, awaited=True),
}


@pytest.mark.parametrize("way", list(WAYS)[1:])
def test_every_driver_and_face_makes_the_same_trajectory_of_the_same_answers(serve: Any, way: str) -> None:
    expected = made(WAYS["run"](serve()))
    assert len(expected[0]) == 3 and expected[4] == 13  # three rounds of three, and two critiques of two
    assert made(WAYS[way](serve())) == expected


def test_a_run_in_a_folder_makes_the_same_trajectories_and_so_does_its_repetition(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": query}) + "\n" for query in OTHERS))
    Path("mine.py").write_text("def checksum(prompt, response):\n    return float(sum(map(ord, response)) % 1009)\n")
    sizes = ["--width", "3", "--depth", "2", "--seed", "5", "--quiet", "--reward", "mine.py:checksum"]
    expected = [made(t) for t in run_many(OTHERS, policy(serve()), checksum, CONFIG)]
    for folder in ("one", "two"):
        assert main(["run", "prompts.jsonl", "-o", folder, "--api-base", serve(), *sizes]) == 0
        with RunReader(folder) as reader:
            assert [made(finished.trajectory) for finished in reader.finished()] == expected


def test_with_answers_that_follow_from_the_seeds_drivers_agree_to_the_last_byte(loopback: type[LoopbackServer]) -> None:
    server = loopback()  # its answers follow from what is asked, and its seed

    def bare(trajectory: Trajectory) -> str:
        return dataclasses.replace(trajectory, seconds={}).to_json()

    asked = policy(server.url)
    expected = bare(run(QUERY, asked, checksum, CONFIG))
    assert bare(run(QUERY, policy(server.url), checksum, CONFIG, max_concurrency=1)) == expected
    assert bare(asyncio.run(arun(QUERY, policy(server.url), checksum, CONFIG))) == expected
    assert bare(run_many(OTHERS, asked, checksum, CONFIG)[0]) == bare(run(QUERY, asked, checksum, CONFIG))
    other = bare(run(QUERY, policy(server.url), checksum, dataclasses.replace(CONFIG, seed=6)))
    assert other != expected
