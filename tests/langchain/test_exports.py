"""What the package offers, and what importing it costs."""

from __future__ import annotations

import doctest
import subprocess
import sys
from importlib import import_module

import pytest

import tpo_langchain


def test_the_public_names_are_these() -> None:
    assert sorted(tpo_langchain.__all__) == [
        "ChatTPO",
        "RunnableTPO",
        "SaltedCache",
        "TPOMiddleware",
        "TunedPrompt",
        "load_prompts",
        "tpo_node",
        "trajectory_feedback",
        "wait_for_feedback",
    ]
    assert all(getattr(tpo_langchain, name).__doc__ for name in tpo_langchain.__all__)


def test_importing_it_needs_langchain_core_alone() -> None:
    heavy = {"langchain", "langgraph", "torch", "transformers", "litellm", "openai", "xllamacpp", "tpo_dspy"}
    code = f"import sys, tpo_langchain; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["runnable", "chat", "feedback"])
def test_the_examples_of_docstrings_are_true(module: str) -> None:
    assert doctest.testmod(import_module(f"tpo_langchain.{module}")).failed == 0
