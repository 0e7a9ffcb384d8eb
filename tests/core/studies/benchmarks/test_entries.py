"""Benchmarks: their entries, their rows, and the prompts made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_rows import ROWS
from hypothesis import given
from hypothesis import strategies as st

from tpo_core import TPOConfig
from tpo_core.errors import InvalidInputError
from tpo_core.studies.benchmarks import BENCHMARKS, Benchmark, Dialogue, benchmark, load, prompts, table
from tpo_core.studies.benchmarks.forecast import forecast
from tpo_core.studies.benchmarks.plans import Plan, plans

ROOT = Path(__file__).parents[4]
every = pytest.mark.parametrize("entry", BENCHMARKS, ids=[each.name for each in BENCHMARKS])


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """Write rows as JSON lines, or as one list where the name ends in .json."""
    lines = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(lines)
    return str(path)


def test_the_document_shows_the_table_of_the_command():
    assert table() in (ROOT / "docs" / "benchmarks.md").read_text()
    assert [each.name for each in BENCHMARKS] == list(ROWS)


@every
@pytest.mark.parametrize("name", ["copy.jsonl", "copy.json"])
def test_each_benchmark_reads_its_own_schema(entry: Benchmark, name: str, tmp_path: Path):
    rows = load(entry, write(tmp_path / name, ROWS[entry.name]))
    assert rows == ROWS[entry.name]
    made = list(prompts(entry, rows))
    assert len({line["id"] for line in made}) == 2 and [line["row"] for line in made] == rows


@every
def test_a_row_without_a_field_is_refused_with_what_it_has(entry: Benchmark, tmp_path: Path):
    with pytest.raises(InvalidInputError, match=f"{entry.name}: .*row 2 has no .*it has 'text'.*rows of {entry.title}"):
        load(entry, write(tmp_path / "other.jsonl", [ROWS[entry.name][0], {"text": "?"}]))


def test_prompts_are_the_data_sets_own_words():
    made = {each.name: next(prompts(each, ROWS[each.name]))["prompt"] for each in BENCHMARKS}
    assert made["alpaca-eval-2"] == "Name two  trees.\n"  # official tools join by it: no space may be lost
    assert [turn["role"] for turn in made["hh-rlhf"]] == ["user", "assistant", "user"]
    assert made["hh-rlhf"][-1]["content"] == "How deep?"
    assert made["math-500"].startswith("What is $\\frac{1}{2}") and made["math-500"].endswith("\\boxed{}.")


def test_a_transcript_that_is_none_is_refused_by_its_row():
    with pytest.raises(InvalidInputError, match=r"hh-rlhf, row 1: its 'chosen' is no transcript"):
        list(prompts(benchmark("hh-rlhf"), [{"chosen": "Human says hi", "rejected": ""}]))


turns = st.lists(st.tuples(st.text("ab c"), st.text("ab c")), min_size=1, max_size=4)


@given(turns)
def test_a_dialogue_keeps_every_turn_but_the_last_answer(pairs: list[tuple[str, str]]):
    text = "".join(f"\n\nHuman: {asked}\n\nAssistant: {told}" for asked, told in pairs)
    flat = [part.strip() for pair in pairs for part in pair]
    assert [turn["content"] for turn in Dialogue("chosen").make({"chosen": text})] == flat[:-1]


def test_rows_are_drawn_the_same_each_time_and_in_their_order(tmp_path: Path):
    entry = benchmark("hh-rlhf")
    rows = [{"chosen": f"\n\nHuman: {n}\n\nAssistant: a", "rejected": "", "n": n} for n in range(2000)]
    path = write(tmp_path / "many.jsonl", rows)
    drawn = [row["n"] for row in load(entry, path)]
    assert len(drawn) == 500 and drawn == sorted(drawn) and drawn == [row["n"] for row in load(entry, path)]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("none.jsonl", None, "no such file"),
        ("empty.jsonl", "", "holds no rows"),
        ("bad.json", "{", "is no JSON"),
        ("one.json", '{"key": 1}', "no JSON list"),
        ("bad.jsonl", "[1]\n", "line 1"),
    ],
)
def test_a_copy_that_cannot_be_read_is_refused(name: str, text: str | None, told: str, tmp_path: Path):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInputError, match=told):
        load(benchmark("ifeval"), str(tmp_path / name))


def test_a_hub_that_cannot_be_reached_says_what_to_do():
    with pytest.raises(InvalidInputError, match=r"google/IFEval cannot be read .*--file ifeval=PATH"):
        load(benchmark("ifeval"))


def test_a_name_that_is_nearly_one_is_asked_about():
    with pytest.raises(InvalidInputError, match="did you mean math-500"):
        benchmark("math500")
    with pytest.raises(InvalidInputError, match="did you mean paper"):
        plans("single,papers")
    with pytest.raises(InvalidInputError, match="twice"):
        plans("bon,bon")


@pytest.mark.parametrize("text", ["single", "bon", "bon@N60", "paper@D5-N20", "revision@D3", "adaptive"])
def test_a_plans_name_is_read_back(text: str):
    assert str(Plan.read(text)) == text


@pytest.mark.parametrize("text", ["single@N3", "bon@D2", "paper@5", "", "paper@D", "@N3"])
def test_what_is_no_plan_is_refused(text: str):
    with pytest.raises(InvalidInputError):
        plans(text)


def test_best_of_n_has_the_papers_candidates_or_its_own_or_the_budgets():
    assert Plan.read("bon").options(5, 2, None)["width"] == 15
    assert Plan.read("bon@N60").options(5, 2, 9000) | {} == {
        "mode": "bon", "plan": None, "width": 60, "depth": None, "fresh": None,
    }  # fmt: skip
    assert Plan.read("bon").options(5, 2, 9000)["plan"] == "adaptive"


@given(st.integers(1, 30), st.integers(0, 6), st.integers(1, 900))
def test_a_forecast_counts_what_the_plan_asks(width: int, depth: int, answer: int):
    config = TPOConfig(width=width, depth=depth)
    found = forecast(["a" * 40] * 3, config, answer)
    assert found.requests == 3 * config.samples and found.scored == 3 * width * (depth + 1)
    assert found.completion_tokens == answer * found.requests and found.prompt_tokens >= 10 * found.requests
