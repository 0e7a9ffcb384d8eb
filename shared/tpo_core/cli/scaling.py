"""``tpo study width|depth|modes|stability``: arms on the same queries, kept as runs, so that they resume."""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tpo_core.cli.check import PROMPTS
from tpo_core.cli.live import Live
from tpo_core.cli.options import BRIEF, EMBEDDED, log
from tpo_core.cli.run import stop_on_sigterm
from tpo_core.cli.run_models import RunModels, opened_reward
from tpo_core.cli.text import clean, reward_name
from tpo_core.config import TPOConfig
from tpo_core.errors import InvalidInputError

if TYPE_CHECKING:
    from tpo_core.models.policy import ChatModel, Policy
    from tpo_core.rewards.base import RewardModel
    from tpo_core.runs import Item
    from tpo_core.studies.arms import Study
    from tpo_core.studies.scaling import Outcome, Point

__all__ = ["add_options", "run_scaling"]

SIMULATED_QUERIES = 40


@dataclass(frozen=True)
class _Parts:
    """Who answers what, and who scores."""

    policy: Callable[[Item], Policy]
    reward: RewardModel
    gold: RewardModel | None
    names: Mapping[str, str]
    queries: Sequence[Item]
    config: TPOConfig


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the studies of rounds and widths take."""
    group = parser.add_argument_group("width, depth, modes and stability")
    group.add_argument("-o", "--output", metavar="FOLDER", help="keep all answers here; the same command then goes on")
    group.add_argument("--prompts", metavar="FILE", help="ask these; a file as in tpo run (a dozen built in)")
    group.add_argument("--prompt-field", metavar="NAME", help="the file's field with the prompt (prompt or messages)")
    group.add_argument("--seeds", type=int, default=1, metavar="N", help="how often each query is asked (default 1)")
    group.add_argument("--temperature", type=float, help="sampling temperature (default 0.7)")
    group.add_argument("--max-response-tokens", type=int, metavar="N", help="most tokens of one answer")
    group.add_argument(
        "--prompt-price", type=float, default=1.0, metavar="P", help="what a prompt token counts (default 1)"
    )
    group.add_argument("--max-concurrency", type=int, default=8, metavar="N", help="most requests at once (8)")
    group.add_argument(
        "--timeout", type=float, default=600.0, metavar="SECONDS", help="longest wait for an answer (600)"
    )
    group.add_argument("--gold", metavar="REWARD", help="a held-out reward, named as --reward; never optimised")
    group.add_argument("--html", metavar="FILE", help="write table, figure and warnings as one page")
    group.add_argument("--quiet", action="store_true", help="do not show how far it is")
    group.add_argument("--verbose", action="store_true", help="log to standard error")


def run_scaling(args: argparse.Namespace) -> int:
    """Play a study's arms, print its points and write what is asked for; returns the exit code.

    Raises:
        InvalidInputError: An argument or a line of the file is wrong; before a model is called.
        ModelError: A model cannot be found or reached; the same command then goes on.
        StoreError: The folder is another study's, or cannot be written.
    """
    from tpo_core.studies.arms import STUDIES
    from tpo_core.studies.held_out import held_out
    from tpo_core.studies.scaling import compared, points, warnings

    log(args.verbose)
    for name in ("seeds", "max_concurrency"):
        if getattr(args, name) < 1:
            raise InvalidInputError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(args, name)}")
    study = STUDIES[args.what]
    with ExitStack() as opened:
        stop_on_sigterm(opened)
        parts = _parts(args, opened)
        folder = Path(args.output or opened.enter_context(TemporaryDirectory(prefix="tpo-study-")))
        played = asyncio.run(_play(args, study, parts, folder))
        held = None
        if parts.gold is not None:
            held = held_out(folder, compared(study, played), parts.gold, reward_name(args.gold))
    asked, found = len(parts.queries) * args.seeds, points(study, played, held)
    if not found:
        raise InvalidInputError("not one query was answered by every arm: nothing can be compared")
    whole = {(each.query, each.seed) for each in played}
    notes = warnings(study, found, left_out=asked - len(whole))
    _report(args, study, parts, found, notes)
    return 0


def _parts(args: argparse.Namespace, opened: ExitStack) -> _Parts:
    from tpo_core.runs import Item

    given = {"temperature": args.temperature, "max_response_tokens": args.max_response_tokens}
    settings = {name: value for name, value in given.items() if value is not None}
    if args.policy == "simulated":
        from tpo_core.testing import RubricReward, SimulatedPolicy

        queries = [Item(str(n), f"query {args.seed} {n}") for n in range(args.queries or SIMULATED_QUERIES)]
        names, policy = {"model": "simulated", "reward": "its rubric"}, SimulatedPolicy()
        gold = _gold(args, opened, _no_judge)
        return _Parts(lambda item: policy, RubricReward(), gold, names, queries, TPOConfig(**settings))
    items, models = list(_queries(args)), RunModels(args, opened)
    models.make_ready()
    if models.embedded:
        kept = {name: EMBEDDED[name] for name in ("temperature", "max_response_tokens")}
        settings = {**kept, **settings}
        items = [_brief(each) for each in items]
    named = {"critic": args.critic, "editor": args.editor, "system": args.system}
    names = {name: value for name, value in named.items() if value is not None}
    names |= {"model": models.model.name, "reward": reward_name(args.reward)}
    gold = _gold(args, opened, models.judge)
    return _Parts(models.policy, models.reward, gold, names, items, TPOConfig(**settings))


def _gold(args: argparse.Namespace, opened: ExitStack, judge: Callable[[str | None], ChatModel]) -> RewardModel | None:
    """Return the held-out reward, found and reached before any model is asked."""
    if args.gold is None:
        return None
    found = opened_reward(opened, args.gold, args.model, judge)
    found.check()
    return found


def _no_judge(name: str | None) -> ChatModel:
    raise InvalidInputError("--gold cannot be a judge where the policy is simulated: no model is there")


def _brief(query: Item) -> Item:
    return replace(query, prompt=f"{query.prompt}\n\n{BRIEF}") if isinstance(query.prompt, str) else query


def _queries(args: argparse.Namespace) -> Iterator[Item]:
    from tpo_core.runs import Item, Source

    if args.prompts is None:
        yield from (Item(str(number), query) for number, query in enumerate(PROMPTS[: args.queries]))
    else:
        source = Source(args.prompts, prompt_field=args.prompt_field, system=args.system)
        yield from islice(source, args.queries)


async def _play(args: argparse.Namespace, study: Study, parts: _Parts, folder: Path) -> list[Outcome]:
    """Play the arms, then sampling alone for as many tokens as each query's dearest arm took."""
    from tpo_core.studies.arms import NONE

    asked = [(query, args.seed + n) for query in parts.queries for n in range(args.seeds)]
    arms = {arm.name: arm.settings for arm in study.arms}
    items = [_item(query, seed, name, settings) for query, seed in asked for name, settings in arms.items()]
    played = await _answer(args, parts, folder / "arms", items)
    found: dict[tuple[str, int], list[Outcome]] = {}
    for each in played:
        found.setdefault((each.query, each.seed), []).append(each)
    alone = [
        _item(query, seed, NONE, _sampling(args, mine))
        for query, seed in asked
        if len(mine := found.get((query.id, seed), [])) == len(arms)
    ]
    return played + (await _answer(args, parts, folder / "none", alone) if alone else [])


