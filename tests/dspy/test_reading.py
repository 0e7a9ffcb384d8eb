"""How a program's answers are read: short ones, reasoning before them, what an update repeats of its prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import dspy
import pytest

from tpo_core.prompts.rendering import fence
from tpo_dspy import TPO
from tpo_dspy.adapters import Sampling, lenient, salted

Scripted = Callable[..., dspy.LM]

CRITIQUES = [("textual_gradient", "be longer"), ("textual_loss", "too short")]


class Sign(dspy.Signature):
    """Say which operator stands in the gap."""

    question: str = dspy.InputField()
    answer: Literal["+", "-", "*", "#", "..", "**answer**"] = dspy.OutputField()


def length(prompt: Any, response: str) -> float:
    return len(response)


@pytest.mark.parametrize("sign", ["+", "-", "*", "#", "..", "**answer**"])
def test_a_sign_is_an_answer(scripted: Scripted, sign: str) -> None:
    with dspy.context(lm=scripted([("answer", {"answer": sign})])):
        prediction = TPO(dspy.Predict(Sign), length, width=2, depth=0)(question="2 ? 2")
    assert prediction.answer == sign and not prediction.trajectory.failures


@pytest.mark.parametrize(
    "form",
    [
        "<think>{{}} [[ ## answer ## ]]\nno</think>\n[[ ## FIELD ## ]]\n{}\n\n[[ ## completed ## ]]",
        "<think>no</think>{}",
        "no\n</think>\n\n{}",
        "[[ ## FIELD ## ]]\n<think>no</think>\n{}\n[[ ## completed ## ]]",
    ],
)
def test_reasoning_is_no_part_of_samples_and_updates(scripted: Scripted, form: str) -> None:
    update = form.replace("FIELD", "improved_answer").format("a better draft")
    sample = form.replace("FIELD", "answer")
    lm = scripted([("improved_answer", update), *CRITIQUES, ("answer", lambda p, n: sample.format("draft" + "!" * n))])
    with dspy.context(lm=lm):
        trajectory = TPO(dspy.Predict("question -> answer"), length, width=2, depth=1)(question="why?").trajectory
    assert {c.response for c in trajectory.candidates if c.step} == {"a better draft"}
    assert all(c.response.startswith("draft!") for c in trajectory.candidates if not c.step)
    assert not trajectory.failures


def test_reasoning_with_braces_does_not_mislead_the_json_adapter(scripted: Scripted) -> None:
    said = '<think>{"answer": "no"}</think>\n{"answer": "yes"}'
    with dspy.context(lm=scripted([("answer", said)]), adapter=dspy.JSONAdapter()):
        prediction = TPO(dspy.Predict("question -> answer"), length, width=1, depth=0)(question="why?")
    assert prediction.answer == "yes"


def test_the_value_stays_the_program_s_own() -> None:
    class Raw(dspy.Module):
        def forward(self, question: str) -> dspy.Prediction:
            return dspy.Prediction(answer="<think>no</think>\nyes")

    refined = TPO(Raw(), length, fields=["answer"], width=1, depth=0)
    prediction = refined(question="why?")
    assert prediction.trajectory.best.response == "yes"
    assert prediction.answer == "<think>no</think>\nyes"


def test_a_field_that_is_called_thinking_is_not_taken_for_reasoning() -> None:
    signature = dspy.Signature("question -> thinking, answer")
    adapter = salted(dspy.XMLAdapter(), Sampling())
    said = "<thinking>2 and 2</thinking>\n<answer>4</answer>"
    assert adapter.parse(signature, said) == {"thinking": "2 and 2", "answer": "4"}


@pytest.mark.parametrize("adapter", [None, dspy.ChatAdapter(), dspy.JSONAdapter(), dspy.XMLAdapter()])
def test_what_an_update_repeats_of_its_prompt_is_no_part_of_it(adapter: Any) -> None:
    shown = {"chosen_response": fence("old"), "editing_instructions": fence("be brief", "instructions")}
    reader = lenient(adapter, Sampling(shown=shown))
    signature = dspy.Signature("chosen_response -> improved_answer")
    for said in (
        "<response>\nnew\n</response>",
        f"new\n\n[[ ## editing_instructions ## ]]\n{shown['editing_instructions']}",
        "<think>old</think>\n# Improved response\n<response>\nnew",
    ):
        assert reader.parse(signature, said) == {"improved_answer": "new"}


def test_long_data_is_read_where_it_is_json_and_refused_where_it_would_have_to_be_repaired() -> None:
    reader = lenient(None, Sampling())
    signature = dspy.Signature("question -> improved_answer: list[str]")
    words = ["word"] * 5000
    assert reader.parse(signature, f"```json\n{dspy.adapters.utils.serialize_for_json(words)!s}".replace("'", '"')) == {
        "improved_answer": words
    }
    assert reader.parse(signature, "['a', 'b'") == {"improved_answer": ["a", "b"]}
    with pytest.raises(dspy.AdapterParseError):
        reader.parse(signature, '{"a"' * 5000)


@pytest.mark.parametrize("kind", [str, str | None, str | int, dspy.Code])
def test_a_long_text_is_read_whatever_type_takes_text(kind: Any) -> None:
    signature = dspy.Signature("question -> answer").with_updated_fields("answer", type_=kind)
    text = "word " * 5000 + "."
    value = lenient(None, Sampling()).parse(signature, text)["answer"]
    assert (value.code if isinstance(value, dspy.Code) else value).strip() == text
