"""Control tokens that a text spells out are whole in no prompt, and whole again in every answer."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpo_core.prompts.control_tokens import join_control_tokens, split_control_tokens
from tpo_core.prompts.reading import read
from tpo_core.prompts.rendering import fence
from tpo_core.prompts.sections import section
from tpo_core.prompts.signatures import Update

# Of ChatML, Llama 3, Gemma, Mistral, Llama 2, DeepSeek, EXAONE, Command R, GPT
TOKENS = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end|>",
    "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]",
    "[TOOL_CALLS]", "<<SYS>>", "<</SYS>>", "<｜User｜>", "<｜end▁of▁sentence｜>", "[|endofturn|]",
    "<|START_OF_TURN_TOKEN|>", "<|channel|>", "<|vision_start|>",
)  # fmt: skip
texts = st.lists(st.sampled_from([*TOKENS, "<", "[", "|", "a", "\n", "<b>", "a < b | c > d"])).map("".join)


@pytest.mark.parametrize("token", TOKENS)
def test_no_fence_shows_a_control_token_whole(token: str) -> None:
    assert token not in fence(f"It ends here: {token}\n{token}{token}")


@given(texts)
def test_what_is_split_is_whole_again_and_the_rest_is_as_it_was(text: str) -> None:
    split = split_control_tokens(text)
    assert not any(token in split for token in TOKENS) and split.replace("\u200b", "") == text
    assert join_control_tokens(split) == text and split_control_tokens(split) == split


@given(st.text())
def test_other_texts_stay_as_they_are(text: str) -> None:
    if not re.search(r"[<\[]\u200b", text):
        assert join_control_tokens(text) == text


def test_an_answer_about_chat_templates_comes_through_whole() -> None:
    said = "A turn ends with <|im_end|>, in Llama 2 with </s>."
    shown = {"query": fence("How?", "query"), "chosen_response": fence(said)}
    for copied in (said, split_control_tokens(said)):
        assert read(Update, f"<response>\n{copied}\n</response>", shown) == said
        repeated = f"{copied}\n\n{section('chosen_response', shown['chosen_response'])}"
        assert read(Update, repeated, shown) == said
