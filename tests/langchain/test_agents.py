"""Agents whose final answer is refined: real create_agent and LangGraph graphs, real tools that count their calls."""

from __future__ import annotations

import sys
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, ModelRetryMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from tpo_core import InvalidInputError
from tpo_langchain import ChatTPO, RunnableTPO, TPOMiddleware, tpo_node


def longest(prompt: Any, response: str) -> float:
    return len(response)


class Tools:
    """A tool that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

        @tool
        def weather(city: str) -> str:
            """Tell the weather."""
            self.calls += 1
            return f"sunny in {city}"

        self.all = [weather]


@pytest.fixture
def tools() -> Tools:
    return Tools()


def call(city: str = "Berlin") -> AIMessage:
    return AIMessage("let me see", tool_calls=[{"name": "weather", "args": {"city": city}, "id": "call-1"}])


def script(messages: Any, number: int) -> Any:
    """Calls the tool once a turn, then answers; the longer the later."""
    asked = "\n".join(message.text for message in messages)
    for word, said in (("lower. Compare", "a critique"), ("Turn it into", "instructions")):
        if word in asked:
            return said
    if "Rewrite" in asked:
        return f"an updated answer {'y' * number}"
    return call() if isinstance(messages[-1], HumanMessage) else f"it is sunny {'x' * number}"


ASK: Any = {"messages": [("user", "how is the weather?")]}
# one call for the tool, then 2 samples, loss, gradient, 2 updates
CALLS = 1 + 2 + 2 + 2


OLD = sys.version_info < (3, 11)
BOTH = [
    "invoke",
    pytest.param(
        "ainvoke", marks=pytest.mark.skipif(OLD, reason="LangGraph's async nodes have no context before 3.11")
    ),
]


async def run(agent: Any, given: Any, way: str, config: Any = None) -> Any:
    return await agent.ainvoke(given, config) if way == "ainvoke" else agent.invoke(given, config)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_the_final_answer_is_refined_and_tools_are_called_once(chat: Any, tools: Tools, way: str) -> None:
    model = chat(answer=script)
    agent = create_agent(
        model, tools.all, system_prompt="Be kind.", middleware=[TPOMiddleware(reward=longest, width=2, depth=1)]
    )
    state = await run(agent, ASK, way)
    assert [m.type for m in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert state["messages"][-1].text.startswith("an updated answer")
    assert tools.calls == 1 and model.calls == CALLS
    assert state["messages"][1].text == "let me see" and state["messages"][-1].response_metadata["tpo"]["calls"] == 6
    loss = next(m for m in model.log.messages if "Compare" in m[-1].text)
    assert "Be kind." in loss[1].text and "sunny in Berlin" in loss[1].text


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_the_user_sees_the_refined_text_and_no_samples_tokens(chat: Any, tools: Tools, way: str) -> None:
    agent = create_agent(chat(answer=script), tools.all, middleware=[TPOMiddleware(reward=longest, width=2, depth=1)])
    stream = (
        agent.stream(ASK, stream_mode="messages") if way == "stream" else agent.astream(ASK, stream_mode="messages")
    )
    seen = [m async for m, _ in stream] if way == "astream" else [m for m, _ in stream]
    texts = [m.text for m in seen if isinstance(m, AIMessage)]
    assert len(texts) == 2 and texts[0] == "let me see" and texts[1].startswith("an updated answer")


async def test_a_refined_chat_model_in_an_agent_shows_no_samples_tokens_either(chat: Any, tools: Tools) -> None:
    model = ChatTPO(llm=chat(answer=script), reward=longest, width=2, depth=1)
    agent = create_agent(model, tools.all)
    seen = [m async for m, _ in agent.astream(ASK, stream_mode="messages")]
    words = "".join(m.text for m in seen if isinstance(m, AIMessage))
    assert words.startswith("let me seean updated answer") and "sample" not in words and tools.calls == 1


def test_a_sample_that_calls_a_tool_is_no_candidate_and_calls_nothing(chat: Any, tools: Tools) -> None:
    def answer(messages: Any, number: int) -> Any:
        return call("Paris") if number in (0, 2) else f"it is sunny {'x' * number}"

    agent = create_agent(chat(answer=answer), tools.all, middleware=[TPOMiddleware(reward=longest, width=3, depth=0)])
    last = agent.invoke(ASK)["messages"][-1]
    assert tools.calls == 1 and last.response_metadata["tpo"]["failures"] == 1 and last.text.startswith("it is sunny")


class Report(BaseModel):
    """A report."""

    text: str


def test_a_structured_response_is_kept(chat: Any, tools: Tools) -> None:
    def answer(messages: Any, number: int) -> Any:
        return AIMessage("", tool_calls=[{"name": "Report", "args": {"text": "sunny"}, "id": "1"}])

    model = chat(answer=answer)
    agent = create_agent(
        model, tools.all, response_format=ToolStrategy(Report), middleware=[TPOMiddleware(reward=longest)]
    )
    assert agent.invoke(ASK)["structured_response"] == Report(text="sunny") and model.calls == 1


def test_a_provider_filled_form_is_kept_too(loopback: Any, tools: Tools) -> None:
    server = loopback(lambda request, number: '{"text": "sunny"}')
    model = ChatOpenAI(model="smol", base_url=server.url, api_key="none")
    agent = create_agent(
        model, tools.all, response_format=ProviderStrategy(Report), middleware=[TPOMiddleware(reward=longest)]
    )
    assert agent.invoke(ASK)["structured_response"] == Report(text="sunny") and len(server.requests) == 1


def test_other_middleware_goes_around_every_sample(chat: Any, tools: Tools) -> None:
    def answer(messages: Any, number: int) -> Any:
        if number == 2:
            raise ConnectionError("gone")
        return script(messages, number)

    model = chat(answer=answer)
    middleware = [TPOMiddleware(reward=longest, width=3, depth=0), ModelRetryMiddleware(initial_delay=0, jitter=False)]
    last = create_agent(model, tools.all, middleware=middleware).invoke(ASK)["messages"][-1]
    assert last.response_metadata["tpo"]["failures"] == 0 and model.calls == 1 + 3 + 1


def test_samples_of_a_step_stay_distinct_under_an_llm_cache(chat: Any, tools: Tools) -> None:
    set_llm_cache(InMemoryCache())
    model = chat(answer=lambda messages, number: f"hello {'x' * number}")
    agent = create_agent(model, tools.all, middleware=[TPOMiddleware(reward=longest, width=3, depth=0)])
    assert {agent.invoke(ASK)["messages"][-1].text for _ in range(2)} == {"hello xx"} and model.calls == 3


@pytest.mark.parametrize("way", BOTH)
async def test_with_a_checkpointer_and_an_interrupt_refinement_runs_once(chat: Any, tools: Tools, way: str) -> None:
    model = chat(answer=script)
    agent = create_agent(
        model,
        tools.all,
        checkpointer=InMemorySaver(),
        middleware=[TPOMiddleware(reward=longest, width=2, depth=1), HumanInTheLoopMiddleware({"weather": True})],
    )
    config = {"configurable": {"thread_id": "1"}}
    asked = await run(agent, ASK, way, config)
    assert asked["__interrupt__"] and model.calls == 1
    state = await run(agent, Command(resume={"decisions": [{"type": "approve"}]}), way, config)
    assert state["messages"][-1].text.startswith("an updated answer")
    assert tools.calls == 1 and model.calls == CALLS
    assert agent.get_state(config).values["messages"][-1].text == state["messages"][-1].text


def test_what_is_learnt_about_a_model_is_kept_from_answer_to_answer(loopback: Any) -> None:
    def answer(request: Any, number: int) -> Any:
        if request["messages"][0]["role"] == "system" and "Be kind" not in request["messages"][0]["content"]:
            return 400, {"error": {"message": "System role not supported", "code": 400}}
        return "said " + "x" * number

    server = loopback(answer=answer, n="reject")
    model = ChatOpenAI(model="smol", base_url=server.url, api_key="none", max_retries=0)
    agent = create_agent(
        model, [], system_prompt="Be kind.", middleware=[TPOMiddleware(reward=longest, width=3, depth=1)]
    )
    asked: list[tuple[int, int]] = []
    for _ in range(3):
        agent.invoke(ASK)
        systems = [r["messages"][0]["content"] for r in server.requests if r["messages"][0]["role"] == "system"]
        asked.append((sum(r.get("n", 1) > 1 for r in server.requests), sum("Be kind" not in text for text in systems)))
    assert asked[0] == asked[1] == asked[2] and asked[0][0] == 1 and asked[0][1] > 0


def test_a_model_of_another_kind_is_learnt_about_anew(loopback: Any) -> None:
    def answer(request: Any, number: int) -> str:
        return "said " + "x" * number

    rejecting, honouring = loopback(answer=answer, n="reject"), loopback(answer=answer)
    first, second = (ChatOpenAI(model="smol", base_url=s.url, api_key="none") for s in (rejecting, honouring))
    middleware = TPOMiddleware(reward=longest, width=3, depth=1)
    for model in (first, second):
        create_agent(model, [], middleware=[middleware]).invoke(ASK)
    assert sum(r.get("n", 1) > 1 for r in honouring.requests) == 1


def test_a_graph_whose_answer_is_refined_keeps_what_is_learnt_too(loopback: Any) -> None:
    server = loopback(answer=lambda request, number: "said " + "x" * number, n="reject")
    model = ChatOpenAI(model="smol", base_url=server.url, api_key="none")
    refined = RunnableTPO(create_agent(model, []), llm=model, reward=longest, width=3, depth=1)
    for _ in range(2):
        refined.invoke(ASK)
    assert [r["n"] for r in server.requests if r.get("n", 1) > 1] == [2, 3]  # for samples and for updates, once each


def test_every_call_of_the_refinement_is_traced_under_the_model_node(chat: Any, tools: Tools, tree: Any) -> None:
    agent = create_agent(chat(answer=script), tools.all, middleware=[TPOMiddleware(reward=longest, width=2, depth=1)])
    agent.invoke(ASK, {"callbacks": [tree]})
    refined = tree.named("RunnableTPO")
    assert len(refined) == 1
    names = [run.name for run in refined[0].child_runs]
    assert sorted(names) == sorted(
        ["tpo:sample", "tpo:score", "tpo:loss", "tpo:gradient", "tpo:update", "tpo:update", "tpo:score"]
    )
    assert len(tree.named("Chat")) == CALLS


def test_a_call_may_set_the_loop_of_its_own(chat: Any, tools: Tools) -> None:
    model = chat(answer=script)
    agent = create_agent(model, tools.all, middleware=[TPOMiddleware(reward=longest)])
    agent.invoke(ASK, {"configurable": {"tpo_width": 2, "tpo_depth": 0}})
    assert model.calls == 1 + 2


def test_wrong_arguments_are_named() -> None:
    for arguments, word in (({"reward": None}, "reward"), ({"reward": longest, "width": 0}, "width")):
        with pytest.raises(InvalidInputError, match=word):
            TPOMiddleware(**arguments)  # type: ignore[arg-type]


# -- LangGraph --------------------------------------------------------------------------------------------------------


class State(TypedDict):
    messages: Annotated[list[Any], add_messages]


def graph_of(*nodes: tuple[str, Any], **settings: Any) -> Any:
    graph = StateGraph(State)
    for (name, node), before in zip(nodes, [START, *[name for name, _ in nodes]], strict=False):
        graph.add_node(name, node)
        graph.add_edge(before, name)
    graph.add_edge(nodes[-1][0], END)
    return graph.compile(**settings)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_a_node_refines_the_last_answer_under_its_id(chat: Any, way: str) -> None:
    model = chat(answer=lambda m, n: script([*m, ToolMessage("", tool_call_id="")], n))
    graph = graph_of(
        ("draft", lambda state: {"messages": [AIMessage("a draft", id="draft")]}),
        ("refine", tpo_node(model, reward=longest, width=3, depth=1)),
    )
    state = await run(graph, ASK, way)
    assert len(state["messages"]) == 2 and state["messages"][-1].id == "draft"
    assert state["messages"][-1].text.startswith("an updated answer") and model.calls == 2 + 2 + 3


async def test_a_node_answers_itself_where_there_is_no_answer_yet_and_streams_only_that(chat: Any) -> None:
    model = chat(answer=lambda m, n: script([*m, ToolMessage("", tool_call_id="")], n))
    graph = graph_of(("answer", tpo_node(model, reward=longest, width=2, depth=0)))
    seen = [m.text async for m, _ in graph.astream(ASK, stream_mode="messages")]
    assert seen == ["it is sunny x"]


def test_a_node_leaves_tool_calls_alone(chat: Any) -> None:
    model = chat(answer=script)
    state = graph_of(("refine", tpo_node(model, reward=longest))).invoke({"messages": [("user", "hi"), call()]})
    assert state["messages"][-1].tool_calls and model.calls == 0
    with pytest.raises(InvalidInputError, match="messages_key"):
        tpo_node(model, reward=longest).invoke({"other": []})


@pytest.mark.parametrize("way", BOTH)
async def test_a_whole_agent_runs_once_and_its_last_answer_is_refined(
    chat: Any, tools: Tools, tree: Any, way: str
) -> None:
    model = chat(answer=script)
    agent = create_agent(model, tools.all, checkpointer=InMemorySaver())
    refined = RunnableTPO(agent, reward=longest, llm=model, width=2, depth=1)
    config: Any = {"configurable": {"thread_id": "1"}, "callbacks": [tree]}
    state = await run(refined, ASK, way, config)
    assert tools.calls == 1 and model.calls == CALLS
    assert [m.type for m in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert state["messages"][-1].text.startswith("an updated answer")
    kept = agent.get_state(config).values["messages"]
    assert len(kept) == 4 and kept[-1].text == state["messages"][-1].text
    assert [run.name for run in tree.roots[0].child_runs][:2] == ["tpo:agent", "tpo:sample"]
    again = await run(refined, {"messages": [("user", "thanks")]}, way, {"configurable": {"thread_id": "1"}})
    assert len(again["messages"]) == 8 and tools.calls == 2


def test_a_graph_that_stops_to_ask_is_not_refined_until_it_answers(chat: Any) -> None:
    model = chat(answer=lambda m, n: f"it is {'x' * n}")

    def ask(state: Any) -> Any:
        return {"messages": [HumanMessage(interrupt("sure?"))]}

    def reply(state: Any) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    graph = graph_of(("ask", ask), ("answer", reply), checkpointer=InMemorySaver())
    refined = RunnableTPO(graph, reward=longest, llm=model, width=2, depth=0)
    config: Any = {"configurable": {"thread_id": "1"}}
    assert refined.invoke(ASK, config)["__interrupt__"] and model.calls == 0
    assert refined.invoke(Command(resume="yes"), config)["messages"][-1].text == "it is x" and model.calls == 2


def test_an_interrupt_inside_a_sample_reaches_the_graph(chat: Any) -> None:
    model = chat(answer=script)

    def ask(messages: Any) -> str:
        return str(interrupt("sure?"))

    def node(state: Any) -> Any:
        chain = RunnableTPO(ask, reward=longest, llm=model, width=1, depth=0)
        return {"messages": [AIMessage(chain.invoke(state["messages"]))]}

    graph = graph_of(("ask", node), checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    assert graph.invoke(ASK, config)["__interrupt__"][0].value == "sure?"
    assert graph.invoke(Command(resume="yes"), config)["messages"][-1].text == "yes"


@pytest.mark.parametrize("way", BOTH)
async def test_a_person_may_be_the_reward(chat: Any, way: str) -> None:
    model = chat(answer=lambda m, n: f"it is {'x' * n}")

    def grade(prompt: Any, response: str) -> float:
        return float(interrupt({"grade": response}))

    node = tpo_node(model, reward=grade, width=1, depth=0)
    graph = graph_of(("answer", node), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    asked = await run(graph, ASK, way, config)
    assert asked["__interrupt__"][0].value == {"grade": "it is "}
    state = await run(graph, Command(resume="3"), way, config)
    assert state["messages"][-1].response_metadata["tpo"]["reward"] == 3.0


def test_a_graph_needs_llm_and_messages(chat: Any) -> None:
    with pytest.raises(InvalidInputError, match="llm="):
        RunnableTPO(graph_of(("a", lambda state: {})), reward=longest)

    class Other(TypedDict):
        text: str

    graph = StateGraph(Other).add_node("a", lambda state: {"text": "x"}).add_edge(START, "a").compile()
    with pytest.raises(InvalidInputError, match="tpo_node"):
        RunnableTPO(graph, reward=longest, llm=chat(answer=script)).invoke({"text": ""})
