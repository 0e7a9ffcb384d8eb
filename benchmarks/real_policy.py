"""Every plan at equal generated tokens on IFEval (arXiv:2311.07911), with any policy behind an OpenAI-like address.

    pip install if-verifiable
    export OPENAI_BASE_URL=http://127.0.0.1:8601/v1
    python benchmarks/real_policy.py run checks ifeval.jsonl -o checks.jsonl.xz --model q
    python benchmarks/real_policy.py run judge ifeval.jsonl -o judge.jsonl.xz --model q
    python benchmarks/real_policy.py table checks.jsonl.xz judge.jsonl.xz

What ``tpo check`` says of the same policy, from the prompts of the warm-up:

    python benchmarks/real_policy.py prompts ifeval.jsonl --prompts 12 > prompts.jsonl
    IFEVAL=ifeval.jsonl tpo check --prompts prompts.jsonl --reward benchmarks/real_policy.py:reward --model q

What ``tpo check`` says of the evidence of the warm-up, or of the answers of the paper's plan (with the tokens of the
warm-up, whose file lies beside them), what its updates did to their parents beside what a normal law would have them
do, and what the answers begin with or still hold of the prompts:

    python benchmarks/real_policy.py verdict results/*.experience.json checks.jsonl.xz judge.jsonl.xz
    python benchmarks/real_policy.py updates checks.jsonl.xz judge.jsonl.xz

``checks``: the reward is the share of a prompt's checks that pass, and its feedback names the others. ``judge``: the
reward is the policy's own verdict (``JudgeReward``, log-odds), without feedback; the checks are looked at afterwards.
Reported is the share of prompts whose answer passes all checks, strictly, paired over the same prompts and seeds, with
95 % bootstrap intervals over prompts. Prompts that ask for long answers, or whose checks need data of NLTK, are left
out; ``--warm-up`` others are for what ``adaptive warm`` has learned before.

A line of the results is one arm on one prompt with one seed; the same command again asks only for what is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import lzma
import math
import os
import random
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tpo_core import Experience, TPOConfig, Trajectory, arun
from tpo_core.config.experience import Evidence
from tpo_core.errors import TPOError
from tpo_core.loop.learning import shown
from tpo_core.models.openai_chat import OpenAIChat
from tpo_core.prompts.sections import unannounced
from tpo_core.rewards import Check, ChecksReward, JudgeReward
from tpo_core.studies.checking import check
from tpo_core.values import Candidate, Step

LONGEST = 120
"""Most words that a prompt may ask for."""
LEAST_PROMPTS = 20
"""Arms with fewer are not shown."""
COLUMNS = ("arm", "prompts", "passed whole", "less best-of-N", "less paper", "reward", "tokens", "calls")
FEW, DRAWS = 32, 200
"""How many queries a verdict may rest on, and how often as many of the answered ones are drawn."""
ARMS = ("single", "best-of-N", "revision", "paper", "adaptive cold", "adaptive warm")


@dataclass(frozen=True)
class Question:
    """One prompt with the checks that its answer must pass."""

    key: int
    prompt: str
    checks: tuple[Check, ...]


def questions(path: Path) -> list[Question]:
    """Return the prompts whose checks run here and that ask for short answers, in an order of their own."""
    from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT

    found = []
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        checks = []
        for name, given in zip(entry["instruction_id_list"], entry["kwargs"], strict=True):
            wanted = {k: v for k, v in given.items() if v is not None}
            test = INSTRUCTION_DICT[name](name)
            said = test.build_description(**wanted)
            asked = test.get_instruction_args_keys()
            if "prompt" in asked:
                said = test.build_description(prompt=entry["prompt"])
            checks.append(Check(f"{said} ({name})", passes(test)))
        long = any((g.get("num_words") or 0) > LONGEST and g.get("relation") != "less than" for g in entry["kwargs"])
        if not long and all(runs(check) for check in checks):
            found.append(Question(entry["key"], entry["prompt"], tuple(checks)))
    random.Random(0).shuffle(found)
    return found


def passes(test: Any) -> Callable[[str], bool]:
    return lambda text: bool(text.strip()) and bool(test.check_following(text))


def runs(check: Check) -> bool:
    """Return whether a check needs nothing that is not here."""
    try:
        check("A first sentence, in plain words. And a SECOND one!\n\nA new paragraph.")
    except (LookupError, OSError):
        return False
    return True


@lru_cache
def _checks(path: Path) -> dict[str, tuple[Check, ...]]:
    return {question.prompt: question.checks for question in questions(path)}


reward = ChecksReward(lambda pair: _checks(Path(os.environ["IFEVAL"]))[str(pair.prompt)], name="IFEval's checks")
"""The share of a prompt's checks that pass, as ``--reward``; ``IFEVAL`` in the environment is the prompts' file."""


def configs(tokens: int, seed: int, task: str, warm: Experience) -> dict[str, TPOConfig]:
    """Return each arm's settings; completion tokens alone count, since the arms' prompts differ in kind."""
    common: dict[str, Any] = {
        "max_tokens": tokens,
        "prompt_price": 0.0,
        "seed": seed,
        "max_response_tokens": 512,
        "stop_at": 1.0 if task == "checks" else None,
    }
    return {
        "single": TPOConfig(mode="bon", width=1, **common),
        "best-of-N": TPOConfig(mode="bon", plan="adaptive", **common),
        "revision": TPOConfig(mode="revision", width=1, depth=50, **common),
        "paper": TPOConfig(width=5, depth=2, **common),
        "adaptive cold": TPOConfig(plan="adaptive", experience=Experience(), **common),
        "adaptive warm": TPOConfig(plan="adaptive", experience=warm, **common),
    }


class Results:
    """A file of JSON lines that grows, compressed where its name ends in .xz; what was interrupted is skipped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = read(path) if path.exists() else []
        self.done = {(r["arm"], r["key"], r["seed"]) for r in self.rows}

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        with opened(self.path, "at") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def opened(path: Path, mode: Any) -> Any:
    return lzma.open(path, mode) if path.suffix == ".xz" else path.open(mode)


