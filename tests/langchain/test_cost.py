"""What a refinement costs beside the model calls that it makes: counted, since time depends on the machine."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest
from counting import SELDOM, counting
from instant import Bare, Forgetful, Instant, scattered
from langchain_core.callbacks.base import BaseCallbackManager
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.config import ensure_config

from tpo_langchain import RunnableTPO

COUNTED = {
    **SELDOM,
    ensure_config.__code__: "configs",
    BaseCallbackManager.copy.__code__: "copies",
}
WAYS = pytest.mark.parametrize("way", ["invoke", "ainvoke"])


async def counts(called: Any, way: str, *args: Any) -> Counter[str]:
    with counting(COUNTED) as calls:
        await called.ainvoke(*args) if way == "ainvoke" else called.invoke(*args)
    return calls


async def at_rest(called: Any, way: str, *args: Any) -> Counter[str]:
    """Return the counts of a call once it is known what is quick; a busy machine may take a call or two for slow."""
    for _ in range(200):
        calls = await counts(called, way, *args)
        if not calls["handovers"]:
            break
    return calls


def made(asked: Any = None, before: Any = None, after: Any = None) -> RunnableTPO:
    chain = Instant(asked=asked) | (StrOutputParser() if after is None else after)
    return RunnableTPO(chain if before is None else before | chain, reward=scattered)


async def bare(way: str, config: Any = None) -> Counter[str]:
    asked: list[Any] = []
    made(asked).invoke("how?")
    assert [n for _, n in asked] == [5, None, None, 5, None, None, 5]
    return await counts(Bare(Instant(), asked), way, config)


@WAYS
async def test_where_nobody_listens_a_query_costs_no_thread_and_hardly_a_signature_or_a_config_more(way: str) -> None:
    host, ours = await bare(way), await at_rest(made(), way, "how?")
    assert ours["threads"] == ours["handovers"] == 0
    assert ours["signatures"] <= host["signatures"] + 1
    assert ours["configs"] <= host["configs"] and ours["copies"] <= 1
    assert ours["calls"] <= 2.45 * host["calls"]


@WAYS
async def test_a_prompt_is_formatted_once_a_query_and_is_no_run_where_nobody_listens(way: str) -> None:
    formatted = []

    class Template(ChatPromptTemplate):
        def format_messages(self, **kwargs: Any) -> Any:
            formatted.append(kwargs)
            return super().format_messages(**kwargs)

        async def aformat_messages(self, **kwargs: Any) -> Any:
            return self.format_messages(**kwargs)

    refined = made(before=Template.from_messages([("system", "Be kind."), ("user", "{q}")]))
    ours = await at_rest(refined, way, {"q": "how?"})
    formatted.clear()
    ours = await counts(refined, way, {"q": "how?"})
    assert len(formatted) == 1 and ours["configs"] <= 8 and ours["copies"] <= 6


async def test_a_parser_that_is_quick_is_called_in_the_event_loop() -> None:
    threads = []

    class Parser(StrOutputParser):
        def parse(self, text: str) -> str:
            threads.append(threading.current_thread())
            return text

    refined = made(after=Parser())
    calls = await at_rest(refined, "ainvoke", "how?")
    assert calls["handovers"] == 0 and threads[-1] is threading.current_thread()
    assert threads[0] is not threading.current_thread()  # where it was found out


async def test_a_step_that_waits_is_called_in_threads_at_once_and_never_in_the_event_loop() -> None:
    threads, together = [], threading.Barrier(5, timeout=10)

    def step(text: str) -> str:
        threads.append(threading.current_thread())
        together.wait()  # until all five of a request are there
        return text

    refined = RunnableTPO(Instant() | StrOutputParser() | RunnableLambda(step), reward=scattered, depth=1)
    for _ in range(4):
        await refined.ainvoke("how?")
    refined.invoke("how?")
    assert threading.current_thread() not in threads


@WAYS
async def test_a_tracer_sees_no_run_that_is_not_of_the_users_or_of_the_loop(way: str) -> None:
    names: list[str] = []  # async runs tell tracers in threads

    class Seeing(Forgetful):
        def _start_trace(self, run: Any) -> None:
            names.append(run.name)
            super()._start_trace(run)

    refined, config = made(), {"callbacks": [Seeing()]}
    calls = (
        await at_rest(refined, way, "how?", config) if way == "invoke" else await counts(refined, way, "how?", config)
    )
    names.clear()
    calls = await counts(refined, way, "how?", config)
    assert Counter(names) == {
        "RunnableTPO": 1, "tpo:sample": 1, "tpo:loss": 2, "tpo:gradient": 2, "tpo:update": 2, "tpo:score": 3,
        "Instant": 7, "StrOutputParser": 15,
    }  # fmt: skip
    assert calls["configs"] <= 80 and calls["copies"] <= 155 and calls["signatures"] <= 60


async def test_a_parser_with_an_async_form_is_awaited_and_one_without_is_not_handed_over() -> None:
    awaited = []

    class Awaited(JsonOutputParser):
        async def aparse_result(self, result: Any, *, partial: bool = False) -> Any:
            awaited.append(result)
            await asyncio.sleep(0)
            return {"text": result[0].text}

    refined = RunnableTPO(Instant() | Awaited(), reward=lambda prompt, response: len(response), depth=0)
    assert "An answer" in (await refined.ainvoke("how?"))["text"] and len(awaited) == 5
