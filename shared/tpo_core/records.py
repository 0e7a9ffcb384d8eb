"""Frozen dataclasses as data that any JSON parser reads, and back, checked field by field.

JSON has no NaN, no infinities and no half of a surrogate pair; models and rewards bring all three. They are written as
objects with one key, and so is what would be mistaken for one:

    {"$float": "nan"}                   also "inf" and "-inf"
    {"$text": "cut off \\ud83d"}        a text; what is half of a pair, and each backslash, as four hex digits
    {"$map": [[key, value], ...]}       an object with such a text among its keys, or whose one key starts with a dollar

A field with ``metadata={"written": False}`` is left out; ``"read_from"`` names the field whose value it has when read.

What passes between the parts holds prompts and answers, and an object's repr gets into logs, tracebacks and notebooks:
``repr_without_texts`` makes one that tells lengths instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import lru_cache
from numbers import Integral, Real
from types import NoneType
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from tpo_core.errors import InvalidInputError

__all__ = ["plain", "rebuilt", "repr_without_texts"]

T = TypeVar("T")

_HALF = re.compile("[\ud800-\udfff]")
_ESCAPED = re.compile(r"[\\\ud800-\udfff]")


def plain(value: Any) -> Any:
    """Return dicts, lists, texts, numbers and None that stand for a value; what has no form of its own, as its text."""
    kind = type(value)
    if kind is str:
        return _plain_text(value)
    if value is None or kind is int or kind is bool:
        return value
    if is_dataclass(kind):
        return {name: plain(getattr(value, name)) for name in _written(kind)}
    if isinstance(value, Mapping):
        return _plain_map({str(k): plain(v) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return number if math.isfinite(number) else {"$float": str(number)}
    return _plain_text(str(value))


@lru_cache
def _written(kind: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind) if f.metadata.get("written", True))


def repr_without_texts(*shown: str) -> Callable[[Any], str]:
    """Return a dataclass's ``__repr__``: its numbers and records as they are, of all else the length or the type.

    Fields that have their defaults are left out, and so are those with ``repr=False``.

    Args:
        *shown: Fields that are shown whole: identifiers, kinds, settings, never what a user or a model wrote.

    Example:
        >>> from tpo_core import Candidate
        >>> Candidate("The sky is blue.", reward=0.5, step=1)
        Candidate(response=<16 characters>, reward=0.5, step=1)
    """

    def brief(self: Any) -> str:
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.repr and not _is_default(self, f)}
        told = (f"{name}={value!r}" if name in shown else f"{name}={_brief(value)}" for name, value in given.items())
        return f"{type(self).__name__}({', '.join(told)})"

    _without_texts.add(brief)
    return brief


_without_texts: set[Any] = set()


def _brief(value: Any) -> str:
    if value is None or isinstance(value, (bool, int, float)) or type(value).__repr__ in _without_texts:
        return repr(value)
    if isinstance(value, str):
        return f"<{len(value)} characters>"
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return f"<{len(value)} items>"
    return f"<{type(value).__name__}>"


def _is_default(record: Any, field: Field[Any]) -> bool:
    value = getattr(record, field.name)
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return type(value) is type(default) and bool(value == default)


def rebuilt(cls: type[T], data: Any) -> T:
    """Make a dataclass of what ``plain`` wrote; a field with a default may be missing.

    Raises:
        InvalidInputError: It is something else; the message names the place.
    """
    found: T = _read(cls, _unescaped(data), "data")
    return found


def _plain_text(text: str) -> Any:
    if not _HALF.search(text):
        return text
    return {"$text": _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)}


def _plain_map(values: dict[str, Any]) -> dict[str, Any]:
    looks_like_ours = len(values) == 1 and next(iter(values)).startswith("$")
    if looks_like_ours or any(_HALF.search(key) for key in values):
        return {"$map": [[_plain_text(k), v] for k, v in values.items()]}
    return values


def _unescaped(data: Any) -> Any:
    if isinstance(data, list):
        return [_unescaped(v) for v in data]
    if not isinstance(data, Mapping):
        return data
    if len(data) == 1:
        [(key, value)] = data.items()
        if isinstance(key, str) and key.startswith("$"):
            return _special(key, value)
    return {k: _unescaped(v) for k, v in data.items()}


def _special(key: str, value: Any) -> Any:
    if key == "$float" and value in ("nan", "inf", "-inf"):
        return float(value)
    if key == "$text" and isinstance(value, str):
        return re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), value)
    if key == "$map" and isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        return {str(_unescaped(k)): _unescaped(v) for k, v in value}
    raise InvalidInputError(f"data holds {{{key!r}: {value!r:.80}}}, which to_dict and to_json do not write")


def _read(kind: Any, value: Any, where: str) -> Any:
    """Return a value as the kind that a field's annotation names."""
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _read_record(kind, value, where)
    origin, args = get_origin(kind), get_args(kind)
    if NoneType in args:
        return None if value is None else _read(next(a for a in args if a is not NoneType), value, where)
    if origin is tuple:
        return tuple(_read(args[0], v, f"{where}[{i}]") for i, v in enumerate(_checked(value, list, where)))
    if origin is not None and origin is not Literal:
        named = _checked(value, Mapping, where)
        return {_read_key(args[0], k, where): _read(args[1], v, f"{where}[{k!r:.40}]") for k, v in named.items()}
    return _read_number(value, where) if kind is float else _checked(value, str if origin is Literal else kind, where)


def _read_record(kind: Any, value: Any, where: str) -> Any:
    data, given = _checked(value, Mapping, where), {}
    hints, known = _hints(kind), {f.name: f for f in fields(kind)}
    if unknown := [name for name in data if name not in known]:
        raise InvalidInputError(f"{where} has the field {unknown[0]!r:.80}, which no {kind.__name__} has")
    for name, field in known.items():
        if name in data:
            given[name] = _read(hints[name], data[name], f"{where}.{name}")
        elif _needed(field):
            raise InvalidInputError(f"{where}.{name} is missing: {where} is not what to_dict or to_json writes")
    given |= {name: given[of] for name, f in known.items() if (of := f.metadata.get("read_from")) in given}
    return kind(**given)


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _read_key(kind: type, key: str, where: str) -> Any:
    try:
        return kind(key)
    except ValueError:
        _refuse(f"{where} has the key", kind.__name__, key)


def _read_number(value: Any, where: str) -> float:
    try:
        return float(value if isinstance(value, float) else _checked(value, int, where))
    except OverflowError:
        _refuse(where, "float", value)


def _checked(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        _refuse(where, kind.__name__, value)
    return value


def _refuse(where: str, kind: str, value: Any) -> NoReturn:
    raise InvalidInputError(f"{where} must be of type {kind}, not {value!r:.80}")