def read(path: Path) -> list[dict[str, Any]]:
    rows = []
    with opened(path, "rt") as file:
        for line in file:
            try:
                rows.append(json.loads(line))
            except ValueError:  # the last line of a run that was ended
                continue
    return rows


def row(arm: str, question: Question, seed: int, result: Trajectory | TPOError, seconds: float) -> dict[str, Any]:
    """Return what is kept of one answer: its text, all rewards and which checks it passes."""
    trajectory = result if isinstance(result, Trajectory) else result.trajectory
    best = trajectory.best_or_none if trajectory is not None else None
    text = best.response if best is not None else ""
    failed = [check.name for check in question.checks if not check(text)]
    kept: dict[str, Any] = {
        "arm": arm, "key": question.key, "seed": seed, "passed": not failed, "failed": len(failed),
        "checks": len(question.checks), "text": text, "seconds": round(seconds, 1),
    }  # fmt: skip
    if trajectory is None:
        return {**kept, "error": str(result)}
    failures: dict[str, int] = {}
    for candidate in trajectory.candidates:
        if candidate.failure is not None:
            failures[candidate.failure.reason] = failures.get(candidate.failure.reason, 0) + 1
    return {
        **kept,
        "reward": round(best.reward, 4) if best is not None and best.reward is not None else None,
        "tokens": trajectory.usage.completion_tokens,
        "prompt_tokens": trajectory.usage.prompt_tokens,
        "calls": trajectory.usage.calls,
        "stop": trajectory.stop_reason,
        "candidates": [[c.step, c.reward and round(c.reward, 4)] for c in trajectory.candidates if c.failure is None],
        "failures": failures,
    }


