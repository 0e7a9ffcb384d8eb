"""Each family against the computation its authors publish, on tiny models of the same class, template and head."""

from __future__ import annotations

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
    last_states,
    random_state,
    tokenizer_of,
)
from safetensors.torch import load_file
from torch import nn

from tpo_core.rewards import HFRewardModel
from tpo_core.rewards.families.table import find_family


def test_fsfairx_scores_as_the_pipeline_of_its_card(build: Build) -> None:
    path = build("FsfairX-LLaMA3-RM-v0.1", pad="[PAD]")
    pipe = transformers.pipeline("sentiment-analysis", model=str(path), dtype=torch.float32)
    bos = pipe.tokenizer.bos_token
    texts = [pipe.tokenizer.apply_chat_template(chat(r), tokenize=False).replace(bos, "") for r in RESPONSES]
    outputs = pipe(texts, top_k=None, function_to_apply="none", batch_size=1)
    assert_close(HFRewardModel(str(path)).score(PROMPT, RESPONSES), [output[0]["score"] for output in outputs])


def test_tulu_scores_the_tokens_of_its_template_without_a_bos(build: Build) -> None:
    path = build("Llama-3.1-Tulu-3-8B-RM", template="tulu", eos="</s>")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokenizer = tokenizer_of(path)
    want = []
    for response in RESPONSES:
        ids = tokenizer.apply_chat_template(chat(response), return_tensors="pt", return_dict=True)["input_ids"]
        assert tokenizer.bos_token_id not in ids and ids[0, -1] == tokenizer.eos_token_id
        want.append(model(input_ids=ids).logits[0, 0].item())
    assert_close(HFRewardModel(str(path)).score(PROMPT, RESPONSES), want)


@pytest.mark.parametrize(
    ("kind", "template", "bos", "eos"),
    [
        ("LlamaForSequenceClassification", "llama3.2", "<|begin_of_text|>", "<|eot_id|>"),
        ("Qwen3ForSequenceClassification", "qwen3", None, "<|im_end|>"),
    ],
)
def test_skywork_scores_as_its_card(build: Build, kind: str, template: str, bos: str | None, eos: str) -> None:
    path = build("Skywork-Reward-V2", kind, template, bos=bos, eos=eos, pad="[PAD]")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokenizer = tokenizer_of(path)
    want = []
    for response in RESPONSES:
        text = tokenizer.apply_chat_template(chat(response), tokenize=False, date_string="26 Jul 2024")
        if bos is not None and text.startswith(bos):
            text = text[len(bos) :]
        want.append(model(**tokenizer(text, return_tensors="pt")).logits[0][0].item())
    assert_close(HFRewardModel(str(path)).score(PROMPT, RESPONSES), want)


@torch.no_grad()
def gated_reference(head: nn.ModuleDict, states: torch.Tensor, at: int, *, outputs: int, norm: bool) -> Any:
    rewards = head["regression_layer"](states[-1:]).reshape(1, outputs, -1).mean(2)
    x = states[at : at + 1]
    layers = list(head["gating"]["layers"])
    for i, layer in enumerate(layers):
        x = layer(x)
        if not norm and i < len(layers) - 1:
            x = x.relu()
    gate = torch.softmax(x / 5.0, dim=1) * head["gating"].logit_scale[0]
    adjusted = rewards @ head.reward_transform_matrix
    return (gate * adjusted).sum().item(), (adjusted if norm else rewards)[0].tolist()


@pytest.mark.parametrize("name", ["ArmoRM-Llama3-8B-v0.1", "QRM-Llama3.1-8B"])
@pytest.mark.parametrize("outputs", [19, 5])
def test_gated_families_score_as_their_published_forward_pass(build: Build, name: str, outputs: int) -> None:
    norm = name.startswith("QRM")
    head = gated(outputs, quantiles=4 if norm else 1, norm=norm)
    path = build(name, "LlamaModel", extra=random_state(head, ""), gating_temperature=5.0)
    reward = HFRewardModel(str(path))
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "step one"}, chat("")[0]]
    for prompt in (PROMPT, turns):  # the gate reads at the last assistant turn
        messages = chat("")[:1] if isinstance(prompt, str) else prompt
        got = reward.score([prompt] * 3, RESPONSES)
        want, heads = [], []
        for response in RESPONSES:
            tokenizer = tokenizer_of(path)
            text = tokenizer.apply_chat_template([*messages, chat(response)[1]], tokenize=False)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            mark = tokenizer("<|eot_id|><|start_header_id|>assistant<|end_header_id|>", add_special_tokens=False)
            mark = mark["input_ids"]
            at = max(i for i in range(len(ids)) if ids[i : i + len(mark)] == mark)
            states = last_states(path, text, special=False)
            score, objectives = gated_reference(head, states, at, outputs=outputs, norm=norm)
            want.append(score)
            heads.append(objectives)
        assert_close(got, want)
        for reward_, objectives in zip(got, heads, strict=True):
            assert list(reward_.heads.values()) == pytest.approx(objectives, abs=1e-4)
    names = list(got[0].heads)
    assert names[0] == ("helpsteer-helpfulness" if outputs == 19 else "objective 1") and len(names) == outputs


