"""The recipes for the paper's policies: what can be checked of them where there are no weights."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from benchmark_rows import ROWS
from jinja2.sandbox import ImmutableSandboxedEnvironment
from scripts import script

from tpo_core.cli.main import _parser, main
from tpo_core.report.cost import parameters
from tpo_core.rewards.families import find_family
from tpo_core.studies.benchmarks.entries import benchmark
from tpo_core.studies.benchmarks.plans import plans

ROOT = Path(__file__).parents[2]
POLICIES = {
    "tulu-3-70b-sft": "allenai/Llama-3.1-Tulu-3-70B-SFT",
    "llama-3.1-70b-instruct": "meta-llama/Llama-3.1-70B-Instruct",
    "llama-3.1-70b-dpo": "./Llama-3.1-70B-DPO",
    "mistral-small-2409": "mistralai/Mistral-Small-Instruct-2409",
}


@pytest.fixture(scope="module")
def made() -> ModuleType:
    return script("recipes")


@pytest.fixture(params=POLICIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def recipe(made: ModuleType, name: str) -> dict[str, Any]:
    found: dict[str, Any] = made.recipes()[name]
    return found


def commands(value: Any) -> Iterator[str]:
    """Yield every line that begins with ``tpo``, wherever it stands."""
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]:
        if isinstance(each, dict | list):
            yield from commands(each)
        elif str(each).startswith("tpo "):
            yield str(each)


def parsed(line: str) -> argparse.Namespace:
    words = shlex.split(line)[1:]
    return _parser(words).parse_args(words)


def test_there_is_a_recipe_for_each_policy_of_the_paper(made: ModuleType) -> None:
    assert {name: recipe["policy"]["model"] for name, recipe in made.recipes().items()} == POLICIES


def test_the_lines_that_run_it_have_options_that_exist(recipe: dict[str, Any]) -> None:
    assert len([parsed(line) for line in commands(recipe)]) >= 4
    for args in (parsed(line) for line in recipe["runs"].values()):
        assert args.model == recipe["policy"]["model"]
        assert (args.temperature, args.top_p, args.max_response_tokens) == (0.7, 0.95, 2048)
        assert [plan.partition("@")[2] or plan for plan in args.plans.split(",")] == recipe["plans"]


def test_the_benchmarks_and_plans_of_its_lines_exist(made: ModuleType, recipe: dict[str, Any]) -> None:
    for line in recipe["runs"].values():
        args = parsed(line)
        assert {each: benchmark(each).count for each in args.names} == made.QUERIES
        assert [(plan.depth, plan.width) for plan in plans(args.plans)][1:] == [
            tuple(int(part[1:]) for part in plan.split("-")) for plan in recipe["plans"][1:]
        ]


def test_its_line_counts_what_it_will_ask(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two queries of each benchmark; the hub is not asked where a file is given."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(recipe["runs"]["served_reward"])[1:]
    names = [name for name in words if name in ROWS]
    for name in names:
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[name]))
        words += ["--file", f"{name}={name}.jsonl"]
    assert main([*words, "--dry-run"]) == 0
    requests = {"single": 1, "D2-N5": 5 + 2 * 7, "D5-N20": 20 + 5 * 22}
    expected = 2 * len(names) * sum(requests[plan] for plan in recipe["plans"])
    assert f"{expected:,} requests and about" in capsys.readouterr().out


def test_servers_serve_what_its_lines_ask(recipe: dict[str, Any]) -> None:
    for cards, machine in recipe["machines"].items():
        for server, parallel in (("vllm", "--tensor-parallel-size"), ("sglang", "--tp")):
            words = shlex.split(machine[server])
            assert recipe["policy"]["model"] in words
            assert words[words.index(parallel) + 1] == str(cards)
            assert words[words.index("--port") + 1] == "8000"
            assert str(machine["memory_share"]) in words
            assert ("--quantization" in words) == (machine["weights"] == "4-bit")
    assert all("--api-base http://127.0.0.1:8000/v1" in line for line in recipe["runs"].values())
    assert f"vllm serve {recipe['reward']['model']} --runner pooling" in recipe["served_reward"]
    assert "--reward http://127.0.0.1:8100" in recipe["runs"]["served_reward"]
    assert f"--reward {recipe['reward']['model']}" in recipe["runs"]["local_reward"]


def test_its_reward_models_are_of_known_families(recipe: dict[str, Any]) -> None:
    assert find_family(recipe["reward"]["model"]).name == "FsfairX"
    assert find_family(recipe["reward"]["also"]).name == "Tulu 3 RM"


def test_what_it_optimises_is_not_what_is_held_out(recipe: dict[str, Any]) -> None:
    args = parsed(recipe["scores"]["held_out"])
    assert args.gold == recipe["reward"]["also"] != recipe["reward"]["model"]
    assert parameters(args.policy_params) == recipe["policy"]["parameters"]
    assert {shlex.split(line)[3] for line in commands(recipe["scores"])} == {args.output}


def test_wildguard_is_shown_what_it_was_trained_on() -> None:
    """The marks of its own code (allenai/wildguard, utils.py)."""
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)  # as transformers renders
    shown = template.from_string((ROOT / "recipes" / "wildguard.jinja").read_text())
    text = shown.render(bos_token="<s>", messages=[{"role": "user", "content": "[INST] Is it? [/INST]"}])
    assert text == "<s><|user|>\n[INST] Is it? [/INST]\n<|assistant|>\n"


def test_its_hours_are_those_of_the_formula(made: ModuleType, recipe: dict[str, Any]) -> None:
    found = {plan: [round(made.hours(recipe, cards, plan), 2) for cards in (8, 1)] for plan in recipe["plans"]}
    assert recipe["hours"] == found


def test_its_paper_numbers_are_the_page_s(recipe: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "paper.md").read_text()
    for name, row in recipe["paper"].items():
        if name != "columns":
            assert f"| {' | '.join(map(str, row))} |" in page


def test_the_page_shows_the_table_and_a_recipe_as_it_is(made: ModuleType) -> None:
    page = (ROOT / "docs" / "recipes.md").read_text()
    recipe = made.recipes()["tulu-3-70b-sft"]
    assert made.table() in page
    shown = " ".join(page.replace("\\\n", " ").split())
    lines = (recipe["machines"][8]["vllm"], recipe["served_reward"], recipe["runs"]["served_reward"])
    for line in (*lines, *recipe["scores"].values()):
        assert " ".join(line.split()) in shown
    assert all(f"`recipes/{name}.yaml`" in page for name in POLICIES)


def test_its_arithmetic_counts_a_query_as_the_page_on_cost_does(made: ModuleType) -> None:
    """Of D2-N5: 5,200 prompt and 6,600 completion tokens, 15 candidates scored."""
    recipe = made.recipes()["tulu-3-70b-sft"]
    policy, machine, card = recipe["policy"], recipe["machines"][8], made.Card()
    share = made.EFFICIENCY
    seconds = 6600 / (share * made.written(policy, machine, 8, card))
    seconds += 2 * 70.6e9 * 5200 / (share * 8 * card.operations)
    seconds += 2 * 7.5e9 * 15 * 600 / (share * card.operations)
    assert made.hours(recipe, 8, "D2-N5") == pytest.approx(3455 * seconds / 3600)
