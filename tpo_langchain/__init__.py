"""Test-Time Preference Optimization (arXiv:2501.12895) for LangChain and LangGraph."""

from __future__ import annotations

from tpo_langchain.chat import ChatTPO
from tpo_langchain.parts import TunedPrompt
from tpo_langchain.runnable import RunnableTPO
from tpo_langchain.sampling import SaltedCache

__all__ = ["ChatTPO", "RunnableTPO", "SaltedCache", "TunedPrompt"]
