"""What a run made, as files for the next tool: answers, preference pairs for training, all candidates.

Each kind is columns and rows; rows are made one by one from the store, so that a run of any size can be exported, also
while it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tpo_core.errors import InvalidInputError
from tpo_core.prompts.rendering import as_messages
from tpo_core.runs import openai_batch
from tpo_core.runs.reader import RunReader
from tpo_core.runs.tables import Columns, table

__all__ = ["Kind", "export"]

Kind = Literal["answers", "texts", "preferences", "candidates", "failures", "openai"]

Rows: TypeAlias = "Iterator[dict[str, Any]]"


def export(
    run: RunReader, path: str | Path, kind: Kind = "answers", *, plain: bool = False, with_rows: bool = False
) -> int:
    """Write what a run made to a file, and return how many rows that is.

    Args:
        run: The run's folder; it may still be going on.
        path: Ends in ``.jsonl``, ``.csv`` or ``.parquet``. It is written beside its place and renamed when it is whole.
        kind: ``answers``: one row for each query that is done. ``texts``: its id and the best response alone.
            ``preferences``: the best response against the worst, in TRL's format for DPO; queries whose responses all
            have the same reward give no row. ``candidates``: one row for each response. ``failures``: the queries that
            came to nothing. ``openai``: an OpenAI batch's output lines, failures included.
        plain: Write ``preferences`` as text instead of chat messages, for a model without a chat template.
        with_rows: Add to ``answers`` the row that each query was read from.

    Raises:
        InvalidInputError: The path or the kind is none of these, the file cannot be written, or the queries do not fit
            what is asked.
        StoreError: The run cannot be read.
    """
    path = Path(path)
    if kind not in _KINDS:
        raise InvalidInputError(f"kind must be one of {', '.join(_KINDS)}, not {kind!r}")
    if kind == "openai" and path.suffix.lower() != ".jsonl":
        raise InvalidInputError(f"{path}: an OpenAI batch's output is JSON lines; name it .jsonl")
    columns, rows = _KINDS[kind]
    if kind == "preferences" and plain:
        columns, rows = _PLAIN, _plain_preferences
    if kind == "answers" and with_rows:
        columns = {**columns, "row": "json"}
    count = 0
    with table(path, columns) as write:
        for row in rows(run):
            write({name: row[name] for name in columns} if columns else row)
            count += 1
    return count


# -- the kinds: columns, and the rows of a run -------------------------------------------------------------------------

_ANSWERS: Columns = {
    "id": "text",
    "prompt": "prompt",
    "response": "text",
    "reward": "number",
    "first_reward": "number",
    "gain": "number",
    "stop_reason": "text",
    "tokens": "count",
    "steps": "count",
}


def _answers(run: RunReader) -> Rows:
    for done in run.finished():
        trajectory, first = done.trajectory, done.trajectory.initial_best
        yield {
            "id": done.item.id,
            "prompt": done.item.prompt,
            "response": trajectory.best.response,
            "reward": trajectory.best.reward,
            "first_reward": None if first is None else first.reward,
            "gain": trajectory.gain,
            "stop_reason": trajectory.stop_reason,
            "tokens": trajectory.usage.tokens,
            "steps": len(trajectory.steps),
            "row": done.item.row,
        }


_TEXTS: Columns = {"id": "text", "response": "text"}


def _texts(run: RunReader) -> Rows:
    for done in run.finished():
        yield {"id": done.item.id, "response": done.trajectory.best.response}


_SCORES: Columns = {"score_chosen": "number", "score_rejected": "number"}
_PREFERENCES: Columns = {"id": "text", "prompt": "messages", "chosen": "messages", "rejected": "messages", **_SCORES}
_PLAIN: Columns = {"id": "text", "prompt": "text", "chosen": "text", "rejected": "text", **_SCORES}


def _preferences(run: RunReader) -> Rows:
    for row in _pairs(run):
        sides = {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
        yield {**row, "prompt": as_messages(row["prompt"]), **sides}


def _plain_preferences(run: RunReader) -> Rows:
    for row in _pairs(run):
        if not isinstance(row["prompt"], str):
            raise InvalidInputError(f"the prompt of {row['id']!r} is chat messages; write the pairs without plain")
        yield row


def _pairs(run: RunReader) -> Rows:
    """Yield the best against the worst of each query where they differ in reward."""
    for done in run.finished():
        scored = [(c.reward, c.response) for c in done.trajectory.candidates if c.reward is not None]
        best, worst = done.trajectory.best, min(scored, key=lambda pair: pair[0])
        if best.reward != worst[0]:
            yield {
                "id": done.item.id,
                "prompt": done.item.prompt,
                "chosen": best.response,
                "rejected": worst[1],
                "score_chosen": best.reward,
                "score_rejected": worst[0],
            }


_CANDIDATES: Columns = {
    "id": "text",
    "index": "count",
    "step": "count",
    "fresh": "flag",
    "response": "text",
    "reward": "number",
    "best": "flag",
    "failure": "text",
    "feedback": "text",
}


def _candidates(run: RunReader) -> Rows:
    for done in run.finished():
        best = done.trajectory.best.index
        for c in done.trajectory.candidates:
            told = {"best": c.index == best, "failure": None if c.failure is None else c.failure.reason}
            kept = {name: getattr(c, name) for name in _CANDIDATES if name not in ("id", *told)}
            yield {"id": done.item.id, **kept, **told}


_FAILURES: Columns = {"id": "text", "line": "count", "prompt": "prompt", "error": "text", "message": "text"}


def _failures(run: RunReader) -> Rows:
    for failed in run.failed():
        item = failed.item
        told = {"error": failed.error, "message": failed.message}
        yield {"id": item.id, "line": item.line, "prompt": item.prompt, **told}


def _openai(run: RunReader) -> Rows:
    yield from map(openai_batch.answer_line, run.finished())
    yield from map(openai_batch.failure_line, run.failed())


_KINDS: dict[Kind, tuple[Columns, Callable[[RunReader], Rows]]] = {
    "answers": (_ANSWERS, _answers),
    "texts": (_TEXTS, _texts),
    "preferences": (_PREFERENCES, _preferences),
    "candidates": (_CANDIDATES, _candidates),
    "failures": (_FAILURES, _failures),
    "openai": ({}, _openai),
}
