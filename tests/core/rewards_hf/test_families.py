"""Each family against the computation its authors publish, on tiny models of the same class, template and head."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn

from tpo_core.errors import InvalidInputError, ModelError
from tpo_core.rewards import HFRewardModel
from tpo_core.rewards.families.table import FAMILIES, Family, Mlp, find_family

Build = Callable[..., Path]
PROMPT = "What is the capital of France?"
RESPONSES = ["Paris", "\n\nLyon, I think. ", "The capital city is Paris.\n\nstep two"]
SIZE = 32


def chat(response: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": response}]


def assert_close(got: Sequence[float], want: Sequence[float]) -> None:
    assert len({round(w, 3) for w in want}) == len(want), "the reference must tell the responses apart"
    assert max(abs(g - w) for g, w in zip(got, want, strict=True)) < 1e-4


def tokenizer_of(path: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(path)


def body_of(path: Path, kind: str = "LlamaModel") -> Any:
    return getattr(transformers, kind).from_pretrained(path, dtype=torch.float32).eval()


def random_state(module: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """Fill a module at random and return its tensors under the names of a checkpoint."""
    torch.manual_seed(1)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point():
            tensor.data.normal_(std=0.3)
        if name.endswith("running_var"):
            tensor.data.abs_().add_(0.5)
    return {f"{prefix}{name}": tensor.data.clone() for name, tensor in module.state_dict().items()}


@torch.no_grad()
def last_states(path: Path, text: str, *, special: bool, kind: str = "LlamaModel") -> torch.Tensor:
    ids = tokenizer_of(path)(text, add_special_tokens=special, return_tensors="pt")["input_ids"]
    return body_of(path, kind)(input_ids=ids).last_hidden_state[0]


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


def gated(outputs: int, *, quantiles: int = 1, norm: bool) -> nn.ModuleDict:
    """Return the layers of ArmoRM's head, or with batch normalisation and quantiles QRM's."""
    hidden, layers, width = 24, [], SIZE
    for _ in range(3):
        layers.append(nn.Linear(width, hidden, bias=not norm))
        layers += [nn.ReLU(), nn.BatchNorm1d(hidden)] if norm else []
        width = hidden
    layers.append(nn.Linear(width, outputs))
    head = nn.ModuleDict({"regression_layer": nn.Linear(SIZE, outputs * quantiles, bias=False)})
    head["gating"] = nn.ModuleDict({"layers": nn.ModuleList(layers)})
    head["gating"].logit_scale = nn.Parameter(torch.ones(1))
    head.reward_transform_matrix = nn.Parameter(torch.eye(outputs))
    return head.eval()


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
