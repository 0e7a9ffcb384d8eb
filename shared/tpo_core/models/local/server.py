"""How llama.cpp is started in this process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tpo_core.errors import ModelError
from tpo_core.models.local.files import embedded_model

__all__ = ["start_server"]


def start_server(path: Any, threads: int | None, context: int, parallel: int) -> Any:
    """Load a model into llama.cpp and wait until it answers."""
    spins = "torch" in sys.modules
    xllamacpp = _xllamacpp()
    model = Path(path) if path is not None else embedded_model()
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {model.stem}
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_parallel, params.n_ctx, params.kv_unified = parallel, context * parallel, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads or _threads(spins)
    params.verbosity, params.warmup = -1, False
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise ModelError(f"{model} could not be loaded: {error} Is it a whole GGUF file of a chat model?") from error
    server.handle_completions({"prompt": "Hi", "n_predict": 1})  # a server that never answered hangs when it is deleted
    return server


def _xllamacpp() -> Any:
    """Import llama.cpp; its threads wait asleep instead of spinning where the choice is still open.

    Spinning threads starve each other on a busy machine: two threads beside one busy process fell from 90 tokens a
    second to less than 10, and asleep they kept their speed.
    """
    before = os.environ.get("OMP_WAIT_POLICY")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read once, when the library is loaded
    try:
        import xllamacpp
    except ImportError as error:
        raise ModelError(f'the embedded model needs xllamacpp: pip install "tpo[local]" ({error})') from error
    finally:
        if before is None:
            del os.environ["OMP_WAIT_POLICY"]
    return xllamacpp


def _threads(spins: bool) -> int:
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, ours // 2 if spins else ours))
