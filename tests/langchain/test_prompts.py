"""Prompts tuned in DSPy, used in LangChain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy
import pytest

import tpo_dspy
from tpo_core import InvalidInputError
from tpo_langchain import RunnableTPO, load_prompts


def longest(prompt: Any, response: str) -> float:
    return len(response)


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.refined = tpo_dspy.TPO(dspy.ChainOfThought("question -> answer"), longest)


def tuned() -> Program:
    program = Program()
    loss, update = program.refined.loss, program.refined.update
    loss.signature = loss.signature.with_instructions("Compare them kindly.")
    loss.demos = [dspy.Example(query="q", rejected_response="r", chosen_response="c", textual_loss="fine")]
    update.demos = [
        dspy.Example(query="q", chosen_response="c", editing_instructions="e", improved_answer="better", augmented=True)
    ]
    return program


def test_tuned_prompts_are_asked_with_their_examples(chat: Any, tmp_path: Path) -> None:
    tuned().save(tmp_path / "tuned.json")
    prompts = load_prompts(tmp_path / "tuned.json")
    assert set(prompts) == {"loss", "gradient", "update"}
    assert "question" not in prompts["update"].instructions  # the DSPy program's own task

    model = chat(answer=lambda messages, number: f"sample {'x' * number}")
    refined = RunnableTPO(model, reward=longest, width=2, depth=1, prompts=prompts)
    refined.invoke("how?")
    loss, update = model.log.messages[2], model.log.messages[4]
    assert (
        loss[0].text == "Compare them kindly." and "# Rejected response\nr" in loss[1].text and loss[2].text == "fine"
    )
    assert update[2].text == "better" and "# Editing instructions\ne" in update[1].text and len(update) == 4
    assert "Compare them kindly." in str(refined.get_prompts())


def test_a_file_without_one_set_of_prompts_is_refused(tmp_path: Path) -> None:
    dspy.Predict("a -> b").save(tmp_path / "other.json")
    (tmp_path / "text.json").write_text("no json")
    for name, word in (
        ("other.json", "loss, gradient or update"),
        ("text.json", "JSON"),
        ("none.json", "cannot be read"),
    ):
        with pytest.raises(InvalidInputError, match=word):
            load_prompts(tmp_path / name)
    both = dspy.Module()
    both.one, both.two = tuned(), tuned()
    both.save(tmp_path / "both.json")
    with pytest.raises(InvalidInputError, match=r"one\.refined, two\.refined"):
        load_prompts(tmp_path / "both.json")
    assert load_prompts(tmp_path / "both.json", module="one.refined")["loss"].demos
