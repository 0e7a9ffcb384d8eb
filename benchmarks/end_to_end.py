"""The same queries through the authors' program and through ours: same server, same reward model, side by side.

    git clone https://github.com/yafuly/TPO somewhere       # nothing of it is needed but to be run
    python benchmarks/end_to_end.py somewhere [--queries 16 64] [--threads 4 16 64] [--latency 1] [--reward quick]

Both refine with width 5, depth 2 against one server in a process of its own that takes a fixed time for each request
and honours n, and score with one random Llama classifier in bfloat16, as the authors' code loads it (`--reward usual`
has 42 million weights). Queries have 50 words, answers 100 to 400, critiques 50 to 250. Each program is a process of
its own. Theirs runs with each number of threads, and its quickest run counts; ours takes all queries at once. Seconds
are those each prints, without imports and the loading of the model; processor seconds and memory are those of the
process, imports included.

Prompt tokens are words and signs, with two a message for its role, once for each request, whatever its n. A prefix
cache of 16-token blocks serves a block if it and all before it stood at the beginning of an earlier request, in the
order of arrival; the rest is computed.

The ideal is the longer of two: seven requests, one after the other; and the arithmetic of the reward model, at the
rate of the largest product of its layers on this machine. All queries begin together, and so do their first scorings:
the last to be scored has waited for the scoring of all, and six of its requests and two of its scorings are still to
come. No order of the work is quicker than that, which is the bound beside the ideal.

Their program needs the packages that its requirements name, as far as it imports them: put them on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from rewards import SIZES, make_model, words
from servers import Serving, serving

BLOCK = 16
ANSWER, CRITIQUE = (100, 400), (50, 250)
SAMPLES, REQUESTS, SCORINGS = 15, 7, 3  # of a query
_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Measured:
    """One program's run of some queries."""

    who: str
    seconds: float
    processor: float
    """Seconds of processor time."""
    requests: int
    completions: int
    prompt: int
    """Prompt tokens."""
    cached: int
    """Those that a prefix cache serves."""
    megabytes: float
    """Most memory."""


