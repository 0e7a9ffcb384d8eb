"""The folder of ``tpo bench``: a folder a benchmark with its prompts, in it a run's folder a plan."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tpo_core.errors import InvalidInputError
from tpo_core.runs.folder import run_file
from tpo_core.studies.benchmarks.entries import BENCHMARKS, Benchmark
from tpo_core.studies.benchmarks.loading import load, prompts
from tpo_core.studies.benchmarks.plans import Plan
from tpo_core.writing import replacing

__all__ = ["BenchFolder", "Made"]


class Made(NamedTuple):
    """One benchmark with one plan, begun or done."""

    benchmark: Benchmark
    plan: Plan
    folder: Path
    """The run's."""


class BenchFolder:
    """Where benchmarks are run.

    Args:
        folder: May not be there yet.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder)

    def prompts(self, benchmark: Benchmark) -> Path:
        """Return where a benchmark's prompts are."""
        return self.path / benchmark.name / "prompts.jsonl"

    def run(self, benchmark: Benchmark, plan: Plan) -> Path:
        """Return the folder of a run."""
        return self.path / benchmark.name / str(plan)

    def about(self, benchmark: Benchmark) -> Mapping[str, Any]:
        """Return where a benchmark's prompts came from; empty where it has none here."""
        return self._about(self._source(benchmark)) or {}

    def prepare(
        self,
        benchmark: Benchmark,
        *,
        file: str | None = None,
        revision: str | None = None,
        limit: int | None = None,
    ) -> int:
        """Write a benchmark's prompts, unless they are here already; returns how many there are.

        Args:
            benchmark: Which.
            file: A local copy; see ``load``.
            revision: A commit of the data set on the hub.
            limit: Most rows, from the first.

        Raises:
            InvalidInputError: They cannot be read, or are here from another source.
        """
        source = {
            "benchmark": benchmark.name,
            "source": str(Path(file).resolve()) if file else benchmark.hub.repo,
            "revision": None if file else revision or benchmark.hub.revision,
            "limit": limit,
        }
        if (before := self._about(self._source(benchmark))) is not None:
            return self._again(benchmark, before, source)
        rows = load(benchmark, file, revision)
        count = 0
        self.prompts(benchmark).parent.mkdir(parents=True, exist_ok=True)
        with replacing(str(self.prompts(benchmark)), "-o") as out:
            for line in islice(prompts(benchmark, rows), limit):
                out.write(json.dumps(line, ensure_ascii=True) + "\n")
                count += 1
        with replacing(str(self._source(benchmark)), "-o") as out:
            out.write(json.dumps({**source, "count": count, "of": len(rows)}, indent=2) + "\n")
        return count

    def made(self) -> Iterator[Made]:
        """Yield every run there is, by benchmark and then in the order they were begun."""
        for benchmark in BENCHMARKS:
            home = self.path / benchmark.name
            folders = [path for path in home.glob("*") if path.is_dir() and run_file(path).is_file()]
            for path in sorted(folders, key=lambda path: (run_file(path).stat().st_ctime, path.name)):
                yield Made(benchmark, Plan.read(path.name), path)

    def _source(self, benchmark: Benchmark) -> Path:
        return self.path / benchmark.name / "source.json"

    @staticmethod
    def _about(path: Path) -> Mapping[str, Any] | None:
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInputError(
                f"{path} cannot be read: {error}; remove it, and the prompts are read anew"
            ) from error
        return found if isinstance(found, dict) else None

    def _again(self, benchmark: Benchmark, before: Mapping[str, Any], now: Mapping[str, Any]) -> int:
        for name, value in now.items():
            if before.get(name) != value:
                raise InvalidInputError(
                    f"{self.path / benchmark.name} was begun with the {name} {before.get(name)!r}, not {value!r}; give "
                    "the same, or another folder"
                )
        return int(before["count"])