def _sampling(args: argparse.Namespace, arms: Sequence[Outcome]) -> Mapping[str, Any]:
    from tpo_core.studies.arms import sampling

    tokens, calls = max(arm.tokens for arm in arms), max(arm.calls for arm in arms)
    return sampling(tokens, calls, prompt_price=args.prompt_price)


def _item(query: Item, seed: int, arm: str, settings: Mapping[str, Any]) -> Item:
    row = {"arm": arm, "query": query.id}
    return replace(query, id=f"{query.id} {seed} {arm}", row=row, sampling={**settings, "seed": seed})


async def _answer(args: argparse.Namespace, parts: _Parts, folder: Path, items: Sequence[Item]) -> list[Outcome]:
    """Answer what is open of a folder's queries, and return what all of them came to."""
    from tpo_core.runs import RunStore, Tally
    from tpo_core.runs.engine import Engine
    from tpo_core.studies.scaling import outcome

    settings = {
        **parts.names,
        "temperature": parts.config.temperature,
        "max_response_tokens": parts.config.max_response_tokens,
    }
    with RunStore.open(folder, settings=settings) as store:
        tally = Tally(store.counts, store.spent, len(items))
        engine = Engine(store, parts.policy, parts.reward, parts.config, tally, args.max_concurrency)
        with Live(tally, quiet=args.quiet) as live:
            async with aclosing(engine.answer(items)) as ended:
                async for _ in ended:
                    live.ended()
        done = store.finished()
        return [
            outcome(e.item.row["arm"], e.item.row["query"], e.trajectory, prompt_price=args.prompt_price) for e in done
        ]


def _report(
    args: argparse.Namespace, study: Study, parts: _Parts, found: Sequence[Point], notes: Sequence[str]
) -> None:
    from tpo_core.studies.figures import write_csv, write_html, write_png

    about = (
        f"{found[0].queries} queries, {args.seeds} {'seed' if args.seeds == 1 else 'seeds'} each, policy "
        f"{parts.names['model']}, reward {parts.names['reward']}; paired over queries, 95 % bootstrap intervals"
    )
    sys.stdout.write(clean(f"{study.question}\n{about}\n\n{_table(found)}\n"))
    sys.stdout.write(clean("".join(f"note: {note}\n" for note in notes)))
    if args.csv:
        write_csv(args.csv, found)
    if args.png:
        write_png(args.png, study, found)
    if args.html:
        write_html(args.html, f"tpo study {args.what}", f"{study.question}: {about}", study, found, notes)


def _table(found: Sequence[Point]) -> str:
    from rich.console import Console
    from rich.table import Table

    from tpo_core.studies.figures import table

    names, rows = table(found)
    shown = Table(box=None, pad_edge=False)
    for name in names:
        shown.add_column(name, justify="left" if name == "arm" else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    console = Console(file=io.StringIO(), width=400, record=True)
    console.print(shown)
    return "\n".join(line.rstrip() for line in console.export_text().splitlines())
