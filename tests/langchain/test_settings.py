"""Settings of one call, and names that are nearly right."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.context import collect_runs

from tpo_core import InvalidInputError, Trajectory
from tpo_langchain import ChatTPO, RunnableTPO, TPOMiddleware


def script(messages: Any, number: int) -> str:
    return f"text {'x' * number}"


def longest(prompt: Any, response: str) -> float:
    return len(response)


@pytest.mark.parametrize(
    ("key", "word"),
    [("tpo_widht", "did you mean tpo_width?"), ("tpo_zzz", "no setting tpo_zzz"), ("tpo_max_call", "tpo_max_calls")],
)
def test_an_unknown_key_of_the_config_is_refused(chat: Any, key: str, word: str) -> None:
    model = chat(answer=script)
    for program in (RunnableTPO(model, longest), (lambda text: text) | ChatTPO(llm=model, reward=longest)):
        with pytest.raises(InvalidInputError, match=word.replace("?", r"\?")):
            program.invoke("how?", {"configurable": {key: 2}})
    assert model.calls == 0


@pytest.mark.parametrize(
    ("argument", "key"),
    [("return_trajectory", "tpo_return_trajectory"), ("width", "tpo_width"), ("tpo_widht", "tpo_width")],
)
async def test_a_setting_among_a_calls_arguments_is_refused(chat: Any, argument: str, key: str) -> None:
    model = chat(answer=script)
    refined = RunnableTPO(model | StrOutputParser(), longest)
    with pytest.raises(InvalidInputError, match=f'"configurable": {{"{key}"'):
        refined.invoke("how?", **{argument: True})
    with pytest.raises(InvalidInputError, match=argument):
        await refined.ainvoke("how?", **{argument: True})
    assert model.calls == 0


@pytest.mark.parametrize(
    ("argument", "meant"), [("widht", "width"), ("max_call", "max_calls"), ("patence", "patience")]
)
async def test_a_nearly_right_setting_among_a_calls_arguments_is_refused(chat: Any, argument: str, meant: str) -> None:
    model = chat(answer=script)
    refined = RunnableTPO(model | StrOutputParser(), longest)
    said = rf'did you mean {meant}\? set it .*"configurable": \{{"tpo_{meant}"'
    with pytest.raises(InvalidInputError, match=said):
        refined.invoke("how?", **{argument: 3})
    with pytest.raises(InvalidInputError, match=said):
        [chunk async for chunk in refined.astream("how?", **{argument: 3})]
    with pytest.raises(InvalidInputError, match=said):
        await ChatTPO(llm=model, reward=longest).ainvoke("how?", **{argument: 3})
    assert model.calls == 0


def test_arguments_that_the_chain_takes_itself_are_not_settings(chat: Any) -> None:
    def again(text: str, refresh: bool = False) -> str:
        return f"{text} {refresh}"

    seen: list[str] = []
    chain = RunnableLambda(again) | (lambda text: seen.append(text) or text) | chat(answer=script)
    refined = RunnableTPO(chain, longest, width=1, depth=0)
    refined.invoke("how?", refresh=True)
    RunnableTPO(chat(answer=script), longest, width=1, depth=0).invoke("how?", stop=["."], max_tokens=5)
    assert seen == ["how? True"]


async def test_a_call_may_ask_for_the_trajectory_and_nothing_inside_does(chat: Any) -> None:
    model = chat(answer=script)
    wanted: Any = {"configurable": {"tpo_return_trajectory": True}}
    inner = RunnableTPO(model | StrOutputParser(), longest, llm=model, width=2, depth=0)
    for program in (inner, RunnableTPO(inner, longest, llm=model, width=2, depth=0)):
        assert isinstance(program.invoke("how?", wanted), Trajectory)
        assert isinstance(await program.ainvoke("how?", wanted), Trajectory)
        assert isinstance(program.invoke("how?"), str)
    whole = inner.model_copy(update={"return_trajectory": True})
    assert isinstance(whole.invoke("how?", {"configurable": {"tpo_return_trajectory": False}}), str)
    assert ChatTPO(llm=model, reward=longest, width=2, depth=0).invoke("how?", wanted).text
    agent = create_agent(model, middleware=[TPOMiddleware(longest, width=2, depth=0)])
    assert agent.invoke({"messages": [("user", "how?")]}, wanted)["messages"][-1].text
    assert "tpo_return_trajectory" in {spec.id for spec in inner.config_specs}


def test_none_leaves_the_objects_own(chat: Any) -> None:
    model = chat(answer=script)
    RunnableTPO(model, longest, width=2, depth=0).invoke("how?", {"configurable": {"tpo_width": None}})
    assert model.calls == 2


@pytest.mark.parametrize("name", ["metric", "reward_fn"])
def test_a_reward_under_another_name_is_named(chat: Any, name: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"{name}.*did you mean reward\?"):
        RunnableTPO(chat(answer=script), **{name: longest})
    with pytest.raises(InvalidInputError, match=rf"{name}.*did you mean reward\?"):
        TPOMiddleware(**{name: longest})
    for wrap in (lambda **given: RunnableTPO(chat(answer=script), longest, **given), partial(TPOMiddleware, longest)):
        with pytest.raises(InvalidInputError, match=r"^unknown argument widht; did you mean width\?"):
            wrap(widht=3)


def test_a_refinement_is_one_run_to_those_who_collect_runs(chat: Any) -> None:
    refined = RunnableTPO(chat(answer=script) | StrOutputParser(), longest, width=2, depth=1)
    with collect_runs() as collected:
        refined.invoke("how?")
    assert [run.name for run in collected.traced_runs] == ["RunnableTPO"]
