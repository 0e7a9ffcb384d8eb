"""What makes a score out of hidden states, in float32 whatever the body runs in.

A head is called with one tensor per sequence, (places, hidden), and answers one ``HeadScore`` each. Near 23 a bfloat16
logit moves in steps of 0.125, so heads never run in half precision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from tpo_core.errors import ModelError
from tpo_core.rewards.families.entries import Blend, Gate, Mlp, Steps

__all__ = ["BlendHead", "GateHead", "HeadFn", "HeadScore", "LinearHead", "MlpHead", "StepHead", "build_head"]

HeadScore = tuple[float, dict[str, float]]
"""The score, and the named numbers behind it."""


class HeadFn(Protocol):
    """Scores sequences by the hidden states at their places."""

    def __call__(self, hidden: Sequence[Tensor]) -> list[HeadScore]:
        """Return one score per sequence.

        Args:
            hidden: For each sequence the hidden states at its places, (places, hidden), any dtype.
        """


class LinearHead:
    """One of the columns of a linear layer (or of logits, without one) is the score; all of them are named."""

    def __init__(self, weight: Tensor | None, bias: Tensor | None, column: int, names: Sequence[str]) -> None:
        self._weight = None if weight is None else weight.float()
        self._bias = None if bias is None else bias.float()
        self._column = column
        self._names = tuple(names)

    def __call__(self, hidden: Sequence[Tensor]) -> list[HeadScore]:
        """Score by the last place."""
        logits = torch.stack([h[-1] for h in hidden]).float()
        if self._weight is not None:
            logits = functional.linear(logits, self._weight, self._bias)
        rows: list[list[float]] = logits.tolist()
        named = len(self._names) > 1
        return [(row[self._column], dict(zip(self._names, row, strict=True)) if named else {}) for row in rows]


class MlpHead:
    """Linear layers with ReLU between them; the first output is the score.

    Args:
        tensors: The checkpoint's.
        prefix: Where the layers stand among them.
        outputs: How many of the last layer's outputs are computed; None for all.
    """

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, outputs: int | None = None) -> None:
        self._layers = _layers(tensors, prefix, outputs)

    def logits(self, states: Tensor) -> Tensor:
        """Return (n, outputs) for (n, hidden)."""
        states = states.float()
        for number, (weight, bias) in enumerate(self._layers):
            states = functional.linear(states.relu() if number else states, weight, bias)
        return states

    def __call__(self, hidden: Sequence[Tensor]) -> list[HeadScore]:
        """Score by the last place."""
        values: list[float] = self.logits(torch.stack([h[-1] for h in hidden]))[:, 0].tolist()
        return [(value, {}) for value in values]


class GateHead:
    """Objectives at the first place, weighed by a gate at the second; see ``Gate``.

    Reads both published shapes: hidden layers with ReLU (ArmoRM), and hidden layers with ReLU and then batch
    normalisation, over several quantiles of each objective (QRM).
    """

    def __init__(self, tensors: Mapping[str, Tensor], spec: Gate, temperature: float) -> None:
        count = tensors[spec.matrix].shape[0]
        known = len(spec.objectives) == count
        self._names = spec.objectives if known else tuple(f"objective {i}" for i in range(1, count + 1))
        self._regression = tensors[f"{spec.regression}.weight"].float()
        self._matrix = tensors[spec.matrix].float()
        self._gating = _layers(tensors, f"{spec.gating}.layers")
        self._norms = _norms(tensors, f"{spec.gating}.layers")
        self._scale = tensors[f"{spec.gating}.logit_scale"].float()[0]
        self._temperature = temperature

    def __call__(self, hidden: Sequence[Tensor]) -> list[HeadScore]:
        """Score by the objectives at the last token and the gate at the prompt's end."""
        last, prompt = torch.stack([h.float() for h in hidden]).unbind(1)
        rewards = functional.linear(last, self._regression).view(len(hidden), len(self._names), -1).mean(2)
        adjusted = rewards @ self._matrix
        scores = (self._gate(prompt) * adjusted).sum(1)
        # One copy to the host: the score in front of its objectives.
        rows = torch.cat([scores[:, None], rewards if self._norms is None else adjusted], 1).tolist()
        return [(row[0], dict(zip(self._names, row[1:], strict=True))) for row in rows]

    def _gate(self, states: Tensor) -> Tensor:
        *inner, (weight, bias) = self._gating
        for number, (w, b) in enumerate(inner):
            states = functional.linear(states, w, b).relu()
            if self._norms is not None:
                mean, variance, gamma, beta = self._norms[number]
                states = functional.batch_norm(states, mean, variance, gamma, beta)
        states = functional.linear(states, weight, bias)
        return (states / self._temperature).softmax(1) * self._scale


