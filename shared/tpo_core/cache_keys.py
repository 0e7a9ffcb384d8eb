"""What a thing is, as a short text: equal in every process for equal settings, and nothing can be read in it.

Caches of whole answers go by it. Where the key is None, the thing cannot be told from others, and nothing that depends
on it may be cached.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache, reduce
from pathlib import Path
from types import FunctionType
from typing import Any

__all__ = ["files_key", "function_key", "made_of", "unsigned"]

_WHO = {"api_key", "authorization", "proxy-authorization", "x-api-key", "api-key"}
_USER = re.compile(r"(?<=://)[^/?#]*@")


def made_of(kind: str, /, *parts: str | None, **settings: Any) -> str | None:
    """Return the key of what is made of parts and settings.

    Args:
        kind: Keeps apart what is made of the same.
        *parts: Keys of their own.
        **settings: Plain data, dataclasses and paths.

    Returns:
        The key; None where a part has none, or a setting is something else.

    Example:
        >>> made_of("a", width=5) == made_of("a", width=5), made_of("a", width=5) == made_of("a", width=6)
        (True, False)
        >>> made_of("a", None) is made_of("a", fn=print) is None
        True
    """
    if None in parts:
        return None
    try:
        written = json.dumps([parts, settings], sort_keys=True, default=_written)
    except (TypeError, ValueError):
        return None
    return f"{kind}:{_digest(written.encode())}"


def function_key(fn: Any) -> str | None:
    """Return the key of a user's callable: the ``cache_key`` it has, or a plain function's name and source file.

    Lambdas, functions inside functions, methods and objects have none: their names do not say what they do. Nor does a
    source file say what a function reads elsewhere.
    """
    own = getattr(fn, "cache_key", None) or getattr(getattr(fn, "__self__", None), "cache_key", None)
    if isinstance(own, str):
        return made_of("callable", own)
    if not isinstance(fn, FunctionType) or fn.__closure__ or _found(fn.__module__, fn.__qualname__) is not fn:
        return None
    try:
        source = _source(inspect.getsourcefile(fn) or "")
    except (OSError, TypeError):
        return None
    return made_of("function", source, name=f"{fn.__module__}.{fn.__qualname__}")


def files_key(path: str | os.PathLike[str]) -> str | None:
    """Return the key of a file, or of a folder's files: their names, sizes and times; None where there is nothing."""
    top = Path(path).resolve()
    try:
        found = sorted(top.iterdir()) if top.is_dir() else [top]
        told = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in found]
    except OSError:
        return None
    return made_of("files", told=told)


def unsigned(thing: Any) -> Any:
    """Return settings without who asks: keys, passwords and users of URLs change, and answers do not follow from them.

    Example:
        >>> unsigned({"url": "http://me:secret@host/v1", "headers": {"Authorization": "Bearer x", "X-Tier": "a"}})
        {'url': 'http://host/v1', 'headers': {'X-Tier': 'a'}}
    """
    if isinstance(thing, Mapping):
        return {k: unsigned(v) for k, v in thing.items() if str(k).lower() not in _WHO}
    if isinstance(thing, (list, tuple)):
        return [unsigned(part) for part in thing]
    return _USER.sub("", thing) if isinstance(thing, str) else thing


def _found(module: str, name: str) -> Any:
    """Return what stands under a name at the top of a module."""
    return reduce(lambda thing, part: getattr(thing, part, None), name.split("."), sys.modules.get(module))


@cache
def _source(path: str) -> str:
    return _digest(Path(path).read_bytes())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _written(thing: Any) -> Any:
    if is_dataclass(thing) and not isinstance(thing, type):
        return [type(thing).__qualname__, {f.name: getattr(thing, f.name) for f in fields(thing)}]
    if isinstance(thing, Path):
        return str(thing)
    raise TypeError(f"{type(thing).__name__} is not plain data")
