"""``tpo run``: every prompt of a file answered, in a folder that survives whatever ends the command."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo_core.cli.live import Live
from tpo_core.cli.options import add_models, add_search, config_of, log
from tpo_core.cli.text import clean, reward_name
from tpo_core.config import TPOConfig
from tpo_core.errors import InvalidInputError
from tpo_core.models.policy import ChatModel
from tpo_core.threads import AT_ONCE

if TYPE_CHECKING:
    from tpo_core.cli.run_models import RunModels
    from tpo_core.cli.run_ray import RayModels
    from tpo_core.runs import Budget, Price, Source, Tally

__all__ = [
    "add_parser",
    "add_whole",
    "answer",
    "check_numbers",
    "count_prompts",
    "find_models",
    "run",
    "stop_on_sigterm",
]

_EPILOG = """\
examples:
  tpo run prompts.jsonl -o out --api-base http://127.0.0.1:8000/v1
  tpo run prompts.csv -o out --prompt-field question --model anthropic/claude-sonnet-4-5 --width 3
  tpo run batch.jsonl -o out --reward Skywork/Skywork-Reward-V2-Qwen3-0.6B     an OpenAI batch file
  tpo show out --html page.html                            its figures and trees
  tpo export out --to answers.jsonl                        what it made

The same command again goes on where it was stopped, whatever stopped it, and pays for nothing twice.
"""


def add_parser(subparsers: Any) -> None:
    """Add ``run`` to the command line."""
    parser = subparsers.add_parser(
        "run",
        help="answer every prompt of a file, and go on where it was stopped",
        description="Answer every prompt of a file or data set, many at once; keep all of it in a folder.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    source = parser.add_argument_group("prompts")
    source.add_argument("prompts", help='.jsonl, .csv, .tsv, .parquet, a data set, or "-" for JSON lines on stdin')
    source.add_argument("--prompt-field", metavar="NAME", help="field with the prompt (prompt or messages)")
    source.add_argument("--id-field", metavar="NAME", help="field with the id (custom_id, id, or the line's number)")
    source.add_argument("--format", help="jsonl, csv, tsv, parquet or dataset, where the name does not tell")
    source.add_argument("--split", default="train", help="of a data set (train)")
    source.add_argument("--skip-bad-lines", action="store_true", help="count lines that cannot be used, and go on")
    add_models(parser)
    add_search(parser)
    add_whole(parser).add_argument("-o", "--output", required=True, metavar="FOLDER", help="where it is kept")


def add_whole(parser: argparse.ArgumentParser) -> Any:
    """Add what holds for a run as a whole; returns the group."""
    whole = parser.add_argument_group("the run")
    whole.add_argument(
        "--max-concurrency", type=int, default=AT_ONCE, metavar="N", help=f"most requests at once ({AT_ONCE})"
    )
    whole.add_argument(
        "--timeout", type=float, default=600.0, metavar="SECONDS", help="longest wait for an answer (600)"
    )
    whole.add_argument("--total-calls", type=int, metavar="N", help="end with the best so far after so many samples")
    whole.add_argument("--total-tokens", type=int, metavar="N", help="likewise after so many tokens")
    whole.add_argument("--total-dollars", type=float, metavar="X", help="likewise after so many dollars")
    whole.add_argument("--total-seconds", type=float, metavar="S", help="likewise after so many seconds")
    whole.add_argument("--price", metavar="P,C", help="dollars for a million prompt and completion tokens")
    whole.add_argument("--retry-failed", action="store_true", help="try the queries that failed once more")
    whole.add_argument("--quiet", action="store_true", help="show nothing but errors")
    whole.add_argument("--verbose", action="store_true", help="log to standard error")
    _add_engine(parser)
    return whole


def _add_engine(parser: argparse.ArgumentParser) -> None:
    engine = parser.add_argument_group("on a cluster")
    engine.add_argument("--engine", choices=["local", "ray"], default="local", help="where models are asked (local)")
    engine.add_argument(
        "--ray-address", metavar="ADDRESS", help="of a cluster (env RAY_ADDRESS); else Ray is started on this machine"
    )
    engine.add_argument(
        "--ray-actors", type=int, metavar="N", help="that ask models (one a processor, less those that score)"
    )
    engine.add_argument("--ray-reward-actors", type=int, default=1, metavar="N", help="that score (1)")
    engine.add_argument("--ray-reward-gpus", type=float, default=0.0, metavar="X", help="GPUs of each of those (0)")


def run(args: argparse.Namespace) -> int:
    """Run; returns the exit code: 0, or 1 where a query failed or was left open.

    Raises:
        InvalidInputError: An argument or a line of the source is wrong; before anything is written.
        ModelError: A model cannot be found or reached; likewise, or later: the same command then goes on.
        StoreError: The folder is another run's, in use, full, or cannot be written.
        KeyboardInterrupt: After Ctrl-C or a SIGTERM; the same command then goes on.
    """
    log(args.verbose)
    check_numbers(args)
    total = count_prompts(args)
    with ExitStack() as opened:
        stop_on_sigterm(opened)
        models = find_models(args, opened)
        return asyncio.run(answer(args, models, total))


def check_numbers(args: argparse.Namespace) -> None:
    """Refuse numbers out of their range before anything is read or asked.

    Raises:
        InvalidInputError: One is.
    """
    if args.max_concurrency < 1:
        raise InvalidInputError(f"--max-concurrency must be at least 1, not {args.max_concurrency}")
    for name in ("total_calls", "total_tokens", "total_dollars", "total_seconds", "timeout"):
        if (value := getattr(args, name)) is not None and not value > 0:
            raise InvalidInputError(f"--{name.replace('_', '-')} must be above 0, not {value}")
    for name in ("ray_actors", "ray_reward_actors"):
        if (count := getattr(args, name)) is not None and count < 1:
            raise InvalidInputError(f"--{name.replace('_', '-')} must be at least 1, not {count}")
    if not args.ray_reward_gpus >= 0:
        raise InvalidInputError(f"--ray-reward-gpus must not be below 0, but is {args.ray_reward_gpus}")
    if args.engine != "ray" and (args.ray_address or args.ray_actors):
        raise InvalidInputError("--ray-address and --ray-actors need --engine ray")
    config_of(args, embedded=False)


def stop_on_sigterm(opened: ExitStack) -> None:
    """Let a SIGTERM, by which a cluster stops its jobs, do what Ctrl-C does."""
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        opened.callback(signal.signal, signal.SIGTERM, before)


def _source(args: argparse.Namespace) -> Source:
    from tpo_core.runs import Source

    return Source(
        args.prompts,
        prompt_field=args.prompt_field,
        id_field=args.id_field,
        format=args.format,
        split=args.split,
        skip_bad_lines=args.skip_bad_lines,
        system=args.system,
    )


def count_prompts(args: argparse.Namespace) -> int | None:
    """Read a file through once, so that a bad line is known before anything is paid for; returns how many it holds."""
    if not Path(args.prompts).is_file():
        source = _source(args)  # a stream can be read once only
        del source
        return None
    lines: dict[str, int] = {}
    source = _source(args)
    for item in source:
        if item.id in lines:
            source.refuse(
                InvalidInputError(
                    f"{source.name}, line {item.line}: the id {item.id!r} was used in line {lines[item.id]}; give each "
                    "line its own"
                )
            )
        lines.setdefault(item.id, item.line)
    return len(lines)


def find_models(args: argparse.Namespace, opened: ExitStack) -> RunModels | RayModels:
    """Find who answers and who scores; all of them reached, where that can be told, before anything is written."""
    if args.engine == "ray":
        from tpo_core.cli.run_ray import RayModels

        return RayModels(args, opened)
    from tpo_core.cli.run_models import RunModels

    here = RunModels(args, opened)
    here.make_ready()
    return here


async def answer(args: argparse.Namespace, models: RunModels | RayModels, total: int | None) -> int:
    """Answer what is open of a run whose prompts were counted; returns the exit code."""
    from tpo_core.runs import RunStore, Tally
    from tpo_core.runs.engine import Engine

    config, price = config_of(args, models.embedded), _price(args, models.model)
    with RunStore.open(args.output, settings=_settings(args, models, config)) as store:
        if args.retry_failed:
            store.retry_failed()
        source = _source(args)
        tally = Tally(store.counts, store.spent, total if total is not None else store.counts.total)
        tally.price = price
        engine = Engine(store, models.policy, models.reward, config, tally, args.max_concurrency, _budget(args))
        with Live(tally, quiet=args.quiet) as live:
            async with aclosing(engine.answer(source)) as ended:
                async for _ in ended:
                    live.ended()
        counts = store.counts
    if not args.quiet:
        lines = _summary(args, counts, tally, source.skipped)
        if engine.used_up is not None:
            lines.append(f"the run's budget is used up ({engine.used_up}); with a larger one the same command goes on")
        sys.stdout.write(clean("\n".join(lines)) + "\n")
    return 1 if counts.failed or counts.open or engine.used_up is not None else 0


def _budget(args: argparse.Namespace) -> Budget:
    from tpo_core.runs import Budget

    return Budget(args.total_calls, args.total_tokens, args.total_dollars, args.total_seconds)


def _price(args: argparse.Namespace, model: ChatModel) -> Price | None:
    """Return what the model's tokens cost: as the command says, or as litellm knows of its own providers' models."""
    from tpo_core.models.litellm_chat import LiteLLMChat
    from tpo_core.runs import Price

    if args.price is not None:
        try:
            prompt, completion = (float(part) / 1e6 for part in args.price.split(","))
        except ValueError as error:
            raise InvalidInputError(f"--price must be two numbers, such as 0.15,0.60, not {args.price!r}") from error
        return Price(prompt, completion)
    if isinstance(model, LiteLLMChat) and not args.api_base:
        import litellm

        known = litellm.model_cost.get(model.name) or litellm.model_cost.get(model.name.partition("/")[2]) or {}
        if "input_cost_per_token" in known and "output_cost_per_token" in known:
            return Price(known["input_cost_per_token"], known["output_cost_per_token"])
    if args.total_dollars is not None:
        raise InvalidInputError(f"--total-dollars: no price is known for {model.name}; give it with --price")
    return None


def _settings(args: argparse.Namespace, models: RunModels | RayModels, config: TPOConfig) -> Mapping[str, Any]:
    """Return what decides the answers, and no address: a server may come back at another one."""
    named = {"critic": args.critic, "editor": args.editor, "system": args.system}
    return {
        "model": models.model.name,
        **{name: value for name, value in named.items() if value is not None},
        "reward": reward_name(args.reward),
        **{
            f.name: value
            for f in dataclasses.fields(config)
            if (value := getattr(config, f.name)) is not None and f.compare
        },
    }


def _summary(args: argparse.Namespace, counts: Any, tally: Tally, skipped: int) -> list[str]:
    lines = [f"{args.output}: {counts.done:,} of {counts.queries:,} queries answered"]
    if tally.compared:
        first, best = tally.first_best / tally.compared, tally.best / tally.compared
        lines.append(f"reward of the first best {first:.4g}, of the best {best:.4g}")
    if counts.failed:
        lines.append(f"{counts.failed:,} failed: tpo export {args.output} --kind failures --to failures.jsonl says why")
    if skipped:
        lines.append(f"{skipped:,} lines left out")
    return lines
