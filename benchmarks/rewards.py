"""How fast ``HFRewardModel`` scores beside the ``text-classification`` pipeline with batch_size=1, the authors' way.

    python benchmarks/rewards.py            # the table, some eight minutes
    python benchmarks/rewards.py --wide     # 2048 wide, for what bfloat16 gains where attention is a small share;
                                            # its two layers flatter the ratios, since the last one is spared
    python benchmarks/rewards.py --quick    # a minute of smoke: a smaller model, one round

The model is a Llama classifier of 42 million random weights (512 wide, 8 layers). A query is one prompt with three
scorings of five responses each, of 100 to 400 tokens: width 5, depth 2. Every text is new in every round, so only
the prompt of a query could ever be computed twice. The ways alternate within a round, and the table gives medians over
the rounds of what the pipeline took over what we took, in CPU seconds of one thread (wall seconds on a GPU), because
other processes do not count in them. The limit is arithmetic: the tokens of all conversations over the distinct ones,
and in bfloat16 twice that.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models, pre_tokenizers

from tpo_core.rewards import HFRewardModel

TEMPLATE = "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|end|> {% endfor %}"
Rounds = list[list[str]]


@dataclass(frozen=True)
class Shape:
    """One line of the table."""

    name: str
    prompt: int
    responses: int
    shortest: int
    longest: int
    rounds: int


SHAPES = (
    Shape("prompt 50", 50, 5, 100, 400, 3),
    Shape("prompt 500", 500, 5, 100, 400, 3),
    Shape("prompt 2000", 2000, 5, 100, 400, 3),
    Shape("short texts", 20, 16, 10, 40, 3),
    Shape("one response", 300, 1, 250, 250, 1),
    Shape("one of 5", 5, 1, 5, 5, 1),
    Shape("one of 1000", 20, 1, 1000, 1000, 1),
)


SIZES = {
    "usual": {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8},
    "wide": {
        "hidden_size": 2048,
        "intermediate_size": 5504,
        "num_hidden_layers": 2,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
    },
    "quick": {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2, "num_attention_heads": 2},
}


def make_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Return a tokenizer of one token per word."""
    words = ["[UNK]", "<|user|>", "<|assistant|>", "<|end|>", *(f"w{i}" for i in range(31996))]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=8192)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(folder: Path, size: str) -> None:
    """Save a random Llama classifier with its tokenizer."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=32000, max_position_embeddings=8192, num_labels=1, **SIZES[size])
    transformers.LlamaForSequenceClassification(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


def words(rng: random.Random, count: int) -> str:
    return " ".join(f"w{rng.randrange(31996)}" for _ in range(count))


def query(rng: random.Random, shape: Shape) -> tuple[str, Rounds]:
    sizes = [[rng.randint(shape.shortest, shape.longest) for _ in range(shape.responses)] for _ in range(shape.rounds)]
    return words(rng, shape.prompt), [[words(rng, n) for n in row] for row in sizes]


def limit(prompt: str, rounds: Rounds) -> float:
    """Return the tokens of all conversations over the distinct ones; five are the template's."""
    first, rest = len(prompt.split()) + 4, [len(r.split()) + 1 for row in rounds for r in row]
    return sum(first + n for n in rest) / (first + sum(rest))


def by_pipeline(path: str, device: str) -> Callable[[str, Rounds], list[float]]:
    pipe: Any = transformers.pipeline(
        "text-classification", model=path, device=device, dtype=torch.float32, function_to_apply="none", batch_size=1
    )

    def score(prompt: str, rounds: Rounds) -> list[float]:
        scores = []
        for row in rounds:
            chats = [[{"role": "user", "content": prompt}, {"role": "assistant", "content": r}] for r in row]
            texts = [pipe.tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
            scores += [output["score"] for output in pipe(texts)]
        return scores

    return score


def by_us(reward: HFRewardModel) -> Callable[[str, Rounds], list[float]]:
    return lambda prompt, rounds: [s for row in rounds for s in reward.score(prompt, row)]


def measure(
    ways: dict[str, Callable[[str, Rounds], list[float]]], shape: Shape, *, repeats: int, clock: Callable[[], float]
) -> tuple[float, dict[str, float], dict[str, float], float]:
    """Return the first way's median seconds, each way's ratio to it and greatest difference from it, and the limit."""
    rng = random.Random(shape.prompt)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    apart = dict.fromkeys(ways, 0.0)
    limits = []
    for _ in range(repeats):
        prompt, rounds = query(rng, shape)
        limits.append(limit(prompt, rounds))
        scores: dict[str, list[float]] = {}
        for name, way in ways.items():
            start = clock()
            scores[name] = way(prompt, rounds)
            seconds[name].append(clock() - start)
        first = next(iter(scores.values()))
        for name, each in scores.items():
            apart[name] = max([apart[name], *(abs(a - b) for a, b in zip(first, each, strict=True))])
    whole = next(iter(seconds.values()))
    ratios = {n: statistics.median(a / b for a, b in zip(whole, s, strict=True)) for n, s in seconds.items()}
    return statistics.median(whole), ratios, apart, statistics.median(limits)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", dest="size", action="store_const", const="quick", help="a tiny model, measured once")
    which.add_argument("--wide", dest="size", action="store_const", const="wide", help="a wide model, measured once")
    parser.set_defaults(size="usual")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), args.size)
        exact = HFRewardModel(folder, dtype="float32", device=args.device)
        half = HFRewardModel(folder, dtype="bfloat16", device=args.device)
        ways = {"pipeline": by_pipeline(folder, args.device), "float32": by_us(exact), "bfloat16": by_us(half)}
        for way in ways.values():
            way(*query(random.Random(0), SHAPES[3]))  # first calls build kernels and buffers
        table = Table(title=f"CPU seconds, {torch.get_num_threads()} thread" if args.device == "cpu" else args.device)
        for column in ("", "pipeline s", "limit", "float32", "of limit", "max |d|", "bfloat16", "of twice", "max |d|"):
            table.add_column(column, justify="right")
        for shape in SHAPES:
            repeats = 1 if args.size != "usual" else 9 if shape.prompt < 50 or shape.responses == 1 else 5
            seconds, ratios, apart, most = measure(ways, shape, repeats=repeats, clock=clock)
            table.add_row(
                shape.name,
                f"{seconds:.2f}",
                f"{most:.2f}x",
                f"{ratios['float32']:.2f}x",
                f"{ratios['float32'] / most:.0%}",
                f"{apart['float32']:.1e}",
                f"{ratios['bfloat16']:.2f}x",
                f"{ratios['bfloat16'] / most / 2:.0%}",
                f"{apart['bfloat16']:.1e}",
            )
        Console(width=100, file=sys.stdout).print(table)
        exact.close()
        half.close()


if __name__ == "__main__":
    main()
