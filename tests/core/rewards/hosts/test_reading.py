"""The prompt and the response are read out of whatever a host hands to a metric."""

import dspy
import pytest
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, HumanMessageChunk

from tpo_core.errors import InvalidInputError
from tpo_core.rewards.hosts.reading import prompt_of, response_of

CHAT = [{"role": "system", "content": "Be dry."}, {"role": "user", "content": "Why?"}]


EXAMPLE = dspy.Example(question="Why?", answer="Because.").with_inputs("question")


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ("abc", "abc"),
        (dspy.Prediction(reasoning="hm", answer="abc"), "abc"),
        (dspy.Prediction(title="t", body=["x"]), 'title: t\n\nbody: ["x"]'),
        ({"output": "abc"}, "abc"),
        ([{"role": "assistant", "content": None, "tool_calls": [{}]}], ""),
        (AIMessage([{"type": "text", "text": "a"}, {"type": "reasoning"}, {"type": "text", "text": "bc"}]), "abc"),
        ([HumanMessage("Why?"), AIMessage("abc")], "abc"),
        ({"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "abc"}]}, "abc"),
    ],
)
def test_the_response_is_read_out_of_what_the_host_has(outputs, text):
    assert response_of(outputs) == text


@pytest.mark.parametrize(
    ("inputs", "prompt"),
    [
        ("Why?", "Why?"),
        (EXAMPLE, "Why?"),
        (dspy.Example(question="Why?", answer="Because."), "Why?"),
        ({"question": "Why?", "tone": "dry"}, "question: Why?\n\ntone: dry"),
        ({"messages": [HumanMessage("Why?")]}, [{"role": "user", "content": "Why?"}]),
        ({"messages": [("system", "Be dry."), ("human", "Why?")]}, CHAT),
        ([ChatMessage("Be dry.", role="system"), HumanMessageChunk("Why?")], CHAT),
        ([("not", "messages")], '[["not", "messages"]]'),
    ],
)
def test_the_prompt_is_read_out_of_what_the_host_has(inputs, prompt):
    assert prompt_of(inputs, dspy.Prediction(answer="x")) == prompt


@pytest.mark.parametrize("nothing", [{}, {"answer": None}, dspy.Prediction(), dspy.Prediction(answer=None), None])
def test_nothing_to_read_is_an_error_that_offers_a_picker(nothing):
    with pytest.raises(InvalidInputError, match="response= picker"):
        response_of(nothing)
