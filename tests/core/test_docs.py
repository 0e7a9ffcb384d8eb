"""Every Python block of the README and the docs runs, in order, in one namespace a file.

Blocks fenced as ``python no-run`` need a model, a key or a server of the reader's own; they are only compiled.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import get_args

import dspy
import pytest
from langsmith import run_trees, utils
from scripts import script

from langsmith_server import LangSmithServer
from tpo_core.trajectory import StopReason
from tpo_core.values import FailureReason

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python(?P<no_run> no-run)?\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = [
    "cache_keys",
    "cli.live",
    "config",
    "drivers.adaptive",
    "pace",
    "values",
    "prompts.control_tokens",
    "prompts.rendering",
    "prompts.reading",
    "trajectory",
    "report.caveats",
    "report.cost",
    "report.entries",
    "report.histograms",
    "report.figures",
    "report.moments",
    "report.summary",
    "report.text",
    "studies.benchmarks.against",
    "studies.benchmarks.entries",
    "studies.benchmarks.forecast",
    "studies.benchmarks.official",
    "studies.benchmarks.plans",
    "studies.checking",
    "studies.intervals",
    "testing",
    "models.litellm_chat",
    "models.refusals",
    "rewards.base",
    "rewards.verifiable.code",
    "rewards.verifiable.schema",
    "rewards.verifiable.translation",
    "runs.items",
    "runs.metering",
    "runs.ray.carried",
    "runs.reader",
    "runs.sources",
    "runs.store",
]


@pytest.fixture
def langsmith(monkeypatch):
    """Let the environment name a LangSmith on this machine, and see that feedback has come at the end."""
    with LangSmithServer() as server:
        for name, value in (("TRACING", "true"), ("ENDPOINT", server.url), ("API_KEY", "none")):
            monkeypatch.setenv(f"LANGSMITH_{name}", value)
        monkeypatch.setattr(run_trees, "_CLIENT", None)
        utils.get_env_var.cache_clear()
        yield server
        run_trees.get_cached_client().cleanup()
        assert {f["key"] for f in server.feedback} == {"tpo_reward", "tpo_initial_reward", "tpo_gain"}
    monkeypatch.undo()
    utils.get_env_var.cache_clear()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_examples_of_a_page_run(page, monkeypatch, tmp_path, loopback, request):
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):  # what the pages call gpt-4o-mini answers on this machine
        monkeypatch.setenv(name, loopback().url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    text = page.read_text()
    if "LANGSMITH_TRACING" in text:
        request.getfixturevalue("langsmith")
    namespace: dict[str, object] = {"__name__": "__main__"}
    lm = dspy.settings.lm
    try:
        for block in BLOCK.finditer(text):
            line = text[: block.start()].count("\n") + 1
            code = compile("\n" * line + block["code"], str(page), "exec", dont_inherit=True)
            if not block["no_run"]:
                exec(code, namespace)
    finally:
        dspy.configure(lm=lm)


@pytest.mark.parametrize("names", [StopReason, FailureReason], ids=["stop reasons", "failures"])
def test_the_page_on_what_does_not_help_knows_every_reason(names):
    page = (ROOT / "docs" / "when-it-does-not-help.md").read_text()
    assert [name for name in get_args(names) if f"\n| `{name}` |" not in page] == []


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_docstrings_are_true(module):
    assert doctest.testmod(import_module(f"tpo_core.{module}")).failed == 0


def test_files_that_the_documents_name_are_there():
    named = re.compile(r"`(?:python )?((?:tests|benchmarks|notebooks|shared|tpo_\w+)/[\w./-]+\.(?:py|ipynb))")
    pages = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    lost = [
        (page.name, path) for page in pages for path in named.findall(page.read_text()) if not (ROOT / path).exists()
    ]
    assert lost == []


IMPORTS = """
import runpy, sys
before, own = list(sys.path), set(sys.argv[2].split())
for path in sys.argv[3:]:
    sys.path[:] = [sys.argv[1], *before[1:]]
    for name in own & set(sys.modules):  # each must find them by itself
        del sys.modules[name]
    runpy.run_path(path, run_name="imported")
"""


def test_benchmarks_find_all_that_they_are_made_of():
    folder = ROOT / "benchmarks"
    own = {path.stem for path in [*folder.glob("*.py"), *(ROOT / "tests" / "helpers").glob("*.py")]}
    paths = map(str, sorted(folder.glob("*.py")))
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": f"{ROOT}:{ROOT / 'shared'}"}
    command = [sys.executable, "-c", IMPORTS, str(folder), " ".join(own), *paths]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_tables_of_results_are_made_from_the_stored_answers() -> None:
    real_policy = script("real_policy")
    page = (ROOT / "docs" / "results.md").read_text()
    results = sorted((ROOT / "benchmarks" / "results").glob("ifeval-*.xz"))
    tables = [real_policy.table(path, markdown=True) for path in results]
    assert len(tables) == 2 and all(made in page for made in tables)
    assert tables[0] in (ROOT / "README.md").read_text()


def test_the_table_of_attacks_is_made_from_the_stored_answers() -> None:
    [path] = (ROOT / "benchmarks" / "results").glob("injection-*.xz")
    assert script("injection").table(path) in (ROOT / "docs" / "security.md").read_text()


def test_the_tests_that_hold_promises_are_there() -> None:
    named = re.findall(r"`(tests/[\w./]+\.py)::(\w+)`", (ROOT / "docs" / "security.md").read_text())
    assert len(named) > 12
    for path, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path}::{name}"
