"""What the tests of reward models compute by the book: tiny references, and a query to compare on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

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
