"""The ``tpo`` command. What a subcommand needs is imported when it runs, so that help is quick."""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

from tpo_core.cli.text import clean
from tpo_core.errors import InvalidInputError, TPOError
from tpo_core.masking import hidden_errors, hide

__all__ = ["main"]

SUBCOMMANDS = tuple(
    f"tpo_core.cli.{name}" for name in ("ask", "bench", "check", "run", "show", "export", "score", "study")
)
"""Modules with ``add_parser(subparsers)``, which sets ``run(args) -> int``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 for failures, 2 for wrong usage, 130 after Ctrl-C.

    Args:
        argv: The arguments; those of the process by default.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else litellm asks the network for prices
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter must not end the run
    if argv is None:
        gc.set_threshold(20_000)  # looking for garbage while modules are loaded is a tenth of the start
    args = _parser(sys.argv[1:] if argv is None else argv).parse_args(argv)
    code = _run(args)
    if argv is None and _is_busy():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # requests that nobody waits for any more must not keep the command from ending
    return code


def _run(args: argparse.Namespace) -> int:
    try:
        with hidden_errors():
            return int(args.run(args))
    except InvalidInputError as error:
        return _complain(error, 2)
    except TPOError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:  # the reader of a pipe has gone
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the interpreter's last flush
        return 1
    except OSError as error:  # a full disk, say
        return _complain(error, 1)


def _complain(error: object, code: int) -> int:
    """Say in one line what went wrong and what to do."""
    line = " ".join(clean(hide(str(error))).split())
    sys.stderr.write(f"tpo: {line if len(line) <= 600 else line[:597] + '...'}\n")
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Complain without what is secret in the arguments."""
        super().error(clean(hide(message)))


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Build the parser of the subcommand that is asked for; of all where none is, for help and errors."""
    parser = _Parser(
        prog="tpo",
        description="Test-Time Preference Optimization: align one answer to a reward while it is being produced.",
    )
    parser.add_argument("--version", action="version", version=f"tpo {_version()}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    asked = [name for name in SUBCOMMANDS if argv[:1] == [name.rpartition(".")[2]]]
    for name in asked or SUBCOMMANDS:
        if importlib.util.find_spec(name) is not None:
            module: Any = importlib.import_module(name)
            module.add_parser(subparsers)
    return parser


def _version() -> str:
    try:
        return version("tpo")
    except PackageNotFoundError:
        return "unknown"


def _is_busy() -> bool:
    """Return whether a thread of ours still does something."""
    from tpo_core.threads import resting

    others = {thread for thread in threading.enumerate() if thread is not threading.current_thread()}
    return any(thread.name.startswith("tpo") for thread in others - resting())
