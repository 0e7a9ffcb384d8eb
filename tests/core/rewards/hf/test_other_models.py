"""Models of no family: classifiers by their config, pairs of texts, entries of a user, and what is refused."""

from __future__ import annotations

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
    last_states,
    random_state,
    tokenizer_of,
)
from safetensors.torch import load_file
from torch import nn

from tpo_core.errors import InvalidInputError, ModelError
from tpo_core.rewards import HFRewardModel
from tpo_core.rewards.families.table import FAMILIES, Family, Mlp, find_family


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("LlamaForSequenceClassification", {}),
        ("Qwen2ForSequenceClassification", {}),
        ("Qwen3ForSequenceClassification", {}),
        ("MistralForSequenceClassification", {"sliding_window": 16}),
        ("MistralForSequenceClassification", {"sliding_window": 100}),
        ("Gemma3TextForSequenceClassification", {"sliding_window": 100}),
        ("Phi3ForSequenceClassification", {"pad_token_id": 0}),
        ("Gemma2ForSequenceClassification", {"sliding_window": 16}),
        ("GPT2ForSequenceClassification", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}),
        ("DiffLlamaForSequenceClassification", {}),  # attends twice in a layer, so that its prefixes cannot be kept
        ("ConvBertForSequenceClassification", {"embedding_size": 32, "pad_token_id": 0}),  # padding reaches neighbours
        ("CTRLForSequenceClassification", {"n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 48, "pad_token_id": 2}),
    ],
)
def test_unknown_classifiers_score_as_their_class(build: Build, kind: str, config: dict[str, Any]) -> None:
    path = build("someone", kind, **config)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path).eval()
    prompt = PROMPT * 4
    texts = [*RESPONSES, "step one " * 30]
    want = []
    for text in texts:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
        ids = tokenizer_of(path).apply_chat_template(messages, return_tensors="pt", return_dict=True)["input_ids"]
        want.append(model(input_ids=ids).logits[0, 0].item())
    reward = HFRewardModel(str(path))
    assert_close(reward.score(prompt, texts), want)
    assert_close(reward.score(prompt, texts), want)  # now on the prompt's kept keys and values


@pytest.mark.parametrize(
    ("name", "kind", "config"),
    [
        ("someone", "BertForSequenceClassification", {}),
        ("reward-model-electra-large-discriminator", "ElectraForSequenceClassification", {"embedding_size": 16}),
        ("reward-model-deberta-v3-large-v2", "DebertaV2ForSequenceClassification", {"type_vocab_size": 0}),
    ],
)
def test_encoders_take_question_and_answer_as_the_pair_of_texts_of_their_card(
    build: Build, name: str, kind: str, config: dict[str, Any]
) -> None:
    path = build(name, kind, None, bos="[CLS]", eos="[SEP]", pad="[PAD]", sep="[SEP]", **config)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokenizer = tokenizer_of(path)
    want = []
    for response in RESPONSES:
        inputs = tokenizer(PROMPT, response, return_tensors="pt")
        assert inputs["token_type_ids"].sum() > 0
        want.append(model(**inputs).logits[0, 0].item())
    reward = HFRewardModel(str(path))
    assert_close(reward.score(PROMPT, RESPONSES), want)
    with pytest.raises(InvalidInputError, match="chat_template="):
        reward.score([chat("")], ["a"])


@pytest.mark.parametrize("sep", [None, "[SEP]"])
def test_a_decoder_without_a_template_is_not_shown_question_and_answer_glued_together(
    build: Build, sep: str | None
) -> None:
    path = build("someone", "GPT2ForSequenceClassification", None, sep=sep, n_embd=32, n_layer=2, n_head=4)
    with pytest.raises(InvalidInputError, match="give chat_template="):
        HFRewardModel(str(path))
    HFRewardModel(str(path), chat_template="{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")


def test_hh_reward_models_are_shown_humans_and_assistants(build: Build) -> None:
    path = build("gpt2-large-helpful-reward_model", "GPT2ForSequenceClassification", None, bos=None, eos="</s>")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path).eval()
    reward = HFRewardModel(str(path))
    responses = ["Paris", "Lyon, I think.", "The capital city is Paris."]
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}, chat("")[0]]
    asked = f"\n\nHuman: {PROMPT} \n\nAssistant:"
    for prompt, text in ((PROMPT, asked), (turns, f"\n\nHuman: hi \n\nAssistant: hello {asked}")):
        want = [model(**tokenizer_of(path)(text, r, return_tensors="pt")).logits[0, 0].item() for r in responses]
        assert_close(reward.score([prompt] * 3, responses), want)
    with pytest.raises(InvalidInputError, match="a human and an assistant alone"):
        reward.score([[{"role": "system", "content": "s"}, chat("")[0]]], ["r"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("internlm/POLAR-7B", "reference"),
        ("RLHFlow/pair-preference-model-LLaMA3-8B", "mode='pairwise'"),
        ("llm-blender/PairRM-hf", "mode='pairwise'"),
        ("nvidia/Qwen3-Nemotron-235B-A22B-GenRM", "JudgeReward"),
        ("berkeley-nest/Starling-RM-7B-alpha", "RemoteRewardModel"),
        ("ShikaiChen/LDL-Reward-Gemma-2-27B-v0.1", "pickled"),
    ],
)
def test_what_has_no_score_for_a_prompt_and_a_response_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        HFRewardModel(name, trust_remote_code=True)


