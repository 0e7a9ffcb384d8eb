"""The reward models people use, each as one declarative entry: how to load it, what to show it, which number to read.

An entry holds no code path. ``body`` says what is loaded, ``head`` which tensors make the score out of the hidden
states, the other fields what the tokens are. A model is matched to its entry by the name of its repository or folder,
or by ``family=``; one that matches none is a plain sequence classifier, read by its config.

``python -m tpo_core.rewards.families`` prints the table of the documentation.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from tpo_core.errors import InvalidInputError
from tpo_core.rewards.families.entries import Blend, Family, Gate, Head, Logits, Mlp, Steps

__all__ = [
    "FAMILIES", "REFUSED", "UNKNOWN", "Blend", "Family", "Gate", "Head", "Logits", "Mlp", "Steps", "family_named",
    "find_family", "table",
]  # fmt: skip


_LLAMA3_GATE = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
_HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
_HH = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '\n\nHuman: ' + m.content + ' ' }}"
    "{% elif m.role != 'assistant' %}{{ raise_exception('it knows a human and an assistant alone') }}"
    "{% else %}{{ '\n\nAssistant:' + (m.content if loop.last else ' ' + m.content + ' ') }}{% endif %}{% endfor %}"
)
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
        pattern=r"URM-LLaMa-3\.1",
        source="https://huggingface.co/LxzGordon/URM-LLaMa-3.1-8B",
        score="the gated sum of five attributes' means, in `Reward.heads`; one BOS, where the card makes two",
        head=Blend(_HELPSTEER),
        proof="its published forward pass, rewritten with torch modules; tiny Llama, Llama 3 template",
    ),
    Family(
        name="URM (first)",
        pattern=r"URM-LLaMa-3-",
        source="https://huggingface.co/LxzGordon/URM-LLaMa-3-8B",
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
        score="the value head's output; one BOS, where the card's snippet makes two",
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
        pattern=r"WorldPM|Qwen2-Math-RM",
        source="https://huggingface.co/Qwen/WorldPM-72B",
        score="the output of its two-layer head at the template's last token, with an empty system prompt",
        head=Mlp(),
        model_type="qwen2",
        system="",
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
    Family(
        name="Nemotron-Reward",
        pattern=r"Llama-3\.1-Nemotron-70B-Reward",
        source="https://huggingface.co/nvidia/Llama-3.1-Nemotron-70B-Reward-HF",
        score="the logit of the vocabulary's first token after the last turn, which is where its value head was put",
        head=Mlp("lm_head"),
        proof="the language model's own logit; tiny Llama, Llama 3 template",
    ),
    Family(
        name="OpenAssistant RM",
        pattern=r"reward-model-(deberta|electra)",
        source="https://huggingface.co/OpenAssistant/reward-model-deberta-v3-large-v2",
        score="the raw logit of question and answer as a pair of texts",
        head=Mlp(),
        body="classifier",
        proof="the call of its card; tiny DeBERTa v2 and tiny ELECTRA",
    ),
    Family(
        name="HH GPT-2",
        pattern=r"gpt2-large-(harmless|helpful)-reward",
        source="https://huggingface.co/Ray2333/gpt2-large-helpful-reward_model",
        score="the raw logit, the prompt written as `Human:` and `Assistant:`",
        head=Mlp(),
        body="classifier",
        template=_HH,
        proof="the call of its card; tiny GPT-2",
    ),
)

REFUSED: tuple[Family, ...] = tuple(
    Family(name, pattern, source, "none", Logits(), refused=refused, served=served)
    for name, pattern, source, refused, served in (
        (
            "POLAR", r"\bPOLAR-\d", "https://huggingface.co/internlm/POLAR-7B",
            "scores a response beside a reference answer, which a prompt lacks; use a JudgeReward with a reference",
            False,
        ),
        (
            "pairwise models", r"pair-preference|PairRM|PairPM", "https://huggingface.co/RLHFlow/pair-preference-model-LLaMA3-8B",
            "compares two responses and has no score for one; use a JudgeReward with mode='pairwise'",
            False,
        ),
        (
            "generative reward models", r"GenRM|Prometheus-|RM-R1|Skywork-Critic", "https://huggingface.co/nvidia/Qwen3-Nemotron-235B-A22B-GenRM",
            "writes its verdict as text; serve it as a chat model and use a JudgeReward",
            False,
        ),
        (
            "Starling-RM, LDL-Reward", r"Starling-RM|LDL-Reward", "https://huggingface.co/berkeley-nest/Starling-RM-7B-alpha",
            "keeps weights in pickled files of its own, which are not read here; use another reward model, or a "
            "RemoteRewardModel that serves it",
            True,
        ),
    )
)  # fmt: skip


def find_family(name: str) -> Family:
    """Return the entry a repository or folder belongs to, ``UNKNOWN`` when there is none.

    Of a folder only its own name counts, or its repository's in a cache of the hub: a parent may be called anything.
    """
    if os.path.isdir(name):
        *_, kept, above, own = ["", "", *Path(name).resolve().parts]
        name = kept if above == "snapshots" else own
    return next((f for f in (*FAMILIES, *REFUSED) if re.search(f.pattern, name, re.IGNORECASE)), UNKNOWN)


def family_named(name: str) -> Family:
    """Return the entry of that name.

    Raises:
        InvalidInputError: There is none; the message lists them.
    """
    for family in (*FAMILIES, *REFUSED, UNKNOWN):
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
    rows += ["", "Refused, because a score of theirs would be a wrong one:", ""]
    rows += [f"- [{f.name}]({f.source}): {f.refused}." for f in REFUSED]
    return "\n".join(rows)
