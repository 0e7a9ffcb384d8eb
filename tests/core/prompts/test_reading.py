"""What is shown to a model, and how leniently its answer is read."""

from __future__ import annotations

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpo_core import InvalidInputError
from tpo_core.prompts.control_tokens import join_control_tokens
from tpo_core.prompts.reading import read, refuse
from tpo_core.prompts.rendering import fence, render, render_fields, shorten, show_query
from tpo_core.prompts.signatures import SelfCritique, TextualGradient, TextualLoss, Update


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("plain answer", "plain answer"),
        ("[[ ## improved_response ## ]]\nanswer\n[[ ## completed ## ]]", "answer"),
        ("[[ ## improved_response ## ]]\nanswer", "answer"),
        ("Sure!\n[[ ## improved_response ## ]]\nanswer\n\n[[ ## completed ## ]]\n", "answer"),
        ("answer\n[[ ## completed ## ]]", "answer"),
        ("<improved_response>\nanswer\n</improved_response>", "answer"),
        ("<IMPROVED_RESPONSE>answer", "answer"),
        ("<think>hm</think>\nanswer", "answer"),
        ("hm\n</think>\n\nanswer", "answer"),
        ("<think>\n[[ ## improved_response ## ]]\nhm</think>\n[[ ## improved_response ## ]]\nanswer", "answer"),
        ("[[ ## improved_response ## ]]\n<think>hm</think>\nanswer\n[[ ## completed ## ]]", "answer"),
        ("<improved_response>\nanswer\n</improved_response>\nI hope that it helps.", "answer"),
        ("<think>a whole text of reasoning", None),
        ("[[ ## improved_response ## ]]\nsee\n[[ ## other ## ]]\nbelow", "see\n[[ ## other ## ]]\nbelow"),
        ("an answer that quotes <improved_response>x</improved_response> inside", None),
        ("    indented code\n  stays", "    indented code\n  stays"),
    ],
)
def test_a_completion_is_read_leniently(completion, text):
    assert read(Update, completion) == (completion if text is None else text)


@given(st.text())
def test_reading_a_plain_completion_keeps_all_its_text(text):
    if "[[ ##" not in text and "<" not in text:
        assert read(Update, text).strip() == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        *("", " \n", "...", "…", "*...*", "{answer}", "{improved_response}", "{improved_summary}", "<answer>"),
        *("[Your improved response here]", "**[the improved answer]**", "`{response}`", "[improved text]"),
        *("<think>It is 4</think>", "<think>It is 4</think>\n{answer}", "<think>It is"),
    ],
)
def test_nothing_and_blanks_of_the_prompt_are_no_candidates(text):
    assert refuse(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        *("42", "Yes", "the answer", "answer", "A new answer.", "[1, 2]", "{x}", "<b>hi</b>", "**answer**", '"answer"'),
        *("-", "*", "#", "+", ".", "..", "_", "`", "**", "---", "()", "[]", "{}", "<>", "<text>", "{text}", "[x]"),
        *("[improved performance]", "your response", "\ud800", "<think>It is 4</think>-"),
    ],
)
def test_short_real_answers_are_candidates(text):
    assert refuse(text) is None


def test_a_long_placeholder_is_not_repeated_in_the_reason():
    assert len(refuse("." * 2**20).message) < 200


def test_reasoning_that_never_ends_is_told_of():
    assert refuse("<think>It is").message == "the response is reasoning that never ends; raise max_response_tokens"


def test_an_unfinished_response_is_no_candidate():
    assert refuse("half", "length").reason == "length"
    assert refuse("whole", "stop") is None


@given(st.text())
def test_a_fence_cannot_be_closed_from_inside(text):
    first, *_, last = fence(text).split("\n")
    assert last == first.replace("<", "</")
    shown = fence(text)[len(first) + 1 : -len(last) - 1]
    assert last not in text and join_control_tokens(shown) == join_control_tokens(text)