def test_a_folder_is_known_by_its_own_name_not_by_where_it_lies(tmp_path: Path) -> None:
    inside = tmp_path / "WorldPM-72B" / "mine"
    cached = tmp_path / "models--RLHFlow--ArmoRM-Llama3-8B-v0.1" / "snapshots" / "0f3c"
    for folder in (inside, cached):
        folder.mkdir(parents=True)
    assert find_family(str(inside)).name == "sequence classifier" and find_family(str(inside.parent)).name == "WorldPM"
    assert find_family(str(cached)).name == "ArmoRM"


def test_a_classifier_with_several_labels_wants_to_be_told_which(build: Build) -> None:
    path = build("someone", id2label={0: "bad", 1: "good"}, num_labels=2)
    with pytest.raises(InvalidInputError, match=r"2 labels \(bad, good\).*label="):
        HFRewardModel(str(path))
    with pytest.raises(InvalidInputError, match="not one of"):
        HFRewardModel(str(path), label="best")
    good, second = HFRewardModel(str(path), label="good"), HFRewardModel(str(path), label=1)
    (got,) = good.score(PROMPT, ["Paris"])
    assert got == second.score(PROMPT, ["Paris"])[0] == got.heads["good"] != got.heads["bad"]


def test_a_model_that_is_no_classifier_is_refused(build: Build) -> None:
    with pytest.raises(InvalidInputError, match="not a sequence classifier"):
        HFRewardModel(str(build("someone", "LlamaForCausalLM")))


def test_a_checkpoint_without_its_head_is_an_error_not_a_random_score(build: Build) -> None:
    with pytest.raises(ModelError, match="lacks weights"):
        HFRewardModel(str(build("someone", drop="score")))
    with pytest.raises(ModelError, match="no tensor"):
        HFRewardModel(str(build("GRM-llama3-8B-sftreg")))


def test_pickled_weights_are_not_read(build: Build) -> None:
    path = build("someone")
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors only"):
        HFRewardModel(str(path))
    (path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="cannot load the weights"):
        HFRewardModel(str(path))


def test_what_cannot_be_found_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no-such-model"):
        HFRewardModel(str(tmp_path / "no-such-model"))
    with pytest.raises(InvalidInputError, match="'FsfairX'"):
        HFRewardModel("anything", family="fsfair")
    with pytest.raises(InvalidInputError, match="process reward model"):
        HFRewardModel("anything", steps="min")
    with pytest.raises(InvalidInputError, match="a name or a folder"):
        HFRewardModel(object())  # type: ignore[arg-type]


def test_names_lead_to_their_families() -> None:
    names = {
        "sfairXC/FsfairX-LLaMA3-RM-v0.1": "FsfairX",
        "allenai/Llama-3.1-Tulu-3-8B-RM": "Tulu 3 RM",
        "allenai/Llama-3.1-8B-Instruct-RM-RB2": "Tulu 3 RM",
        "Skywork/Skywork-Reward-V2-Qwen3-0.6B": "Skywork-Reward-V2",
        "RLHFlow/ArmoRM-Llama3-8B-v0.1": "ArmoRM",
        "nicolinho/QRM-Llama3.1-8B": "QRM",
        "LxzGordon/URM-LLaMa-3.1-8B": "URM",
        "LxzGordon/URM-LLaMa-3-8B": "URM (first)",
        "infly/INF-ORM-Llama3.1-70B": "INF-ORM",
        "Ray2333/GRM-llama3-8B-sftreg": "GRM",
        "Ray2333/GRM-Llama3-8B-rewardmodel-ft": "sequence classifier",
        "internlm/internlm2-1_8b-reward": "InternLM2-Reward",
        "Qwen/WorldPM-72B-RLHFLow": "WorldPM",
        "Qwen/Qwen2-Math-RM-72B": "WorldPM",
        "Qwen/Qwen2.5-Math-PRM-7B": "Qwen2.5-Math-PRM",
        "nvidia/Llama-3.1-Nemotron-70B-Reward-HF": "Nemotron-Reward",
        "nvidia/Llama-3.3-Nemotron-70B-Reward": "sequence classifier",
        "nvidia/Qwen-3-Nemotron-32B-Reward": "sequence classifier",
        "OpenAssistant/reward-model-deberta-v3-large-v2": "OpenAssistant RM",
        "Ray2333/gpt2-large-harmless-reward_model": "HH GPT-2",
        "Skywork/Skywork-Reward-Gemma-2-27B-v0.2": "Skywork-Reward-V2",
        "weqweasdas/RM-Mistral-7B": "sequence classifier",
        "someone/else": "sequence classifier",
    }
    assert {name: find_family(name).name for name in names} == names
    assert {f.name for f in FAMILIES} <= set(names.values())


def test_an_entry_of_your_own_reads_a_head_under_any_name(build: Build) -> None:
    head = nn.Sequential(nn.Linear(SIZE, 1))
    path = build("mine", "LlamaModel", extra=random_state(head[0], "my.value."))
    entry = Family("mine", "mine", "", "the value", Mlp("my.value"))
    text = tokenizer_of(path).apply_chat_template(chat("Paris"), tokenize=False)
    want = head(last_states(path, text, special=False)[-1]).item()
    assert HFRewardModel(str(path), family=entry).score(PROMPT, ["Paris"])[0] == pytest.approx(want, abs=1e-4)
