"""How long the authors' program and ours take for the same queries, side by side: same server, same reward model.

    git clone https://github.com/yafuly/TPO somewhere       # nothing of it is needed but to be run
    python benchmarks/authors.py somewhere [--queries 8] [--latency 0.2] [--words 50]

Both refine with width 5, depth 2, four queries at a time, against one server on this machine that takes a fixed time
for a request and honours n, and score with one random Llama classifier of 42 million weights in bfloat16, as the
authors' code loads it. Answers have 100 to 400 words. Neither's seconds hold imports and the loading of the model:
theirs are those they print, and ours begin after one request that makes litellm import itself. Their program needs the
packages that its requirements name, as far as it imports them: put them on PYTHONPATH.
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
from pathlib import Path
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

import transformers
from rewards import make_model, words

from loopback import LoopbackServer
from tpo_core import ChatPolicy, LiteLLMChat, TPOConfig, run, run_many
from tpo_core.rewards import HFRewardModel

TAGS = ("<IMPROVED_VARIABLE>", "</IMPROVED_VARIABLE>")  # between which their optimizer looks for an answer


def answer(request: dict[str, Any], number: int) -> str:
    """Answer with something else each time."""
    rng = random.Random(number)
    text = words(rng, rng.randint(100, 400))
    return text.join(TAGS) if TAGS[0] in json.dumps(request["messages"]) else text


def theirs(checkout: Path, queries: list[str], reward: str, server: LoopbackServer, folder: Path) -> float:
    """Run their program as its documentation says; return the seconds it prints."""
    (folder / "queries.json").write_text(json.dumps(queries))
    path = os.pathsep.join([str(checkout / "textgrad-main"), os.environ.get("PYTHONPATH", "")])
    port = server.url.split(":")[2].split("/")[0]
    settings = {
        "data_path": folder / "queries.json",
        "output_path": folder / "results",
        "ip": "127.0.0.1",
        "port": port,
    }
    settings |= {
        "reward_model": reward,
        "server_model": "smol",
        "num_threads": 4,
        "max_iterations": 2,
        "sample_size": 5,
    }
    done = subprocess.run(
        [sys.executable, "run.py", *(str(part) for name, value in settings.items() for part in (f"--{name}", value))],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": path, "HOME": str(folder)},
        capture_output=True,
        text=True,
    )
    found = re.search(r"ELAPSED TIME: ([\d.]+)", done.stdout)
    if found is None:
        sys.exit(f"their program ended without a time:\n{done.stderr[-2000:]}")
    return float(found[1])


def ours(queries: list[str], reward: str, server: LoopbackServer) -> float:
    """Return the seconds of the same work."""
    policy = ChatPolicy(LiteLLMChat("openai/smol", api_base=server.url))
    run("Anything?", policy, lambda prompt, response: 0.0, TPOConfig(mode="bon", width=1))  # imports litellm
    with HFRewardModel(reward, dtype="bfloat16", device="cpu") as model:
        start = time.perf_counter()
        run_many(queries, policy, model, TPOConfig.paper(), max_concurrency=4)
        return time.perf_counter() - start


def main() -> None:
    """Print a line for each, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="a clone of yafuly/TPO")
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds a request takes")
    parser.add_argument("--words", type=int, default=50, help="of a query")
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # random answers do not improve, and the loop would say so
    queries = [words(random.Random(-1 - i), args.words) for i in range(args.queries)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reward = str(folder / "reward")
        make_model(Path(reward), "usual")
        tokenizer = transformers.AutoTokenizer.from_pretrained(reward)
        tokenizer.bos_token = "[UNK]"  # their code takes every tokenizer to have one
        tokenizer.save_pretrained(reward)
        seconds = {}
        for who in ("theirs", "ours"):
            with LoopbackServer(answer, latency=args.latency) as server:
                if who == "theirs":
                    seconds[who] = theirs(args.checkout.resolve(), queries, reward, server, folder)
                else:
                    seconds[who] = ours(queries, reward, server)
                print(f"{who:7} {seconds[who]:7.2f} s  {len(server.requests):4d} requests")
    print(f"theirs / ours: {seconds['theirs'] / seconds['ours']:.2f}")


if __name__ == "__main__":
    main()