@given(st.text(), st.integers(64, 200))
def test_shortening_keeps_both_ends_and_the_limit(text, limit):
    short = shorten(text, limit)
    assert short == text or (len(short) <= limit and "left out" in short and short[0] == text[0])


@pytest.mark.parametrize("signature", [TextualLoss, SelfCritique, TextualGradient, Update])
@pytest.mark.parametrize("instructions", [None, "Do as tuned."])
def test_every_prompt_shows_its_instructions_and_all_inputs(signature, instructions):
    inputs = {name: f"<{name} text>" for name in signature.input_fields}
    system, user = render(signature, inputs, instructions=instructions)
    assert (system["role"], user["role"]) == ("system", "user")
    told = instructions or signature.instructions
    assert all(user["content"].find(text) < user["content"].index(told) for text in inputs.values())


@given(st.text(), st.text())
def test_the_prompts_of_a_round_are_the_same_as_far_as_query_and_chosen_response(query, response):
    shown = {"query": fence(query, "query"), "chosen_response": fence(response)}
    prompts = [
        render(TextualLoss, {**shown, "rejected_response": "worse"}),
        render(SelfCritique, shown),
        render(TextualGradient, {**shown, "critique": "too long"}),
        render(Update, {**shown, "editing_instructions": "shorten"}),
    ]
    assert len({prompt[0]["content"] for prompt in prompts}) == 1
    first = prompts[0][1]["content"]
    shared = first[: first.index(shown["query"]) + len(shown["query"])]
    shared += first[len(shared) : first.index(shown["chosen_response"], len(shared)) + len(shown["chosen_response"])]
    assert all(prompt[1]["content"].startswith(shared) for prompt in prompts)


def test_demos_are_shown_as_turns_and_the_instructions_before_them():
    demo = {"query": "q", "chosen_response": "r", "editing_instructions": "i", "improved_response": "better"}
    messages = render(Update, demo, [demo])
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"]
    assert messages[0]["content"] == Update.instructions
    assert messages[1] == messages[3] and messages[2]["content"] == "better"


def test_a_missing_input_or_several_outputs_are_named():
    with pytest.raises(InvalidInputError, match="chosen_response"):
        render(Update, {"query": "q"})
    with pytest.raises(InvalidInputError, match="2 output fields"):
        render(dspy.Signature("a -> b, c"), {"a": 1})


def test_the_engine_s_fields_are_named_unlike_any_task_field():
    outputs = {name for s in (TextualLoss, TextualGradient, Update) for name in s.output_fields}
    assert not outputs & {"answer", "response", "output", "text", "summary", "critique", "feedback"}


def test_a_prompt_is_shown_with_its_speakers_named():
    assert show_query("hi") == "hi"
    assert show_query([{"role": "user", "content": "hi"}]) == "hi"
    parts = [{"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {}}]}]
    assert show_query(parts) == "look\n[image_url]"


@pytest.mark.parametrize("content", [5, {"text": "look"}, b"look", [5], [None], [{"type": "text", "text": 5}]])
def test_a_query_part_that_is_no_text_is_named(content):
    with pytest.raises(InvalidInputError, match="query"):
        show_query([{"role": "user", "content": content}])


@pytest.mark.parametrize("text", ["\ud800", "<think>\udfff</think>\ud800", "\ud800</response>"])
def test_half_a_character_is_read_like_any_other(text):
    assert read(Update, text, {"chosen_response": fence(text)}).endswith(text[-1])
    assert show_query([{"role": "user", "content": [text]}]) == text


def test_a_fence_takes_the_first_number_that_is_free():
    assert fence("</response> <response-2> response-4 >").startswith("<response-3>\n")
    assert fence("response-" + "9" * 10_000 + ">").startswith("<response>\n")


def test_fields_are_rendered_alone_or_by_name():
    assert render_fields({"answer": 4}) == "4"
    assert render_fields({"answer": 4, "why": "sum"}) == "answer: 4\n\nwhy: sum"
