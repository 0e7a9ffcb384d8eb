"""MLflow's own autologging shows a refinement in both hosts, its rewards as attributes of the spans.

MLflow is too large for every run of the tests: ``pip install mlflow-skinny sqlalchemy alembic`` lets these run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
from instant_lm import instant_lm
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

import tpo_dspy
from tpo_core import Trajectory
from tpo_langchain import RunnableTPO

mlflow = pytest.importorskip("mlflow")


def last_word(prompt: Any, response: str) -> float:
    return float(response.split()[-1])


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder: Path = tmp_path_factory.mktemp("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.create_experiment("tpo", artifact_location=folder.as_uri())
    mlflow.set_experiment("tpo")
    mlflow.dspy.autolog()
    mlflow.langchain.autolog()
    yield
    mlflow.dspy.autolog(disable=True)
    mlflow.langchain.autolog(disable=True)


def last_trace() -> tuple[Any, list[tuple[int, str]], dict[str, list[dict[str, Any]]]]:
    """Return the root span, the names by depth in order, and the attributes by name."""
    mlflow.flush_trace_async_logging()
    spans = sorted(mlflow.get_trace(mlflow.get_last_active_trace_id()).data.spans, key=lambda s: s.start_time_ns)
    parents = {span.span_id: span.parent_id for span in spans}

    def depth(span_id: str) -> int:
        return 0 if parents[span_id] is None else 1 + depth(parents[span_id])

    by_name: dict[str, list[dict[str, Any]]] = {}
    for span in spans:
        by_name.setdefault(span.name, []).append(span.attributes)
    return spans[0], [(depth(span.span_id), span.name) for span in spans], by_name


def check(root: Any, scores: list[dict[str, Any]], trajectory: Trajectory) -> None:
    assert root.attributes["tpo.reward"] == trajectory.best.reward
    assert root.attributes["tpo.gain"] == trajectory.gain and root.attributes["tpo.stop_reason"] == "depth"
    assert [score["tpo.reward_model"] for score in scores] == ["last_word"] * 2
    assert max(reward for score in scores for reward in score["tpo.rewards"]) == trajectory.best.reward


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_dspy_program(asynchronous: bool) -> None:
    program = tpo_dspy.TPO(dspy.Predict("question -> answer"), last_word, width=2, depth=1)
    with dspy.context(lm=instant_lm()):
        if asynchronous:
            prediction = await program.acall(question="how?")
        else:
            prediction = await asyncio.to_thread(program, question="how?")
    root, shape, by_name = last_trace()
    assert root.name == "TPO.forward"
    requests = [name for depth, name in shape if depth == 2]
    kinds = ["Sample", "Sample", "Score", "Loss", "Gradient", "Update", "Update", "Score"]
    assert requests == [f"{kind}.forward" for kind in kinds]
    assert [name for depth, name in shape if depth == 1] == ["Round.forward"] * 2
    assert len(by_name["LM.__call__"]) == 6
    check(root, by_name["Score.forward"], prediction.tpo_trajectory)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_chain(asynchronous: bool) -> None:
    model = FakeListChatModel(responses=[f"answer {number}" for number in range(20)])
    chain = ChatPromptTemplate.from_template("{question}") | model | StrOutputParser()
    refined = RunnableTPO(chain, last_word, width=2, depth=1, return_trajectory=True)
    if asynchronous:
        await refined.ainvoke({"question": "how?"})
    else:
        trajectory = await asyncio.to_thread(refined.invoke, {"question": "how?"})
    root, shape, by_name = last_trace()
    assert root.name == "RunnableTPO"
    inside = [name for depth, name in shape if depth == 1 and name.startswith("tpo:")]
    tasks = ["sample", "sample", "score", "loss", "gradient", "update", "update", "score"]
    assert inside == [f"tpo:{task}" for task in tasks]
    assert len(by_name["FakeListChatModel"]) == 6
    if not asynchronous:  # MLflow's tracer runs in threads there, unless it is told to run inline
        check(root, by_name["tpo:score"], trajectory)


async def test_attributes_in_async_chains_where_mlflow_runs_inline() -> None:
    mlflow.langchain.autolog(run_tracer_inline=True)
    try:
        model = FakeListChatModel(responses=[f"answer {number}" for number in range(20)])
        refined = RunnableTPO(model, last_word, width=2, depth=1, return_trajectory=True)
        trajectory = await refined.ainvoke("how?")
    finally:
        mlflow.langchain.autolog()
    root, _, by_name = last_trace()
    check(root, by_name["tpo:score"], trajectory)
