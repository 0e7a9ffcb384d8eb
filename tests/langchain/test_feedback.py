"""Rewards and trajectories in LangSmith and openevals, offline."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from langchain_core.output_parsers import StrOutputParser
from langsmith import Client, evaluate, tracing_context
from langsmith.schemas import Example
from openevals.exact import exact_match
from openevals.types import EvaluatorResult

from tpo_core import InvalidInputError
from tpo_core.rewards import as_reward
from tpo_langchain import ChatTPO, RunnableTPO, trajectory_feedback


def longest(prompt: Any, response: str) -> float:
    return len(response)


def data() -> list[Example]:
    return [Example(id=uuid4(), inputs={"question": "how?"}, outputs={"output": "so"}, dataset_id=uuid4())]


def feedback_of(target: Any, *evaluators: Any) -> dict[str, Any]:
    def untraced(inputs: dict[str, Any]) -> Any:
        with tracing_context(enabled=False):  # upload_results=False keeps results at home, but not LangChain's traces
            return target(inputs)

    nobody = Client(api_url="http://127.0.0.1:9", api_key="none", info={}, tracing_sampling_rate=0.0)
    rows = evaluate(untraced, data=data(), evaluators=list(evaluators), upload_results=False, client=nobody)
    [row] = rows
    return {r.key: r.score if r.score is not None else r.value for r in row["evaluation_results"]["results"]}


@pytest.fixture
def model(chat: Any) -> Any:
    return chat(answer=lambda messages, number: f"sample {'x' * number}")


def test_a_reward_evaluates_a_refined_chain_and_its_trajectory_is_feedback(model: Any) -> None:
    refined = RunnableTPO(model | StrOutputParser(), reward=longest, width=2, depth=1)
    scores = feedback_of(lambda inputs: {"output": refined.invoke(inputs["question"])}, as_reward(longest))
    assert scores["longest"] > len("sample x")
    whole = refined.model_copy(update={"return_trajectory": True})
    scores = feedback_of(lambda inputs: {"output": whole.invoke(inputs["question"])}, trajectory_feedback)
    assert scores["tpo_gain"] > 0 and scores["tpo_calls"] == 6 and scores["tpo_stop_reason"] == "depth"


def test_a_refined_message_carries_its_feedback(model: Any) -> None:
    chat = ChatTPO(llm=model, reward=longest, width=2, depth=0)
    for outputs in (
        chat.invoke("how?"),
        {"messages": [chat.invoke("how?")]},
        {"output": chat.invoke("how?").model_dump()},
    ):
        results = trajectory_feedback(outputs)["results"]
        assert results[0]["key"] == "tpo_reward" and results[0]["score"] >= 8


def test_outputs_without_a_refinement_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="return_trajectory"):
        trajectory_feedback({"output": "text"})


def test_an_openevals_evaluator_is_a_reward_and_a_reward_evaluates_as_one(model: Any) -> None:
    def shaped(*, inputs: Any, outputs: Any) -> EvaluatorResult:
        same = exact_match(outputs=outputs, reference_outputs="sample xx")["score"]
        return EvaluatorResult(key="same", score=same, comment="say it with two", metadata=None)

    refined = RunnableTPO(model | StrOutputParser(), reward=shaped, width=3, depth=0, return_trajectory=True)
    best = refined.invoke("how?").best
    assert best.response == "sample xx" and best.feedback == "say it with two"
    told = as_reward(longest)(inputs="how?", outputs="sample")
    assert told["key"] == "longest" and told["score"] == 6.0
