"""Where a classifier looks: at the token its class of transformers looks at, whatever that token is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from reward_references import PROMPT, RESPONSES, Build, assert_close, tokenizer_of

from tpo_core.rewards import HFRewardModel
from tpo_core.rewards.families.pooling import last_read

LONG = PROMPT * 6
COMPASS = {
    "rope_parameters": {
        kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("full_attention", "sliding_attention")
    }
}
TEXTS = [*RESPONSES, "", "step one " * 30]


@torch.no_grad()
def by_class(path: Path, prompt: str, responses: list[str]) -> list[float]:
    """Score with the class's own forward pass on the template's tokens."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    want = []
    for response in responses:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        inputs = tokenizer_of(path).apply_chat_template(messages, return_tensors="pt", return_dict=True)
        want.append(model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[0, 0].item())
    return want


@pytest.mark.parametrize("template", ["tulu", "llama3"])
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("LlamaForSequenceClassification", {}),
        ("Qwen2ForSequenceClassification", {}),
        ("MistralForSequenceClassification", {"sliding_window": 16}),  # padded batches, and packed rows for the short
        ("Gemma2ForSequenceClassification", {"sliding_window": 16}),
        ("GPT2ForSequenceClassification", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}),
        ("CTRLForSequenceClassification", {"n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 48}),
    ],
)
def test_a_text_that_ends_with_the_padding_token_is_pooled_where_the_class_pools_it(
    build: Build, kind: str, config: dict[str, Any], template: str
) -> None:
    end = "</s>" if template == "tulu" else "<|eot_id|>"
    path = build("someone", kind, template, eos=end, pad=end, **config)  # as TRL trains where no padding token is set
    want = by_class(path, LONG, TEXTS)
    reward = HFRewardModel(str(path))
    assert_close(reward.score(LONG, TEXTS), want)
    assert_close(reward.score(LONG, TEXTS), want)  # now on the prompt's kept keys and values
    assert_close([reward.score(LONG, [text])[0] for text in TEXTS], want)


def test_pooling_elsewhere_would_put_another_answer_first(build: Build) -> None:
    path = build("someone", eos="<|eot_id|>", pad="<|eot_id|>")
    answers = ["Paris", "Lyon, I think.", "The capital city is Paris.", "step one", "step two", "one"]
    want = by_class(path, PROMPT, answers)
    transformers.AutoConfig.from_pretrained(path, pad_token_id=None).save_pretrained(path)
    at_the_end = by_class(path, PROMPT, answers)
    assert max(range(6), key=want.__getitem__) != max(range(6), key=at_the_end.__getitem__)
    assert_close(HFRewardModel(str(path)).score(PROMPT, answers), at_the_end)
    transformers.AutoConfig.from_pretrained(path, pad_token_id=4).save_pretrained(path)
    assert_close(HFRewardModel(str(path)).score(PROMPT, answers), want)


@pytest.mark.parametrize("name", ["FsfairX-LLaMA3-RM-v0.1", "Skywork-Reward-V2"])
def test_families_whose_card_calls_the_class_are_pooled_by_the_class_too(build: Build, name: str) -> None:
    path = build(name, eos="<|eot_id|>", pad="<|eot_id|>")
    assert_close(HFRewardModel(str(path)).score(PROMPT, TEXTS), by_class(path, PROMPT, TEXTS))


def test_a_padding_token_outside_the_vocabulary_is_no_token_of_any_text(build: Build) -> None:
    path = build("someone")
    want = by_class(path, PROMPT, TEXTS)
    transformers.AutoConfig.from_pretrained(path, pad_token_id=-1).save_pretrained(path)
    assert_close(HFRewardModel(str(path)).score(PROMPT, TEXTS), want)


@pytest.mark.skipif(
    not hasattr(transformers, "CohereCompassTextForSequenceClassification"),
    reason="not in this transformers",
)
@pytest.mark.parametrize("pooling", ["eos", "bos", "mean"])
def test_a_class_that_pools_in_its_own_way_is_asked_itself(build: Build, pooling: str) -> None:
    path = build("someone", "CohereCompassTextForSequenceClassification", pad="<|eot_id|>", pooling=pooling, **COMPASS)
    want = by_class(path, PROMPT, TEXTS)
    got = HFRewardModel(str(path)).score(PROMPT, TEXTS)
    assert max(abs(g - w) for g, w in zip(got, want, strict=True)) < 1e-4


@given(st.lists(st.integers(0, 2), min_size=1, max_size=9), st.one_of(st.none(), st.integers(-1, 3)))
def test_the_place_is_the_one_that_transformers_computes(ids: list[int], pad: int | None) -> None:
    tokens = torch.tensor(ids)
    want = len(ids) - 1 if pad is None else int((torch.arange(len(ids)) * (tokens != pad).int()).argmax())
    assert last_read(ids, pad) == want
