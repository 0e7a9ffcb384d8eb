"""How fast ``HFRewardModel`` scores beside the ``text-classification`` pipeline with batch_size=1, the authors' way.

    python benchmarks/rewards.py            # the table, some fifteen minutes
    python benchmarks/rewards.py --only "prompt 1500" --repeats 9       # one line of it
    python benchmarks/rewards.py --wide     # 2048 wide, for what bfloat16 gains where attention is a small share;
                                            # its two layers flatter the ratios, since the last one is spared
    python benchmarks/rewards.py --quick    # a minute of smoke: a smaller model, one round

The model is a Llama classifier of 42 million random weights (512 wide, 8 layers). A query is one prompt with three
scorings of five responses each, of 100 to 400 tokens: width 5, depth 2. Every text is new in every round, so only
the prompt of a query could ever be computed twice. The ways alternate within a round, with one thread and with two, and
the table gives medians over the rounds of what the pipeline took over what we took with as many threads. The limit is
arithmetic: the tokens of all conversations over the distinct ones, and in bfloat16 twice that.

Times are CPU seconds of the busiest thread, because other processes do not count in them: what one thread does while
the other has nothing to do is in them, a wait that sleeps is not. So shares of the limit by wall seconds stand beside
them, after a slash, which are right on a machine that does nothing else. On a GPU all times are wall seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models, pre_tokenizers

from tpo_core.rewards import HFRewardModel

COLUMNS = (
    "", "threads", "pipeline s", "limit", "float32", "of limit", "max |d|", "bfloat16", "of twice", "max |d|",
)  # fmt: skip
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|end|> {% endfor %}"
Rounds = list[list[str]]
Way = Callable[[str, Rounds], "list[float]"]
Seconds = tuple[float, float]
"""CPU seconds of the busiest thread, and wall seconds."""


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
    Shape("prompt 1500", 1500, 5, 100, 400, 3),
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


def by_pipeline(path: str, device: str) -> Way:
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


def by_us(reward: HFRewardModel) -> Way:
    return lambda prompt, rounds: [s for row in rounds for s in reward.score(prompt, row)]


def thread_seconds() -> dict[str, float]:
    """Return the CPU seconds of every thread of this process; nothing where the system is not Linux."""
    found = {}
    for task in os.listdir("/proc/self/task") if os.path.isdir("/proc/self/task") else ():
        with suppress(OSError):  # a thread that has ended meanwhile
            found[task] = time.clock_gettime(~int(task) << 3 | 6)  # the clock that pthread_getcpuclockid names
    return found


def timed(way: Way, prompt: str, rounds: Rounds, *, by_cpu: bool) -> tuple[list[float], Seconds]:
    """Return the scores, and the seconds they took."""
    before, start = thread_seconds(), time.perf_counter()
    scores = way(prompt, rounds)
    wall, after = time.perf_counter() - start, thread_seconds()
    busiest = max((s - before.get(task, 0.0) for task, s in after.items()), default=wall)
    return scores, (busiest if by_cpu else wall, wall)


@dataclass
class Measured:
    """What one shape took with so many threads, by way; the first is the pipeline."""

    seconds: dict[str, list[Seconds]]
    apart: dict[str, float]
    """The greatest difference of a score from the pipeline's."""
    limits: list[float]

    def ratio(self, name: str, clock: int = 0) -> float:
        """Return how many times as fast a way is as the pipeline."""
        pairs = zip(self.seconds["pipeline"], self.seconds[name], strict=True)
        return statistics.median(whole[clock] / own[clock] for whole, own in pairs)

    def share(self, name: str, times: int, by_cpu: bool) -> str:
        """Return a way's share of so many times the limit."""
        limit = times * statistics.median(self.limits)
        shares = f"{self.ratio(name) / limit:.0%}"
        return f"{shares} / {self.ratio(name, 1) / limit:.0%}" if by_cpu else shares


def measure(ways: Mapping[int, Mapping[str, Way]], shape: Shape, *, repeats: int, by_cpu: bool) -> dict[int, Measured]:
    """Return what a shape takes by each way, by the number of threads."""
    rng = random.Random(shape.prompt)
    found = {n: Measured({w: [] for w in each}, dict.fromkeys(each, 0.0), []) for n, each in ways.items()}
    for _ in range(repeats):
        prompt, rounds = query(rng, shape)
        for threads, each in ways.items():
            torch.set_num_threads(threads)  # for the pipeline; a reward model's own thread keeps what it started with
            got, scores = found[threads], dict[str, list[float]]()
            for name, way in each.items():
                scores[name], seconds = timed(way, prompt, rounds, by_cpu=by_cpu)
                got.seconds[name].append(seconds)
                apart = max(abs(a - b) for a, b in zip(scores["pipeline"], scores[name], strict=True))
                got.apart[name] = max(got.apart[name], apart)
            got.limits.append(limit(prompt, rounds))
    return found


def made(folder: str, device: str, threads: int) -> dict[str, Way]:
    """Return the ways of scoring, each with so many threads and warm: first calls build kernels and buffers."""
    torch.set_num_threads(threads)
    ways = {"pipeline": by_pipeline(folder, device)}
    for dtype in ("float32", "bfloat16"):
        ways[dtype] = by_us(HFRewardModel(folder, dtype=dtype, device=device))
    for way in ways.values():
        way(*query(random.Random(0), next(s for s in SHAPES if s.name == "short texts")))
    return ways


def line(shape: Shape, threads: int, got: Measured, by_cpu: bool) -> list[str]:
    """Return a row of the table."""
    whole = statistics.median(seconds for seconds, _ in got.seconds["pipeline"])
    cells = [shape.name, str(threads) if by_cpu else "", f"{whole:.2f}", f"{statistics.median(got.limits):.2f}x"]
    for name, times in (("float32", 1), ("bfloat16", 2)):
        cells += [f"{got.ratio(name):.2f}x", got.share(name, times, by_cpu), f"{got.apart[name]:.1e}"]
    return cells


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", dest="size", action="store_const", const="quick", help="a tiny model, measured once")
    which.add_argument("--wide", dest="size", action="store_const", const="wide", help="a wide model, measured once")
    parser.set_defaults(size="usual")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", choices=[s.name for s in SHAPES], help="this line of the table alone")
    parser.add_argument("--repeats", type=int, help="rounds of a line")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    args = parsed(argv)
    by_cpu = args.device == "cpu"
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), args.size)
        ways = {threads: made(folder, args.device, threads) for threads in ((1, 2) if by_cpu else (1,))}
        table = Table(title="CPU seconds of the busiest thread / wall seconds" if by_cpu else args.device)
        for column in COLUMNS:
            table.add_column(column, justify="right", no_wrap=True)
        for shape in (s for s in SHAPES if args.only in (None, s.name)):
            usual = 1 if args.size != "usual" else 9 if shape.prompt < 50 or shape.responses == 1 else 5
            found = measure(ways, shape, repeats=args.repeats or usual, by_cpu=by_cpu)
            for threads, got in found.items():
                table.add_row(*line(shape, threads, got, by_cpu))
        Console(width=120, file=sys.stdout).print(table)


if __name__ == "__main__":
    main()
