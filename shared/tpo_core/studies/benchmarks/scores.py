"""Scores of a run's answers, kept beside it line by line, so that none is computed or paid for twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tpo_core.report.entries import best
from tpo_core.runs.reader import Finished, RunReader
from tpo_core.studies.benchmarks.checkers import Verdict

__all__ = ["Scores", "answered", "digest"]


def answered(reader: RunReader) -> Iterator[tuple[Finished, str]]:
    """Yield the queries that have a scored answer, with it."""
    for each in reader.finished():
        if (found := best(each.trajectory)) is not None:
            yield each, found[0].response


class Scores:
    """The scores of one run by one scorer; a file of JSON lines in the run's folder.

    A score belongs to the answer that it was made for: where a query has another one, it counts as not scored.

    Args:
        folder: The run's.
        scorer: What kind of scores.
        by: Who made them, where that may change: those of others count as none. None takes all.
    """

    def __init__(self, folder: Path, scorer: str, by: str | None = None) -> None:
        self._path, self._by = folder / f"scores-{scorer}.jsonl", by
        self.by = by
        """Who made the latest of them."""
        self._kept: dict[str, dict[str, Any]] = {}
        for line in self._lines():
            if by is None or line.get("by") == by:
                self._kept[str(line.get("id"))], self.by = dict(line), line.get("by", by)

    def get(self, id: str, answer: str) -> Verdict | None:
        """Return a query's score; None where its answer has none."""
        line = self._kept.get(id)
        if line is None or line.get("answer") != digest(answer):
            return None
        value = line.get("value")
        return Verdict(None if value is None else float(value), dict(line.get("parts") or {}), line.get("left_out", ""))

    def add(self, id: str, answer: str, verdict: Verdict) -> None:
        """Keep a score, at once on disk."""
        line: dict[str, Any] = {"id": id, "answer": digest(answer), "value": verdict.value}
        line |= {"parts": dict(verdict.parts)} if verdict.parts else {}
        line |= {"left_out": verdict.left_out} if verdict.left_out else {}
        line |= {"by": self._by} if self._by is not None else {}
        with self._path.open("a", encoding="utf-8") as file:
            _end_line(file)
            file.write(json.dumps(line) + "\n")
        self._kept[id] = line

    def _lines(self) -> Iterator[Mapping[str, Any]]:
        if not self._path.is_file():
            return
        for text in self._path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # the last one of a process that was killed
                continue
            if isinstance(line, dict):
                yield line


def _end_line(file: IO[str]) -> None:
    """Begin on a line of its own after one that was cut off."""
    if file.tell():
        with open(file.name, "rb") as kept:
            kept.seek(-1, 2)
            if kept.read(1) != b"\n":
                file.write("\n")


def digest(text: str) -> str:
    """Return what stands for an answer's text in the file."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
