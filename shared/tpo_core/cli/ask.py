"""``tpo ask``: watch one answer being aligned to a reward."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tpo_core.cli.options import BRIEF, add_models, add_search, config_of, log
from tpo_core.cli.view import Quiet, Show, View
from tpo_core.config import TPOConfig
from tpo_core.errors import InvalidInputError, TPOError
from tpo_core.models.policy import ChatModel
from tpo_core.trajectory import Trajectory
from tpo_core.writing import replacing

__all__ = ["add_parser", "run"]

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
    add_models(parser)
    add_search(parser)
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
    log(args.verbose)
    query = sys.stdin.read().strip() if args.query == "-" else args.query
    if not query.strip():
        raise InvalidInputError('query is empty; give the text to answer, or "-" to read it from standard input')
    config_of(args, embedded=False)  # complains before anything is fetched or asked
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
        config = config_of(args, is_embedded(policy))
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