class BlendHead:
    """Attributes' means and the gate that weighs them, both at the last place; see ``Blend``."""

    def __init__(self, tensors: Mapping[str, Tensor], spec: Blend) -> None:
        self._names = spec.attributes
        self._means = tensors[f"{spec.means}.weight"][::2].float()
        self._gate = _layers(tensors, spec.gate)

    def __call__(self, hidden: Sequence[Tensor]) -> list[HeadScore]:
        """Score by the last place."""
        states = torch.stack([h[-1] for h in hidden]).float()
        means = functional.linear(states, self._means)
        for number, (weight, bias) in enumerate(self._gate):
            states = functional.linear(functional.selu(states) if number else states, weight, bias)
        rows = torch.cat([(states * means).sum(1, keepdim=True), means], 1).tolist()
        return [(row[0], dict(zip(self._names, row[1:], strict=True))) for row in rows]


class StepHead:
    """The probability that each step is right, and one number out of them; see ``Steps``."""

    def __init__(self, tensors: Mapping[str, Tensor], spec: Steps) -> None:
        self._mlp = MlpHead(tensors, spec.prefix)
        self._reduce = spec.reduce

    def __call__(self, hidden: Sequence[Tensor]) -> list[HeadScore]:
        """Score by the places of the markers, one per step."""
        rights: list[float] = self._mlp.logits(torch.cat(list(hidden))).softmax(1)[:, 1].tolist()
        scores: list[HeadScore] = []
        for states in hidden:
            steps, rights = rights[: len(states)], rights[len(states) :]
            scores.append((self._one(steps), {f"step {i}": p for i, p in enumerate(steps, 1)}))
        return scores

    def _one(self, steps: Sequence[float]) -> float:
        if not steps:
            return math.nan
        if self._reduce == "mean":
            return sum(steps) / len(steps)
        if self._reduce == "prod":
            return math.prod(steps)
        return steps[-1] if self._reduce == "last" else min(steps)


def build_head(
    spec: Mlp | Gate | Blend | Steps, tensors: Mapping[str, Tensor], *, temperature: float, name: str
) -> HeadFn:
    """Return the head an entry declares, from the checkpoint's tensors.

    Raises:
        ModelError: The checkpoint lacks one of them.
    """
    try:
        if isinstance(spec, Gate):
            return GateHead(tensors, spec, temperature)
        if isinstance(spec, Blend):
            return BlendHead(tensors, spec)
        return StepHead(tensors, spec) if isinstance(spec, Steps) else MlpHead(tensors, spec.prefix, outputs=1)
    except KeyError as error:
        raise ModelError(
            f"the checkpoint of {name} has no tensor {error}, which its family's head needs; if its name "
            "misleads, give family="
        ) from error


def _numbers(tensors: Mapping[str, Tensor], prefix: str) -> list[int]:
    rest = (key.removeprefix(prefix + ".").split(".")[0] for key in tensors if key.startswith(prefix + "."))
    return sorted({int(part) for part in rest if part.isdigit()})


def _layers(
    tensors: Mapping[str, Tensor], prefix: str, outputs: int | None = None
) -> list[tuple[Tensor, Tensor | None]]:
    """Return the linear layers under a prefix in order, as (weight, bias); of the last, so many outputs."""
    if f"{prefix}.weight" in tensors:
        names = [prefix]
    else:
        names = [f"{prefix}.{n}" for n in _numbers(tensors, prefix) if tensors[f"{prefix}.{n}.weight"].dim() == 2]
    if not names:
        raise KeyError(f"{prefix}.weight")
    rows = [*[slice(None)] * (len(names) - 1), slice(outputs)]
    biases = [tensors.get(f"{name}.bias") for name in names]
    return [
        (tensors[f"{n}.weight"][r].float(), None if b is None else b[r].float())
        for n, b, r in zip(names, biases, rows, strict=True)
    ]


def _norms(tensors: Mapping[str, Tensor], prefix: str) -> list[tuple[Tensor, ...]] | None:
    """Return the batch normalisations under a prefix in order, as (mean, variance, weight, bias); None without any."""
    names = [f"{prefix}.{n}" for n in _numbers(tensors, prefix) if f"{prefix}.{n}.running_mean" in tensors]
    parts = ("running_mean", "running_var", "weight", "bias")
    return [tuple(tensors[f"{name}.{part}"].float() for part in parts) for name in names] or None
