"""Functions that LangChain calls by their signatures, which it reads anew for every run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["signed"]

F = TypeVar("F", bound=Callable[..., Any])


def signed(function: F) -> F:
    """Return a function that carries its signature: ``inspect`` then need not make it of the code at each call."""
    vars(function)["__signature__"] = inspect.signature(function)
    return function
