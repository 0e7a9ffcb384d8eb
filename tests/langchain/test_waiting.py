"""The user's functions and Runnables that wait, in async calls: the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from tpo_langchain import RunnableTPO

LONG = 10.0  # seconds after which a call that nobody lets go on gives up


def longest(prompt: Any, response: str) -> float:
    return len(response)


class Door:
    """Something that waits until the event loop, which goes on, opens it."""

    def __init__(self) -> None:
        self.waiting, self.open = threading.Event(), threading.Event()

    def through(self, value: Any) -> str:
        self.waiting.set()
        assert self.open.wait(LONG), "the event loop stood still"
        return f"seen {getattr(value, 'text', value)}"

    async def keeper(self) -> None:
        while not self.waiting.is_set():
            await asyncio.sleep(0.001)
        self.open.set()


@pytest.mark.parametrize("part", ["query", "render"])
@pytest.mark.parametrize("kind", [RunnableLambda, lambda fn: fn], ids=["Runnable", "function"])
async def test_a_query_or_a_renderer_that_waits_does_not_stop_the_event_loop(chat: Any, part: str, kind: Any) -> None:
    door, asked = Door(), []

    def reward(prompt: Any, response: str) -> float:
        asked.append((prompt, response))
        return len(response)

    model = chat(answer=lambda messages, number: "a" * (number + 1))
    refined = RunnableTPO(model, reward=reward, width=2, depth=0, **{part: kind(door.through)})
    keeper = asyncio.create_task(door.keeper())
    assert (await refined.ainvoke("how?")).text == "aa"
    await keeper
    assert all((prompt if part == "query" else response).startswith("seen ") for prompt, response in asked)
    assert refined.invoke("how?").text == "aaaa"


async def test_an_async_query_and_renderer_are_awaited(chat: Any) -> None:
    def refuse(value: Any) -> str:
        raise AssertionError("called though it could be awaited")

    async def query(value: Any) -> str:
        await asyncio.sleep(0)
        return f"asked {value}"

    async def render(value: Any) -> str:
        await asyncio.sleep(0)
        return f"text {value.text}"

    model = chat(answer=lambda messages, number: "a" * (number + 1))
    refined = RunnableTPO(
        model, reward=longest, width=2, depth=0, query=RunnableLambda(refuse, query),
        render=RunnableLambda(refuse, render), return_trajectory=True,
    )  # fmt: skip
    trajectory = await refined.ainvoke("how?")
    assert trajectory.query == "asked how?" and trajectory.best.response == "text aa"


async def test_the_prompt_of_a_chain_is_not_a_run_of_its_own_either_way(chat: Any, tree: Any) -> None:
    chain = ChatPromptTemplate.from_template("{q}") | chat(answer=lambda m, n: "said") | StrOutputParser()
    refined = RunnableTPO(chain, reward=longest, width=2, depth=0)
    assert await refined.ainvoke({"q": "how?"}, {"callbacks": [tree]}) == "said"
    assert {run.name for run in tree.root.child_runs} == {"tpo:sample", "tpo:score"}


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_a_renderer_that_fails_on_one_output_costs_that_one(chat: Any, way: str) -> None:
    def render(value: Any) -> str:
        if value.text == "aa":
            raise ValueError("not this one")
        return str(value.text)

    model = chat(answer=lambda messages, number: "a" * (number + 1))
    refined = RunnableTPO(model, reward=longest, width=3, depth=0, render=render, return_trajectory=True)
    trajectory = await refined.ainvoke("how?") if way == "ainvoke" else refined.invoke("how?")
    assert trajectory.best.response == "aaa" and [c.failure.reason for c in trajectory.failures] == ["error"]
    assert trajectory.usage.prompt_tokens == 30
