"""How a chain's answers are read: reasoning before them, data in them, what an update repeats of its prompt."""

from __future__ import annotations

from json import JSONDecodeError
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from pydantic import BaseModel

from tpo_langchain import RunnableTPO
from tpo_langchain.convert import remaker, text_of
from tpo_langchain.streaming import chunks


def longest(prompt: Any, response: str) -> float:
    return len(response)


def said_by(messages: Any) -> str:
    told = messages[-1].text
    return "editing" if "Rewrite" in told else "judging" if "response" in told else "answering"


@pytest.mark.parametrize("form", ["<think>first</think>\n{}", "first\n</think>\n\n{}"])
@pytest.mark.parametrize("parsed", [True, False])
def test_reasoning_is_read_away_and_a_sample_s_value_stays_the_host_s(chat: Any, form: str, parsed: bool) -> None:
    model = chat(answer=lambda messages, number: form.format(f"{said_by(messages)} {'x' * number}"))
    chain = model | StrOutputParser() if parsed else model
    refined = RunnableTPO(chain, reward=longest, width=2, depth=1, return_trajectory=True)
    trajectory = refined.invoke("how?")
    samples = [c for c in trajectory.candidates if not c.step]
    assert all(c.response.startswith("answering") for c in samples) and len(samples) == 2
    for sample in samples:
        assert (sample.value if parsed else sample.value.content) == form.format(sample.response)
    assert all(c.response.startswith("editing ") for c in trajectory.candidates if c.step)
    assert trajectory.steps[0].loss.startswith("judging ") and trajectory.steps[0].gradient.startswith("judging ")


@pytest.mark.parametrize("form", ["<response>\n{}\n</response>", "{}\n\n# Query\n<query>\nhow?\n</query>"])
def test_what_an_update_repeats_of_its_prompt_is_no_part_of_it(chat: Any, form: str) -> None:
    def answer(messages: Any, number: int) -> str:
        return form.format("a better answer") if said_by(messages) == "editing" else "x" * (number + 1)

    best = RunnableTPO(chat(answer=answer), reward=longest, width=2, depth=1).invoke("how?")
    assert best.content == "a better answer"


class Answer(BaseModel):
    """Data."""

    words: list[str]


@pytest.mark.parametrize(
    "text",
    ['{"words": ["a"]}', '```json\n{"words": ["a"]}\n```\nThere.', 'So:\n```\n{"words": ["a"]}\n```', '{"words": ["a'],
)
def test_data_is_made_again_of_what_models_write(text: str) -> None:
    assert remaker(None)(text, Answer(words=[])) == Answer(words=["a"])
    assert remaker(None)(text, {"words": []}) == {"words": ["a"]}


@pytest.mark.parametrize("text", ["", "x" * 100_000, "[" * 100_000, '{"words": ["a"]' * 10_000])
def test_what_is_no_data_costs_only_itself(text: str) -> None:
    with pytest.raises(JSONDecodeError):
        remaker(None)(text, Answer(words=[]))


@pytest.mark.parametrize("text", ["", " ", "a b", " a\n\nb  ", "\ud800 \n"])
def test_chunks_add_up_to_the_text(text: str) -> None:
    assert "".join(chunks(text)) == text
    assert "".join(c.text for c in chunks(AIMessage(text))) == text


def test_a_message_s_text_is_its_answer() -> None:
    assert text_of(AIMessage("<think>no</think>\nyes")) == "yes"
    assert text_of("<think>no") == "<think>no"
