"""The answer after a model's reasoning, JSON as models write it, a text in pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpo_core.prompts.modeltext import after_reasoning, pieces, read_json, trim, without_reasoning

TEXTS = st.lists(
    st.sampled_from(["<think>", "</think>", "<thinking>", "</thinking>", "\n", " ", "a", "b\n", "`", "\ud800"])
).map("".join)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Paris", "Paris"),
        ("", ""),
        ("<think>Lyon?</think>Paris", "Paris"),
        ("<think>Lyon?</think> Paris", "Paris"),
        ("\n<think>\nLyon?\n</think>\n\n  if x:\n    y", "  if x:\n    y"),
        ("<thinking>Lyon? </think></thinking>Paris", "Paris"),
        ("<think></think>\n<think>Lyon?</think>Paris", "Paris"),
        ("<think>Lyon?</think>", ""),
        ("Lyon? No.\n</think>\n\nParis", "Paris"),  # the chat template wrote the opening tag
        ("Lyon? No.\n </think> \nParis", "Paris"),
        ("</think>\n\nParis", "Paris"),
        ("Lyon?\n</think>\n", ""),
        ("<think>Lyon? It is", None),
        (" <thinking>", None),
    ],
)
def test_reasoning_before_an_answer_is_told_from_it(text: str, answer: str | None) -> None:
    assert after_reasoning(text) == answer
    assert without_reasoning(text) == (text if answer is None else answer)


@pytest.mark.parametrize(
    "text",
    [
        "Close the block with </think> and go on.",
        "End it with </think>\nand go on.",
        "Write\n<think>\nso\n</think>\nand the rest.",
        "The tags are `<think>` and `</think>`.",
        "<thinks>a</thinks>b",
        "a\n</think> b",
    ],
)
def test_an_answer_that_speaks_of_thinking_tags_keeps_them(text: str) -> None:
    assert after_reasoning(text) == text


@given(TEXTS)
def test_an_answer_after_reasoning_is_the_end_of_the_text(text: str) -> None:
    answer = after_reasoning(text)
    assert answer is None or text.endswith(answer)
    assert (answer is None) <= text.lstrip().startswith(("<think", "</think"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        (' [1, "x"]\n', [1, "x"]),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('Here it is:\n```\n{"a": 1}\n```\nI hope that it helps {you}.', {"a": 1}),
        ('{"a": 1}\nI hope that it helps.', {"a": 1}),
        ('{"a": [1, {"b": "c', {"a": [1, {"b": "c"}]}),
        ('{"a": "c\\', {"a": "c"}),
        ('{"a": "two\nlines, a \\" and a }"', {"a": 'two\nlines, a " and a }'}),
        ('{"code": "```py\\nx\\n```"}', {"code": "```py\nx\n```"}),
        ("3", 3),
    ],
)
def test_json_is_read_as_models_write_it(text: str, value: object) -> None:
    assert read_json(text) == value


@pytest.mark.parametrize("text", ["", "no", "{'a': 1}", '{"a": tr', "[" * 100_000, "1" * 100_000, "[1}", "```"])
def test_what_is_no_json_is_an_error_of_json(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        read_json(text)


@given(
    st.recursive(
        st.none() | st.integers(-99, 99) | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_all_json_is_read_bare_and_in_a_fence(value: object) -> None:
    written = json.dumps(value)
    assert read_json(written) == value
    assert read_json(f"```json\n{written}\n```") == value or "```" in written


@given(st.text(), st.sampled_from([" ", "\n", "", "\u3000"]))
def test_pieces_add_up_to_the_text_and_each_holds_a_word(text: str, end: str) -> None:
    found = pieces(text + end)
    assert "".join(found) == text + end
    assert len(found) == (len((text + end).split()) or bool(text + end))


@pytest.mark.parametrize(
    ("text", "trimmed"),
    [("\n  \n    if x:\n      y \n ", "    if x:\n      y"), ("  a ", "a"), ("", ""), (" \n ", ""), ("a\n b", "a\n b")],
)
def test_trimming_keeps_the_indentation_of_several_lines(text: str, trimmed: str) -> None:
    assert trim(text) == trimmed
