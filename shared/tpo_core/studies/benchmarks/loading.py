"""A benchmark's rows, from the hub or a local copy, and the prompts that a run is given.

The prompts are written to a file of the run's own once, so that a run that is taken up again, or reported, needs
neither the hub nor the copy.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tpo_core.errors import InvalidInputError
from tpo_core.runs.rows import rows_of
from tpo_core.studies.benchmarks.entries import Benchmark

__all__ = ["load", "prompts"]

SEED = 0
"""Draws the rows of a benchmark that takes some of many."""


def load(benchmark: Benchmark, file: str | None = None, revision: str | None = None) -> list[dict[str, Any]]:
    """Return a benchmark's rows in their order; those that it draws of more, always the same.

    Args:
        benchmark: Which.
        file: A local copy with the data set's own fields: JSON lines, a JSON list, CSV, Parquet or a data set's folder.
            By default the hub is asked.
        revision: Another commit of the data set on the hub.

    Raises:
        InvalidInputError: The hub or the file cannot be read, holds nothing, or a row lacks a field.
    """
    name = file or benchmark.hub.repo
    rows = list(_local(file, benchmark.hub.split) if file else _from_hub(benchmark, revision))
    if not rows:
        raise InvalidInputError(f"{benchmark.name}: {name} holds no rows")
    for number, row in enumerate(rows, 1):
        _check(benchmark, row, f"{benchmark.name}: {name}, row {number}")
    if benchmark.draw is None or len(rows) <= benchmark.draw:
        return rows
    drawn = sorted(random.Random(SEED).sample(range(len(rows)), benchmark.draw))
    return [rows[place] for place in drawn]


def prompts(benchmark: Benchmark, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield what ``tpo run`` reads, one object a row: ``id``, ``prompt``, and the ``row`` with all its fields.

    Raises:
        InvalidInputError: No prompt can be made of a row.
    """
    for number, row in enumerate(rows, 1):
        try:
            prompt = benchmark.prompt.make(row)
        except InvalidInputError as error:
            raise InvalidInputError(f"{benchmark.name}, row {number}: {error}") from error
        id = row.get(benchmark.id) if benchmark.id else None
        yield {"id": str(number if id is None else id), "prompt": prompt, "row": dict(row)}


def _check(benchmark: Benchmark, row: Mapping[str, Any], where: str) -> None:
    lost = [field for field in benchmark.fields if not any(row.get(each) is not None for each in field.split("|"))]
    if lost:
        has = ", ".join(map(repr, list(row)[:12])) or "nothing"
        wanted = ", ".join(field.replace("|", " or ") for field in benchmark.fields)
        raise InvalidInputError(
            f"{where} has no {lost[0].replace('|', ' or ')}: it has {has}; the rows of {benchmark.title} have {wanted}"
        )


def _local(file: str, split: str) -> Iterator[dict[str, Any]]:
    path = Path(file)
    if path.suffix.lower() == ".json":
        yield from _json_list(path)
        return
    if not path.exists():
        raise InvalidInputError(f"{file}: there is no such file")
    for line, row in rows_of(path, split=split):
        if isinstance(row, InvalidInputError):
            raise InvalidInputError(f"{file}, line {line}: {row}") from row
        yield row


def _json_list(path: Path) -> Iterator[dict[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InvalidInputError(f"{path} is no JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InvalidInputError(f"{path} is no JSON list of objects; write one object a line to a .jsonl otherwise")
    yield from rows


def _from_hub(benchmark: Benchmark, revision: str | None) -> Iterator[dict[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise InvalidInputError('benchmarks are read from the hub with datasets: pip install "tpo[bench]"') from error
    hub, commit = benchmark.hub, revision or benchmark.hub.revision
    try:
        if hub.file:  # by its address: the data set may have a loading script, which datasets no longer runs
            address = f"hf://datasets/{hub.repo}{'@' + commit if commit else ''}/{hub.file}"
            found = datasets.load_dataset("json", data_files=address, split="train")
        else:
            found = datasets.load_dataset(hub.repo, split=hub.split, revision=commit)
        rows = [dict(row) for row in found]
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InvalidInputError(
            f"{benchmark.name}: the hub's data set {hub.repo} cannot be read ({first:.200}); give a local copy with "
            f"--file {benchmark.name}=PATH"
        ) from error
    yield from rows
