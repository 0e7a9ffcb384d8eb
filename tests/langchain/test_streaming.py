"""Nothing half-made reaches a user: whoever streams sees the final text alone, once."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph

from tpo_langchain import ChatTPO, RunnableTPO, TPOMiddleware, tpo_node

CONTEXT = pytest.mark.skipif(sys.version_info < (3, 11), reason="LangGraph's async nodes have no context before 3.11")
PROMPT = ChatPromptTemplate.from_template("Tell: {x}")


def checksum(prompt: Any, response: str) -> float:
    return sum(map(ord, response))


def model_of(server: Any, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(model="smol", base_url=server.url, api_key="none", max_retries=0, **settings)


def text_in(chunk: Any) -> str:
    return str(chunk.text) if hasattr(chunk, "text") else str(chunk)


async def watched(program: Any, given: Any) -> tuple[str, Any, list[Any]]:
    """Return the tokens that a user sees, the output, and all events."""
    events = [event async for event in program.astream_events(given)]
    tokens = [text_in(e["data"]["chunk"]) for e in events if e["event"] == "on_chat_model_stream"]
    return "".join(tokens), events[-1]["data"]["output"], events


@pytest.mark.parametrize("streaming", [{}, {"streaming": True}], ids=["", "streaming"])
@pytest.mark.parametrize("kind", ["chain", "message", "function", "parallel", "chat"])
async def test_the_events_of_a_chain_show_the_final_text_alone(loopback: Any, kind: str, streaming: Any) -> None:
    model = model_of(loopback(n="ignore"), **streaming)
    settings: Any = {"reward": checksum, "width": 3, "depth": 1}
    program: Any = {
        "chain": lambda: RunnableTPO(PROMPT | model | StrOutputParser(), **settings),
        "message": lambda: RunnableTPO(PROMPT | model, **settings),
        "function": lambda: RunnableTPO(
            RunnableLambda(lambda given: model.invoke(given["x"]).text), llm=model, **settings
        ),
        "parallel": lambda: {"x": lambda given: given["x"]} | PROMPT | RunnableTPO(model, llm=model, **settings),
        "chat": lambda: PROMPT | ChatTPO(llm=model, **settings),
    }[kind]()
    shown, output, events = await watched(program, {"x": "why?"})
    assert shown == text_in(output) and shown
    written = [e for e in events if e["event"] == "on_chat_model_end" and "nostream" in e["tags"]]
    assert len(written) >= 8 - (kind == "chat")  # they are still seen, each when it has ended


@pytest.mark.parametrize(
    "kind", [pytest.param("middleware", marks=CONTEXT), "node", pytest.param("chat", marks=CONTEXT), "whole"]
)
async def test_the_events_of_an_agent_show_the_final_text_alone(loopback: Any, kind: str) -> None:
    model = model_of(loopback())
    settings: Any = {"reward": checksum, "width": 3, "depth": 1}
    graph = StateGraph(MessagesState)
    graph.add_node("answer", tpo_node(model, **settings))
    graph.add_edge(START, "answer")
    program: Any = {
        "middleware": lambda: create_agent(model, middleware=[TPOMiddleware(**settings)]),
        "node": graph.compile,
        "chat": lambda: create_agent(ChatTPO(llm=model, **settings)),
        "whole": lambda: RunnableTPO(create_agent(model), llm=model, **settings),
    }[kind]()
    shown, output, _ = await watched(program, {"messages": [("user", "why?")]})
    assert shown == output["messages"][-1].text


def test_a_graph_streams_the_final_message_once(loopback: Any) -> None:
    agent = create_agent(model_of(loopback()), middleware=[TPOMiddleware(reward=checksum, width=3, depth=1)])
    given: Any = {"messages": [("user", "why?")]}
    seen = list(agent.stream(given, stream_mode=["messages", "values"]))
    said = "".join(part[0].text for mode, part in seen if mode == "messages")
    assert said == seen[-1][1]["messages"][-1].text


@CONTEXT
async def test_a_steps_tool_call_is_not_streamed_as_text(loopback: Any) -> None:
    calls = [{"tool_calls": [{"name": "weather", "arguments": {}}]}]

    def weather() -> str:
        """Tell the weather."""
        return "sunny"

    server = loopback(lambda request, number: calls[number] if number < 1 else f"It is sunny {number}.")
    agent = create_agent(model_of(server), [weather], middleware=[TPOMiddleware(reward=checksum, width=2, depth=0)])
    shown, output, events = await watched(agent, {"messages": [("user", "why?")]})
    assert shown == output["messages"][-1].text
    assert sum(e["event"] == "on_tool_end" for e in events) == 1
