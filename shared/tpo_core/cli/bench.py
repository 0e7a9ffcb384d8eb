"""``tpo bench``: public benchmarks answered by several plans, scored, and put on one page."""

from __future__ import annotations

import argparse
import asyncio
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from tpo_core.cli.options import add_models, add_search, config_of, log
from tpo_core.cli.run import add_whole, answer, check_numbers, count_prompts, find_models, stop_on_sigterm
from tpo_core.cli.run_models import RETRIES, Closing
from tpo_core.cli.text import clean, reward_name
from tpo_core.config import TPOConfig
from tpo_core.errors import InvalidInputError
from tpo_core.writing import replacing

if TYPE_CHECKING:
    from tpo_core.cli.run_models import RunModels
    from tpo_core.cli.run_ray import RayModels
    from tpo_core.studies.benchmarks.entries import Benchmark
    from tpo_core.studies.benchmarks.folder import BenchFolder, Made
    from tpo_core.studies.benchmarks.plans import Plan
    from tpo_core.studies.benchmarks.refusals import RefusalJudge

__all__ = ["add_parser", "run"]

PLANS = "single,bon,revision,paper,adaptive"

_EPILOG = """\
examples:
  tpo bench --list                                                     what there is
  tpo bench math-500 ifeval -o out --dry-run                           requests and tokens, nothing is asked
  tpo bench math-500 -o out --api-base http://127.0.0.1:8000/v1 --reward sfairXC/FsfairX-LLaMA3-RM-v0.1
  tpo bench ifeval -o out --file ifeval.jsonl --plans single,paper@D5-N20,bon@N60

The same command again goes on where it was stopped.
"""


_IMPORT = "win rates: alpaca_eval's leaderboard.csv, or what Arena-Hard's show_result.py printed"


