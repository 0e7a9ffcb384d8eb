"""An exception on its way between processes: what the drivers read in it, and nothing that cannot be pickled.

A client's exceptions hold connections, and many cannot be rebuilt. What decides here is their class, where it is
Python's or this project's own, their name, their message, and a server's status and ``Retry-After``.
"""

from __future__ import annotations

import builtins
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

from tpo_core import errors
from tpo_core.models.refusals import rest_of, status_of

__all__ = ["Carried"]

_OURS = {name: getattr(errors, name) for name in errors.__all__}


@dataclass(frozen=True)
class Carried:
    """One exception, and what it was raised from.

    Example:
        >>> again = Carried.of(TimeoutError("no answer")).error()
        >>> type(again).__name__, str(again)
        ('TimeoutError', 'no answer')
    """

    kind: str
    message: str
    status: int | None
    rest: float | None
    cause: Carried | None

    @classmethod
    def of(cls, error: BaseException, depth: int = 4) -> Carried:
        """Read an exception, with at most so many of its causes."""
        behind = error.__cause__
        cause = None if behind is None or not depth else cls.of(behind, depth - 1)
        return cls(type(error).__name__, str(error), status_of(error), rest_of(error), cause)

    def error(self) -> Exception:
        """Return an exception that says the same."""
        error = self._alone()
        error.__cause__ = None if self.cause is None else self.cause.error()
        if self.status is not None:
            error.status_code = self.status  # type: ignore[attr-defined]
        if self.rest is not None:
            error.response = SimpleNamespace(headers={"retry-after": str(self.rest)})  # type: ignore[attr-defined]
        return error

    def _alone(self) -> Exception:
        known = _OURS.get(self.kind) or getattr(builtins, self.kind, None)
        if isinstance(known, type) and issubclass(known, Exception):
            with suppress(TypeError):  # it takes more than a message
                made: Exception = known(self.message)
                return made
        return cast("Exception", type(self.kind, (Exception,), {})(self.message))
