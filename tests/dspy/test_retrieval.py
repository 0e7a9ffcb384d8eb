"""Programs that retrieve, and rewards that need a reference: everybody sees what the answering model saw."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import count
from typing import Any

import dspy
import pytest

from tpo_core import RewardError
from tpo_dspy import TPO

Scripted = Callable[..., dspy.LM]
RULES: list[Any] = [
    ("improved_answer", lambda prompt, number: f"improved {number}"),
    ("textual_gradient", "Quote the document."),
    ("textual_loss", "The chosen one says more."),
    ("answer", lambda prompt, number: {"reasoning": "because", "answer": "d" * number}),
]


class RAG(dspy.Module):
    """Finds another document each time."""

    def __init__(self) -> None:
        super().__init__()
        self.respond = dspy.ChainOfThought("context, question -> answer")
        self.found = count(1)

    def forward(self, question: str) -> dspy.Prediction:
        return self.respond(context=[f"document {next(self.found)}"], question=question)


@pytest.fixture
def lm(scripted: Scripted) -> dspy.LM:
    lm = scripted(RULES)
    dspy.configure(lm=lm, trace=[], adapter=None, callbacks=[], track_usage=False)
    return lm


def document(text: str) -> str:
    return text[text.index("document ") :][:10]


def test_critique_update_and_reward_see_the_document_that_the_chosen_answer_was_made_from(lm: dspy.LM) -> None:
    scored: list[tuple[Any, str]] = []

    def longer(prompt: str, response: str) -> float:
        scored.append((prompt, response))
        return len(response)

    trajectory = TPO(RAG(), longer, width=3, depth=1)(question="why?").trajectory
    chosen, rejected = trajectory.steps[0].chosen, trajectory.steps[0].rejected
    assert "document" in chosen.context and chosen.context != rejected.context and trajectory.query == "why?"
    prompts = {name: next(p for p in lm.engine.prompts if name in p) for name in ("textual_loss", "improved_answer")}
    assert document(chosen.context) in prompts["improved_answer"]
    assert document(rejected.context) not in prompts["improved_answer"]
    assert document(chosen.context) in prompts["textual_loss"] and document(rejected.context) in prompts["textual_loss"]
    assert all("document" in prompt and "why?" in prompt for prompt, _ in scored)
    assert {c.context for c in trajectory.candidates if not c.fresh} == {chosen.context}


@pytest.mark.parametrize("query", ["question", lambda example: example.question])
def test_query_says_otherwise(lm: dspy.LM, query: Any) -> None:
    trajectory = TPO(RAG(), lambda prompt, response: len(prompt), width=2, depth=0, query=query)("why?").trajectory
    assert {c.context for c in trajectory.candidates} == {None} and trajectory.rewards(0) == (4.0, 4.0)


def test_metrics_and_evaluators_still_get_the_raw_inputs(lm: dspy.LM) -> None:
    seen: list[Any] = []

    def metric(example: dspy.Example, pred: dspy.Prediction, trace: Any = None) -> float:
        seen.append(example.inputs().toDict())
        return len(pred.answer)

    def evaluator(*, inputs: Any, outputs: Any) -> float:
        seen.append(inputs)
        return len(outputs["answer"])

    for reward in (metric, evaluator):
        TPO(RAG(), reward, width=1, depth=0)(question="why?")
    assert seen == [{"question": "why?"}] * 2


def test_a_question_that_the_last_predictor_does_not_see_is_still_shown(lm: dspy.LM) -> None:
    class Polish(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.polish = dspy.Predict("draft -> answer")

        def forward(self, question: str) -> dspy.Prediction:
            return self.polish(draft="a first draft")

    trajectory = TPO(Polish(), lambda prompt, response: 1.0, width=1, depth=0)(question="why?").trajectory
    assert trajectory.best.context == "question: why?\n\ndraft: a first draft"


def test_a_bare_predictor_answers_its_query_and_nothing_else(lm: dspy.LM) -> None:
    program = dspy.ChainOfThought("question, tone -> answer")
    trajectory = TPO(program, lambda prompt, response: len(response), width=2, depth=1)(tone="dry", question="why?")
    assert {c.context for c in trajectory.trajectory.candidates} == {None}


def exact(example: dspy.Example, pred: dspy.Prediction, trace: Any = None) -> float:
    return float(example.answer == pred.answer)


def by_key(example: dspy.Example, pred: dspy.Prediction, trace: Any = None) -> float:
    return float(example["answer"] == pred.answer)


@pytest.mark.parametrize("metric", [exact, by_key])
def test_a_metric_that_reads_a_label_is_told_that_labels_are_not_known_and_what_to_do(lm: dspy.LM, metric: Any) -> None:
    with pytest.raises(RewardError, match=r"labels are not known while answering.*refined\(\.\.\., answer=\.\.\.\)"):
        TPO(dspy.ChainOfThought("question -> answer"), metric, width=2, depth=1)(question="why?")


@pytest.mark.parametrize("program", [lambda: dspy.ChainOfThought("question -> answer"), RAG])
def test_what_is_not_the_programs_is_a_label_for_the_reward(
    lm: dspy.LM, program: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        logging.getLogger("dspy").propagate = True
        prediction = TPO(program(), exact, width=2, depth=0)(question="why?", answer="dd")
    assert prediction.answer == "dd" and prediction.reward == 1.0
    assert "not in signature" not in caplog.text and "dd" not in str(lm.engine.prompts)


def test_a_label_may_be_asked_for_without_being_there(lm: dspy.LM) -> None:
    def lenient(example: dspy.Example, pred: dspy.Prediction, trace: Any = None) -> float:
        known = getattr(example, "answer", None) or example.get("answer", None)
        return float(known is None and not hasattr(example, "answer") and "answer" not in example)

    assert TPO(RAG(), lenient, width=1, depth=0)(question="why?").reward == 1.0


def test_semantic_f1_says_what_it_lacks_and_works_with_a_reference_of_the_call(scripted: Scripted) -> None:
    from dspy.evaluate import SemanticF1

    grades = {"reasoning": "because", "recall": 1.0, "precision": 0.5}
    lm = scripted([("ground_truth", grades), ("response", lambda prompt, number: {"response": "r" * number})])
    program = dspy.Predict("question -> response")
    with dspy.context(lm=lm):
        with pytest.raises(RewardError, match=r"reads example\.response.*labels are not known"):
            TPO(program, SemanticF1(), width=2, depth=0)(question="why?")
        prediction = TPO(program, SemanticF1(), width=2, depth=0)(question="why?", response="rayleigh")
    assert round(prediction.reward, 2) == 0.67
