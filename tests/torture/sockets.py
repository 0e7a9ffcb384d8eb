"""Schedules of faults through real sockets, by every way in which a query can be asked."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import dspy
from faulty_server import FaultyServer
from langchain_core.output_parsers import StrOutputParser
from langchain_openai import ChatOpenAI

from tpo_core import TPOConfig, Trajectory, arun, arun_many, run, run_many
from tpo_core.cli.main import main
from tpo_core.errors import TPOError
from tpo_core.models.litellm_chat import LiteLLMChat
from tpo_core.models.openai_chat import OpenAIChat
from tpo_core.models.policy import ChatPolicy
from tpo_core.runs import RunReader
from tpo_core.threads import resting
from tpo_dspy import TPO, BestOfN
from tpo_langchain import ChatTPO, RunnableTPO

__all__ = ["FACES", "face"]

SECONDS = 0.5
"""Longest wait of a client for an answer."""

MOST_OPEN = 150
"""Threads, and descriptors beyond those at the start, that a process may have after any number of schedules."""

QUESTION = "How do bees sleep?"


def checksum(prompt: Any, response: str) -> float:
    """Score a response."""
    return float(sum(map(ord, response)) % 101)


def _policy(url: str) -> ChatPolicy:
    return ChatPolicy(OpenAIChat("smol", api_base=url, api_key="none", max_retries=0, timeout=SECONDS))


def _many(url: str, config: TPOConfig) -> list[Any]:
    return run_many([QUESTION, "Why?", "What?"], _policy(url), checksum, config, return_exceptions=True)


def _amany(url: str, config: TPOConfig) -> list[Any]:
    queries = [QUESTION, "Why?", "What?"]
    return asyncio.run(arun_many(queries, _policy(url), checksum, config, return_exceptions=True))


def _litellm(url: str, config: TPOConfig) -> Any:
    chat = LiteLLMChat("hosted_vllm/smol", api_base=url, api_key="none", max_retries=0, timeout=SECONDS)
    return run(QUESTION, ChatPolicy(chat), checksum, config)


def _dspy(kind: Any, url: str, config: TPOConfig, *, awaited: bool = False) -> Any:
    lm = dspy.LM("openai/smol", api_base=url, api_key="none", cache=False, num_retries=0, timeout=SECONDS)
    with dspy.context(lm=lm):
        program = dspy.Predict("question -> answer")
        if kind is BestOfN:
            return BestOfN(program, N=config.width, reward_fn=lambda args, pred: len(pred.answer), threshold=1e9)(
                question=QUESTION
            ).trajectory
        refined = TPO(program, checksum, config=config)
        asked = asyncio.run(refined.acall(question=QUESTION)) if awaited else refined(question=QUESTION)
    return asked.trajectory


def _langchain(url: str) -> Any:
    return ChatOpenAI(model="smol", base_url=url, api_key="none", max_retries=0, timeout=SECONDS)


def _runnable(url: str, config: TPOConfig) -> Any:
    return RunnableTPO(_langchain(url) | StrOutputParser(), reward=checksum, llm=_langchain(url), config=config,
                       return_trajectory=True)  # fmt: skip


def _chat(url: str, config: TPOConfig) -> Any:
    return ChatTPO(llm=_langchain(url), reward=checksum, config=config).invoke(QUESTION).content


def _command(url: str, config: TPOConfig) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        reward, prompts = Path(folder, "r.py"), Path(folder, "p.jsonl")
        reward.write_text("def score(prompt, response):\n    return float(sum(map(ord, response)) % 101)\n")
        prompts.write_text("".join(json.dumps({"prompt": f"question {n}?"}) + "\n" for n in range(3)))
        arguments = ["run", str(prompts), "-o", f"{folder}/out", "--api-base", url, "--reward", f"{reward}:score"]
        sizes = ["--width", str(config.width), "--depth", str(config.depth), "--timeout", str(SECONDS), "--quiet"]
        with contextlib.redirect_stderr(nowhere):
            code = main([*arguments, *sizes])
        assert code in (0, 1), f"tpo run ended with {code}"
        with RunReader(f"{folder}/out") as made:
            counts = made.counts
            assert counts.queries == 3 and (code == 0) == (counts.done == 3), f"{code}: {counts}"
            return [finished.trajectory for finished in made.finished()]


FACES: dict[str, Callable[[str, TPOConfig], Any]] = {
    "run": lambda url, config: run(QUESTION, _policy(url), checksum, config),
    "arun": lambda url, config: asyncio.run(arun(QUESTION, _policy(url), checksum, config)),
    "run_many": _many,
    "arun_many": _amany,
    "litellm": _litellm,
    "dspy TPO": lambda url, config: _dspy(TPO, url, config),
    "dspy TPO.acall": lambda url, config: _dspy(TPO, url, config, awaited=True),
    "dspy BestOfN": lambda url, config: _dspy(BestOfN, url, config),
    "RunnableTPO.invoke": lambda url, config: _runnable(url, config).invoke(QUESTION),
    "RunnableTPO.ainvoke": lambda url, config: asyncio.run(_runnable(url, config).ainvoke(QUESTION)),
    "ChatTPO": _chat,
    "tpo run": _command,
}
"""Each takes a server's URL and a configuration; returns one result or several."""


def face(seed: int, seen: Counter[str]) -> None:
    """Ask by one of the ways, of a server that fails by the seed, and check the end."""
    draw = random.Random(seed)
    name = list(FACES)[seed % len(FACES)]
    config = TPOConfig(
        width=draw.randrange(1, 4), depth=draw.randrange(3), max_calls=draw.choice([None, 6]),
        deadline=draw.choice([None, 1.0]),
    )  # fmt: skip
    _open_at_start(), _threads_at_start()
    with FaultyServer(seed, draw.choice([0.2, 0.5, 1.0]), refuses_n=draw.random() < 0.3) as server:
        try:
            results = FACES[name](server.url, config)
        except Exception as error:
            results = error
        for result in results if isinstance(results, list) else [results]:
            seen[_checked(name, result, config)] += 1
    _check_leaks()


def _checked(name: str, result: Any, config: TPOConfig) -> str:
    if isinstance(result, Exception):
        assert isinstance(result, TPOError) or name == "dspy BestOfN", f"{name} raised {result!r}"
        assert str(result).strip(), f"{name} raised an error without a word"
        return "error"
    if isinstance(result, Trajectory):
        first = result.initial_best
        assert first is None or (result.best.reward or 0.0) >= (first.reward or 0.0)
        assert name in ("tpo run", "dspy BestOfN") or config.max_calls is None or result.usage.calls <= config.max_calls
    return "answer"


def _check_leaks() -> None:
    """Check that what was asked leaves nothing open; clients may keep some connections."""
    if max(_more()) >= MOST_OPEN:
        gc.collect()  # it takes as long as a schedule, so only where something may be waiting for it
    threads, files = _more()
    assert threads < MOST_OPEN, f"{threads} more threads are there than at the start"
    assert files < MOST_OPEN, f"{files} more files and sockets are open than at the start"


def _more() -> tuple[int, int]:
    """Return how many more threads there are than at the start, and how many more open files and sockets."""
    return _threads() - _threads_at_start(), _open() - _open_at_start()


def _open() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@cache
def _open_at_start() -> int:
    return _open()


def _threads() -> int:
    return sum(thread.name.startswith("tpo") for thread in {*threading.enumerate()} - resting())


@cache
def _threads_at_start() -> int:
    return _threads()
