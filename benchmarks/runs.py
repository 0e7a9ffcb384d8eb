"""What ``tpo run`` itself takes: runs of many queries against a server that answers at once, beside bare requests.

The server, a process of its own, answers each request with as many short texts as it asks for. Each run is the command
in a process of its own, with a reward that costs nothing. Bare requests are the same (the last 14,000 of them), by the
``chat.completions.create`` of the client with which the command asks, as many at once, and nothing else. Prints one
line a run: seconds, milliseconds of processor time a query (which other work on the machine changes less than
seconds), peak memory, the folder's size a query, and, beside the bare client's, requests a second and milliseconds of
processor time a request.

    python benchmarks/runs.py [--queries 1000 10000] [--width 5] [--depth 2] [--max-concurrency 32] [--engine ray]

With ``--engine ray`` start a cluster first (``ray start --head``) and name it in ``RAY_ADDRESS``: what is counted is
then the command's own process, without the actors that make its requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openai
from servers import Serving, serving

REWARD = "def score(prompt, response):\n    return float(sum(map(ord, response)) % 997)\n"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--width", type=int, default=5)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--max-concurrency", type=int, default=32)
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    args = parser.parse_args()
    with serving() as server:
        measure(server, args)


def measure(server: Serving, args: argparse.Namespace) -> None:
    """Run each number of queries, and the bare requests beside it."""
    url, requests = server.url, 1 + 3 * args.depth
    for count in args.queries:
        seconds, cpu, peak, size = run(url, count, args)
        bare, bare_cpu = asyncio.run(ask(url, server.asked(), args))
        print(
            f"{count:>7,} queries {seconds:8.1f} s  {1e3 * cpu / count:6.1f} ms CPU/query  {peak:5.0f} MB peak "
            f"{size / count / 1e3:6.1f} KB/query; requests: {count * requests / seconds:5.0f} /s and "
            f"{1e3 * cpu / count / requests:5.2f} ms CPU, bare {bare:5.0f} /s and {bare_cpu:5.2f} ms CPU",
            flush=True,
        )


def run(url: str, count: int, args: argparse.Namespace) -> tuple[float, float, float, int]:
    """Run the command; returns seconds and processor time less those of one query, peak MB, and bytes on disk."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "reward.py").write_text(REWARD)
        start, start_cpu, _ = timed(url, 1, folder, args)
        seconds, cpu, peak = timed(url, count, folder, args)
        return (
            seconds - start,
            cpu - start_cpu,
            peak,
            sum(file.stat().st_size for file in Path(folder, f"out{count}").iterdir()),
        )


def timed(url: str, count: int, folder: str, args: argparse.Namespace) -> tuple[float, float, float]:
    """Run the command over so many prompts; returns seconds, processor time and peak megabytes."""
    prompts = Path(folder, f"{count}.jsonl")
    prompts.write_text(
        "".join(json.dumps({"prompt": f"What is there to know about {n}?"}) + "\n" for n in range(count))
    )
    command = [
        sys.executable,
        "-m",
        "tpo_core.cli",
        "run",
        str(prompts),
        "-o",
        f"{folder}/out{count}",
        "--api-base",
        url,
    ]
    command += ["--reward", f"{folder}/reward.py:score", "--width", str(args.width), "--depth", str(args.depth)]
    command += ["--max-concurrency", str(args.max_concurrency), "--quiet", "--engine", args.engine]
    began = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the run ended with status {status}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3


async def ask(url: str, asked: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> tuple[float, float]:
    """Make bare requests; returns how many a second, and the milliseconds of processor time of each."""
    left, count = iter(asked), len(asked)
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:

        async def one_after_the_other() -> None:
            for request in left:
                await client.chat.completions.create(**request)

        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(one_after_the_other() for _ in range(args.max_concurrency)))
    return count / (time.perf_counter() - began), 1e3 * (time.process_time() - cpu) / count


if __name__ == "__main__":
    main()
