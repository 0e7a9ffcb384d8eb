"""``tpo score``: rewards for a file of prompts and responses."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from itertools import islice
from tempfile import TemporaryFile
from typing import IO, Any

from tpo_core.cli.text import json_line
from tpo_core.errors import InvalidInputError, RewardError, TPOError
from tpo_core.rewards.base import RewardModel, make_pairs
from tpo_core.values import Pair, Reward
from tpo_core.writing import replacing, same_file

__all__ = ["add_parser", "run"]

Line = dict[str, Any]


def add_parser(subparsers: Any) -> None:
    """Add ``score`` to the ``tpo`` command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "score",
        help="score responses with a reward model",
        description='Read JSON lines with "prompt" and "response", write them again with "reward".',
        epilog="A prompt is text or a list of chat messages. A line without a reward has null and the failure.",
    )
    parser.add_argument("input", nargs="?", default="-", help="JSON lines; standard input by default")
    parser.add_argument("-o", "--output", default="-", help="where to write; standard output by default")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--reward",
        metavar="REWARD",
        help="as in tpo ask: org/name or ./folder (run here), URL, judge, judge:MODEL, module:function, mine.py:length",
    )
    which.add_argument(
        "--remote", metavar="URL", action="append", help="a reward model on a server; again for replicas"
    )
    parser.add_argument(
        "--header", metavar="'NAME: VALUE'", action="append", default=[], help="with --remote: sent with each request"
    )
    parser.add_argument("--tokenizer", metavar="NAME", help="with --remote: the model's, so that token ids can be sent")
    parser.add_argument("--model", help="with --reward judge: the model that judges, as in tpo ask (env TPO_MODEL)")
    parser.add_argument("--api-base", metavar="URL", help="the judge's server (env TPO_API_BASE, OPENAI_BASE_URL)")
    parser.add_argument("--device", help="cpu, cuda, mps; by default the accelerator there is")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="by default what the device is fast in"
    )
    parser.add_argument("--trust-remote-code", action="store_true", help="run code from the model's repository")
    parser.add_argument("--batch", type=int, metavar="N", help="lines between two writes (64; 512 with --remote)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score a file and return 0, or 1 when a line has no reward.

    Raises:
        InvalidInputError: The input is no file, or a line is not what it should be; named before any model is loaded.
        ModelError: The model cannot be loaded or reached.
    """
    size = (64 if args.remote is None else 512) if args.batch is None else args.batch
    if size < 1:
        raise InvalidInputError(f"--batch must be at least 1, not {size}")
    _check_apart(args.input, args.output)
    with _source(args.input) as rows:
        total = sum(1 for _ in _parsed(rows, args.input))  # every line is checked before a model is loaded
        if not total:
            raise InvalidInputError(f"{args.input} holds no lines to score")
        rows.seek(0)
        lines = _parsed(rows, args.input)
        with _output(args.output) as file, closing(_model(args)) as model:
            failed = _score_all(model, lines, total, size, file)
    if failed:
        sys.stderr.write(f"tpo: {failed} of {total} lines have no reward; see their failure\n")
    return 1 if failed else 0


def _check_apart(source: str, target: str) -> None:
    """Refuse an output that is the input, under this name or another."""
    one, other = _place(source, sys.stdin), _place(target, sys.stdout)
    named = isinstance(one, str) or isinstance(other, str)  # a terminal may be both standard input and output
    if named and one is not None and other is not None and os.path.isfile(one) and same_file(one, other):
        what = "standard output" if target == "-" else f"-o {target}"
        raise InvalidInputError(f"{what} is the input, which is read while it is scored; write another file")


def _place(name: str, stream: Any) -> str | int | None:
    """Return a path, a stream's descriptor, or None for a stream that has none."""
    if name != "-":
        return name
    try:
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return None


def _score_all(model: RewardModel, lines: Iterator[tuple[Line, Pair]], total: int, size: int, file: IO[str]) -> int:
    """Score and write the lines, a batch at a time; returns how many have no reward."""
    done = failed = 0
    try:
        with _progress() as progress:
            bar = progress.add_task("scoring", total=total)
            while batch := list(islice(lines, size)):
                rewards = _score(model, [pair for _, pair in batch])
                for (line, _), reward in zip(batch, rewards, strict=True):
                    row = json_line({**line, **_columns(reward)}, getattr(file, "encoding", None))
                    file.write(row + "\n")
                    failed += math.isnan(reward)
                file.flush()
                done += len(rewards)
                progress.advance(bar, len(rewards))
        if done < total:
            raise TPOError(f"the input was cut while it was read: {done} of {total} lines are scored")
    except BaseException:
        if done and file is not sys.stdout:
            sys.stderr.write(f"tpo: the {done} lines that were scored before it ended are in {file.name}\n")
        raise
    return failed


@contextmanager
def _source(name: str) -> Iterator[IO[str]]:
    """Open the input so that it can be read twice, line by line; what comes through a pipe is kept in a file."""
    try:
        with _opened(name) as file:
            if name == "-":
                shutil.copyfileobj(sys.stdin, file)
                file.seek(0)
            yield file
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"cannot read {name}: {error}") from error


