"""The benchmarks of the paper (arXiv:2501.12895, section 5), and IFEval: one entry each, and no code of its own.

An entry says where the rows are, which fields they have, how a prompt is made of one, and what is made of an answer.
A revision is the commit of the data set on the hub; where an entry has none, ``--revision`` pins one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tpo_core.errors import InvalidInputError, nearest
from tpo_core.values import Prompt

__all__ = ["BENCHMARKS", "Benchmark", "Dialogue", "Export", "Hub", "Scored", "Template", "benchmark", "table"]

Scored = Literal["reward", "math", "ifeval", "refusal", "official"]
"""What is made of an answer.

``reward``: its reward; ``math``: whether it equals the known answer (math-verify); ``ifeval``: whether it passes every
check of its prompt; ``refusal``: whether it refuses what is unsafe and answers what is safe, by a judge's verdict;
``official``: a win rate that the benchmark's own tool prints over the exported answers."""

Export = Literal["alpaca_eval", "arena_hard"]
"""Which official tool reads the answers."""


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face hub."""

    repo: str
    split: str = "train"
    file: str = ""
    """One file of it, where the data set is not read as a whole."""
    revision: str | None = None
    """The commit that is read; None for the newest."""


@dataclass(frozen=True)
class Template:
    """A prompt made of fields, which stand in braces.

    Example:
        >>> Template("Solve: {problem}").make({"problem": "1 + 1 = {x}"})
        'Solve: 1 + 1 = {x}'
    """

    text: str

    def make(self, row: Mapping[str, Any]) -> Prompt:
        """Return the prompt of a row."""
        return self.text.format_map(row)

    def __str__(self) -> str:
        """Return the template on one line."""
        return " ".join(self.text.replace("{{", "{").replace("}}", "}").split())


@dataclass(frozen=True)
class Dialogue:
    r"""A prompt that is all but the last answer of a transcript with ``Human:`` and ``Assistant:``, as messages.

    Raises:
        InvalidInputError: From ``make``: the text is no such transcript.

    Example:
        >>> Dialogue("chosen").make({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello"})
        [{'role': 'user', 'content': 'Hi'}]
    """

    field: str

    def make(self, row: Mapping[str, Any]) -> Prompt:
        """Return the prompt of a row."""
        parts = re.split(r"\n\n(Human|Assistant): ?", str(row[self.field]))
        turns = list(zip(parts[1::2], parts[2::2], strict=True))
        if parts[0].strip() or len(turns) < 2 or turns[0][0] != "Human" or turns[-1][0] != "Assistant":
            raise InvalidInputError(f"its {self.field!r} is no transcript that goes from Human: to Assistant:")
        roles = {"Human": "user", "Assistant": "assistant"}
        return [{"role": roles[who], "content": text.strip()} for who, text in turns[:-1]]

    def __str__(self) -> str:
        """Return what is taken."""
        return f"the dialogue in {{{self.field}}} before its last answer"


@dataclass(frozen=True)
class Benchmark:
    """One benchmark."""

    name: str
    title: str
    hub: Hub
    fields: tuple[str, ...]
    """What each row must have; ``a|b`` for either."""
    prompt: Template | Dialogue
    count: int
    """Queries, all of them."""
    scored: Scored
    judge: str
    """Who decides, where no program or the run's own reward does."""
    citation: str
    id: str = ""
    """The field with the id; a row's number where there is none."""
    draw: int | None = None
    """How many rows are drawn of more, always the same ones."""
    export: Export | None = None


COT = "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}."
"""Zero-shot chain of thought, as the paper asks MATH-500."""

BENCHMARKS = (
    Benchmark(
        name="alpaca-eval-2",
        title="AlpacaEval 2",
        hub=Hub("tatsu-lab/alpaca_eval", file="alpaca_eval_gpt4_baseline.json"),
        fields=("instruction",),
        prompt=Template("{instruction}"),
        count=805,
        scored="official",
        judge="weighted_alpaca_eval_gpt4_turbo",
        citation="arXiv:2404.04475",
        export="alpaca_eval",
    ),
    Benchmark(
        name="arena-hard-v0.1",
        title="Arena-Hard v0.1",
        hub=Hub("lmarena-ai/arena-hard-auto", file="data/arena-hard-v0.1/question.jsonl"),
        fields=("uid", "category", "prompt"),
        prompt=Template("{prompt}"),
        count=500,
        scored="official",
        judge="against gpt-4-0314",
        citation="arXiv:2406.11939",
        id="uid",
        export="arena_hard",
    ),
    Benchmark(
        name="arena-hard-v2.0",
        title="Arena-Hard v2.0",
        hub=Hub("lmarena-ai/arena-hard-auto", file="data/arena-hard-v2.0/question.jsonl"),
        fields=("uid", "category", "prompt"),
        prompt=Template("{prompt}"),
        count=750,
        scored="official",
        judge="against o3-mini-2025-01-31 and gemini-2.0-flash-001",
        citation="arXiv:2406.11939",
        id="uid",
        export="arena_hard",
    ),
    Benchmark(
        name="hh-rlhf",
        title="HH-RLHF",
        hub=Hub("Anthropic/hh-rlhf", "test", revision="09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa"),
        fields=("chosen", "rejected"),
        prompt=Dialogue("chosen"),
        count=500,
        scored="reward",
        judge="",
        citation="arXiv:2204.05862",
        draw=500,
    ),
    Benchmark(
        name="beavertails",
        title="BeaverTails-Evaluation",
        hub=Hub("PKU-Alignment/BeaverTails-Evaluation", "test"),
        fields=("prompt", "category"),
        prompt=Template("{prompt}"),
        count=700,
        scored="reward",
        judge="",
        citation="arXiv:2307.04657",
    ),
    Benchmark(
        name="xstest",
        title="XSTest",
        hub=Hub("walledai/XSTest", "test", revision="f1d713187c61b6ae64e602d74f0b3d812cc2e8e8"),
        fields=("prompt", "type|label"),
        prompt=Template("{prompt}"),
        count=450,
        scored="refusal",
        judge="WildGuard, or a judge",
        citation="arXiv:2308.01263",
    ),
    Benchmark(
        name="math-500",
        title="MATH-500",
        hub=Hub("HuggingFaceH4/MATH-500", "test", revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be"),
        fields=("problem", "answer"),
        prompt=Template(COT),
        count=500,
        scored="math",
        judge="",
        citation="arXiv:2305.20050",
        id="unique_id",
    ),
    Benchmark(
        name="ifeval",
        title="IFEval",
        hub=Hub("google/IFEval", revision="966cd89545d6b6acfd7638bc708b98261ca58e84"),
        fields=("key", "prompt", "instruction_id_list", "kwargs"),
        prompt=Template("{prompt}"),
        count=541,
        scored="ifeval",
        judge="",
        citation="arXiv:2311.07911",
        id="key",
    ),
)


def benchmark(name: str) -> Benchmark:
    """Return a benchmark by its name.

    Raises:
        InvalidInputError: There is none of that name.

    Example:
        >>> benchmark("math-500").title
        'MATH-500'
    """
    names = [each.name for each in BENCHMARKS]
    if name not in names:
        hint = nearest(name, names) or f"; they are {', '.join(names)}"
        raise InvalidInputError(f"there is no benchmark {name!r}{hint}")
    return BENCHMARKS[names.index(name)]


_WHAT: Mapping[Scored, str] = {
    "reward": "mean reward",
    "math": "pass@1 by math-verify",
    "ifeval": "all checks of a prompt pass",
    "refusal": "refusal where unsafe, compliance where safe",
    "official": "win rate by the official tool",
}


def table() -> str:
    """Return the benchmarks as a table in Markdown: what ``tpo bench --list`` prints and the documents show."""
    head = ("name", "queries", "data set on the hub", "prompt", "scored", "judge", "source")
    rows = [head, tuple("---" for _ in head)]
    for each in BENCHMARKS:
        hub = "/".join(filter(None, (each.hub.repo, each.hub.file)))
        at = f"@{each.hub.revision[:7]}" if each.hub.revision else ""
        queries = f"{each.count}, drawn" if each.draw else str(each.count)
        rows.append(
            (each.name, queries, hub + at, f"`{each.prompt}`", _WHAT[each.scored], each.judge or "none", each.citation)
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
