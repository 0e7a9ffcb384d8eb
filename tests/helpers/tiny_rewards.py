"""Tiny reward models with the classes, templates and heads of the published ones, and random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

TEMPLATES = {
    "llama3": (
        "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}<|start_header_id|>{{ m.role }}"
        "<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
    ),
    "llama3.2": (
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ bos_token }}"
        "<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}\n\n"
        "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% endif %}<|eot_id|>"
        "{% for m in messages if m.role != 'system' %}<|start_header_id|>{{ m.role }}"
        "<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
    ),
    "clock": "{{ strftime_now('%d %b %Y %H:%M:%S.%f') }}"
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}",
    "tulu": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
        "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% if not loop.last %}\n{% endif %}{% endfor %}"
    ),
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    "internlm": (
        "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    ),
    "qwen3": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        "{% set c = m.content %}{% set r = '' %}{% if '</think>' in c %}"
        "{% set r = c.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
        "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
        "{% if loop.last %}<think>\n{{ r.strip('\n') }}\n</think>\n\n{{ c.lstrip('\n') }}{% else %}{{ c }}{% endif %}"
        "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    ),
    "tools": (
        "{% for m in messages %}[{{ m.role }}{{ ' ' + m.tool_call_id if m.tool_call_id else '' }}] {{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function.name }}({% for k, v in c.function.arguments.items() %}"
        "{{ k }}={{ v }}{% endfor %}){% endfor %}{% endfor %}"
    ),
    "strict": (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "[{{ m.role }}] {{ m.content }}{% endfor %}"
    ),
}
CORPUS = [
    "system user assistant\n\nWhat is the capital of France?\n\nParis is the capital city.",
    "step one\n\n\nstep two",
] * 4
SPECIAL = [
    "<s>", "</s>", "[PAD]", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|im_start|>", "<|im_end|>", "<extra_0>", "[CLS]", "[SEP]",
]  # fmt: skip


def build_tokenizer(template: str | None, *, bos: str | None, eos: str, pad: str | None, sep: str | None = None) -> Any:
    """Return a byte-level BPE tokenizer that adds its BOS, as Llama's does; with ``sep``, one for pairs of texts."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    if bos is not None:
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {eos} $B:1 {eos}:1",
            special_tokens=[(t, core.token_to_id(t)) for t in (bos, eos)],
        )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        sep_token=sep,
        model_max_length=4096,
        model_input_names=["input_ids", *(["token_type_ids"] if sep else []), "attention_mask"],
    )
    fast.chat_template = TEMPLATES[template] if template else None
    return fast


SMALL: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 4096,
}

Build = Callable[..., Path]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Return a function that saves a tiny model and its tokenizer in a folder of the given name.

    ``kind`` is a transformers class; ``extra`` are more tensors of the checkpoint, ``drop`` starts names to leave out.
    """

    def make(
        name: str = "tiny",
        kind: str = "LlamaForSequenceClassification",
        template: str | None = "llama3",
        *,
        bos: str | None = "<|begin_of_text|>",
        eos: str = "<|eot_id|>",
        pad: str | None = None,
        sep: str | None = None,
        extra: dict[str, torch.Tensor] | None = None,
        drop: str = "",
        architecture: str | None = None,
        **config: Any,
    ) -> Path:
        torch.manual_seed(0)
        folder = tmp_path / name
        tokenizer = build_tokenizer(template, bos=bos, eos=eos, pad=pad, sep=sep)
        cls = getattr(transformers, kind)
        settings = {**SMALL, "num_labels": 1, "pad_token_id": tokenizer.pad_token_id, **config}
        if kind.startswith(("Bert", "Electra", "Deberta", "ConvBert", "CTRL")):
            settings.pop("head_dim")
        model = cls(cls.config_class(**settings)).eval()
        for name_, parameter in model.named_parameters():  # large enough that every part moves the score
            if parameter.dim() > 1 or name_.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.4)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if extra is not None or drop:
            file = folder / "model.safetensors"
            tensors = {k: v for k, v in load_file(file).items() if not (drop and k.startswith(drop))}
            save_file({**tensors, **(extra or {})}, file, metadata={"format": "pt"})
        if architecture is not None:
            written = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps({**written, "architectures": [architecture]}))
        return folder

    return make