async def measure(args: argparse.Namespace) -> None:
    """Ask for every arm on every prompt, many at once."""
    policy = OpenAIChat(args.model, api_base=args.api_base, timeout=600, max_retries=0)
    every = questions(args.data)
    warm_up, asked = every[: args.warm_up], every[args.warm_up :][: args.prompts]
    checks = {question.prompt: question.checks for question in every}
    gold = ChecksReward(lambda pair: list(checks[str(pair.prompt)]))
    asked_for: Any = gold if args.task == "checks" else JudgeReward(OpenAIChat(args.model, api_base=args.api_base))
    results, places = Results(args.output), asyncio.Semaphore(args.at_once)

    async def one(arm: str, question: Question, seed: int, config: TPOConfig) -> dict[str, Any]:
        async with places:
            start = time.monotonic()
            try:
                result: Trajectory | TPOError = await arun(question.prompt, policy, asked_for, config=config)
            except TPOError as error:
                result = error
            return row(arm, question, seed, result, time.monotonic() - start)

    async def all_of(tasks: Iterable[Any]) -> None:
        for number, task in enumerate(asyncio.as_completed([asyncio.ensure_future(t) for t in tasks]), 1):
            results.add(await task)
            if number % 50 == 0:
                print(f"{number} answers, {time.strftime('%X')}", file=sys.stderr, flush=True)

    warm = Experience()
    saved = args.output.with_suffix(".experience.json")
    if saved.exists():
        warm = Experience.from_json(saved.read_text())
    else:
        config = configs(args.tokens, 0, args.task, warm)["adaptive warm"]
        for start in range(0, len(warm_up), 8):  # a few at once, so that later ones know what earlier ones showed
            await asyncio.gather(*(one("warm-up", q, 0, config) for q in warm_up[start : start + 8]))
        saved.write_text(warm.to_json())
    print(f"{len(asked)} prompts; learned: {warm}", file=sys.stderr, flush=True)
    tasks = []
    for seed in range(args.seeds):
        for arm, config in configs(args.tokens, seed, args.task, warm).items():
            cold = config.experience if arm == "adaptive cold" else None
            for question in asked:
                if (arm, question.key, seed) not in results.done and arm in args.arms:
                    own = TPOConfig(**{**vars(config), "experience": Experience()}) if cold is not None else config
                    tasks.append(one(arm, question, seed, own))
    await all_of(tasks)


def interval(values: list[float], rounds: int = 4000) -> tuple[float, float, float]:
    """Return the mean of one value a prompt, and its 95 % bootstrap interval over prompts."""
    drawn = np.random.default_rng(0).choice(np.array(values), (rounds, len(values)))
    low, high = np.quantile(drawn.mean(1), [0.025, 0.975])
    return statistics.fmean(values), float(low), float(high)


def by_prompt(values: dict[tuple[int, int], float]) -> list[float]:
    """Return each prompt's mean over its seeds."""
    found: dict[int, list[float]] = {}
    for (key, _), value in sorted(values.items()):
        found.setdefault(key, []).append(value)
    return [statistics.fmean(each) for each in found.values()]


def lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Return the cells of the table: arms beside each other, and paired with best-of-N and the paper's plan."""
    passed = {
        arm: {(r["key"], r["seed"]): float(r["passed"]) for r in rows if r["arm"] == arm} for arm in ARMS
    }  # fmt: skip
    found = []
    for arm in [arm for arm in ARMS if len(by_prompt(passed[arm])) >= LEAST_PROMPTS]:
        cells = [
            arm,
            str(len(by_prompt(passed[arm]))),
            "{:.1%} [{:.1%}, {:.1%}]".format(*interval(by_prompt(passed[arm]))),
        ]
        for other in ("best-of-N", "paper"):
            both = {k: v - passed[other][k] for k, v in passed[arm].items() if k in passed[other]}
            apart = "{:+.1%} [{:+.1%}, {:+.1%}]".format(*interval(by_prompt(both)))
            cells.append("" if arm == other else apart)
        mine = [r for r in rows if r["arm"] == arm and r.get("reward") is not None]
        cells.append(f"{statistics.fmean(r['reward'] for r in mine):.3f}")
        cells += [
            f"{statistics.fmean(r[field] for r in mine):.{digits}f}" for field, digits in (("tokens", 0), ("calls", 1))
        ]
        found.append(cells)
    return found


