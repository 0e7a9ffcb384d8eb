"""A chat model that says what a function tells it to, and a tracer that shows runs as a tree."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from pydantic import ConfigDict, Field


class Log:
    """What a model and its copies were asked, in the order of arrival."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.messages: list[list[BaseMessage]] = []
        self.kwargs: list[dict[str, Any]] = []


class Chat(BaseChatModel):
    """Answers with ``answer(messages, number)``: a text or an AIMessage; 10 prompt tokens and 1 completion token."""

    answer: Callable[[list[BaseMessage], int], Any]
    log: Log = Field(default_factory=Log)
    temperature: float | None = None
    model_config = ConfigDict(arbitrary_types_allowed=True)

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        with self.log.lock:
            number = len(self.log.messages)
            self.log.messages.append(messages)
            self.log.kwargs.append({**kwargs, "temperature": self.temperature})
        said = self.answer(messages, number)
        message = said.model_copy() if isinstance(said, AIMessage) else AIMessage(str(said))
        message.usage_metadata = {"input_tokens": 10, "output_tokens": 1, "total_tokens": 11}
        return ChatResult(generations=[ChatGeneration(message=message)])

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        names = [tool.name if isinstance(tool, BaseTool) else getattr(tool, "__name__", str(tool)) for tool in tools]
        return self.bind(tools=names, **kwargs)

    @property
    def calls(self) -> int:
        return len(self.log.messages)

    @property
    def _llm_type(self) -> str:
        return "scripted"


class Tree(BaseTracer):
    """Keeps finished root runs; ``shape`` writes one as nested names."""

    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.roots.append(run)

    @property
    def root(self) -> Run:
        [root] = self.roots
        return root

    def named(self, name: str) -> list[Run]:
        return [run for run in _walk(self.root) if run.name == name]


def _walk(run: Run) -> Iterator[Run]:
    yield run
    for inner in run.child_runs:
        yield from _walk(inner)


@pytest.fixture
def chat() -> type[Chat]:
    return Chat


@pytest.fixture
def tree() -> Tree:
    return Tree()


@pytest.fixture(autouse=True)
def no_llm_cache() -> Iterator[None]:
    yield
    set_llm_cache(None)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks of langchain-tests, whose plugins this project does not load."""
    for mark in ("benchmark", "vcr"):
        config.addinivalue_line("markers", f"{mark}: of langchain-tests")


@pytest.fixture
def benchmark() -> Callable[..., Any]:
    """Stand in for pytest-benchmark: call, and measure nothing."""
    return lambda called, *args, **kwargs: called(*args, **kwargs)


@pytest.fixture
def vcr() -> None:
    """Stand in for pytest-recording, which langchain-tests asks for even where no traffic is recorded."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what langchain-tests' suites came to; the reasons for what does not apply are in test_chat_standard.py."""
    counts = {
        outcome: sum(
            "test_chat_standard.py" in getattr(r, "nodeid", "") for r in terminalreporter.stats.get(outcome, [])
        )
        for outcome in ("passed", "failed", "error", "skipped")
    }
    if any(counts.values()):
        bad = counts["failed"] + counts["error"]
        told = f"{counts['passed']} passed, {bad} failed, {counts['skipped']} not applicable"
        terminalreporter.write_line(
            f"langchain-tests, ChatModelUnitTests and ChatModelIntegrationTests on ChatTPO: {told}"
        )
