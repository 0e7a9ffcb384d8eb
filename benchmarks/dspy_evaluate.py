"""How close ``dspy.Evaluate`` over a TPO program comes to what the server allows.

A loopback server in a process of its own answers each request after a fixed latency, however many come at once. The
ideal path of a query is then its requests that must wait for each other: one for the samples, and three a round (loss,
gradient, updates). The ideal time of an evaluation is that path, as often as the threads go round the examples.

    python benchmarks/dspy_evaluate.py --latency 1 --examples 32 --threads 16
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
import zlib
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp(prefix="tpo-bench-"))

import dspy

from tpo_dspy import TPO


def answer(request: dict[str, Any], number: int) -> str:
    """Answer a prompt in the format it asks for."""
    prompt = str(request["messages"])
    if "improved_answer" in prompt:
        return f"an improved answer, number {number}"
    if "textual_" in prompt:
        return f"remark {number}"
    return f"[[ ## answer ## ]]\nan answer, number {number}\n\n[[ ## completed ## ]]"


def serve(latency: float, pipe: Connection) -> None:
    """Run the server until the pipe says stop; then tell what it saw."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
    from loopback import LoopbackServer

    with LoopbackServer(answer, latency=latency) as server:
        pipe.send(server.url)
        while pipe.recv() != "stop":
            pipe.send((len(server.requests), server.max_in_flight))
            server.clear()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluate once and compare with the ideal."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(options.latency, there), daemon=True)
    process.start()
    try:
        url = here.recv()
        lm = dspy.LM("openai/bench", api_base=url, api_key="none", cache=False)
        program = TPO(dspy.Predict("question -> answer"), length, width=options.width, depth=options.depth)
        examples = [dspy.Example(question=f"question {n}").with_inputs("question") for n in range(options.examples)]
        evaluate = dspy.Evaluate(devset=examples, metric=lambda e, p: 1.0, num_threads=options.threads)
        with dspy.context(lm=lm):
            program(question="warm up")
            here.send("count")
            here.recv()
            start, burnt = time.perf_counter(), time.process_time()
            evaluate(program)
            seconds, burnt = time.perf_counter() - start, time.process_time() - burnt
        here.send("count")
        requests, in_flight = here.recv()
        here.send("stop")
    finally:
        process.join(2)
        process.terminate()
    ideal = math.ceil(options.examples / options.threads) * (1 + 3 * options.depth) * options.latency
    return {
        **vars(options),
        "seconds": round(seconds, 2),
        "ideal_seconds": round(ideal, 2),
        "ratio": round(seconds / ideal, 3),
        "requests": requests,
        "max_in_flight": in_flight,
        "client_cpu_ms_per_request": round(1000 * burnt / requests, 2),
    }


def length(prompt: str, response: str) -> float:
    """Reward longer answers: free, so that only requests take time."""
    return len(response) + zlib.crc32(response.encode()) % 97 / 100


def main() -> None:
    """Parse the options, measure, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=1.0, help="seconds each request takes")
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--width", type=int, default=5)
    parser.add_argument("--depth", type=int, default=2)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
