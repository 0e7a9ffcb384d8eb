"""Models with code of their own: run only when that is allowed, and then as their authors run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from reward_references import (
    PROMPT,
    RESPONSES,
    SIZE,
    Build,
    assert_close,
    chat,
    gated,
    random_state,
    tokenizer_of,
)
from safetensors.torch import load_file
from torch import nn

from tpo_core.errors import InvalidInputError
from tpo_core.rewards import HFRewardModel

REMOTE = """
import torch
from torch import nn
from transformers import LlamaModel, LlamaPreTrainedModel, LlamaConfig
from transformers.modeling_outputs import SequenceClassifierOutputWithPast


class TheirConfig(LlamaConfig):
    model_type = "theirs"


class TheirForRewardModel(LlamaPreTrainedModel):
    config_class = TheirConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.v_head = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.register_buffer("scale", torch.linspace(0.5, 2.0, config.hidden_size), persistent=False)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        ends = attention_mask.cumsum(dim=1).argmax(dim=1)
        values = self.v_head(states * self.scale)[torch.arange(len(states)), ends]
        return SequenceClassifierOutputWithPast(logits=values)
"""


def remote(build: Build, name: str, loader: str, template: str, bos: str, labels: int, **config: Any) -> Path:
    weight = random_state(nn.Linear(SIZE, labels, bias=False), "v_head.")
    path = build(name, "LlamaModel", template, bos=bos, extra=weight, architecture="TheirForRewardModel")
    saved = load_file(path / "model.safetensors")
    named = {k if k.startswith("v_head") else f"model.{k}": v for k, v in saved.items()}
    from safetensors.torch import save_file

    save_file(named, path / "model.safetensors", metadata={"format": "pt"})
    written = json.loads((path / "config.json").read_text())
    auto = {"AutoConfig": "modeling.TheirConfig", loader: "modeling.TheirForRewardModel"}
    changes = {"model_type": "theirs", "auto_map": auto, "id2label": {i: f"L{i}" for i in range(labels)}, **config}
    (path / "config.json").write_text(json.dumps({**written, **changes}))
    (path / "modeling.py").write_text(REMOTE)
    return path


def their_model(path: Path, loader: str) -> Any:
    """Return the repository's model as its class makes it, which from_pretrained does not: see ``owncode``."""
    config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=True)
    model = getattr(transformers, loader).from_config(config, trust_remote_code=True)
    model.load_state_dict(load_file(path / "model.safetensors"))
    return model.eval()


def test_the_first_urm_runs_its_own_code_only_when_that_is_allowed(build: Build) -> None:
    bos = "<|begin_of_text|>"
    path = remote(build, "URM-LLaMa-3-8B", "AutoModelForSequenceClassification", "llama3", bos, 10)
    with pytest.raises(InvalidInputError, match="trust_remote_code=True"):
        HFRewardModel(str(path))
    tokenizer = tokenizer_of(path)
    model = their_model(path, "AutoModelForSequenceClassification")
    want = []
    for response in RESPONSES:
        batch = tokenizer.apply_chat_template(chat(response), return_tensors="pt", return_dict=True)
        want.append(model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[0][0].item())
    assert_close(HFRewardModel(str(path), trust_remote_code=True).score(PROMPT, RESPONSES), want)


def test_internlm2_reads_the_value_at_the_reward_token(build: Build) -> None:
    path = remote(build, "internlm2-7b-reward", "AutoModel", "internlm", "<s>", 1, reward_token_id=9)
    tokenizer = tokenizer_of(path)
    model = their_model(path, "AutoModel")
    want = []
    for response in RESPONSES:
        text = tokenizer.apply_chat_template(chat(response), tokenize=False)
        ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], 9]
        want.append(model(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits[0][0].item())
    assert_close(HFRewardModel(str(path), trust_remote_code=True).score(PROMPT, RESPONSES), want)


def test_an_unknown_model_with_its_own_code_is_refused_until_allowed(build: Build) -> None:
    path = remote(build, "someone", "AutoModelForSequenceClassification", "llama3", "<|begin_of_text|>", 1)
    with pytest.raises(InvalidInputError, match="trust_remote_code=True"):
        HFRewardModel(str(path))


OWN_CLASSIFIER = """
from transformers import LlamaForSequenceClassification as Theirs
from transformers.modeling_outputs import SequenceClassifierOutputWithPast


class LlamaForSequenceClassification(Theirs):
    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return SequenceClassifierOutputWithPast(logits=self.score(states.mean(1)))
"""


def test_a_classifier_that_computes_otherwise_than_its_name_says_is_not_scored_by_its_name(build: Build) -> None:
    path = build("someone")
    plain = HFRewardModel(str(path)).score(PROMPT, RESPONSES)
    written = json.loads((path / "config.json").read_text())
    auto = {"AutoModelForSequenceClassification": "modeling.LlamaForSequenceClassification"}
    (path / "config.json").write_text(json.dumps({**written, "auto_map": auto}))
    (path / "modeling.py").write_text(OWN_CLASSIFIER)
    with pytest.raises(InvalidInputError, match=r"trust_remote_code=True; or, .*family='sequence classifier'"):
        HFRewardModel(str(path))
    assert_close(HFRewardModel(str(path), family="sequence classifier").score(PROMPT, RESPONSES), plain)
    model = their_model(path, "AutoModelForSequenceClassification")
    want = []
    for response in RESPONSES:
        ids = tokenizer_of(path).apply_chat_template(chat(response), return_tensors="pt", return_dict=True)["input_ids"]
        want.append(model(ids).logits[0, 0].item())
    assert_close(HFRewardModel(str(path), trust_remote_code=True).score(PROMPT, RESPONSES), want)


@pytest.mark.parametrize("name", ["someone", "QRM-Llama3.1-8B"])
def test_a_config_that_asks_for_flash_attention_loads_without_it(build: Build, name: str) -> None:
    tensors = random_state(gated(19, quantiles=19, norm=True), "") if name.startswith("QRM") else None
    path = build(name, extra=tensors)
    want = HFRewardModel(str(path)).score(PROMPT, RESPONSES)
    written = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**written, "attn_implementation": "flash_attention_2"}))
    assert_close(HFRewardModel(str(path)).score(PROMPT, RESPONSES), want)
