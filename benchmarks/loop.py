"""How close a run comes to the fastest its rounds allow, and how that compares with DSPy's BestOfN.

The model is a server on this machine that takes a fixed time for each request. A run waits for the samples, then in
each round for loss, gradient and updates: the shortest possible run of depth D is 1 + 3 D requests one after another.
Prints one line per case: seconds, and the ratio to that ideal. BestOfN samples as many candidates (15), one by one.

    python benchmarks/loop.py [--latency 0.2]
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ["DSPY_CACHEDIR"] = tempfile.mkdtemp(prefix="tpo-bench-")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

import dspy
from langchain_core.output_parsers import StrOutputParser
from langchain_openai import ChatOpenAI

import tpo_dspy
from loopback import LoopbackServer
from tpo_core import ChatPolicy, LiteLLMChat, TPOConfig, arun, run, run_many
from tpo_core.testing import RubricReward, SimulatedPolicy
from tpo_langchain import RunnableTPO


def length(prompt: object, response: str) -> float:
    """Grade by length: no time of its own."""
    return float(len(response))


def answer(request: object, number: int) -> str:
    """Answer with something else each time, in the form DSPy asks for."""
    return f"[[ ## answer ## ]]\nAnswer {number} {'x' * (number * 7 % 50)}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds a request takes")
    logging.disable(logging.WARNING)  # random answers do not improve, and the loop would say so
    latency = parser.parse_args().latency
    config = TPOConfig(width=5, depth=2)
    ideal = (1 + 3 * config.depth) * latency
    for n in ("honour", "ignore"):
        with LoopbackServer(answer, latency=latency, n=n) as server:
            print(f"server that {n}s n, {latency} s a request; ideal {ideal:.2f} s for D2-N5, 15 candidates")
            for name, call in cases(server, config).items():
                call()  # connections, imports, and what is found out once
                before, started = len(server.requests), time.perf_counter()
                call()
                seconds = time.perf_counter() - started
                requests = len(server.requests) - before
                print(f"  {name:28} {seconds:6.2f} s  {seconds / ideal:5.2f} x ideal  {requests:3d} requests")
    queries = [f"query {i}" for i in range(1000)]
    started = time.perf_counter()
    calls = sum(t.usage.calls for t in run_many(queries, SimulatedPolicy(), RubricReward(), config))
    seconds = time.perf_counter() - started
    print(f"the loop itself, with a model that takes no time: {1e6 * seconds / calls:.0f} microseconds a sample")


def cases(server: LoopbackServer, config: TPOConfig) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    policy = ChatPolicy(LiteLLMChat("openai/smol", api_base=server.url))
    lm = dspy.LM("openai/smol", api_base=server.url, api_key="none", cache=False)
    program = dspy.Predict("question -> answer")
    refined = tpo_dspy.TPO(program, length, config=config)
    best_of_n = dspy.BestOfN(program, N=15, reward_fn=lambda args, pred: len(pred.answer), threshold=1e9)
    model = ChatOpenAI(model="smol", base_url=server.url, api_key="none")
    chain = RunnableTPO(model | StrOutputParser(), reward=length, config=config)

    def in_dspy(module: dspy.Module) -> object:
        with dspy.context(lm=lm):
            return module(question="Why is the sky blue?")

    return {
        "tpo_core.run": lambda: run("Why is the sky blue?", policy, length, config),
        "tpo_core.arun": lambda: asyncio.run(arun("Why is the sky blue?", policy, length, config)),
        "tpo_dspy.TPO": lambda: in_dspy(refined),
        "tpo_langchain.RunnableTPO": lambda: chain.invoke("Why is the sky blue?"),
        "dspy.BestOfN (15)": lambda: in_dspy(best_of_n),
    }


if __name__ == "__main__":
    main()