def table(path: Path, *, markdown: bool) -> str:
    """Return a task's table, as text or as Markdown."""
    rows = [r for r in read(path) if r["arm"] in ARMS]
    if markdown:
        shown = [list(COLUMNS), ["---"] * len(COLUMNS), *lines(rows)]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in shown)
    drawn = Table(title=f"{path.name}, {len({r['seed'] for r in rows})} seeds a prompt")
    for column in COLUMNS:
        drawn.add_column(column, justify="left" if column == "arm" else "right")
    for cells in lines(rows):
        drawn.add_row(*cells)
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(drawn)
    return console.export_text()


def verdict(path: Path) -> str:
    """Return what ``tpo check`` reckons from an experience, or from answers; completion tokens alone count."""
    if path.suffix == ".json":
        experience = Experience.from_json(path.read_text())
        return "\n".join([f"{path.name}: {experience}", *reckoned(experience.evidence)])
    of_queries, costs = paper_evidence(path)
    evidence = sum(of_queries, costs)
    few = [sum(random.Random(draw).sample(of_queries, FEW), costs) for draw in range(DRAWS)]
    return "\n".join([
        f"{path.name}: {evidence.critiques} critiques of the paper's plan", *reckoned(evidence), verdicts(few),
        "were changes normal:", *reckoned(normal(evidence))[-2:], verdicts(map(normal, few)),
    ])  # fmt: skip


def normal(evidence: Evidence) -> Evidence:
    """Return evidence that does not say what came true of the gains that a normal law promises."""
    return replace(evidence, gains=0.0, gains_of=0)


def verdicts(evidences: Iterable[Evidence]) -> str:
    found = Counter(check(evidence, FEW, prompt_price=0.0).verdict.plan for evidence in evidences)
    return f"of {DRAWS} draws of {FEW} queries: " + ", ".join(f"{plan} {n}" for plan, n in found.most_common())


def reckoned(evidence: Evidence) -> list[str]:
    """Return what ``tpo check`` reckons, a line each."""
    found = check(evidence, 0, prompt_price=0.0)
    shown = {"s": found.spread, "beta": found.beta, "delta": found.delta, "updates usable": found.usable_updates}
    lines = [f"{name}: {e.value:.2f} ({e.low:.2f} to {e.high:.2f})" for name, e in shown.items() if e is not None]
    lines.append(f"upside: {found.upside:.2f}")
    lines.append("expected best: " + ", ".join(f"{plan} {best:.2f}" for plan, best in found.expected.items()))
    return [*lines, f"use {found.verdict.plan}: {found.verdict.reason}"]


def paper_evidence(path: Path) -> tuple[list[Evidence], Evidence]:
    """Return what each query of the paper's plan shows, and the tokens of the warm-up, which lie beside the answers."""
    name = path.name.removesuffix(".xz").removesuffix(".jsonl")
    told = Experience.from_json((path.parent / f"{name}.experience.json").read_text()).evidence
    costs = Evidence(sample=told.sample, critique=told.critique, update=told.update)
    return [shown(*rounds(r["candidates"])) for r in read(path) if r["arm"] == "paper" and r.get("candidates")], costs


def rounds(told: list[list[float]]) -> tuple[list[Candidate], list[Step]]:
    """Return the candidates and critiques of the paper's plan from its rounds and rewards."""
    candidates: list[Candidate] = []
    steps: list[Step] = []
    for number, reward in told:
        step = int(number)
        if step > len(steps):
            steps.append(Step(step, chosen=max(candidates, key=lambda c: c.reward or 0.0)))
        candidates.append(Candidate("", reward=reward or 0.0, step=step, fresh=not step, critique=step - 1))
    return candidates, steps


