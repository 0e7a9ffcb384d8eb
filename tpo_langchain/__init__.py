"""Test-Time Preference Optimization (arXiv:2501.12895) for LangChain and LangGraph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tpo_langchain.caching import SaltedCache
from tpo_langchain.chat import ChatTPO
from tpo_langchain.feedback import trajectory_feedback
from tpo_langchain.node import tpo_node
from tpo_langchain.prompts import load_prompts
from tpo_langchain.roles import TunedPrompt
from tpo_langchain.runnable import RunnableTPO
from tpo_langchain.sending import wait_for_feedback

if TYPE_CHECKING:
    from tpo_langchain.agents import TPOMiddleware

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name == "TPOMiddleware":  # needs langchain and langgraph; the rest needs langchain-core alone
        from tpo_langchain.agents import TPOMiddleware

        return TPOMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
