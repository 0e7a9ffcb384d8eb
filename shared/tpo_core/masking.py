"""Nothing secret in what is said: in errors and their tracebacks, in logs, in trajectories, on the terminal.

Whoever is given a key, a header or an address with a password keeps ``Secrets`` of it as long as it is in use. ``hide``
then takes those values out of any text, with the keys in the environment and what is plainly a credential whoever holds
it: a user or a key in a URL, a bearer token. ``masked`` does the same to an exception and all that its traceback shows.
The log records of the HTTP clients, which name addresses, are masked, too.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit
from weakref import WeakSet

from tpo_core.threads import Mutex

__all__ = ["Secrets", "hidden_errors", "hide", "masked", "public"]

_MASK = "***"
_LEAST = 4
"""Characters of a secret that is hidden by its value; a shorter one stands in too many words."""
_LEAST_OTHER = 8
"""Likewise of values that only may be secret: headers of any name, and the environment."""
_NOBODY = {"none", "null", "empty"}
"""What stands for a key where none is asked for."""

_NAMES = r"key(?!word)|token(?!iz|s\b)|secret|passw|credential|authorization|cookie|signature"
_SECRET_NAME = re.compile(_NAMES, re.IGNORECASE)
_ENVIRONMENT = re.compile(r"(key|token|secret|passw(or)?d)\Z", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/\s'\"<>]*@")
_QUERY = re.compile(r"([?&][\w.\-]{0,40}(?:" + _NAMES + r"|auth|sig)[\w.\-]{0,20}=)[^&\s#'\"<>]+", re.IGNORECASE)
_BEARER = re.compile(r"(\bbearer\s{1,4})(?=\S{0,200}\d)[^\s'\",}]{8,}", re.IGNORECASE)

_LOGGERS = ("httpx", "httpx2", "openai._base_client", "LiteLLM")
"""Those that log addresses: the HTTP clients (httpx2 is that of openai 3) at INFO, the others at DEBUG."""


def public(address: str) -> str:
    """Return a URL without the user, password and query that it may hold.

    Example:
        >>> public("http://me:secret@host:8000/v1?key=secret")
        'http://host:8000/v1'
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        return address.partition("?")[0].rpartition("@")[2]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class Secrets:
    """The secret values among some settings, hidden in what is said while this object lives.

    Args:
        **settings: Keys and tokens by their names, addresses, headers as a mapping; anything else is looked over.
    """

    def __init__(self, **settings: Any) -> None:
        found = {form for name, value in settings.items() for v in _found(name, value) for form in _forms(v)}
        self._values = frozenset(found)
        self._enter()

    def __repr__(self) -> str:
        """Tell how many, and none of them."""
        return f"<{len(self._values)} secrets>"

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Hide them in the process that unpickles them, too."""
        self.__dict__.update(state)
        self._enter()

    def _enter(self) -> None:
        if self._values:
            with _lock:
                _in_use.add(self)
            for name in _LOGGERS:
                logging.getLogger(name).addFilter(_masked_record)  # once, however often


def hide(text: str) -> str:
    """Return a text with everything secret in it masked."""
    for value in _known():
        text = text.replace(value, _MASK)
    text = _USER.sub(f"{_MASK}@", text)
    text = _QUERY.sub(rf"\1{_MASK}", text)
    return _BEARER.sub(rf"\1{_MASK}", text)


def masked(error: Exception) -> Exception:
    """Mask an exception, with its notes and all that it is chained to, where a traceback would show a secret.

    It stays the object that it is, unless its text cannot be changed: a ``RuntimeError`` with its text then takes its
    place.
    """
    links = list(_chain(error))
    for link in links:
        _rewrite(link)
    places = {id(link): RuntimeError(_said(link)) for link in links if _shows(link)}
    if places:
        for link in links:
            _relink(link, places)
    return places.get(id(error), error)


class hidden_errors:
    """Mask what is raised inside; what is secret among the settings is known while it lasts."""

    def __init__(self, **settings: Any) -> None:
        self._secrets = Secrets(**settings) if settings else None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and (shown := masked(error)) is not error:
            raise shown from None


# -- which values ----------------------------------------------------------------------------------------------------

_lock = Mutex()
_in_use: WeakSet[Secrets] = WeakSet()


def _known() -> list[str]:
    """Return every value to hide, the longest first: one may hold another."""
    with _lock:
        held = list(_in_use)
    named = [os.environ.get(name, "") for name in os.environ if _names_a_secret(name)]
    kept = {value for value in named if len(value) >= _LEAST_OTHER}
    return sorted(kept.union(*(secrets._values for secrets in held)), key=len, reverse=True)


@lru_cache(maxsize=1024)
def _names_a_secret(variable: str) -> bool:
    return _ENVIRONMENT.search(variable) is not None


def _found(name: str, value: Any) -> Iterator[str]:
    """Return the secrets in one setting."""
    if hasattr(value, "get_secret_value"):
        yield str(value.get_secret_value())
    elif isinstance(value, Mapping):
        header = "header" in name.lower()
        for key, inner in value.items():
            if header and isinstance(inner, str) and len(inner) >= _LEAST_OTHER:
                yield inner
            yield from _found(str(key), inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _found(name, inner)
    elif isinstance(value, str):
        if _SECRET_NAME.search(name):
            yield from (value, *value.split()[1:])  # "Bearer ...": the token by itself, too
        if "://" in value:
            yield from _in_address(value)


def _in_address(address: str) -> Iterator[str]:
    try:
        parts = urlsplit(address)
    except ValueError:
        return
    user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    if colon:
        both = f"{unquote(user)}:{unquote(password)}".encode()
        yield from (password, base64.b64encode(both).decode())
    else:
        yield user  # a token, as some servers take it
    for _, value in parse_qsl(parts.query):
        yield value


def _forms(value: str) -> Iterable[str]:
    """Return the ways in which a secret is written; none where it is too short to be one."""
    if len(value) < _LEAST or value.lower() in _NOBODY:
        return ()
    plain = unquote(value)
    return {value, plain, quote(plain, safe=""), json.dumps(value)[1:-1], repr(value)[1:-1]}


# -- where they stand ------------------------------------------------------------------------------------------------


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: dict[int, BaseException] = {}
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is not None and id(link) not in seen:
            seen[id(link)] = link
            waiting += [link.__cause__, link.__context__, *_members(link)]
    return iter(seen.values())


def _members(link: BaseException) -> tuple[BaseException, ...]:
    """Return what an exception group holds; whatever else has a field of that name has no exceptions in it."""
    inner = getattr(link, "exceptions", ())
    return tuple(e for e in inner if isinstance(e, BaseException)) if isinstance(inner, (tuple, list)) else ()


def _texts(link: BaseException) -> Iterator[str]:
    yield from traceback.format_exception_only(type(link), link)
    with suppress(Exception):  # a repr of another's may do anything
        yield repr(link)


def _shows(link: BaseException) -> bool:
    return any(hide(text) != text for text in _texts(link))


def _said(link: BaseException) -> str:
    return hide("".join(traceback.format_exception_only(type(link), link)).strip())


def _rewrite(link: BaseException) -> None:
    """Mask the texts that an exception holds."""
    if (args := _deep(link.args)) is not link.args:
        with suppress(Exception):
            link.args = args
    for name, value in list(getattr(link, "__dict__", {}).items()):
        if (new := _deep(value)) is not value:
            with suppress(Exception):
                setattr(link, name, new)


def _deep(value: Any, depth: int = 8) -> Any:
    """Return plain data with its texts masked, and the same object where nothing was to be masked."""
    if isinstance(value, str):
        shown = hide(value)
        return value if shown == value else shown
    if depth and type(value) in (dict, list, tuple):
        items = list(value.values()) if isinstance(value, dict) else list(value)
        shown_items = [_deep(item, depth - 1) for item in items]
        if any(a is not b for a, b in zip(items, shown_items, strict=True)):
            return dict(zip(value, shown_items, strict=True)) if isinstance(value, dict) else type(value)(shown_items)
    return value


def _relink(link: BaseException, places: Mapping[int, BaseException]) -> None:
    """Put what takes a place in a chain there."""
    cause, context, suppressed = link.__cause__, link.__context__, link.__suppress_context__
    if id(cause) in places:
        link.__cause__ = places[id(cause)]
    if id(context) in places:
        link.__context__ = places[id(context)]
    link.__suppress_context__ = suppressed


class _MaskedRecord(logging.Filter):
    """Masks the log records of other libraries' clients."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the message and the traceback; every record passes."""
        with suppress(Exception):  # a record that cannot be formatted is the logger's own affair
            said = record.getMessage()
            if (shown := hide(said)) != said:
                record.msg, record.args = shown, ()
            if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
                record.exc_text = hide("".join(traceback.format_exception(*record.exc_info)).rstrip())
        return True


_masked_record = _MaskedRecord()
