"""``tpo check``: whether a policy follows feedback well enough with a reward, and which plan to use."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

from tpo_core.cli.options import BRIEF, EMBEDDED, add_models, log
from tpo_core.cli.text import clean
from tpo_core.config import TPOConfig
from tpo_core.config.experience import Experience
from tpo_core.errors import InvalidInputError
from tpo_core.models.policy import ChatModel
from tpo_core.records import plain
from tpo_core.threads import AT_ONCE
from tpo_core.trajectory import Trajectory

if TYPE_CHECKING:
    from tpo_core.models.policy import Policy
    from tpo_core.rewards.base import RewardModel
    from tpo_core.studies.checking import Check, Estimate

__all__ = ["PROMPTS", "add_parser", "run"]

PROMPTS = (
    "How do I take care of a wooden table?",
    "Explain to a ten-year-old why the sky is blue.",
    "Write a polite message to a neighbour whose music is loud at night.",
    "What should I look at before I buy a used bicycle?",
    "Summarize the causes of the First World War in a few sentences.",
    "Write a Python function that tells whether a string is a palindrome, and say how it works.",
    "Suggest three dinners that can be cooked in twenty minutes, without meat.",
    "What is the difference between a virus and a bacterium?",
    "A train covers 180 km in 2 hours and 15 minutes. What is its mean speed? Show how you get there.",
    "Write a product description of a water bottle made of steel.",
    "How can I fall asleep more easily?",
    "Give arguments for and against working from home.",
)
"""What is asked where the user gives no prompts."""


def add_parser(subparsers: Any) -> None:
    """Add ``check`` to the command line."""
    parser = subparsers.add_parser(
        "check",
        help="tell whether a model follows feedback with a reward, and which plan to use",
        description="Run a few queries of 13 samples each; say what updates are worth, and which plan to use how wide.",
    )
    parser.set_defaults(run=run)
    add_models(parser)
    check = parser.add_argument_group("the check")
    check.add_argument("--prompts", metavar="FILE", help="ask these instead of a dozen built in; a file as in tpo run")
    check.add_argument("--prompt-field", metavar="NAME", help="the file's field with the prompt (prompt or messages)")
    check.add_argument("--queries", type=int, default=len(PROMPTS), metavar="N", help="most queries (default 12)")
    check.add_argument(
        "--seconds", type=float, default=120.0, metavar="S", help="begin no query that would end after this (120)"
    )
    check.add_argument("--temperature", type=float, help="sampling temperature (default 0.7)")
    check.add_argument("--max-response-tokens", type=int, metavar="N", help="most tokens of one answer")
    check.add_argument("--prompt-price", type=float, metavar="P", help="what a prompt token counts (default 1)")
    check.add_argument("--seed", type=int, help="make the samples reproducible")
    check.add_argument(
        "--max-concurrency", type=int, default=AT_ONCE, metavar="N", help=f"most requests at once ({AT_ONCE})"
    )
    check.add_argument("--json", action="store_true", help="write everything as JSON, with the evidence, no more")
    check.add_argument("--verbose", action="store_true", help="log to standard error")


def run(args: argparse.Namespace) -> int:
    """Check; returns the exit code.

    Raises:
        InvalidInputError: An argument or a line of the file is wrong; before a model is called.
        TPOError: As ``tpo_core.run``, where not one query could be answered.
    """
    from tpo_core.studies.checking import check

    log(args.verbose)
    for name in ("queries", "max_concurrency", "seconds"):
        if not getattr(args, name) > 0:
            raise InvalidInputError(f"--{name.replace('_', '-')} must be above 0, not {getattr(args, name)}")
    experience = Experience()
    _config(args, experience, embedded=False)  # complains before anything is read or asked
    prompts = _prompts(args)
    started = time.monotonic()
    with ExitStack() as opened:
        policy, reward, names, embedded = _models(args, opened)
        config = _config(args, experience, embedded)
        asked = [f"{prompt}\n\n{BRIEF}" if embedded and isinstance(prompt, str) else prompt for prompt in prompts]
        done = _probe(args, asked, policy, reward, config)
    found = check(
        experience.evidence, len(done), prompt_price=config.prompt_price, scoring=_scoring(done, config.prompt_price)
    )
    if args.json:
        written = {**plain(asdict(found)), "models": names, "experience": json.loads(experience.to_json())}
        sys.stdout.write(json.dumps(written, indent=2, allow_nan=False) + "\n")
    else:
        sys.stdout.write(clean("\n".join(_lines(found, done, len(prompts), names, time.monotonic() - started)) + "\n"))
    return 0


def _config(args: argparse.Namespace, experience: Experience, embedded: bool) -> TPOConfig:
    from tpo_core.studies.checking import probe

    given: dict[str, Any] = {}
    for name in ("temperature", "max_response_tokens", "prompt_price", "seed"):
        value = getattr(args, name)
        if value is None and embedded:
            value = EMBEDDED.get(name)
        if value is not None:
            given[name] = value
    return probe(experience, **given)


def _prompts(args: argparse.Namespace) -> list[Any]:
    from tpo_core.runs import Source

    if args.prompts is not None:
        source = Source(args.prompts, prompt_field=args.prompt_field, system=args.system)
        return [item.prompt for item in islice(source, args.queries)]
    if args.system is None:
        return list(PROMPTS[: args.queries])
    system = {"role": "system", "content": args.system}
    return [[system, {"role": "user", "content": prompt}] for prompt in PROMPTS[: args.queries]]


def _models(args: argparse.Namespace, opened: ExitStack) -> tuple[Policy, RewardModel, Mapping[str, str], bool]:
    """Find who answers and who scores; reach them where that can be told before anything is asked."""
    from tpo_core.cli.models import find_model, find_reward, is_embedded
    from tpo_core.models.local.demos import DEMOS
    from tpo_core.models.policy import ChatPolicy

    chats: dict[str | None, ChatModel] = {}

    def named(name: str | None) -> ChatModel:
        if name not in chats:
            chats[name] = found = find_model(name, args.api_base, listed=True)
            if hasattr(found, "close"):
                opened.callback(found.close)
        return chats[name]

    model = named(args.model)
    critic, editor = (named(other) if other else model for other in (args.critic, args.editor))
    reward = find_reward(args.reward, judge=lambda: model, named=named)
    opened.callback(reward.close)
    reward.check()
    for chat in chats.values():
        if hasattr(chat, "load"):
            chat.load()
    names = {"policy": model.name, "critic": critic.name, "editor": editor.name, "reward": reward.name}
    embedded = is_embedded(model)
    return ChatPolicy(model, critic=critic, editor=editor, demos=DEMOS if embedded else None), reward, names, embedded


def _probe(
    args: argparse.Namespace, prompts: Sequence[Any], policy: Policy, reward: RewardModel, config: TPOConfig
) -> list[Trajectory]:
    """Run queries until all are done or the time is up; raise only where not one could be answered.

    None is cut, as what a limit took away says nothing of the model. The first runs alone, then twice as many together
    each time, but no more than would end in time on a server that is as busy as it can be.
    """
    from tpo_core.drivers.run import run_many

    results: list[Trajectory | Exception] = []
    end, together = time.monotonic() + args.seconds, 1
    while together and len(results) < len(prompts):
        began = time.monotonic()
        some = prompts[len(results) : len(results) + together]
        results += run_many(some, policy, reward, config, max_concurrency=args.max_concurrency, return_exceptions=True)
        now = time.monotonic()
        together = max(0, min(2 * together, int(len(some) * (end - now) / max(now - began, 1e-9))))
        if all(isinstance(result, Exception) for result in results):
            break
        if sys.stderr.isatty() and not args.json:
            sys.stderr.write(f"{len(results)} of {len(prompts)} queries\n")
    if errors := [result for result in results if isinstance(result, Exception)]:
        if len(errors) == len(results):
            raise errors[0]
        sys.stderr.write(clean(f"tpo: {len(errors)} of {len(results)} queries failed: {errors[0]}\n"))
    return [result for result in results if isinstance(result, Trajectory)]


def _scoring(done: Sequence[Trajectory], prompt_price: float) -> float:
    """Return the tokens that the reward took for one response, as they count."""
    usages = [trajectory.reward_usage for trajectory in done]
    paid = sum(usage.completion_tokens + prompt_price * usage.prompt_tokens for usage in usages)
    return paid / max(1, sum(usage.calls for usage in usages))


def _lines(
    found: Check, done: Sequence[Trajectory], wanted: int, names: Mapping[str, str], seconds: float
) -> list[str]:
    tokens = sum(trajectory.usage.tokens + trajectory.reward_usage.tokens for trajectory in done)
    calls = sum(trajectory.usage.calls for trajectory in done)
    queries = "1 query" if found.queries == 1 else f"{found.queries} queries"
    lines = [
        f"{queries} with {names['policy']}, reward {names['reward']}",
        f"{calls:,} samples, {tokens:,} tokens, {seconds:.0f} s",
        "",
        _row("s", found.spread, "spread of fresh samples of one query, in the reward's units"),
        _row("beta", found.beta, "of its parent's advantage an update keeps"),
        _row("delta", found.delta, "s: what an update gains beside that"),
        f"{'upside':18}{found.upside:.2f}  of what a normal law has updates gain over their parents is reckoned with",
        _row("updates usable", found.usable_updates),
        _row("critiques usable", found.usable_critiques),
        f"{'tokens':18}" + ", ".join(f"{name} {count:,.0f}" for name, count in found.tokens.items()),
        f"{'expected best':18}"
        + ", ".join(f"{plan} {best:.2f}" for plan, best in found.expected.items())
        + "  s above the mean of fresh samples, for equal tokens",
    ]
    if len(done) < wanted:
        lines.append(f"note: {len(done)} of {wanted} queries were answered (see --seconds)")
    if ties := sum(trajectory.stop_reason == "no_contrast" for trajectory in done):
        lines.append(f"note: in {ties} queries all samples got the same reward")
    settings = ", ".join(f"{name}={json.dumps(value)}" for name, value in found.verdict.settings.items())
    return [*lines, "", f"use {found.verdict.plan}: {found.verdict.reason}", f"    TPOConfig({settings})"]


def _row(name: str, estimate: Estimate | None, what: str = "") -> str:
    if estimate is None:
        return f"{name:18}unknown"
    if not what:
        return f"{name:18}{estimate.value:.0%} ({estimate.low:.0%} to {estimate.high:.0%})"
    return f"{name:18}{estimate.value:.3g} ({estimate.low:.3g} to {estimate.high:.3g})  {what}"
