"""What every test needs: no network but loopback, no shared caches, one thread for numeric libraries."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack

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


@pytest.fixture
def loopback() -> Iterator[Callable[..., LoopbackServer]]:
    """Start OpenAI-compatible servers that run until the test ends: ``server = loopback(answer=..., n="ignore")``."""
    with ExitStack() as stack:
        yield lambda *args, **settings: stack.enter_context(LoopbackServer(*args, **settings))
