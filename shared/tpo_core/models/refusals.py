"""What an exception of a provider's client says: that ``n`` is refused, that it may pass, or that it will last.

The clients agree on little but an HTTP status, so that is what counts where there is one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from tpo_core.errors import ModelError, TPOError

__all__ = [
    "Fitting",
    "lasts",
    "may_pass",
    "may_refuse_n",
    "one_line",
    "overloaded",
    "refused_setting",
    "refuses_n",
    "rest_of",
    "retry_after",
    "serves_nobody",
    "status_of",
]

_REFUSED = (400, 422, 501)
_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9_]*_API_KEY\b")

_NOBODY = (401, 402, 403, 404)
_UNCONFIGURED = ("LMNotConfiguredError",)
"""DSPy's errors that a key or a setting is missing; their class is not imported, since DSPy may not be loaded."""

_PASSING = (408, 409, 425, 429)
"""The client errors that are about the moment and not about the request."""

_NAMES_N = re.compile(
    r"""['"`]n['"`]|(?<![\w\\?&])n\s*(?:[=<>]|must\b|is\b|cannot\b|should\b)"""
    r"""|(?:parameter|argument|field|support):? n\b"""
)

_OVERLOADED = (408, 429, 503, 529)
_NOT_THERE = ("APITimeoutError", "APIConnectionError", "Timeout", "TimeoutException", "ConnectError", "ReadTimeout")
"""The clients' errors that a server answered too late or not at all; they are named alike."""

_SETTINGS = ("seed", "top_p", "temperature")
"""Sampling settings that some models refuse; of two that are refused together, the first is left out."""

_NAMES_SETTING = {
    name: re.compile(
        rf"""['"`]{name}['"`]|\b{name}\s*(?:[=:<>]|must\b|is\b|are\b|cannot\b|may\b|does\b|should\b)"""
        rf"""|(?:parameter|argument|field|support|value):? {name}\b"""
    )
    for name in _SETTINGS
}

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


def refused_setting(error: BaseException, sent: Collection[str]) -> str | None:
    """Return which of the sampling settings that were sent an exception says that the model refuses.

    Args:
        error: Of a client.
        sent: The names of what was sent.

    Example:
        >>> error = ValueError("Unsupported value: 'temperature' does not support 0.7 with this model")
        >>> refused_setting(error, ["temperature", "top_p"])
        'temperature'
    """
    if status_of(error) not in (None, *_REFUSED):
        return None
    causes = list(_causes(error))
    named = [getattr(cause, "param", None) for cause in causes]  # where OpenAI's client says it outright
    found = (name for name in _SETTINGS if name in named)
    found_in_words = (n for n in _SETTINGS if any(_NAMES_SETTING[n].search(str(cause)) for cause in causes))
    return next((name for name in (*found, *found_in_words) if name in sent), None)


class Fitting:
    """A request that gives up the sampling settings that its model refuses, one after the other.

    Args:
        request: The settings to send.
        refused: What is known to be refused.
    """

    def __init__(self, request: Mapping[str, Any], refused: Collection[str] = ()) -> None:
        """Leave out what is known to be refused."""
        self.request = {name: value for name, value in request.items() if name not in refused}
        self.refused = frozenset(refused)

    def drop(self, error: Exception) -> bool:
        """Leave out what an exception says is refused; returns whether there was something to leave out."""
        name = refused_setting(error, self.request)
        if name is None:
            return False
        del self.request[name]
        self.refused |= {name}
        return True


def may_pass(error: BaseException) -> bool:
    """Return whether the same call may succeed a moment later: a time-out, a rate limit, a server's own failure."""
    status = status_of(error)
    if status is None:
        return not isinstance(error, _OF_CODE)
    return status in _PASSING or status >= 500


def overloaded(error: BaseException) -> bool:
    """Return whether a server had too much to do, or was not there for the moment: the same request later may pass.

    Example:
        >>> overloaded(TimeoutError()), overloaded(ValueError("no JSON"))
        (True, False)
    """
    status = status_of(error)
    if status is not None:
        return status in _OVERLOADED
    return any(isinstance(c, TimeoutError) or type(c).__name__ in _NOT_THERE for c in _causes(error))


def rest_of(error: BaseException) -> float | None:
    """Return the seconds that a server asked to be left alone for, with its ``Retry-After``; None where it did not."""
    for cause in _causes(error):
        headers = getattr(getattr(cause, "response", None), "headers", None) or {}
        if (seconds := retry_after(headers.get("retry-after"))) is not None:
            return seconds
    return None


def retry_after(value: str | None) -> float | None:
    """Read a ``Retry-After``: seconds, or a date; None when there is none that can be read.

    Example:
        >>> retry_after("1.5"), retry_after("soon"), retry_after("Wed, 21 Oct 2015 07:28:00 GMT")
        (1.5, None, 0.0)
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (when.replace(tzinfo=when.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def lasts(error: BaseException) -> bool:
    """Return whether the provider said that it will not serve the request, now or later."""
    status = status_of(error)
    return status is not None and 400 <= status < 500 and status not in _PASSING


def serves_nobody(error: BaseException) -> bool:
    """Return whether no request at all will be served: a key is missing or refused, or there is no such model.

    A provider says so with a status; before it is asked, its client does, or ``ModelError`` with no cause behind it.
    """
    status = status_of(error)
    if status is not None:
        return status in _NOBODY
    own = isinstance(error, ModelError) and error.__cause__ is None
    return own or any(type(cause).__name__ in _UNCONFIGURED for cause in _causes(error))


def one_line(error: BaseException) -> str:
    r"""Write an exception in one line: of a client's long advice its first, with the variable that it wants set.

    Example:
        >>> one_line(ValueError("no key\n\nTo fix:\n- Set OPENAI_API_KEY=..."))
        'ValueError: no key; set OPENAI_API_KEY'
    """
    lines = str(error).strip().splitlines() or [""]
    wanted = next((found[0] for line in lines if (found := _VARIABLE.search(line))), None)
    hint = f"; set {wanted}" if wanted is not None and wanted not in lines[0] else ""
    return f"{type(error).__name__}: {lines[0]}{hint}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and what it was raised from; litellm's are sometimes raised from each other in a circle."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__
