"""What LangSmith's own client sends of a refined chain to a server: runs, feedback on the right one, no text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.langchain import LangChainTracer
from langchain_openai import ChatOpenAI
from langsmith import Client

from echo import KEY, check_nothing_leaks, echoing
from langsmith_server import PROJECT, LangSmithServer
from tpo_core import GenerationError, Trajectory
from tpo_langchain import ChatTPO, RunnableTPO, TPOMiddleware, wait_for_feedback

PROMPT = ChatPromptTemplate.from_messages([("user", "{question}")])


def longest(prompt: Any, response: str) -> float:
    return len(response)


@pytest.fixture
def server() -> Iterator[LangSmithServer]:
    with LangSmithServer() as server:
        yield server


@pytest.fixture
def traced(server: LangSmithServer) -> Iterator[Callable[..., dict[str, Any]]]:
    """A function that makes a config whose runs go to the server; everything has arrived when it is asked ``flush``."""
    clients: list[Client] = []

    def config(**settings: Any) -> dict[str, Any]:
        clients.append(Client(api_url=server.url, api_key="none", **settings))
        return {"callbacks": [LangChainTracer(client=clients[-1])]}

    config.flush = lambda: (wait_for_feedback(), [client.flush() for client in clients])  # type: ignore[attr-defined]
    yield config
    for client in clients:
        client.cleanup()


@pytest.fixture
def chain(chat: Any) -> Any:
    return PROMPT | chat(answer=lambda messages, number: f"said {'x' * number}") | StrOutputParser()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_feedback_is_on_the_refinement_itself(
    chain: Any, server: LangSmithServer, traced: Any, asynchronous: bool
) -> None:
    refined = RunnableTPO(chain, reward=longest, width=2, depth=1, langsmith_feedback=True)
    whole = RunnableLambda(lambda question: {"question": question}) | refined
    if asynchronous:
        await whole.ainvoke("how?", traced())
    else:
        await asyncio.to_thread(whole.invoke, "how?", traced())
    traced.flush()
    [run], [root] = server.named("RunnableTPO"), server.named("RunnableSequence")[:1]
    told = run["extra"]["metadata"]["tpo"]
    assert {f["key"]: f["score"] for f in server.feedback} == {
        "tpo_reward": told["reward"], "tpo_initial_reward": told["initial_reward"], "tpo_gain": told["gain"]
    }  # fmt: skip
    assert {(f["run_id"], f["trace_id"], f["session_id"]) for f in server.feedback} == {
        (run["id"], root["trace_id"], PROJECT)
    }
    assert all(f["feedback_source"]["metadata"]["reward_model"] == "longest" for f in server.feedback)
    assert not any(f.get("comment") for f in server.feedback)
    scores = [score["extra"]["metadata"]["tpo"]["rewards"] for score in server.named("tpo:score")]
    assert max(map(max, scores)) == told["reward"] and [len(s) for s in scores] == [2, 2]
    assert "/feedback" not in server.paths  # it went with the runs, in the background


def test_an_older_server_is_sent_feedback_by_itself(chain: Any) -> None:
    with LangSmithServer(batched=False) as server:
        client = Client(api_url=server.url, api_key="none")
        refined = RunnableTPO(chain, reward=longest, width=2, depth=0, langsmith_feedback=True)
        refined.batch([{"question": "how?"}] * 2, {"callbacks": [LangChainTracer(client=client)]})
        assert wait_for_feedback(30)
        client.flush()
        assert [path.rpartition("/")[2] for path in server.paths].count("feedback") == 6
        assert {f["run_id"] for f in server.feedback} == {run["id"] for run in server.named("RunnableTPO")}
        client.cleanup()


def test_a_chat_model_and_an_agent_send_it_likewise(chat: Any, server: LangSmithServer, traced: Any) -> None:
    from langchain.agents import create_agent

    model = chat(answer=lambda messages, number: f"said {'x' * number}")
    ChatTPO(llm=model, reward=longest, width=2, depth=0, langsmith_feedback=True).invoke("how?", traced())
    middleware = TPOMiddleware(reward=longest, width=2, depth=0, langsmith_feedback=True)
    create_agent(model, [], middleware=[middleware]).invoke({"messages": [("user", "how?")]}, traced())
    traced.flush()
    runs = {run["id"] for run in server.named("RunnableTPO")}
    assert len(runs) == 2 and {f["run_id"] for f in server.feedback} == runs


def test_nothing_is_sent_unless_asked(chain: Any, server: LangSmithServer, traced: Any) -> None:
    RunnableTPO(chain, reward=longest, width=2, depth=0).invoke({"question": "how?"}, traced())
    traced.flush()
    assert server.feedback == [] and server.named("RunnableTPO")[0]["extra"]["metadata"]["tpo"]["reward"] == 6


def test_where_texts_are_hidden_none_is_sent_beside_them(chat: Any, server: LangSmithServer, traced: Any) -> None:
    model = chat(answer=lambda messages, number: f"a canary {'x' * number}")
    config = traced(hide_inputs=True, hide_outputs=True)
    refined = RunnableTPO(PROMPT | model | StrOutputParser(), reward=longest, width=2, depth=1, langsmith_feedback=True)
    refined.invoke({"question": "which canary?"}, config)
    traced.flush()
    assert len(server.feedback) == 3 and server.named("tpo:score")
    check_nothing_leaks(*server.bodies)


def test_the_whole_trajectory_is_sent_where_asked(chain: Any, server: LangSmithServer, traced: Any) -> None:
    refined = RunnableTPO(chain, reward=longest, width=2, depth=1, trace_trajectory=True)
    refined.invoke({"question": "how?"}, traced())
    traced.flush()
    read = Trajectory.from_dict(server.named("RunnableTPO")[0]["extra"]["metadata"]["tpo_trajectory"])
    assert read.best.response.startswith("said") and len(read.steps) == 1


def test_no_key_of_a_model_is_sent(loopback: Any, server: LangSmithServer, traced: Any) -> None:
    model = ChatOpenAI(model="smol", base_url=loopback().url, api_key=KEY)
    refined = RunnableTPO(PROMPT | model | StrOutputParser(), reward=longest, width=2, depth=1, langsmith_feedback=True)
    refined.invoke({"question": "how?"}, traced())
    traced.flush()
    assert len(server.feedback) == 3
    check_nothing_leaks(*server.bodies)


def test_an_error_is_sent_without_the_key_that_a_model_s_server_repeats(server: LangSmithServer, traced: Any) -> None:
    with echoing(400) as where:
        model = ChatOpenAI(model="smol", base_url=f"http://{where}/v1", api_key=KEY, max_retries=0)
        with pytest.raises(GenerationError):
            RunnableTPO(model, reward=longest, width=2, depth=0, langsmith_feedback=True).invoke("how?", traced())
    traced.flush()
    [run] = server.named("RunnableTPO")  # the runs of the model inside are LangChain's, and so are their errors
    assert "you sent" in run["error"] and not server.feedback
    check_nothing_leaks(str(run))


def test_feedback_that_cannot_be_sent_costs_no_answer(chain: Any, caplog: pytest.LogCaptureFixture) -> None:
    with LangSmithServer(knows=False) as server:
        client = Client(api_url=server.url, api_key="none")
        refined = RunnableTPO(chain, reward=longest, width=2, depth=0, langsmith_feedback=True)
        assert refined.invoke({"question": "how?"}, {"callbacks": [LangChainTracer(client=client)]}) == "said x"
        assert wait_for_feedback(60) and "feedback could not be sent to LangSmith" in caplog.text
        client.cleanup()
    assert not server.feedback
