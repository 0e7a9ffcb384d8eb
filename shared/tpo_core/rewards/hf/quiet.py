"""Transformers' reports about what is handled here, which a user could only wonder at."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["set_attention", "without_reports"]


@contextmanager
def without_reports() -> Iterator[None]:
    """Keep transformers from reporting on a model that is loaded or changed."""
    reports = logging.getLogger("transformers.modeling_utils")
    reports.addFilter(_none)
    try:
        yield
    finally:
        reports.removeFilter(_none)


def set_attention(model: Any, name: str) -> None:
    """Give a model another attention of transformers'.

    Raises:
        NotImplementedError: Its code has an attention of its own; the model is left as it was.
    """
    with without_reports():
        model.set_attn_implementation(name)
    if model.config._attn_implementation != name:
        raise NotImplementedError("the model's attention is its own code and cannot be replaced")


def _none(record: logging.LogRecord) -> bool:
    return False
