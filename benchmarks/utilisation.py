"""How much of a device's matrix-multiplication peak ``HFRewardModel`` reaches in bfloat16: width 5, depth 2.

    python benchmarks/utilisation.py                  # on a GPU an 8B-shaped classifier, 16 GB of random weights
    python benchmarks/utilisation.py --shape small    # on a CPU; what the script does, in half a minute

A query is one prompt and three rounds of five responses, scored round by round; every text is new. The peak is measured
here, with the largest product of the model's layers at 8,192 tokens (1,024 on a CPU). Operations are counted once per
distinct token, two per weight of the layers and four per layer, hidden unit and earlier token for the attention;
embeddings, norms and the softmax count as nothing, though they take time. "one by one" is the same with one attention
call a segment and layer, which is what a device without variable lengths in its kernels gets.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from rewards import Shape, make_tokenizer, query
from rich.console import Console
from rich.table import Table

from tpo_core.rewards import HFRewardModel
from tpo_core.rewards.hf import scoring
from tpo_core.values import Pair

SHAPES = {
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "small": {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4, "num_attention_heads": 8},
}
CASES = [
    (Shape(name, *sizes), queries)
    for name, *sizes in (("long", 2000, 5, 100, 400, 3), ("short", 2000, 5, 10, 40, 3), ("chat", 200, 5, 10, 40, 3))
    for queries in (1, 4, 16)
]
"""Queries, and how many at once; on a CPU, which would take minutes, one."""


def make_model(folder: Path, shape: str, device: str) -> transformers.LlamaConfig:
    config = transformers.LlamaConfig(vocab_size=32000, max_position_embeddings=8192, num_labels=1, **SHAPES[shape])
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            transformers.LlamaForSequenceClassification(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(usual)
    make_tokenizer().save_pretrained(folder)
    return config


def best(call: Callable[[], object], device: str, repeats: int) -> float:
    """Return the seconds of the quickest call."""
    seconds = []
    for _ in range(repeats + 1):  # the first builds kernels and buffers
        start = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def peak(config: transformers.LlamaConfig, device: str) -> float:
    """Return operations per second of the largest product of a layer."""
    tokens = 1024 if device == "cpu" else 8192
    states = torch.randn(tokens, config.hidden_size, device=device, dtype=torch.bfloat16)
    weight = torch.randn(config.intermediate_size, config.hidden_size, device=device, dtype=torch.bfloat16)
    with torch.inference_mode():
        seconds = best(lambda: torch.nn.functional.linear(states, weight), device, 20)
    return 2 * tokens * weight.numel() / seconds


def operations(config: transformers.LlamaConfig, prompt: int, responses: list[int]) -> float:
    """Count what must be computed: the prompt once, responses behind it; of the last layer keys and values alone."""
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers - 1
    kept = 2 * hidden * hidden * config.num_key_value_heads // config.num_attention_heads
    whole = 2 * hidden * hidden + kept + 3 * hidden * inner
    seen = prompt * prompt / 2 + sum(n * prompt + n * n / 2 for n in responses)
    return 2 * (prompt + sum(responses)) * (layers * whole + kept) + 4 * layers * hidden * seen


def score(reward: HFRewardModel, queries: list[tuple[str, list[list[str]]]]) -> None:
    """Score round by round, all queries' responses of a round at once, as the loop's merged requests do."""
    for round_ in range(len(queries[0][1])):
        reward.score_pairs([Pair(prompt, text) for prompt, rounds in queries for text in rounds[round_]])


def rates(
    folder: str, cases: list[tuple[Shape, int]], device: str, config: transformers.LlamaConfig, *, varlen: bool
) -> list[tuple[float, float]]:
    """Return seconds and operations per second of the quickest of three runs, by shape and number of queries."""
    known = scoring.takes_varlen
    scoring.takes_varlen = known if varlen else lambda device, dtype: False
    reward = HFRewardModel(folder, dtype="bfloat16", device=device, max_prefix_bytes=16 * 2**30)
    scoring.takes_varlen = known
    rng, found = random.Random(0), []
    for shape, together in cases:
        runs = []
        for _ in range(4):  # the first builds kernels and buffers
            asked = [query(rng, shape) for _ in range(together)]
            work = sum(
                operations(config, shape.prompt + 4, [len(t.split()) + 1 for texts in rounds for t in texts])
                for _, rounds in asked
            )
            start = time.perf_counter()
            score(reward, asked)
            seconds = time.perf_counter() - start
            runs.append((work / seconds, seconds))
        rate, seconds = max(runs[1:])
        found.append((seconds, rate))
    reward.close()
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    args = parser.parse_args()
    torch.set_num_threads(1 if args.device == "cpu" else torch.get_num_threads())
    with tempfile.TemporaryDirectory() as folder:
        config = make_model(Path(folder), args.shape, args.device)
        highest = peak(config, args.device)
        table = Table(title=f"{args.device}, {args.shape}: matrix products reach {highest / 1e12:.3g} TFLOP/s")
        for column in ("prompt", "responses", "queries at once", "seconds", "TFLOP/s", "of the peak", "one by one"):
            table.add_column(column, justify="right")
        cases = [case for case in CASES if case[1] == 1 or args.device != "cpu"]
        together, alone = (rates(folder, cases, args.device, config, varlen=way) for way in (True, False))
        for (shape, queries), (seconds, rate), (_, other) in zip(cases, together, alone, strict=True):
            sizes = f"{shape.shortest}-{shape.longest}"
            shares = [f"{r / highest:.0%}" for r in (rate, other)]
            table.add_row(str(shape.prompt), sizes, str(queries), f"{seconds:.3f}", f"{rate / 1e12:.3g}", *shares)
        Console(width=100, file=sys.stdout).print(table)


if __name__ == "__main__":
    main()
