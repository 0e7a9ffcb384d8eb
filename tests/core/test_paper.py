"""The page and the notebook that stand beside the paper show what the stored answers say."""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbclient import NotebookClient
from scripts import script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def numbers() -> ModuleType:
    return script("paper_numbers")


def test_the_tables_beside_the_paper_are_made_from_the_stored_answers(numbers: ModuleType) -> None:
    page = (ROOT / "docs" / "paper.md").read_text()
    assert [name for name, table in numbers.tables().items() if table not in page] == []


@pytest.mark.parametrize("width", [1, 2, 3, 6])
def test_the_expected_best_is_the_mean_over_all_draws(numbers: ModuleType, width: int) -> None:
    for rewards in (each for count in (1, 2, 4) for each in product(range(-1, 3), repeat=count)):
        draws = [max(draw) for draw in combinations(rewards, min(width, len(rewards)))]
        assert numbers.expected_best(rewards, width) == pytest.approx(sum(draws) / len(draws))


def test_the_notebook_draws_every_figure_that_the_page_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPLBACKEND", raising=False)
    file = ROOT / "notebooks" / "04_paper.ipynb"
    notebook = nbformat.read(file, as_version=4)  # type: ignore[no-untyped-call]
    stored = [[sorted(o.get("data", {})) for o in cell.get("outputs", [])] for cell in notebook.cells]
    NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": file.parent}}
    ).execute()
    drawn = [[sorted(o.get("data", {})) for o in cell.get("outputs", [])] for cell in notebook.cells]
    assert drawn == stored
    shown = sorted((ROOT / "docs" / "images").glob("paper-*.png"))
    assert str(drawn).count("image/png") == len(shown) > 0
    page = (ROOT / "docs" / "paper.md").read_text()
    assert [image.name for image in shown if f"(images/{image.name})" not in page] == []
