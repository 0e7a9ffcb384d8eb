"""The words in which an entry of the family table is written; see ``families``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Blend", "Family", "Gate", "Head", "Logits", "Mlp", "Steps"]


@dataclass(frozen=True)
class Mlp:
    """Linear layers with ReLU between them, applied to the last token's hidden state; one layer is a linear head.

    Where the last layer has several outputs, the first is the score.
    """

    prefix: str = "score"
    """Where its tensors stand in the checkpoint: ``score.weight``, or ``score.0.weight``, ``score.2.weight``, ..."""


@dataclass(frozen=True)
class Gate:
    """Objectives weighed by a gate that reads the prompt.

    The score is ``sum(scale * softmax(gating(h_prompt) / temperature) * (objectives(h_last) @ matrix))``.
    """

    objectives: tuple[str, ...]
    """Their names, in the order of the checkpoint; they become ``Reward.heads``."""
    after: str
    """The text whose last occurrence the gate reads at: the hidden state of its first token."""
    regression: str = "regression_layer"
    gating: str = "gating"
    matrix: str = "reward_transform_matrix"


@dataclass(frozen=True)
class Blend:
    """Attributes weighed by a gate that reads the same, last token; no softmax.

    The score is ``sum(gate(h) * means(h))``, the gate's linear layers with SELU between them.
    """

    attributes: tuple[str, ...]
    """Their names, in the order of the checkpoint; they become ``Reward.heads``."""
    means: str = "score"
    """A linear layer with two rows per attribute, its mean and its deviation; the means are read."""
    gate: str = "weights.fc"


@dataclass(frozen=True)
class Steps:
    """The probability of label 1 at a marker that stands after every step; then one number out of all steps."""

    marker: str
    split: str
    """What stands between steps in a response."""
    prefix: str = "score"
    reduce: Literal["min", "mean", "last", "prod"] = "min"


@dataclass(frozen=True)
class Logits:
    """What the model's own code returns: column 0 of its logits."""


Head = Mlp | Gate | Blend | Steps | Logits


@dataclass(frozen=True)
class Family:
    """One kind of reward model."""

    name: str
    pattern: str
    """A regular expression found anywhere in ``org/name``, whatever the case."""
    source: str
    """Where its authors say how to call it."""
    score: str
    """Which number is the score, in words."""
    head: Head
    body: Literal["classifier", "body", "remote"] = "body"
    """``body``: the plain transformer, with the head read from the checkpoint; no code of the repository is needed.
    ``classifier``: a transformers sequence classifier, whole. ``remote``: the repository's own code."""
    loader: str = "AutoModelForSequenceClassification"
    """The transformers class that loads a ``remote`` body."""
    bos: Literal["template", "one"] = "template"
    """``template``: the template's text as it is. ``one``: one BOS, by the tokenizer, whatever the template wrote."""
    template: str = ""
    """A Jinja template, where the authors write their own text and the tokenizer has none."""
    model_type: str = ""
    """The transformers type the body is read as, where the config names one of the repository's own."""
    end: str = ""
    """A config attribute with the id of a token that must end the tokens."""
    system: str | None = None
    """The system prompt, maybe an empty one, of conversations that have none; None leaves that to the template."""
    proof: str = ""
    """What the tests compare it with."""
    refused: str = ""
    """Why it cannot score a prompt and a response, and what to do instead; such a model is never scored."""
    served: bool = False
    """Whether a server of the authors' own scores what is refused here."""
