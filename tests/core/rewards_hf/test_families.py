"""Each family against the computation its authors publish, on tiny models of the same class, template and head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from tpo_core.rewards import HFRewardModel

PROMPT = "What is the capital of France?"
RESPONSES = ["Paris", "\n\nLyon, I think. ", "The capital city is Paris.\n\nstep two"]


def chat(response: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": response}]


def close_to(got: list[float], want: list[float]) -> bool:
    assert len({round(w, 3) for w in want}) == len(want), "the reference must tell the responses apart"
    return max(abs(g - w) for g, w in zip(got, want, strict=True)) < 1e-4


def test_fsfairx_scores_as_the_pipeline_of_its_card(build: Callable[..., Path]) -> None:
    path = str(build("FsfairX-LLaMA3-RM-v0.1"))
    pipe = transformers.pipeline("sentiment-analysis", model=path, dtype=torch.float32)
    bos = pipe.tokenizer.bos_token
    texts = [pipe.tokenizer.apply_chat_template(chat(r), tokenize=False).replace(bos, "") for r in RESPONSES]
    outputs = pipe(texts, top_k=None, function_to_apply="none", batch_size=1)
    assert close_to(HFRewardModel(path).score(PROMPT, RESPONSES), [output[0]["score"] for output in outputs])
