"""A table written as JSON lines, CSV or Parquet, row by row: beside its place, and renamed when it is whole."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, TypeAlias, cast

from tpo_core.errors import InvalidInputError
from tpo_core.writing import replacing

__all__ = ["Columns", "Write", "table"]

Type = Literal["text", "number", "count", "flag", "prompt", "messages", "json"]
"""``prompt`` is text or chat messages: where a column holds one type only, messages are their JSON text. ``json`` is
JSON text there, whatever it is."""

Columns: TypeAlias = "Mapping[str, Type]"
Write: TypeAlias = "Callable[[Mapping[str, Any]], None]"

_ROWS = 1000
"""Rows of a Parquet row group."""


@contextmanager
def table(path: Path, columns: Columns) -> Iterator[Write]:
    """Open a table; it is there, whole, when the block ends, and what stood there stays when the block raises.

    Raises:
        InvalidInputError: The name does not end in ``.jsonl``, ``.csv`` or ``.parquet``, or it cannot be written.
    """
    if (writer := _WRITERS.get(path.suffix.lower())) is None:
        raise InvalidInputError(f"{path}: name it {', '.join(_WRITERS)}, whichever it shall be")
    try:
        with replacing(str(path), "the export") as file, writer(cast("TextIO", file).buffer, columns) as write:
            yield write
    except OSError as error:
        raise InvalidInputError(f"the export: {path} cannot be written: {error.strerror or error}") from error


@contextmanager
def _json_lines(file: BinaryIO, columns: Columns) -> Iterator[Write]:
    yield lambda row: _ignore(file.write(_json(row).encode() + b"\n"))


@contextmanager
def _csv(file: BinaryIO, columns: Columns) -> Iterator[Write]:
    text = TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    try:
        yield lambda row: _ignore(writer.writerow([_cell(row[name], type) for name, type in columns.items()]))
    finally:
        text.detach()  # who opened the file closes it


@contextmanager
def _parquet(file: BinaryIO, columns: Columns) -> Iterator[Write]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InvalidInputError('writing Parquet needs pyarrow: pip install "tpo[runs]"') from error
    message = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
    types = {
        "number": pyarrow.float64(),
        "count": pyarrow.int64(),
        "flag": pyarrow.bool_(),
        "messages": pyarrow.list_(message),
    }
    schema = pyarrow.schema([(name, types.get(type, pyarrow.string())) for name, type in columns.items()])
    waiting: list[Mapping[str, Any]] = []
    with parquet.ParquetWriter(file, schema) as writer:

        def flush() -> None:
            writer.write_table(pyarrow.Table.from_pylist(waiting, schema))
            waiting.clear()

        def write(row: Mapping[str, Any]) -> None:
            waiting.append({name: _value(row[name], type) for name, type in columns.items()})
            if len(waiting) == _ROWS:
                flush()

        yield write
        flush()


_WRITERS = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}


def _ignore(written: object) -> None:
    """Drop what a writer returns."""


def _cell(value: Any, type: Type) -> Any:
    return _json(value) if type == "messages" else _value(value, type)


def _value(value: Any, type: Type) -> Any:
    """Return what a column of this type holds."""
    if type == "messages":
        return [_message(message) for message in value]
    if isinstance(value, str) and type != "json":
        return _clean(value)
    return _json(value) if type in ("prompt", "json") else value


def _message(message: Mapping[str, Any]) -> dict[str, str]:
    if not isinstance(message.get("content"), str):
        raise InvalidInputError(
            f"a message of {message.get('role')!r} holds other than text, which Parquet's columns here do not: "
            "write .jsonl"
        )
    return {"role": _clean(str(message["role"])), "content": _clean(message["content"])}


def _clean(text: str) -> str:
    """Return text that UTF-8 can write: a lone surrogate becomes a replacement character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


_ONE_LINE = str.maketrans({"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"})


def _json(value: Any) -> str:
    """Write strict JSON on one line: NaN and infinities, which other tools refuse, become null, and line ends that
    only some tools know are escaped."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False)
    return _clean(text).translate(_ONE_LINE)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
