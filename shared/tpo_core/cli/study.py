"""``tpo study``: plans, modes, widths and depths against each other, with intervals."""

from __future__ import annotations

import argparse
from typing import Any

from tpo_core.cli.options import add_models
from tpo_core.cli.plans import run_plans
from tpo_core.cli.scaling import add_options, run_scaling
from tpo_core.errors import InvalidInputError

__all__ = ["add_parser", "run"]

SEED = 12895
"""Seeds below 1,000 are for tuning; what is reported is drawn with others."""

_EPILOG = """\
plans      best-of-N, the paper's and the adaptive plan at equal tokens, in simulated worlds
modes      reward over rounds: tpo, revision, none
depth      how many rounds pay; width: how many updates a round
stability  standard deviation of a round's rewards

examples:
  tpo study plans --csv plans.csv
  tpo study modes --html modes.html --png modes.png
  tpo study width --api-base http://127.0.0.1:8000/v1 --reward judge --prompts prompts.jsonl -o width
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "study",
        help="compare plans, modes, widths and depths at equal samples and tokens, with intervals",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["plans", "width", "depth", "modes", "stability"], help="see below")
    parser.add_argument(
        "--policy",
        choices=["simulated", "embedded", "model"],
        help="who answers (simulated; model where --model or --api-base is given)",
    )
    parser.add_argument(
        "--queries", type=int, metavar="N", help="most queries; of each run, for plans (40, or all prompts)"
    )
    parser.add_argument("--seed", type=int, default=SEED, help=f"another seed draws other numbers (default {SEED})")
    parser.add_argument("--csv", metavar="FILE", help="write the table to a CSV file too")
    parser.add_argument("--png", metavar="FILE", help='draw it too; needs pip install "tpo[plot]"')
    plans = parser.add_argument_group("plans")
    plans.add_argument("--runs", type=int, default=50, help="independent runs from a cold start (default 50)")
    plans.add_argument("--world", action="append", metavar="NAME", help="only this world; may be given several times")
    add_options(parser)
    add_models(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Study; returns the exit code."""
    if args.policy is None:
        args.policy = "model" if args.model or args.api_base else "simulated"
    if args.policy == "embedded" and (args.model or args.api_base):
        raise InvalidInputError("--policy embedded is a model of its own: leave out --model and --api-base")
    if args.queries is not None and args.queries < 1:
        raise InvalidInputError(f"--queries must be at least 1, not {args.queries}")
    if args.what != "plans":
        return run_scaling(args)
    if args.policy != "simulated":
        raise InvalidInputError("tpo study plans is simulated: benchmarks/real_policy.py plays the plans on a model")
    return run_plans(args)
