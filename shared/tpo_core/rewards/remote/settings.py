"""The settings of a reward model behind a URL, checked before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tpo_core.cache_keys import function_key, made_of, unsigned
from tpo_core.errors import InvalidInputError
from tpo_core.masking import public
from tpo_core.rewards.remote.servers import SERVERS, Server, server_named

__all__ = ["cache_key", "check_headers", "check_numbers", "check_urls", "chosen_server"]


def chosen_server(server: str, request: Any, parse: Any) -> Server | None:
    """Return the server that was named, None for one to be found out."""
    if (request is None) != (parse is None):
        raise InvalidInputError(
            "request and parse go together: one writes what your endpoint takes, one reads its answer"
        )
    if request is not None:
        return Server(
            name="json",
            path="",
            forms=("messages",),
            body=lambda model, form, items: request([i.pair for i in items]),
            read=lambda answer, info: [[float(score)] for score in parse(answer)],
        )
    if server == "auto":
        return None
    if (found := server_named(server)) is None:
        names = ", ".join(repr(s.name) for s in SERVERS)
        raise InvalidInputError(f"server must be 'auto' or one of {names}, not {server!r}")
    return found


def check_urls(url: str | Sequence[str]) -> list[str]:
    urls = [url] if isinstance(url, str) else list(url) if isinstance(url, Sequence) else [url]
    return [check_url(u) for u in urls or [""]]


def check_numbers(least: float, **values: float) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < math.inf:
            raise InvalidInputError(f"{name} must be a number of at least {least:g}, not {value!r}")


def check_url(url: Any) -> str:
    """Return a server's URL as it is used.

    Raises:
        InvalidInputError: It is none.
    """
    import httpx

    form = "url must be one or several of the form http://host:port"
    if not isinstance(url, str):
        raise InvalidInputError(f"{form}, not {type(url).__name__}")
    try:
        parsed = httpx.URL(url)
        right = parsed.scheme in ("http", "https") and bool(parsed.host) and not any(c.isspace() for c in url)
    except (httpx.InvalidURL, ValueError):
        right = False
    if not right:
        raise InvalidInputError(f"{form}, not {public(url)!r:.120}")
    return url


def check_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return headers as they are sent. A key that was read from a file may end in a newline.

    Raises:
        InvalidInputError: One cannot be sent; the message does not show its value.
    """
    found: dict[str, str] = {}
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidInputError(f"headers must map text to text; {name!r:.80} does not")
        value = value.strip()
        if not value.isascii() or not value.isprintable() or not name.isascii() or not name.isprintable():
            raise InvalidInputError(f"headers: the value of {name!r:.80} has a character that cannot be sent")
        found["Authorization" if name.lower() == "authorization" else name] = value
    return found


def cache_key(
    urls: Sequence[str], headers: Mapping[str, str], functions: Sequence[Any], tokenizer: Any, **settings: Any
) -> str | None:
    """Return what a reward on servers is known by; None where nothing says which model they serve.

    Args:
        urls: Where they are.
        headers: As they are sent.
        functions: The user's, or None.
        tokenizer: The reward model's own, or its name.
        **settings: Everything else that scores follow from.
    """
    name = tokenizer if isinstance(tokenizer, str) else getattr(tokenizer, "name_or_path", None)
    own = any(fn is not None for fn in functions)
    if not (settings["model"] or name or own) or (tokenizer is not None and not name):
        return None
    return made_of(
        "remote",
        *[function_key(fn) for fn in functions if fn is not None],
        where=unsigned({"urls": sorted(urls), "headers": headers}),
        functions=[fn is not None for fn in functions],
        tokenizer=[name, getattr(tokenizer, "chat_template", None)],
        **settings,
    )