def main() -> None:
    """Print a table for each number of queries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a clone of yafuly/TPO")
    parser.add_argument("--queries", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--threads", type=int, nargs="+", default=[4, 16, 64], help="that theirs is tried with")
    parser.add_argument("--latency", type=float, default=1.0, help="seconds a request takes")
    parser.add_argument("--words", type=int, default=50, help="of a query")
    parser.add_argument("--reward", choices=SIZES, default="quick", help="the size of the reward model")
    parser.add_argument("--ours", nargs=3, metavar=("QUERIES", "REWARD", "URL"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ours:
        print(f"ELAPSED TIME: {ours(*args.ours):.4f}")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reward = save_reward(folder, args.reward)
        for count in args.queries:
            queries = [words(random.Random(-1 - i), args.words) for i in range(count)]
            compare(args, queries, reward, folder)


def save_reward(folder: Path, size: str) -> str:
    """Save the reward model; returns its path."""
    import transformers

    path = folder / "reward"
    make_model(path, size)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    tokenizer.bos_token = "[UNK]"  # their code takes every tokenizer to have one
    tokenizer.save_pretrained(path)
    return str(path)


def compare(args: argparse.Namespace, queries: list[str], reward: str, folder: Path) -> None:
    """Run both and print."""
    count = len(queries)
    path, arithmetic = REQUESTS * args.latency, count * scoring_seconds(args.reward, args.words)
    ideal = max(path, arithmetic)
    bound = max(ideal, path + arithmetic / SCORINGS * (1 + (SCORINGS - 1) / count))
    print(f"{count} queries; path {path:.1f} s, arithmetic of the rewards {arithmetic:.1f} s, bound {bound:.1f} s")
    print(f"{'':20} {'seconds':>8} {'CPU s':>7} {'requests':>8} {'completions':>11} {'prompt tokens':>13} "
          f"{'cached':>8} {'computed':>8} {'peak MB':>7}")  # fmt: skip
    (folder / "queries.json").write_text(json.dumps(queries))
    with serving(args.latency, ANSWER, CRITIQUE) as server:
        theirs = []
        for threads in dict.fromkeys(min(threads, count) for threads in args.threads):
            theirs.append(_theirs(args.checkout.resolve(), reward, server, folder, threads))
            show(theirs[-1])
        mine = measure("tpo", server, [str(Path(__file__).resolve()), str(args.checkout), "--ours",
                                       str(folder / "queries.json"), reward, server.url])  # fmt: skip
        show(mine)
    best = min(theirs, key=lambda each: each.seconds)
    computed = (best.prompt - best.cached) / (mine.prompt - mine.cached)
    print(
        f"theirs / ours: seconds {best.seconds / mine.seconds:.2f}, CPU {best.processor / mine.processor:.2f}, prompt "
        f"tokens {best.prompt / mine.prompt:.2f}, computed "
        f"{computed:.2f}, memory {best.megabytes / mine.megabytes:.2f}; "
        f"ideal / ours {ideal / mine.seconds:.2f}, bound / ours {bound / mine.seconds:.2f}\n",
        flush=True,
    )


def _theirs(checkout: Path, reward: str, server: Serving, folder: Path, threads: int) -> Measured:
    """Run their program as its documentation says."""
    home = Path(tempfile.mkdtemp(dir=folder))
    settings = {
        "data_path": folder / "queries.json", "output_path": home / "results", "ip": "127.0.0.1",
        "port": server.url.split(":")[2].split("/")[0], "reward_model": reward, "server_model": "instant",
        "num_threads": threads, "max_iterations": 2, "sample_size": 5,
    }  # fmt: skip
    program = str(checkout / "run.py")
    path = os.pathsep.join([str(checkout / "textgrad-main"), os.environ.get("PYTHONPATH", "")])
    options = [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
    own = {"PYTHONPATH": path, "HOME": str(home), "XDG_CACHE_HOME": str(home)}
    return measure(f"authors, {threads} threads", server, [program, *options], cwd=home, env={**os.environ, **own})


def ours(queries: str, reward: str, url: str) -> float:
    """Return the seconds of the same work."""
    from tpo_core import ChatPolicy, OpenAIChat, TPOConfig, run, run_many
    from tpo_core.rewards import HFRewardModel

    logging.disable(logging.WARNING)  # random answers do not improve, and the loop would say so
    policy = ChatPolicy(OpenAIChat("instant", api_base=url))
    asked = json.loads(Path(queries).read_text())
    run("Anything?", policy, lambda prompt, response: 0.0, TPOConfig(mode="bon", width=1))  # imports the client
    with HFRewardModel(reward, dtype="bfloat16", device="cpu") as model:
        start = time.perf_counter()
        run_many(asked, policy, model, TPOConfig.paper(), max_concurrency=len(asked))
        return time.perf_counter() - start


def measure(who: str, server: Serving, command: Sequence[str], **settings: Any) -> Measured:
    """Run a program in a process of its own and count what it asked."""
    server.asked()
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen([sys.executable, *command], stdout=printed, stderr=printed, **settings)
        _, _, usage = os.wait4(process.pid, 0)
        printed.seek(0)
        text = printed.read()
    if (found := re.search(r"ELAPSED TIME: ([\d.]+)", text)) is None:
        sys.exit(f"{who}: ended without a time:\n{text[-2000:]}")
    asked = server.asked()
    asked = [request for request in asked if "Anything?" not in str(request["messages"])]
    prompt, cached = tokens([request["messages"] for request in asked])
    completions = sum(request.get("n") or 1 for request in asked)
    spent = usage.ru_utime + usage.ru_stime
    return Measured(who, float(found[1]), spent, len(asked), completions, prompt, cached, usage.ru_maxrss / 1e3)


def tokens(asked: Sequence[Sequence[Any]]) -> tuple[int, int]:
    """Return how many tokens prompts have together, and how many of them a prefix cache serves."""
    seen: set[int] = set()
    total = cached = 0
    for messages in asked:
        told = [token for m in messages for token in (f"<{m['role']}>", *_TOKEN.findall(str(m["content"])), "<end>")]
        total += len(told)
        prefix, held = 0, True
        for start in range(0, len(told) - BLOCK + 1, BLOCK):
            prefix = hash((prefix, *told[start : start + BLOCK]))
            held = held and prefix in seen
            cached += BLOCK * held
            seen.add(prefix)
    return total, cached


def scoring_seconds(size: str, prompt: int) -> float:
    """Return what the arithmetic of one query's rewards takes, of answers of middling length."""
    import torch
    import transformers
    from utilisation import operations, peak

    config = transformers.LlamaConfig(vocab_size=32000, num_labels=1, **SIZES[size])
    return operations(config, prompt + 4, [sum(ANSWER) // 2 + 1] * SAMPLES) / peak(config, torch.device("cpu").type)


def show(row: Measured) -> None:
    """Print a line."""
    print(
        f"{row.who:20} {row.seconds:8.2f} {row.processor:7.1f} {row.requests:8d} {row.completions:11d} "
        f"{row.prompt:13,d} {row.cached:8,d} {row.prompt - row.cached:8,d} {row.megabytes:7.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
