"""``tpo run`` in a process that has its imports behind it, for tests that kill it."""

from __future__ import annotations

import os
import signal

import h2.connection  # noqa: F401 - as the rest, what the command imports on its way: the process begins with it
import httpcore  # noqa: F401
import httpx
import openai

import tpo_core.cli.models
import tpo_core.models.local.demos
import tpo_core.models.openai_chat
import tpo_core.runs.engine  # noqa: F401
from tpo_core.cli.main import main

__all__ = ["command"]

openai.AsyncOpenAI(api_key="none")
httpx.Client()


def command(folder: str, url: str, concurrency: int, kill_at_score: int) -> None:
    """Be the command; its reward ends the process at that call."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
    os.environ["KILL_AT_SCORE"] = str(kill_at_score)
    os.chdir(folder)
    options = ["--width", "2", "--depth", "1", "--seed", "1", "--max-concurrency", str(concurrency), "--quiet"]
    reward = ["--reward", "mine.py:score"]
    raise SystemExit(main(["run", "prompts.jsonl", "-o", "out", "--api-base", url, *reward, *options]))
