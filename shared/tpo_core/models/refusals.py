"""What an exception of a provider's client says: that ``n`` is refused, that it may pass, or that it will last.

The clients agree on little but an HTTP status, so that is what counts where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tpo_core.errors import TPOError

__all__ = ["lasts", "may_pass", "may_refuse_n", "refuses_n", "status_of"]

_REFUSED = (400, 422, 501)
_PASSING = (408, 409, 425, 429)
"""The client errors that are about the moment and not about the request."""

_NAMES_N = re.compile(
    r"""['"`]n['"`]|(?<![\w\\?&])n\s*(?:[=<>]|must\b|is\b|cannot\b|should\b)"""
    r"""|(?:parameter|argument|field|support):? n\b"""
)

_OF_CODE = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, NotImplementedError,
    SyntaxError, TypeError, ValueError, TPOError,
)  # fmt: skip
"""Exceptions that the same call raises again, where no status says otherwise."""


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status behind an exception, wherever its client keeps it; None where there is none."""
    for cause in _causes(error):
        places = [getattr(cause, name, None) for name in ("status_code", "http_status", "status", "code")]
        for status in [*places, getattr(getattr(cause, "response", None), "status_code", None)]:
            if isinstance(status, int) and 100 <= status < 600:
                return int(status)
    return None


def refuses_n(error: BaseException) -> bool:
    """Return whether an exception says that several samples in one request are not taken.

    Example:
        >>> refuses_n(ValueError("n must be 1")), refuses_n(ValueError("not JSON"))
        (True, False)
    """
    return status_of(error) in (None, *_REFUSED) and any(_NAMES_N.search(str(cause)) for cause in _causes(error))


def may_refuse_n(error: BaseException) -> bool:
    """Return whether a request was refused for what it held: for ``n``, if the same request for one passes."""
    return status_of(error) in _REFUSED


def may_pass(error: BaseException) -> bool:
    """Return whether the same call may succeed a moment later: a time-out, a rate limit, a server's own failure."""
    status = status_of(error)
    if status is None:
        return not isinstance(error, _OF_CODE)
    return status in _PASSING or status >= 500


def lasts(error: BaseException) -> bool:
    """Return whether the provider said that it will not serve the request, now or later."""
    status = status_of(error)
    return status is not None and 400 <= status < 500 and status not in _PASSING


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and what it was raised from; litellm's are sometimes raised from each other in a circle."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__
