"""``tpo ask``: watch one answer being aligned to a reward."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tpo_core.cli.text import CleanFormatter
from tpo_core.cli.view import Quiet, Show, View
from tpo_core.config import TPOConfig
from tpo_core.errors import InvalidInputError, TPOError
from tpo_core.models.policy import ChatModel
from tpo_core.trajectory import Trajectory
from tpo_core.writing import replacing

__all__ = ["add_parser", "run"]

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

_EPILOG = """\
examples:
  tpo ask "How do I take care of a wooden table?"           the embedded model, no key, no server
  tpo ask "..." --api-base http://127.0.0.1:8000/v1         any OpenAI-compatible server
  tpo ask "..." --model anthropic/claude-sonnet-4-5         any litellm model string
  tpo ask "..." --model qwen3-4b.gguf                       any GGUF file
  tpo ask "..." --reward Skywork/Skywork-Reward-V2-Qwen3-0.6B
  tpo ask "..." --reward my_rewards.py:brevity              a Python function of (prompt, response)
"""


def add_parser(subparsers: Any) -> None:
    """Add ``ask`` to the command line."""
    parser = subparsers.add_parser(
        "ask",
        help="align one answer, and watch it",
        description="Sample answers, score them, criticise the best against the worst, rewrite the best, repeat.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("query", help='what to ask; "-" reads standard input')
    parser.set_defaults(run=run)
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
    search = parser.add_argument_group("search")
    search.add_argument("--mode", help="tpo (default), revision or bon")
    search.add_argument("--width", type=int, help="answers a round (default 5)")
    search.add_argument("--depth", type=int, help="rounds (default 2)")
    search.add_argument("--fresh", type=int, help="how many of a round's answers are new instead of rewritten")
    search.add_argument("--temperature", type=float, help="sampling temperature (default 0.7)")
    search.add_argument("--top-p", type=float, metavar="P", help="nucleus sampling")
    search.add_argument("--seed", type=int, help="make the samples reproducible")
    search.add_argument("--min-spread", type=float, metavar="REWARD", help="rewards that differ less have no contrast")
    search.add_argument(
        "--samples-at-once", type=int, metavar="N", help="how many of the first samples are asked at once"
    )
    search.add_argument("--max-shown-chars", type=int, metavar="N", help="longest text shown to critic and editor")
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
    limits.add_argument("--stop-at", type=float, metavar="REWARD", help="stop as soon as a reward reaches this")
    limits.add_argument("--patience", type=int, metavar="N", help="stop after so many rounds without a gain")
    limits.add_argument("--max-calls", type=int, metavar="N", help="most samples in all")
    limits.add_argument("--deadline", type=float, metavar="SECONDS", help="answer with the best so far after this")
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="write the outcome and the trajectory as JSON, no more")
    output.add_argument("--save", metavar="FILE", help="write the trajectory to a JSON file too")
    output.add_argument("--verbose", action="store_true", help="log to standard error")


def run(args: argparse.Namespace) -> int:
    """Ask; returns the exit code.

    Raises:
        TPOError: As ``tpo_core.run``; the best so far has then been shown.
        KeyboardInterrupt: After Ctrl-C, likewise.
    """
    _log(args.verbose)
    query = sys.stdin.read().strip() if args.query == "-" else args.query
    if not query.strip():
        raise InvalidInputError('query is empty; give the text to answer, or "-" to read it from standard input')
    _config(args, embedded=False)  # complains before anything is fetched or asked
    if args.save is not None:
        _check_save(Path(args.save).resolve())
    view: View = Quiet() if args.json else Show()
    names: dict[str, str] = {}
    try:
        with view:
            trajectory = _refine(args, query, view, names)
    except (TPOError, KeyboardInterrupt) as error:
        _deliver(args, view, names, getattr(error, "trajectory", None), error)
        raise
    _deliver(args, view, names, trajectory)
    return 0


def _check_save(path: Path) -> None:
    """Refuse what could not be written at the end, before anything is paid for."""
    if not path.parent.is_dir():
        raise InvalidInputError(f"--save: there is no folder {path.parent}")
    if path.is_dir():
        raise InvalidInputError(f"--save: {path} is a folder")
    if not path.exists() and not os.access(path.parent, os.W_OK):
        raise InvalidInputError(f"--save: the folder {path.parent} cannot be written to")


def _refine(args: argparse.Namespace, query: str, view: View, names: dict[str, str]) -> Trajectory:
    """Find the models, enter their names, and run the loop."""
    from tpo_core.cli.models import find_model, find_reward, is_embedded
    from tpo_core.cli.seen import better_models

    models: dict[str | None, ChatModel] = {}

    def named(name: str | None) -> ChatModel:
        if name not in models:
            models[name] = find_model(name, args.api_base)
        return models[name]

    try:
        policy = named(args.model)
        critic, editor = (
            (named(args.critic) if args.critic else policy),
            (named(args.editor) if args.editor else policy),
        )
        reward = find_reward(args.reward, judge=lambda: policy, named=named)
        config = _config(args, is_embedded(policy))
        names |= {"policy": policy.name, "critic": critic.name, "editor": editor.name, "reward": reward.name}
        view.open(query, policy.name, reward, config)
        if is_embedded(policy) and not args.json:
            view.note(better_models())
        for model in models.values():
            _load(model, view)
        return _loop(args, query, policy, critic, editor, reward, config, view)
    finally:
        for model in models.values():
            if hasattr(model, "close"):
                model.close()


def _loop(
    args: argparse.Namespace,
    query: str,
    policy: ChatModel,
    critic: ChatModel,
    editor: ChatModel,
    reward: Any,
    config: TPOConfig,
    view: View,
) -> Trajectory:
    from tpo_core.cli.models import is_embedded
    from tpo_core.drivers.run import run as run_loop
    from tpo_core.models.local.demos import DEMOS
    from tpo_core.models.policy import ChatPolicy

    embedded = is_embedded(policy)
    answers = ChatPolicy(policy, critic=critic, editor=editor, demos=DEMOS if embedded else None)
    prompt: Any = f"{query}\n\n{BRIEF}" if embedded else query
    if args.system:
        prompt = [{"role": "system", "content": args.system}, {"role": "user", "content": query}]
    return run_loop(prompt, answers, reward, config, on_progress=view.progress)


def _load(model: ChatModel, view: View) -> None:
    from tpo_core.models.local.files import embedded_model_here

    if hasattr(model, "load"):
        missing = model.name.startswith("local/SmolLM2") and embedded_model_here() is None
        view.busy("fetching the model (93 MB, once)" if missing else "loading the model")
        model.load()


def _config(args: argparse.Namespace, embedded: bool) -> TPOConfig:
    given = {
        "mode": args.mode,
        "width": args.width,
        "depth": args.depth,
        "fresh": args.fresh,
        "temperature": args.temperature,
        "seed": args.seed,
        "max_response_tokens": args.max_response_tokens,
        "max_tokens": args.max_total_tokens,
        "top_p": args.top_p,
        "min_spread": args.min_spread,
        "samples_at_once": args.samples_at_once,
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


def _deliver(
    args: argparse.Namespace,
    view: View,
    names: Mapping[str, str],
    trajectory: Trajectory | None,
    error: BaseException | None = None,
) -> None:
    """Show the outcome, and write it where it was asked for."""
    from tpo_core.cli.models import summary

    if trajectory is not None and trajectory.best_or_none is not None:
        view.close(trajectory)
    if args.json:
        # ASCII: safe for terminals and for outputs of any encoding
        sys.stdout.write(json.dumps(summary(trajectory, names, error), indent=2, allow_nan=False) + "\n")
    if args.save is not None and trajectory is not None:
        with replacing(args.save, "--save") as file:
            file.write(trajectory.to_json(indent=2) + "\n")


def _log(verbose: bool) -> None:
    if verbose:
        handler = logging.StreamHandler()
        handler.setFormatter(CleanFormatter("%(name)s: %(message)s"))
        logging.basicConfig(level=logging.INFO, handlers=[handler])
    else:
        logging.getLogger("tpo_core").addHandler(logging.NullHandler())  # the view says what matters
