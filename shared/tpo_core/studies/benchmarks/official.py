"""The files that the benchmarks' own tools read, and what those tools print, brought back.

AlpacaEval (alpaca_eval 0.6) reads a JSON list of instruction, output and generator; Arena-Hard (arena-hard-auto) one
JSON line an answer. Both join by the question: the instruction, byte for byte, or the uid.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tpo_core.errors import InvalidInputError
from tpo_core.runs.reader import Finished, RunReader
from tpo_core.studies.benchmarks.entries import Benchmark
from tpo_core.studies.benchmarks.folder import Made
from tpo_core.studies.benchmarks.plans import Plan
from tpo_core.studies.benchmarks.scores import answered
from tpo_core.writing import replacing

__all__ = ["Imported", "export", "import_results", "imported", "model_name"]

_IMPORTED = "imported.json"


@dataclass(frozen=True)
class Imported:
    """A figure that an official tool printed, in per cent."""

    metric: str
    """``win rate``, ``win rate, length-controlled``, ...; with the category where there are several."""
    mean: float
    low: float | None = None
    high: float | None = None
    level: int = 95
    """Per cent of the interval."""
    n: int | None = None
    file: str = ""
    """Where it was read."""


def model_name(settings: Mapping[str, Any], plan: Plan) -> str:
    """Return what an official tool calls a run: the model's last name and the plan.

    Example:
        >>> model_name({"model": "openai/smol"}, Plan.read("paper@D2-N5"))
        'smol--paper@D2-N5'
    """
    model = re.sub(r"[^\w.@+-]+", "-", str(settings.get("model", "model")).rstrip("/").rsplit("/", 1)[-1])
    return f"{model}--{plan}"


def export(made: Made, home: Path) -> tuple[Path, int] | None:
    """Write a run's answers as the benchmark's own tool reads them.

    Args:
        made: The run.
        home: The folder for all such files, which stand in it as ``alpaca_eval/NAME.json`` and
            ``data/arena-hard-v2.0/model_answer/NAME.jsonl``.

    Returns:
        The file and how many answers are in it; None where the benchmark has no such tool, or the run no answer.
    """
    if made.benchmark.export is None:
        return None
    with RunReader(made.folder) as reader:
        name = model_name(reader.settings, made.plan)
        answers = list(answered(reader))
    if not answers:
        return None
    if made.benchmark.export == "alpaca_eval":
        path = home / "alpaca_eval" / f"{name}.json"
        rows = [_alpaca(each, response, name) for each, response in answers]
        text = json.dumps(rows, indent=2) + "\n"
    else:
        path = home / "data" / made.benchmark.name / "model_answer" / f"{name}.jsonl"
        text = "".join(json.dumps(_arena(each, response, name)) + "\n" for each, response in answers)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(str(path), "-o") as file:
        file.write(text)
    return path, len(answers)


def _alpaca(each: Finished, response: str, name: str) -> Mapping[str, Any]:
    row = each.item.row["row"]
    dataset = {"dataset": row["dataset"]} if "dataset" in row else {}
    return {**dataset, "instruction": row["instruction"], "output": response, "generator": name}


def _arena(each: Finished, response: str, name: str) -> Mapping[str, Any]:
    row = each.item.row["row"]
    answer_id = hashlib.blake2b(f"{row['uid']} {name} {response}".encode("utf-8", "replace"), digest_size=11)
    return {
        "uid": row["uid"],
        "ans_id": answer_id.hexdigest(),
        "model": name,
        "messages": [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": {"answer": response}},
        ],
        "tstamp": each.at,
    }


# -- what the tools print ---------------------------------------------------------------------------------------------


def import_results(file: str, runs: Iterable[Made]) -> list[tuple[Made, Imported]]:
    """Read what an official tool wrote and keep it with the runs that it names.

    Args:
        file: ``leaderboard.csv`` of alpaca_eval, or what Arena-Hard's ``show_result.py`` printed.
        runs: Whose answers were exported.

    Returns:
        Each figure with its run.

    Raises:
        InvalidInputError: The file cannot be read, is neither, or names none of the runs.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"--import: {file} cannot be read: {error}") from error
    arena = "##### Category:" in text
    figures = list(_arena_table(text, file) if arena else _alpaca_table(text, file))
    if not figures:
        raise InvalidInputError(
            f"--import: {file} is neither alpaca_eval's leaderboard.csv nor what Arena-Hard's show_result.py printed"
        )
    wanted = "arena_hard" if arena else "alpaca_eval"
    by_name: dict[str, list[Made]] = {}
    for made in runs:
        if made.benchmark.export == wanted:
            with RunReader(made.folder) as reader:
                by_name.setdefault(model_name(reader.settings, made.plan), []).append(made)
    found = [
        (made, replace(figure, metric=figure.metric.removeprefix(f"{made.benchmark.name}: ")))
        for name, figure in figures
        for made in _meant(by_name.get(name, []), figure)
    ]
    if not found:
        known = ", ".join(sorted(by_name)) or "none of this benchmark"
        seen = ", ".join(sorted({name for name, _ in figures})[:5])
        raise InvalidInputError(f"--import: {file} has results of {seen}, and the runs here are {known}")
    for made, figure in found:
        _keep(made, figure)
    return found


