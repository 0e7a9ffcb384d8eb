"""The house itself: what it exports, what it imports, and which way its arrows run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grimp
import pytest

import tpo_core
import tpo_core.report
import tpo_core.rewards
import tpo_core.runs

ROOT = Path(__file__).parents[2]
PACKAGES = ("tpo_core", "tpo_litellm", "tpo_otel", "tpo_dspy", "tpo_langchain")

TRACING = {"opentelemetry", "mlflow", "tpo_otel"}


def loaded(statement: str) -> set[str]:
    program = f"import sys; {statement}; print(*{{m.split('.')[0] for m in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize("module", [tpo_core, tpo_core.report, tpo_core.rewards, tpo_core.runs])
def test_everything_exported_exists_and_is_listed(module):
    assert list(module.__all__) == sorted(module.__all__)
    assert all(getattr(module, name) is not None for name in module.__all__)
    assert set(module.__all__) <= set(dir(module))


def test_the_public_names_of_the_engine():
    assert {"TPOConfig", "Trajectory", "Candidate", "run", "arun"} <= set(tpo_core.__all__)
    assert {
        "RewardModel",
        "FunctionReward",
        "JudgeReward",
        "HFRewardModel",
        "RemoteRewardModel",
        "EnsembleReward",
    } <= set(tpo_core.rewards.__all__)


@pytest.mark.parametrize("statement", ["import tpo_core", "from tpo_core import run", "import tpo_core.rewards"])
def test_importing_the_engine_pulls_no_heavy_library(statement):
    heavy = {"torch", "transformers", "litellm", "xllamacpp", "langchain_core", "matplotlib", "openai"} | TRACING
    assert not heavy & loaded(statement)


def test_importing_what_a_run_is_made_of_pulls_only_what_it_reads_with():
    heavy = {"torch", "transformers", "litellm", "dspy", "pyarrow", "datasets", "numpy", "rich"}
    assert not heavy & loaded("import tpo_core.runs")


def test_importing_the_langchain_face_does_not_pull_langchain_itself():
    assert not {"torch", "transformers", "litellm", "langchain", "langgraph", "mlflow", "tpo_otel"} & loaded(
        "import tpo_langchain"
    )


def test_importing_the_dspy_face_does_not_pull_langchain():
    assert not {"torch", "transformers", "litellm", "langchain_core", *TRACING} & loaded("import tpo_dspy")


def test_the_arrows_run_one_way():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--config", ROOT / "pyproject.toml"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "shared").rglob("*.py")), ids=lambda p: p.name)
def test_library_code_never_asks_for_trust_or_pickles(path):
    source = path.read_text()
    assert "import pickle" not in source
    assert "asyncio.run(" not in source or path.parent.name == "cli"  # a command has the process to itself


def test_no_module_imports_itself_by_way_of_others_and_the_engine_has_at_most_20_rooms():
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert not list(_circles(imported))
    assert len(graph.find_children("tpo_core")) <= 20


def _circles(imported):
    """Yield modules that take part in circles: what is left once those that import nothing left are taken away."""
    left = dict(imported)
    while free := [module for module, others in left.items() if not others & left.keys()]:
        for module in free:
            del left[module]
    yield from left
