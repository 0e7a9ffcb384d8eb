"""Rows of a file, a data set or standard input, one after the other, each with its line number.

A row that cannot be read is an ``InvalidInputError`` in its place, so that who reads may go on with the next. Nothing
here holds more than one batch of rows.
"""

from __future__ import annotations

import base64
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, get_args

from tpo_core.errors import InvalidInputError

__all__ = ["Format", "Row", "rows_of"]

Format = Literal["jsonl", "csv", "tsv", "parquet", "dataset"]

Row: TypeAlias = "dict[str, Any] | InvalidInputError"
"""A row in JSON's types, or why it cannot be read."""

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_BATCH = 256


def rows_of(source: str | Path, format: Format | None = None, split: str = "train") -> Iterator[tuple[int, Row]]:
    """Yield the rows with the line (from 1) that each begins on, or its number where there are no lines.

    Args:
        source: A path, ``-`` for JSON lines on standard input, or the name or folder of a data set.
        format: What it is, where the name does not tell.
        split: Of a data set.

    Raises:
        InvalidInputError: There is no such source, or it is nothing that can be read row by row; raised here.
    """
    kind = format or _format(source)
    if kind not in get_args(Format):
        raise InvalidInputError(f"format must be one of {', '.join(get_args(Format))}, not {kind!r}")
    if kind == "dataset":
        return _dataset(str(source), split)
    if kind == "parquet":
        return _parquet(_file(source))
    return _text(source, kind)


def _format(source: str | Path) -> Format:
    path = Path(source)
    if str(source) == "-":
        return "jsonl"
    if path.suffix.lower() in _FORMATS:
        return _FORMATS[path.suffix.lower()]
    if path.is_file():
        raise InvalidInputError(
            f"{source}: it is not known what this file is; name it .jsonl, .csv, .tsv or .parquet, or give the format"
        )
    return "dataset"


def _file(source: str | Path) -> Path:
    path = Path(source)
    if not path.is_file():
        raise InvalidInputError(f"{source}: there is no such file")
    return path


def _text(source: str | Path, kind: Format) -> Iterator[tuple[int, Row]]:
    if str(source) == "-":
        return _parsed(sys.stdin.buffer, kind)
    return _opened(_file(source), kind)


def _opened(path: Path, kind: Format) -> Iterator[tuple[int, Row]]:
    with _said_of(path), path.open("rb") as file:
        yield from _parsed(file, kind)


def _parsed(file: IO[bytes], kind: Format) -> Iterator[tuple[int, Row]]:
    return _json_lines(file) if kind == "jsonl" else _csv(file, "\t" if kind == "tsv" else ",")


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror or error}") from error


# -- JSON lines -------------------------------------------------------------------------------------------------------


def _json_lines(file: Iterable[bytes]) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(file, 1):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if text.strip():
            yield number, _json(text)


def _json(line: bytes) -> Row:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        hint = "; this looks like one JSON list: write one object a line" if line.lstrip()[:1] == b"[" else ""
        what = "no UTF-8" if isinstance(error, UnicodeDecodeError) else f"no JSON: {error}"
        return InvalidInputError(f"it is {what}{hint}")
    if not isinstance(row, dict):
        return InvalidInputError(f"it is a JSON {type(row).__name__}, not an object")
    return row


# -- CSV --------------------------------------------------------------------------------------------------------------


def _csv(file: Iterable[bytes], delimiter: str) -> Iterator[tuple[int, Row]]:
    reader = csv.reader(_decoded(file), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, InvalidInputError(f"it is no CSV: {error}{_longer(error)}")
            continue
        if names is None:
            names = values
            if twice := sorted({name for name in names if names.count(name) > 1}):
                yield number, InvalidInputError(f"the header names {', '.join(twice)} twice; name each differently")
                return
        elif values:
            yield number, _record(names, values)


def _longer(error: csv.Error) -> str:
    return "; write longer texts as JSON lines or Parquet" if "field larger" in str(error) else ""


def _decoded(file: Iterable[bytes]) -> Iterator[str]:
    """Decode line by line; what is no UTF-8 is a lone surrogate then, which no prompt or id may hold."""
    for number, line in enumerate(file):
        yield (line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line).decode("utf-8", "surrogateescape")


def _record(names: Sequence[str], values: Sequence[str]) -> Row:
    if len(values) != len(names):
        return InvalidInputError(f"it has {len(values)} fields, and the header has {len(names)}")
    return dict(zip(names, values, strict=True))


# -- Parquet and data sets --------------------------------------------------------------------------------------------


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise InvalidInputError(f'{path}: reading Parquet needs pyarrow: pip install "tpo[runs]"') from error
    try:
        file = parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise InvalidInputError(f"{path} cannot be read as Parquet: {error}") from error
    batches = file.iter_batches(batch_size=_BATCH)
    return _numbered((row for batch in batches for row in batch.to_pylist()), str(path))


def _dataset(name: str, split: str) -> Iterator[tuple[int, Row]]:
    """Read a data set as a stream: a name on the Hugging Face hub, or a folder that ``load_dataset`` takes."""
    try:
        import datasets
    except ImportError as error:
        raise InvalidInputError(f'{name} is no file; to read it as a data set: pip install "tpo[runs]"') from error
    try:
        rows = datasets.load_dataset(name, split=split, streaming=True)
    except Exception as error:
        raise InvalidInputError(
            f"{name}: there is no such file, and no data set (split {split!r}): {_first_line(error)}"
        ) from error
    return _numbered(rows, name)


def _numbered(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[tuple[int, Row]]:
    number = 0
    try:
        for number, row in enumerate(rows, 1):
            yield number, _plain(row)
    except Exception as error:
        raise InvalidInputError(f"{name} cannot be read after row {number}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _plain(value: Any) -> Any:
    """Return a value in JSON's types; dates and all else that JSON has no word for as text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if value is None or isinstance(value, (str, int, float)) else str(value)
