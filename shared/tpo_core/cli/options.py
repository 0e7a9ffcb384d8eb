"""Options that several commands share, and what becomes of them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from typing import Any

from tpo_core.cli.text import CleanFormatter
from tpo_core.config import TPOConfig

__all__ = ["BRIEF", "EMBEDDED", "add_models", "add_search", "config_of", "log"]

EMBEDDED: Mapping[str, Any] = {
    "width": 5,
    "depth": 2,
    "fresh": 2,
    "temperature": 0.5,
    "max_response_tokens": 160,
    "deadline": 80.0,
    "seed": 1,
}
"""Settings for the embedded model where the user gives none: short answers, of which some are always new, and an end
within two minutes on two busy cores."""

BRIEF = "Answer in two or three short sentences."
"""Added to the embedded model's query where the user gives no system prompt: it seldom ends a long answer before its
limit."""


def add_models(parser: argparse.ArgumentParser) -> None:
    """Add who answers, criticises, rewrites and scores."""
    models = parser.add_argument_group("models")
    models.add_argument(
        "--model", help="the model that answers: GGUF file, litellm string, or a server's model (env TPO_MODEL)"
    )
    models.add_argument("--api-base", metavar="URL", help="server (env TPO_API_BASE, OPENAI_BASE_URL)")
    models.add_argument("--critic", metavar="MODEL", help="model that writes the critique; the same by default")
    models.add_argument("--editor", metavar="MODEL", help="model that rewrites; the same by default")
    models.add_argument(
        "--reward",
        default="judge",
        metavar="REWARD",
        help="judge (the model itself, by default), judge:MODEL, org/name, URL, module:function or file.py:function",
    )
    models.add_argument("--system", metavar="TEXT", help="system prompt")


def add_search(parser: argparse.ArgumentParser, *, plan: bool = True) -> None:
    """Add how far and how wide, and the limits of a query.

    Args:
        parser: The subcommand's.
        plan: Whether mode and plan are options, too.
    """
    search = parser.add_argument_group("search")
    if plan:
        search.add_argument("--mode", help="tpo (default), revision or bon")
        search.add_argument("--plan", help="paper (default), or adaptive: what is worth most for the budget left")
    search.add_argument("--width", type=int, help="answers a round (default 5)")
    search.add_argument("--depth", type=int, help="rounds (default 2)")
    search.add_argument("--fresh", type=int, help="how many of a round's answers are new instead of rewritten")
    search.add_argument("--critiques", type=int, help="critiques a round, among which it shares its rewritten answers")
    search.add_argument("--temperature", type=float, help="sampling temperature (default 0.7)")
    search.add_argument("--top-p", type=float, metavar="P", help="nucleus sampling")
    search.add_argument("--seed", type=int, help="make the samples reproducible")
    search.add_argument("--min-spread", type=float, metavar="REWARD", help="rewards that differ less have no contrast")
    search.add_argument(
        "--samples-at-once", type=int, metavar="N", help="how many of the first samples are asked at once"
    )
    search.add_argument("--max-shown-chars", type=int, metavar="N", help="longest text shown to critic and editor")
    search.add_argument(
        "--merged-critique", action="store_true", default=None, help="one request for critique and instructions"
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-response-tokens",
        "--max-tokens",
        type=int,
        metavar="N",
        help="most tokens of one answer (the model's own by default)",
    )
    limits.add_argument(
        "--max-total-tokens", type=int, metavar="N", help="start nothing new after so many tokens in all"
    )
    limits.add_argument(
        "--prompt-price", type=float, metavar="P", help="what a prompt token counts against these (1; an answer's is 1)"
    )
    limits.add_argument("--stop-at", type=float, metavar="REWARD", help="stop as soon as a reward reaches this")
    limits.add_argument("--patience", type=int, metavar="N", help="stop after so many rounds without a gain")
    limits.add_argument("--max-calls", type=int, metavar="N", help="most samples in all")
    limits.add_argument("--deadline", type=float, metavar="SECONDS", help="answer with the best so far after this")


def config_of(args: argparse.Namespace, embedded: bool) -> TPOConfig:
    """Return the configuration that the options make.

    Raises:
        InvalidInputError: A value is out of its range.
    """
    given = {
        "mode": args.mode,
        "plan": args.plan,
        "width": args.width,
        "depth": args.depth,
        "fresh": args.fresh,
        "critiques": args.critiques,
        "temperature": args.temperature,
        "seed": args.seed,
        "max_response_tokens": args.max_response_tokens,
        "max_tokens": args.max_total_tokens,
        "prompt_price": args.prompt_price,
        "top_p": args.top_p,
        "min_spread": args.min_spread,
        "samples_at_once": args.samples_at_once,
        "merged_critique": args.merged_critique,
        "max_shown_chars": args.max_shown_chars,
        "stop_at": args.stop_at,
        "patience": args.patience,
        "max_calls": args.max_calls,
        "deadline": args.deadline,
    }
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if embedded:
        settings = {**EMBEDDED, **settings}
        if args.fresh is None:
            settings["fresh"] = min(settings["fresh"], settings["width"] - 1)
    return TPOConfig(**settings)


_NOWHERE = logging.NullHandler()


def log(verbose: bool) -> None:
    """Send the log to standard error, or nowhere."""
    if verbose:
        handler = logging.StreamHandler()
        handler.setFormatter(CleanFormatter("%(name)s: %(message)s"))
        logging.basicConfig(level=logging.INFO, handlers=[handler])
    else:
        logging.getLogger("tpo_core").addHandler(_NOWHERE)  # the view says what matters