def imported(made: Made) -> list[Imported]:
    """Return what was brought back for a run, in the order it was."""
    path = made.folder / _IMPORTED
    if not path.is_file():
        return []
    return [Imported(**line) for line in json.loads(path.read_text(encoding="utf-8"))]


def _keep(made: Made, figure: Imported) -> None:
    kept = [each for each in imported(made) if each.metric != figure.metric] + [figure]
    with replacing(str(made.folder / _IMPORTED), "--import") as file:
        file.write(json.dumps([asdict(each) for each in kept], indent=2) + "\n")


def _meant(runs: list[Made], figure: Imported) -> list[Made]:
    """Return the runs that a figure is of: one printed for a category of Arena-Hard is of the version that has it."""
    category = figure.metric.partition(": ")[0] if ": " in figure.metric else ""
    return [made for made in runs if not category or category in _categories(made.benchmark)]


def _categories(benchmark: Benchmark) -> tuple[str, ...]:
    if benchmark.name == "arena-hard-v2.0":
        return ("hard_prompt", "coding", "math", "creative_writing")
    return (benchmark.name,)


def _alpaca_table(text: str, file: str) -> Iterator[tuple[str, Imported]]:
    for row in csv.DictReader(io.StringIO(text)):
        name = row.get("") or row.get("name") or row.get("generator") or ""
        for column, error, metric in (
            ("length_controlled_winrate", "lc_standard_error", "win rate, length-controlled"),
            ("win_rate", "standard_error", "win rate"),
        ):
            mean, deviation, n = (_number(row.get(each)) for each in (column, error, "n_total"))
            if name and mean is not None:
                half = None if deviation is None else 1.96 * deviation
                low, high = (None, None) if half is None else (mean - half, mean + half)
                yield name, Imported(metric, mean, low, high, 95, None if n is None else round(n), file)


_ARENA_HEAD = re.compile(r"##### Category: (?P<category>\S+) #####")
_ARENA_LINE = re.compile(r"\s*\d+\s+(?P<name>\S+)\s+(?P<mean>[\d.]+)\s+\(-(?P<under>[\d.]+) / \+(?P<over>[\d.]+)\)\s*$")


def _arena_table(text: str, file: str) -> Iterator[tuple[str, Imported]]:
    """Read tables of ``show_result.py``; its interval is from the 5th to the 95th per cent of its bootstraps."""
    category, controlled = "", ""
    for line in text.splitlines():
        if line.startswith("INFO: Control features:"):
            controlled = ", style-controlled" if "markdown" in line else ", length-controlled"
        elif head := _ARENA_HEAD.search(line):
            category = head["category"]
        elif found := _ARENA_LINE.match(line):
            mean, under, over = (float(found[name]) for name in ("mean", "under", "over"))
            metric = f"{category}: win rate{controlled}"
            yield found["name"], Imported(metric, mean, mean - under, mean + over, level=90, file=file)


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
