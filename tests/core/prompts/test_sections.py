"""What a weak policy repeats of its prompt goes, and no word of an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpo_core.prompts.reading import read
from tpo_core.prompts.rendering import fence, render
from tpo_core.prompts.sections import form_of, section, unecho
from tpo_core.prompts.signatures import Update

SHOWN = {
    "query": fence("How is it served?", "query"),
    "chosen_response": fence("Serve it."),
    "editing_instructions": fence("Say how.\n\nBe brief.", "instructions"),
}
PROMPT = render(Update, SHOWN)[-1]["content"]


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("<response>\nServe warm.\n</response>", "Serve warm."),
        ("<response>Serve warm.</response>", "Serve warm."),
        ("<response>\n  1. Heat.\n  2. Serve.\n</response>", "  1. Heat.\n  2. Serve."),
        ("# Revised response\n<response>\nServe warm.", "Serve warm."),
        ("## Improved Response:\n\n<response>\nServe warm.\n</response>", "Serve warm."),
        ("Serve warm.\n</response>", "Serve warm."),
        ("Serve warm.\n\n# Editing instructions\n<instructions>\nSay how.", "Serve warm."),
        ("Serve warm.\n\n## editing Instructions\n\n<instructions>Say how. Be\nbrief.</instructions>", "Serve warm."),
        ("Serve warm.\n[[ ## query ## ]]\n<query>\nHow is it served?\n</query>\n", "Serve warm."),
        (f"Serve warm.\n\n{PROMPT}", "Serve warm."),
        (f"Serve warm.\n\n{PROMPT.removesuffix(form_of(Update).ask)}", "Serve warm."),
        (f"<response>\nServe warm.\n</response>\n\n{PROMPT}", "Serve warm."),
        ("# Chosen response\n<response>\nServe it.\n</response>", "Serve it."),
        ("Sure, here's the improved response:\n\n<response>\nServe warm.\n</response>", "Serve warm."),
    ],
)
def test_what_a_weak_policy_repeats_of_its_prompt_is_dropped(completion: str, text: str) -> None:
    assert read(Update, completion, SHOWN) == text
    assert unecho(completion, {"chosen_response": "not fenced"}) == completion


@pytest.mark.parametrize(
    "text",
    [
        "<instructions>Heat it.</instructions>\nServe warm.",
        "<response>Heat it.</response>\nServe warm.",
        "<response>a</response> or <response>b</response>",
        "Use:\n# Query\n<query>x</query>\nthen more",
        "Use:\n# Query\n<query>How is it served?</query>",  # a colon announces what follows
        "Use this\n# Query\n<query>select 1</query>",
        "Answer it.\n\n# Query\n<query>\nHow is it served?\n</query>\nand go on.",
        "# Heading\n<response>\nServe warm.\n</response>",
        "# Editing instructions\nSay how.",
        "The closing tag is </response>",
        "<query> is the tag.",
        "An XML answer:\n<response>x</response>",
        "# Improved response\nServe warm.",
        form_of(Update).ask,
    ],
)
def test_an_answer_that_only_resembles_the_prompt_is_kept(text: str) -> None:
    assert read(Update, text, SHOWN) == text


@pytest.mark.parametrize(
    "line",
    [
        "Sure, here's the improved response:",
        "Sure. Here's the improved response:",
        "Certainly! Here is the improved response with the required changes:",
        "**Here’s the revised version:**",
        "The improved response is as follows:",
        "the improved response:",
        "Sure! Below is the improved version of the script, incorporating the requested edits:",
    ],
)
def test_a_line_that_only_announces_the_rewritten_response_is_dropped(line: str) -> None:
    assert read(Update, f"{line}\n\n- Serve warm.\n- Eat.", SHOWN) == "- Serve warm.\n- Eat."
    same = {**SHOWN, "chosen_response": fence(f"{line}\nServe it.")}
    for kept, shown in ((line, SHOWN), (f"{line} Serve warm.", SHOWN), (f"{line}\nServe warm.", same)):
        assert read(Update, kept, shown) == kept
    assert read(Update, f"{line}\nServe warm.") == f"{line}\nServe warm."


@pytest.mark.parametrize("line", ["Here is how it is served:", "Sure:", "Here is the improved response", "Improved:"])
def test_another_first_line_is_the_answer_s_own(line: str) -> None:
    assert read(Update, f"{line}\n\nServe warm.", SHOWN) == f"{line}\n\nServe warm."


PARTS = st.sampled_from(
    [
        *("own", "words", "of", "an", "answer:", "\n", "\n\n", " ", "#", "# ", "**", "<b>"),
        *("<response>", "</response>", "<query>", "</query>", "<instructions>\n", "\n</instructions>"),
        *("# Query\n", "# Chosen response\n", "# Revised response\n", "\n# Editing instructions\n"),
        *("How is it served?", "Serve it.", "Say how.\n\nBe brief.", "Be brief.", section("query", SHOWN["query"])),
    ]
)
OWN = {"own", "words", "of", "an", "answer:", "#", "**", "<b>"} - {"#"}


@given(st.lists(PARTS, max_size=12).map(" ".join))
def test_an_answer_loses_no_word_that_is_not_the_prompt_s(text: str) -> None:
    kept = unecho(text, SHOWN, (form_of(Update).ask,))
    assert [w for w in kept.split() if w in OWN] == [w for w in text.split() if w in OWN]
    assert kept.strip() in text


@given(
    st.text(st.characters(exclude_characters="<#", exclude_categories=["Cs"]), min_size=1).map(str.strip),
    st.permutations(list(SHOWN)).flatmap(lambda names: st.integers(0, 3).map(lambda n: names[:n])),
    st.booleans(),
)
def test_an_answer_is_found_before_whatever_sections_are_repeated(answer: str, names: list[str], fenced: bool) -> None:
    if not answer or answer.endswith(":"):
        return
    said = fence(answer) if fenced else answer
    completion = "\n\n".join([said, *(section(name, SHOWN[name]) for name in names)])
    assert unecho(completion, SHOWN) == answer