def updates(path: Path) -> str:
    """Return what the updates of the paper's plan did to their parents, and what is wrong with final answers."""
    rows = [r for r in read(path) if r["arm"] in ARMS and r.get("candidates")]
    changes, squares, degrees = [], 0.0, 0
    for r in rows:
        by_step: dict[int, list[float]] = {}
        for step, reward in r["candidates"]:
            by_step.setdefault(step, []).append(reward or 0.0)
        fresh = by_step.pop(0, [])
        squares += statistics.pvariance(fresh) * len(fresh) if fresh else 0.0
        degrees += max(0, len(fresh) - 1)
        best = max(fresh, default=0.0)
        for _, made in sorted(by_step.items()) if r["arm"] == "paper" and fresh else ():
            changes += [reward - best for reward in made]
            best = max(best, *made)
    change = np.array(changes) / math.sqrt(squares / degrees)
    normal = statistics.NormalDist(change.mean(), change.std())
    by_law = change.std() ** 2 * normal.pdf(0) + change.mean() * (1 - normal.cdf(0))
    skew = ((change - change.mean()) ** 3).mean() / change.std() ** 3
    asked = sum(sum(r["failures"].values()) for r in rows) + sum(len(r["candidates"]) for r in rows)
    lost = {name for r in rows for name in r["failures"]}
    later = [r["text"] for r in rows if r["arm"] not in ("single", "best-of-N")]
    return "\n".join([
        f"{path.name}: {len(change)} updates of the paper's plan, in spreads of fresh samples:",
        f"less the parent {change.mean():+.2f}, standard deviation {change.std():.2f}, skewness {skew:+.1f}; "
        f"above the parent {(change > 0).mean():.0%}",
        f"gain of an update {np.maximum(change, 0).mean():.2f}; by a normal law of that mean and spread {by_law:.2f}",
        *(f"{name}: {sum(r['failures'].get(name, 0) for r in rows) / asked:.1%} of {asked} samples and updates"
          for name in sorted(lost)),
        f"of {len(later)} final answers of plans with critiques {sum(map(announced, later))} begin with a remark that "
        f"an improved response follows, {sum(bool(TAG.search(t)) for t in later)} hold a tag or heading of a prompt",
    ])  # fmt: skip


TAG = re.compile(
    r"</?(?:response|remarks|instructions|query|critique)(?:-\d+)?>|^# (?:query|current response)", re.M | re.I
)


def announced(text: str) -> bool:
    return unannounced(text.lstrip(), "") != text.lstrip()


def main() -> None:
    """Run a task, or print the table of its results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("task", choices=("checks", "judge"))
    run.add_argument("data", type=Path)
    run.add_argument("-o", "--output", type=Path, required=True)
    run.add_argument("--api-base", help="by default OPENAI_BASE_URL")
    run.add_argument("--model", required=True)
    run.add_argument("--prompts", type=int, default=200)
    run.add_argument("--warm-up", type=int, default=32)
    run.add_argument("--seeds", type=int, default=1)
    run.add_argument("--tokens", type=int, default=1500, help="generated tokens a prompt and arm")
    run.add_argument("--at-once", type=int, default=8, help="prompts in flight")
    run.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    asked = commands.add_parser("prompts", help="print the first prompts, one JSON object a line")
    asked.add_argument("data", type=Path)
    asked.add_argument("--prompts", type=int, default=32)
    for name in ("verdict", "updates"):
        commands.add_parser(name).add_argument("results", type=Path, nargs="+")
    shown = commands.add_parser("table")
    shown.add_argument("results", type=Path, nargs="+")
    shown.add_argument("--markdown", action="store_true")
    args = parser.parse_args()
    if args.command == "run":
        asyncio.run(measure(args))
    elif args.command == "prompts":
        for question in questions(args.data)[: args.prompts]:
            print(json.dumps({"key": question.key, "prompt": question.prompt}, ensure_ascii=False))
    elif args.command == "table":
        for path in args.results:
            print(table(path, markdown=args.markdown))
    else:
        print("\n\n".join(map(verdict if args.command == "verdict" else updates, args.results)))


if __name__ == "__main__":
    main()