def _opened(name: str) -> IO[str]:
    if name == "-":
        return TemporaryFile("w+", encoding="utf-8")
    try:
        return open(name, encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"cannot read {name}: {error}") from error


def _parsed(rows: Iterable[str], name: str) -> Iterator[tuple[Line, Pair]]:
    for number, row in enumerate(rows, 1):
        if not row.strip():
            continue
        try:
            line = json.loads(row)
            if not isinstance(line, dict) or "prompt" not in line or "response" not in line:
                raise InvalidInputError("not an object with prompt and response")
            (pair,) = make_pairs([line["prompt"]], [line["response"]])
        except (ValueError, RecursionError, InvalidInputError) as error:
            where = "standard input" if name == "-" else name
            raise InvalidInputError(f"{where}, line {number}: {error}") from error
        yield line, pair


def _model(args: argparse.Namespace) -> RewardModel:
    if args.remote is not None:
        from tpo_core.rewards import RemoteRewardModel

        headers = dict(_header(header) for header in args.header)
        model = RemoteRewardModel(args.remote, tokenizer=args.tokenizer, headers=headers)
        model.selftest()  # rather than null for every line of a file
        return model
    if not _runs_here(args.reward):
        from tpo_core.cli.models import find_model, find_reward

        named: RewardModel = find_reward(
            args.reward,
            judge=lambda: find_model(args.model, args.api_base),
            named=lambda name: find_model(name, args.api_base),
        )
        named.check()
        return named
    from tpo_core.rewards import HFRewardModel

    return HFRewardModel(
        args.reward, device=args.device, dtype=args.dtype, trust_remote_code=args.trust_remote_code, on_long="error"
    )


def _runs_here(reward: str) -> bool:
    """Return whether a reward is a transformers model: ``org/name`` or a folder."""
    return os.path.isdir(reward) or ("/" in reward and ":" not in reward and not reward.startswith("judge"))


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise InvalidInputError("--header must be of the form 'NAME: VALUE'")
    return name.strip(), value.strip()


def _score(model: RewardModel, pairs: Sequence[Pair]) -> list[Reward]:
    """Score a batch; one that fails as a whole costs its own lines and not the run."""
    try:
        return model.score_pairs(pairs)
    except (InvalidInputError, RewardError) as error:
        return [Reward(math.nan, failure=str(error))] * len(pairs)


def _columns(reward: Reward) -> Line:
    columns: Line = {"reward": float(reward) if math.isfinite(reward) else None}
    if reward.heads:
        columns["heads"] = {name: head if math.isfinite(head) else None for name, head in reward.heads.items()}
    for name in ("feedback", "truncated", "failure"):
        if value := getattr(reward, name):
            columns[name] = value
    return columns


def _output(name: str) -> AbstractContextManager[IO[str]]:
    if name == "-":
        return nullcontext(sys.stdout)
    return replacing(name, "-o", keep=True)


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
