"""The reward models people use, each as one declarative entry: how to load it, what to show it, which number to read.

An entry holds no code path. ``body`` says what is loaded, ``head`` which tensors make the score out of the hidden
states, the other fields what the tokens are. A model is matched to its entry by the name of its repository or folder,
or by ``family=``; one that matches none is a plain sequence classifier, read by its config.

``python -m tpo_core.rewards.families`` prints the table of the documentation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from tpo_core.errors import InvalidInputError

__all__ = [
    "FAMILIES", "UNKNOWN", "Family", "Gate", "Head", "Logits", "Mlp", "Steps", "family_named", "find_family", "table",
]  # fmt: skip


@dataclass(frozen=True)
class Mlp:
    """Linear layers with ReLU between them, applied to the last token's hidden state; one layer is a linear head."""

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


Head = Mlp | Gate | Steps | Logits


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
    model_type: str = ""
    """The transformers type the body is read as, where the config names one of the repository's own."""
    end: str = ""
    """A config attribute with the id of a token that must end the tokens."""
    system: str | None = None
    """The system prompt, maybe an empty one, of conversations that have none; None leaves that to the template."""
    trim_end: bool = False
    """Whether the white space that the template writes after the last turn is left out."""
    proof: str = ""
    """What the tests compare it with."""


_LLAMA3_GATE = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
_ARMO = (
    "helpsteer-helpfulness", "helpsteer-correctness", "helpsteer-coherence", "helpsteer-complexity",
    "helpsteer-verbosity", "ultrafeedback-overall_score", "ultrafeedback-instruction_following",
    "ultrafeedback-truthfulness", "ultrafeedback-honesty", "ultrafeedback-helpfulness", "beavertails-is_safe",
    "prometheus-score", "argilla-overall_quality", "argilla-judge_lm", "code-complexity", "code-style",
    "code-explanation", "code-instruction-following", "code-readability",
)  # fmt: skip

UNKNOWN = Family(
    name="sequence classifier",
    pattern=r"(?!)",
    source="https://huggingface.co/docs/transformers/model_doc/auto#transformers.AutoModelForSequenceClassification",
    score="the raw logit of its one label, or of `label=`",
    head=Mlp(),
    body="classifier",
    proof="the class's forward pass: Llama, Qwen2, Qwen3, Mistral (sliding window), Phi-3, Gemma 2, GPT-2 and BERT",
)

