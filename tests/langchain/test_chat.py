"""ChatTPO: a chat model whose words are refined and whose tool calls are not."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from tpo_core import InvalidInputError
from tpo_langchain import ChatTPO


def longest(prompt: Any, response: str) -> float:
    return len(response)


def script(messages: Any, number: int) -> str:
    asked = messages[-1].text
    for word, said in (("lower. Compare", "a critique"), ("Turn it into", "instructions")):
        if word in asked:
            return said
    return f"sample {'x' * number}" if "Rewrite" not in asked else f"an updated answer {'y' * number}"


def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


CALL = AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Berlin"}, "id": "1"}])


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_words_are_refined(chat: Any, way: str) -> None:
    model = ChatTPO(llm=chat(answer=script), reward=longest, width=2, depth=1)
    if way == "invoke":
        message = model.invoke("how?")
    elif way == "ainvoke":
        message = await model.ainvoke("how?")
    else:
        chunks = list(model.stream("how?")) if way == "stream" else [c async for c in model.astream("how?")]
        assert len(chunks) > 2 and all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
        message = sum(chunks[1:], chunks[0])
    assert message.text.startswith("an updated answer")
    assert message.usage_metadata["input_tokens"] == 60 and message.response_metadata["tpo"]["calls"] == 6


async def test_a_tool_call_passes_through_and_costs_one_request(chat: Any) -> None:
    llm = chat(answer=lambda messages, number: CALL)
    model = ChatTPO(llm=llm, reward=longest).bind_tools([weather])
    assert model.invoke("how is it?").tool_calls[0]["args"] == {"city": "Berlin"}
    assert (await model.ainvoke("how is it?")).tool_calls
    [*_, last] = model.stream("how is it?")
    assert last.tool_calls[0]["args"] == {"city": "Berlin"}
    assert llm.calls == 3 and llm.log.kwargs[0]["tools"] == ["weather"]


def test_with_tools_bound_the_answer_in_words_is_refined_and_its_first_sample_kept(chat: Any) -> None:
    def answer(messages: Any, number: int) -> Any:
        if isinstance(messages[-1], ToolMessage):
            return "x" * (9 - number) if number else "the first and by far the longest of the samples"
        return script(messages, number)

    llm = chat(answer=answer)
    model = ChatTPO(llm=llm, reward=longest, width=3, depth=1).bind_tools([weather])
    message = model.invoke([("user", "how is it?"), CALL, ToolMessage("sunny", tool_call_id="1")])
    assert message.text == "the first and by far the longest of the samples"
    assert llm.calls == 3 + 2 + 3 and message.response_metadata["tpo"]["candidates"] == 6
    assert [bool(kwargs.get("tools")) for kwargs in llm.log.kwargs] == [True] * 3 + [False] * 5


def test_a_sample_that_calls_a_tool_is_no_candidate(chat: Any) -> None:
    llm = chat(answer=lambda messages, number: CALL if number == 1 else "word")
    message = ChatTPO(llm=llm, reward=longest, width=3, depth=0).bind_tools([weather]).invoke("how is it?")
    assert message.text == "word" and message.response_metadata["tpo"]["failures"] == 1


class Answer(BaseModel):
    """An answer."""

    text: str


def test_json_output_is_refined_and_stays_json(loopback: Any) -> None:
    server = loopback()
    llm = ChatOpenAI(model="smol", base_url=server.url, api_key="none")
    form = {"type": "json_schema", "json_schema": {"name": "Answer", "schema": Answer.model_json_schema()}}
    model = ChatTPO(llm=llm, reward=lambda prompt, response: sum(map(ord, response)), width=2, depth=1)
    message = model.bind(response_format=form).invoke("how?")
    assert Answer.model_validate_json(message.text) and message.response_metadata["tpo"]["candidates"] == 4


def test_usage_callbacks_count_every_call_once(loopback: Any) -> None:
    llm = ChatOpenAI(model="smol", base_url=loopback().url, api_key="none")
    model = ChatTPO(llm=llm, reward=lambda prompt, response: sum(map(ord, response)), width=2, depth=1)
    with get_usage_metadata_callback() as counted:
        message = model.invoke("how?")
    assert message.response_metadata["model_name"] == "smol"
    assert {k: counted.usage_metadata["smol"][k] for k in ("input_tokens", "output_tokens")} == {
        k: message.usage_metadata[k]
        for k in ("input_tokens", "output_tokens")  # type: ignore[index]
    }


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_every_call_is_a_child_of_the_chat_models_run(chat: Any, tree: Any, way: str) -> None:
    model = ChatTPO(llm=chat(answer=script), reward=longest, width=2, depth=0)
    chain = model | StrOutputParser()
    config: Any = {"callbacks": [tree], "tags": ["mine"]}
    await chain.ainvoke("how?", config) if way == "ainvoke" else chain.invoke("how?", config)
    run = tree.root.child_runs[0]
    assert run.name == "ChatTPO" and [inner.name for inner in run.child_runs] == ["RunnableTPO"]
    refined = run.child_runs[0]
    assert [inner.name for inner in refined.child_runs] == ["tpo:sample", "tpo:sample", "tpo:score"]
    assert "mine" in refined.child_runs[0].tags


def test_a_whole_answer_is_cached_under_its_settings(chat: Any) -> None:
    set_llm_cache(InMemoryCache())
    llm = chat(answer=script)
    for width, calls in ((2, 2), (2, 2), (3, 3)):
        ChatTPO(llm=llm, reward=longest, width=width, depth=0).invoke("how?")
        assert llm.calls == calls


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"width": 0}, "width"), ({"llm": "gpt"}, "llm"), ({"timeout": 3}, "timeout"), ({"reward": 3}, "reward")],
)
def test_a_wrong_argument_is_named(chat: Any, arguments: Any, word: str) -> None:
    with pytest.raises(InvalidInputError, match=word):
        ChatTPO(**{"llm": chat(answer=script), "reward": longest, **arguments})


def test_an_empty_message_list_is_refused(chat: Any) -> None:
    llm = chat(answer=script)
    with pytest.raises(InvalidInputError, match="query is empty"):
        ChatTPO(llm=llm, reward=longest).invoke([])
    assert llm.calls == 0
