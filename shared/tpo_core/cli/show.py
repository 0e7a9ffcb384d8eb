"""``tpo show``: saved trajectories in figures, or as an HTML page."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from tpo_core.cli.text import clean
from tpo_core.errors import InvalidInputError
from tpo_core.report import (
    Entry,
    RunSummary,
    cost_lines,
    parameters,
    summarize,
    summary_lines,
    trajectory_line,
    write_run_page,
)
from tpo_core.trajectory import Trajectory
from tpo_core.writing import replacing, same_file

__all__ = ["add_parser", "run"]

_EPILOG = """\
examples:
  tpo show answer.json                            what "tpo ask --save answer.json" wrote
  tpo show answer.json --html answer.html         its tree as one page that needs nothing else
  tpo show run.jsonl --html run.html              one trajectory a line: the run's figures, table and trees
  tpo show out                                    the folder of "tpo run", also while it goes on
"""


def add_parser(subparsers: Any) -> None:
    """Add ``show`` to the command line."""
    parser = subparsers.add_parser(
        "show",
        help="show saved trajectories, in figures or as a page",
        description="Show one trajectory, or the figures of many, and what the figures cannot show.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help='JSON of a trajectory, one a line, or a run; "-" reads them'
    )
    parser.add_argument("--html", metavar="PAGE", help="write one self-contained HTML page")
    parser.add_argument("--title", help="the page's title; the first file's name by default")
    parser.add_argument("--trees", type=int, metavar="N", help="keep the trees of the first N queries only")
    parser.add_argument("--policy-params", metavar="P", help="parameters, such as 8B: say operations, beside training")
    parser.add_argument("--reward-params", metavar="P", help="likewise of the reward model, where it reports tokens")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show; returns the exit code.

    Raises:
        InvalidInputError: A file cannot be read or holds something else; the message names file and line.
    """
    if args.trees is not None and args.trees < 0:
        raise InvalidInputError(f"--trees must be at least 0, not {args.trees}")
    for text in filter(None, (args.policy_params, args.reward_params)):
        parameters(text)  # complains before anything is read
    if args.html is not None and any(same_file(args.html, file) for file in args.files if file != "-"):
        raise InvalidInputError(f"--html: {args.html} is one of the files to show; give the page another name")
    title = args.title or os.path.basename(args.files[0].rstrip("/"))
    lines = _run(args, title) if os.path.isdir(args.files[0]) else _files(args, title)
    sys.stdout.write(clean("\n".join(lines)) + "\n")
    return 0


def _files(args: argparse.Namespace, title: str) -> list[str]:
    found = (trajectory for file in args.files for trajectory in _read(file))
    first = list(islice(found, 2))
    if not first:
        raise InvalidInputError(f"{args.files[0]}: no trajectory in it")
    return _one(args.html, first[0], title) if len(first) == 1 else _many(args, chain(first, found), title)


def _run(args: argparse.Namespace, title: str) -> list[str]:
    """Show what a run has made so far."""
    from tpo_core.runs import RunReader

    if len(args.files) > 1:
        raise InvalidInputError("show one run at a time, or files")
    with RunReader(args.files[0]) as made:
        counts, about = made.counts, {str(name): value for name, value in made.settings.items()}
        entries = chain(
            (Entry(done.trajectory, done.item.id) for done in made.finished()),
            (Entry(failed.trajectory, failed.item.id, f"{failed.error}: {failed.message}") for failed in made.failed()),
        )
        lines = _many(args, entries, title, about)
    if counts.open or counts.total is None:
        of = "" if counts.total is None else f" of {counts.total:,}"
        lines.insert(0, f"under way: {counts.done + counts.failed:,}{of} queries ended, {counts.open:,} begun")
    return lines


def _one(html: str | None, trajectory: Trajectory, title: str) -> list[str]:
    if html is not None:
        with replacing(html, "--html") as file:
            file.write(trajectory.to_html(title=title))
    best, lines = trajectory.best_or_none, [trajectory_line(trajectory)]
    lines += [f"note: {trajectory.diagnosis}"] if trajectory.diagnosis else []
    return lines if best is None else [*lines, "", best.response]


def _many(
    args: argparse.Namespace,
    trajectories: Iterable[Trajectory | Entry],
    title: str,
    about: Mapping[str, Any] | None = None,
) -> list[str]:
    if args.html is None:
        return _lines(args, summarize(trajectories))
    with replacing(args.html, "--html") as file:
        return _lines(args, write_run_page(file, trajectories, title=title, trees=args.trees, about=about))


def _lines(args: argparse.Namespace, summary: RunSummary) -> list[str]:
    if args.policy_params is None:
        return summary_lines(summary)
    reward = None if args.reward_params is None else parameters(args.reward_params)
    lines = summary_lines(summary)
    notes = next((place for place, line in enumerate(lines) if line.startswith("note: ")), len(lines))
    return [*lines[:notes], *cost_lines(summary, parameters(args.policy_params), reward), *lines[notes:]]


def _read(path: str) -> Iterator[Trajectory]:
    """Yield a file's trajectories: one over many lines, or one a line."""
    if path == "-":
        yield from _trajectories(sys.stdin, "standard input")
        return
    try:
        with open(path, encoding="utf-8") as file:
            yield from _trajectories(file, path)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is not text in UTF-8: {error.reason}") from error


def _trajectories(file: Any, name: str) -> Iterator[Trajectory]:
    lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
    opening = list(islice(lines, 1))
    if opening and not _complete(opening[0][1]):
        yield _trajectory("".join(line for _, line in chain(opening, lines)), name)
        return
    for number, line in chain(opening, lines):
        yield _trajectory(line, f"{name}, line {number}")


def _complete(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _trajectory(text: str, where: str) -> Trajectory:
    try:
        return Trajectory.from_json(text)
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {error}") from error