def add_parser(subparsers: Any) -> None:
    """Add ``bench`` to the command line."""
    parser = subparsers.add_parser(
        "bench",
        help="answer public benchmarks with several plans, and score them",
        description="Answer benchmarks with several plans; each is a run of its own, kept like those of tpo run.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    what = parser.add_argument_group("benchmarks")
    what.add_argument("names", nargs="*", metavar="NAME", help="which; --list names them")
    what.add_argument("--list", action="store_true", help="print the benchmarks, and end")
    what.add_argument("-o", "--output", metavar="FOLDER", help="where all of it is kept")
    what.add_argument("--plans", default=PLANS, metavar="A,B", help=f"{PLANS} (all of them), or say paper@D5-N20")
    what.add_argument(
        "--file",
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="a local copy, with the data set's own fields",
    )
    what.add_argument(
        "--revision", action="append", default=[], metavar="[NAME=]COMMIT", help="of the data set on the hub"
    )
    what.add_argument("--limit", type=int, metavar="N", help="only the first N queries of each")
    what.add_argument("--dry-run", action="store_true", help="count requests and tokens, and ask nothing")
    what.add_argument(
        "--expected-tokens", type=int, default=500, metavar="N", help="with --dry-run: of an answer (500)"
    )
    made = parser.add_argument_group("scores and report")
    made.add_argument("--judge", metavar="MODEL", help="who tells refusals (xstest): WildGuard, or any chat model")
    made.add_argument("--judge-base", metavar="URL", help="the judge's server; that of the policy by default")
    made.add_argument(
        "--judge-form", choices=("wildguard", "chat"), help="its prompt and labels; by default the judge's name tells"
    )
    made.add_argument("--gold", metavar="REWARD", help="a held-out reward, named as --reward; never optimised")
    made.add_argument("--import", dest="imports", action="append", default=[], metavar="FILE", help=_IMPORT)
    made.add_argument(
        "--report", metavar="PAGE", help="write one self-contained HTML page; without NAME, of what there is"
    )
    made.add_argument(
        "--beside", action="append", default=[], metavar="FOLDER", help="other policies' or rewards', on the same page"
    )
    made.add_argument("--policy-params", metavar="P", help="parameters, such as 70B: say operations, beside DPO")
    made.add_argument("--reward-params", metavar="P", help="likewise of the reward model, where it reports tokens")
    add_models(parser)
    parser.add_argument("--policy", dest="model", metavar="MODEL", help="another word for --model")
    add_search(parser, plan=False)
    add_whole(parser)


def run(args: Namespace) -> int:
    """Run; returns the exit code: 0, or 1 where a query failed or was left open.

    Raises:
        InvalidInputError: An argument, or a row of a benchmark, is wrong; before anything is asked.
        ModelError: A model cannot be found or reached; the same command then goes on.
        StoreError: A folder is another run's, in use, full, or cannot be written.
    """
    from tpo_core.report import parameters
    from tpo_core.studies.benchmarks.checkers import checker
    from tpo_core.studies.benchmarks.entries import table
    from tpo_core.studies.benchmarks.folder import BenchFolder

    if args.list:
        sys.stdout.write(table())
        return 0
    log(args.verbose)
    for text in filter(None, (args.policy_params, args.reward_params)):
        parameters(text)  # complains before anything is asked
    shows = args.output is not None and not args.names and not args.dry_run  # what there is, and asks no policy
    chosen, plans = ([], []) if shows else _chosen(args)
    if args.output is None:
        raise InvalidInputError("say where the answers are kept: -o FOLDER")
    folder = BenchFolder(args.output)
    code = 0
    if chosen:
        for plan in plans:
            check_numbers(_of_plan(args, plan))
        _prepare(args, folder, chosen)
        runs = [_of_run(args, folder, each, plan) for each in chosen for plan in plans]
        if args.dry_run:
            _say(_dry_run(args, runs))
            return 0
        for each in chosen:
            checker(each.scored)  # complains where its package is not installed
        totals = [count_prompts(each) for each in runs]
        with ExitStack() as opened:
            stop_on_sigterm(opened)
            code = asyncio.run(_answer(runs, totals, find_models(runs[0], opened)))
    _score(args, folder)
    _hand_out(args, folder)
    _report(args, folder)
    return code


def _score(args: Namespace, folder: BenchFolder) -> None:
    """Score what has no score yet: by programs, and by the judge and the held-out reward that are named."""
    from tpo_core.cli.models import find_model, find_reward
    from tpo_core.studies.benchmarks.refusals import RefusalJudge
    from tpo_core.studies.benchmarks.scoring import score_checks, score_gold

    if not (made := list(folder.made())):
        raise InvalidInputError(f"{args.output} holds no runs yet: name a benchmark, and its answers come there")
    for each in made:
        score_checks(each)
    if args.judge is not None:
        settings = {"timeout": args.timeout, "max_retries": RETRIES}
        with Closing(find_model(args.judge, args.judge_base or args.api_base, **settings)) as model:
            judge = RefusalJudge(model, args.judge_form, args.max_concurrency)
            asyncio.run(_judge(made, judge))
    if args.gold is not None:

        def named(name: str | None) -> Any:
            return find_model(name, args.api_base, timeout=args.timeout, max_retries=RETRIES)

        with Closing(find_reward(args.gold, judge=lambda: named(args.model), named=named)) as gold:
            gold.check()
            for each in made:
                score_gold(each, gold, reward_name(args.gold))


async def _judge(made: Sequence[Made], judge: RefusalJudge) -> None:
    from tpo_core.studies.benchmarks.scoring import score_refusals

    for each in made:
        await score_refusals(each, judge)


def _hand_out(args: Namespace, folder: BenchFolder) -> None:
    """Write what official tools read, and take in what they printed."""
    from tpo_core.studies.benchmarks.official import export, import_results

    told = []
    for each in folder.made():
        if (written := export(each, folder.path / "official")) is not None:
            told.append(f"{written[0]}: {written[1]:,} answers, as the official tool reads them")
    for file in args.imports:
        for each, figure in import_results(file, folder.made()):
            told.append(f"{each.benchmark.name} {each.plan}: {figure.metric} {figure.mean:.1f} %")
    if not args.quiet:
        _say(told)


def _report(args: Namespace, folder: BenchFolder) -> None:
    """Say the results, and write the page where one is asked for."""
    from tpo_core.report import figures_page, parameters
    from tpo_core.studies.benchmarks.folder import BenchFolder
    from tpo_core.studies.benchmarks.page import bench_figures

    policy, reward = (None if text is None else parameters(text) for text in (args.policy_params, args.reward_params))
    title = f"Benchmarks: {folder.path.resolve().name}"
    folders = [folder, *(BenchFolder(each) for each in args.beside)]
    figures = bench_figures(folders, policy=policy, reward=reward, title=title)
    if args.report is not None:
        with replacing(args.report, "--report") as file:
            file.write(figures_page(figures))
    if not args.quiet:
        _say(figures.lines())


def _chosen(args: Namespace) -> tuple[list[Benchmark], list[Plan]]:
    from tpo_core.studies.benchmarks.entries import BENCHMARKS, benchmark
    from tpo_core.studies.benchmarks.plans import plans

    if not args.names:
        raise InvalidInputError(f"name a benchmark, of {', '.join(each.name for each in BENCHMARKS)}")
    for name in ("limit", "expected_tokens"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise InvalidInputError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
    return [benchmark(name) for name in dict.fromkeys(args.names)], plans(args.plans)


def _prepare(args: Namespace, folder: BenchFolder, chosen: Sequence[Benchmark]) -> None:
    files, revisions = _named(args.file, "--file", chosen), _named(args.revision, "--revision", chosen)
    for each in chosen:
        folder.prepare(each, file=files.get(each.name), revision=revisions.get(each.name), limit=args.limit)


def _named(given: Sequence[str], option: str, chosen: Sequence[Benchmark]) -> Mapping[str, str]:
    """Return what an option says of each benchmark, which need not be named where there is one."""
    names, found = [each.name for each in chosen], dict[str, str]()
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in names:
            if len(names) > 1:
                raise InvalidInputError(f"{option} {text}: say for which benchmark: {option} {names[0]}=...")
            name, value = names[0], text
        found[name] = value
    return found


def _of_plan(args: Namespace, plan: Plan) -> Namespace:
    """Return the options of ``tpo run`` for a plan."""
    given = TPOConfig(**{name: value for name in ("width", "depth") if (value := getattr(args, name)) is not None})
    return Namespace(**{**vars(args), **plan.options(given.width, given.depth, args.max_total_tokens)})


def _of_run(args: Namespace, folder: BenchFolder, benchmark: Benchmark, plan: Plan) -> Namespace:
    """Return what ``tpo run`` would be told for one benchmark and one plan."""
    own = {
        "prompts": str(folder.prompts(benchmark)),
        "output": str(folder.run(benchmark, plan)),
        "prompt_field": "prompt",
        "id_field": "id",
        "format": "jsonl",
        "split": "train",
        "skip_bad_lines": False,
    }
    return Namespace(**{**vars(_of_plan(args, plan)), **own})


async def _answer(runs: Sequence[Namespace], totals: Sequence[int | None], models: RunModels | RayModels) -> int:
    """Answer one run after the other, in one event loop, to which the models' connections belong."""
    codes = [await answer(each, models, total) for each, total in zip(runs, totals, strict=True)]
    return max(codes)


def _dry_run(args: Namespace, runs: Sequence[Namespace]) -> Iterator[str]:
    from tpo_core.runs import Source
    from tpo_core.studies.benchmarks.forecast import forecast

    head = ("queries", "requests", "scored", "prompt tokens", "answer tokens")
    yield f"{'':40}" + "".join(f"{name:>15}" for name in head)
    requests = tokens = 0
    for each in runs:
        source = Source(each.prompts, prompt_field="prompt", id_field="id", system=each.system)
        found = forecast((item.prompt for item in source), config_of(each, embedded=False), args.expected_tokens)
        numbers = (found.queries, found.requests, found.scored, found.prompt_tokens, found.completion_tokens)
        yield f"{each.output:40}" + "".join(f"{number:15,}" for number in numbers)
        requests, tokens = requests + found.requests, tokens + found.tokens
    yield f"{requests:,} requests and about {tokens:,} tokens, if an answer has {args.expected_tokens:,}"


def _say(lines: Iterator[str] | Sequence[str]) -> None:
    sys.stdout.write(clean("".join(f"{line}\n" for line in lines)))
