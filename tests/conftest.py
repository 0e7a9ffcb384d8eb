"""What every test needs: no network but loopback, no shared caches, one thread for numeric libraries."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from loopback import LoopbackServer

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DSPY_CACHEDIR"] = tempfile.mkdtemp(prefix="tpo-dspy-cache-")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # a busy machine fails no property


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what people type and wrap, and what comes of each: the tables of the files called ``test_shapes.py``."""
    tables: dict[str, list[tuple[str, str]]] = {}
    for report in terminalreporter.stats.get("passed", []):
        for name, shape in getattr(report, "user_properties", []):
            if name == "shape":
                tables.setdefault(report.nodeid.partition("::")[0], []).append(shape)
    for file, shapes in tables.items():
        terminalreporter.section(f"shapes: {file.removeprefix('tests/').removesuffix('/test_shapes.py')}")
        for shape, result in shapes:
            terminalreporter.write_line(f"{shape:45}{result:.150}")


@pytest.fixture
def loopback() -> Iterator[Callable[..., LoopbackServer]]:
    """Start OpenAI-compatible servers that run until the test ends: ``server = loopback(answer=..., n="ignore")``."""
    with ExitStack() as stack:
        yield lambda *args, **settings: stack.enter_context(LoopbackServer(*args, **settings))
