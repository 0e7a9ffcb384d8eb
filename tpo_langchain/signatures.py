"""Methods that LangChain calls by their signatures, which it reads twice for every run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

__all__ = ["Signed"]


class Signed:
    """A method with its signature: ``inspect`` then need not make it of the function, nor bind it, at each call."""

    def __init__(self, method: Callable[..., Any]) -> None:
        """Take a bound method."""
        self._method = method
        self.__signature__ = _bound(method.__func__)  # type: ignore[attr-defined]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method."""
        return self._method(*args, **kwargs)


@lru_cache
def _bound(function: Callable[..., Any]) -> inspect.Signature:
    """Return a function's signature without its first parameter."""
    signature = inspect.signature(function)
    return signature.replace(parameters=list(signature.parameters.values())[1:])
