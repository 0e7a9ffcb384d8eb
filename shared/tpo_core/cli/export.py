"""``tpo export``: what a run made, as a file for the next tool."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tpo_core.cli.text import clean

__all__ = ["add_parser", "run"]

_EPILOG = """\
examples:
  tpo export out --to answers.jsonl                              one line for each query that is done
  tpo export out --to pairs.parquet --kind preferences           chosen and rejected, as TRL's DPOTrainer takes them
  tpo export out --to failures.csv --kind failures               what came to nothing, and why
"""

_KINDS = ("answers", "texts", "preferences", "candidates", "failures", "openai")


def add_parser(subparsers: Any) -> None:
    """Add ``export`` to the command line."""
    parser = subparsers.add_parser(
        "export",
        help="write what a run made to a file",
        description="Write the answers, preference pairs or candidates of a run, which may still be going on.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", help="of the run")
    parser.add_argument("--to", required=True, metavar="FILE", help=".jsonl, .csv or .parquet")
    parser.add_argument("--kind", default="answers", choices=_KINDS, help="what a row is (answers)")
    parser.add_argument("--with-rows", action="store_true", help="with answers: the row that each was read from, too")
    parser.add_argument("--plain", action="store_true", help="with preferences: text instead of chat messages")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export; returns the exit code.

    Raises:
        StoreError: The folder holds no run, or one that cannot be read.
        InvalidInputError: The file cannot be written, or cannot hold what is asked.
    """
    from tpo_core.runs import RunReader, export

    with RunReader(args.folder) as made:
        count = export(made, args.to, args.kind, plain=args.plain, with_rows=args.with_rows)
    sys.stdout.write(clean(f"{args.to}: {count:,} rows\n"))
    return 0