@pytest.mark.parametrize(
    ("name", "prefix", "kind", "template", "bos"),
    [
        ("INF-ORM-Llama3.1-70B", "score.", "LlamaModel", "llama3", "<|begin_of_text|>"),
        ("GRM-llama3-8B-sftreg", "v_head.summary.", "LlamaModel", "llama3", "<|begin_of_text|>"),
        ("WorldPM-72B", "score.", "Qwen2Model", "chatml", None),
    ],
)
def test_heads_of_two_layers_are_read_from_the_checkpoint(
    build: Build, name: str, prefix: str, kind: str, template: str, bos: str | None
) -> None:
    head = nn.Sequential(nn.Linear(SIZE, 24), nn.ReLU(), nn.Linear(24, 1))
    tensors = random_state(head, prefix)
    path = build(name, kind, template, bos=bos, extra=tensors, architecture="TheirForRewardModel")
    if name.startswith("GRM"):  # its checkpoints were written with the body under model.
        saved = load_file(path / "model.safetensors")
        assert any(k.startswith("layers.") for k in saved)
    system = [{"role": "system", "content": ""}] if name.startswith("WorldPM") else []
    want = []
    for response in RESPONSES:
        text = tokenizer_of(path).apply_chat_template([*system, *chat(response)], tokenize=False)
        states = last_states(path, text, special=False, kind=kind)
        want.append(head(states[-1]).item())
    assert_close(HFRewardModel(str(path)).score(PROMPT, RESPONSES), want)


@pytest.mark.parametrize("reduce", ["min", "mean", "last", "prod"])
def test_step_rewards_are_those_of_the_card(build: Build, reduce: str) -> None:
    head = nn.Sequential(nn.Linear(SIZE, SIZE), nn.ReLU(), nn.Linear(SIZE, 2))
    path = build(
        "Qwen2.5-Math-PRM-7B", "Qwen2Model", "chatml", bos=None, extra=random_state(head, "score."), num_labels=2
    )
    family = find_family(path.name)
    responses = ["step one\n\nstep two\n\nParis", "step two", "Paris.<extra_0> step\n\n\n\none"]
    steps = [["step one", "step two", "Paris"], ["step two"], ["Paris. step", "one"]]
    want, heads = [], []
    for each in steps:
        messages = [{"role": "system", "content": family.system}, chat("")[0]]
        messages.append({"role": "assistant", "content": "<extra_0>".join(each) + "<extra_0>"})
        tokenizer = tokenizer_of(path)
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        states = last_states(path, text, special=True, kind="Qwen2Model")
        ids = torch.tensor(tokenizer(text)["input_ids"])
        with torch.no_grad():
            right = head(states).softmax(-1)[ids == tokenizer.encode("<extra_0>")[0], 1].tolist()
        heads.append(right)
        total = {
            "min": min(right),
            "mean": sum(right) / len(right),
            "last": right[-1],
            "prod": torch.tensor(right).prod(),
        }
        want.append(float(total[reduce]))
    got = HFRewardModel(str(path), steps=reduce).score(PROMPT, responses)
    assert_close(got, want)
    assert [list(g.heads.values()) for g in got] == [pytest.approx(h, abs=1e-4) for h in heads]
    assert list(got[0].heads) == ["step 1", "step 2", "step 3"]


def test_urm_weighs_the_means_of_its_attributes_by_a_gate_on_the_last_token(build: Build) -> None:
    score = nn.Linear(SIZE, 10, bias=False)
    gate = nn.Sequential(nn.Linear(SIZE, 24), nn.SELU(), nn.Linear(24, 24), nn.SELU(), nn.Linear(24, 5))
    tensors = {**random_state(score, "score."), **random_state(gate, "weights.fc.")}
    path = build("URM-LLaMa-3.1-8B", "LlamaModel", extra=tensors, architecture="TheirForRewardModel")
    want, heads = [], []
    for response in RESPONSES:
        text = tokenizer_of(path).apply_chat_template(chat(response), tokenize=False)
        state = last_states(path, text, special=False)[-1:]
        with torch.no_grad():
            means = score(state).view(-1, 5, 2)[:, :, 0]
            want.append((means * gate(state)).sum().item())
        heads.append(means[0].tolist())
    got = HFRewardModel(str(path)).score(PROMPT, RESPONSES)
    assert_close(got, want)
    assert [list(g.heads.values()) for g in got] == [pytest.approx(h, abs=1e-4) for h in heads]
    assert list(got[0].heads) == ["helpfulness", "correctness", "coherence", "complexity", "verbosity"]


def test_nemotron_reads_the_logit_of_the_first_token_of_its_vocabulary(build: Build) -> None:
    path = build("Llama-3.1-Nemotron-70B-Reward-HF", "LlamaForCausalLM")
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    want = []
    for response in RESPONSES:
        ids = tokenizer_of(path).apply_chat_template(chat(response), return_tensors="pt", return_dict=True)["input_ids"]
        want.append(model(input_ids=ids).logits[0, -1, 0].item())
    assert_close(HFRewardModel(str(path)).score(PROMPT, RESPONSES), want)