FAMILIES: tuple[Family, ...] = (
    Family(
        name="FsfairX",
        pattern=r"FsfairX-LLaMA3-RM",
        source="https://huggingface.co/sfairXC/FsfairX-LLaMA3-RM-v0.1",
        score="the raw logit",
        head=Mlp(),
        body="classifier",
        bos="one",
        proof="the `text-classification` pipeline of its card; tiny Llama, Llama 3 template",
    ),
    Family(
        name="Tulu 3 RM",
        pattern=r"Tulu-3-.*RM|RM-RB2",
        source="https://huggingface.co/allenai/Llama-3.1-Tulu-3-8B-RM",
        score="the raw logit",
        head=Mlp(),
        body="classifier",
        proof="the class's forward pass on the template's tokens, no BOS; tiny Llama, Tulu template",
    ),
    Family(
        name="Skywork-Reward-V2",
        pattern=r"Skywork-Reward",
        source="https://huggingface.co/Skywork/Skywork-Reward-V2-Qwen3-8B",
        score="the raw logit",
        head=Mlp(),
        body="classifier",
        bos="one",
        proof="the computation of its card; tiny Llama and tiny Qwen3, Llama 3.2 and Qwen3 templates",
    ),
    Family(
        name="ArmoRM",
        pattern=r"ArmoRM",
        source="https://huggingface.co/RLHFlow/ArmoRM-Llama3-8B-v0.1",
        score="the gated sum of 19 objectives, which stand in `Reward.heads`",
        head=Gate(_ARMO, _LLAMA3_GATE),
        proof="its published forward pass, rewritten with torch modules; tiny Llama, Llama 3 template",
    ),
    Family(
        name="QRM",
        pattern=r"QRM-Llama",
        source="https://huggingface.co/nicolinho/QRM-Llama3.1-8B",
        score="the gated sum of the objectives' means over quantiles; the objectives stand in `Reward.heads`",
        head=Gate(_ARMO, _LLAMA3_GATE),
        proof="its published forward pass, rewritten with torch modules; tiny Llama, Llama 3 template",
    ),
    Family(
        name="URM",
        pattern=r"URM-LLaMa",
        source="https://huggingface.co/LxzGordon/URM-LLaMa-3.1-8B",
        score="the first logit of its own code; one BOS, where the card's snippet makes two",
        head=Logits(),
        body="remote",
        proof="the call of its card; a stand-in for its class, loaded as remote code",
    ),
    Family(
        name="INF-ORM",
        pattern=r"INF-ORM",
        source="https://huggingface.co/infly/INF-ORM-Llama3.1-70B",
        score="the output of its two-layer head",
        head=Mlp(),
        proof="its published forward pass, rewritten with torch modules; tiny Llama, Llama 3 template",
    ),
    Family(
        name="GRM",
        pattern=r"GRM-.*(sftreg|distill)",
        source="https://huggingface.co/Ray2333/GRM-llama3-8B-sftreg",
        score="the value head's output",
        head=Mlp("v_head.summary"),
        proof="its published forward pass, rewritten with torch modules; tiny Llama, Llama 3 template",
    ),
    Family(
        name="InternLM2-Reward",
        pattern=r"internlm2?-.*reward",
        source="https://huggingface.co/internlm/internlm2-7b-reward",
        score="the value at the reward token, by its own code",
        head=Logits(),
        body="remote",
        loader="AutoModel",
        end="reward_token_id",
        proof="`get_score` of its card; a stand-in for its class on a Llama body, loaded as remote code",
    ),
    Family(
        name="WorldPM",
        pattern=r"WorldPM",
        source="https://huggingface.co/Qwen/WorldPM-72B",
        score="the output of its two-layer head at the last `<|im_end|>`, with an empty system prompt",
        head=Mlp(),
        model_type="qwen2",
        system="",
        trim_end=True,
        proof="a two-layer head on the last token; tiny Qwen2, ChatML template",
    ),
    Family(
        name="Qwen2.5-Math-PRM",
        pattern=r"Qwen2\.5-Math-(PRM|7B-PRM800K)",
        source="https://huggingface.co/Qwen/Qwen2.5-Math-PRM-7B",
        score="the least probability that a step is right, or by `steps=` another; the steps stand in `Reward.heads`",
        head=Steps("<extra_0>", "\n\n"),
        model_type="qwen2",
        system="Please reason step by step, and put your final answer within \\boxed{}.",
        proof="the computation of its card; tiny Qwen2, ChatML template",
    ),
)


def find_family(name: str) -> Family:
    """Return the entry a repository or folder belongs to, ``UNKNOWN`` when there is none."""
    return next((f for f in FAMILIES if re.search(f.pattern, name, re.IGNORECASE)), UNKNOWN)


def family_named(name: str) -> Family:
    """Return the entry of that name.

    Raises:
        InvalidInputError: There is none; the message lists them.
    """
    for family in (*FAMILIES, UNKNOWN):
        if family.name.lower() == name.lower():
            return family
    known = ", ".join(repr(f.name) for f in (*FAMILIES, UNKNOWN))
    raise InvalidInputError(f"family {name!r} is not known; use one of {known}, or a Family of your own")


def table() -> str:
    """Return the families as a Markdown table."""
    rows = ["| Family | The score | Its own code | Proven against |", "|---|---|---|---|"]
    for f in (*FAMILIES, UNKNOWN):
        code = "`trust_remote_code=True`" if f.body == "remote" else "not needed"
        cells = (f"[{f.name}]({f.source})", f.score, code, f.proof)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())  # noqa: T201 - a generator of documentation
