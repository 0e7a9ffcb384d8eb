"""The quickstart notebook runs from top to bottom on the embedded model."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_quickstart.ipynb"


def test_the_quickstart_refines_an_answer_in_all_three_houses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    told = "".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    gain = re.search(r"gain: (-?[\d.e-]+)", told)
    assert gain is not None and float(gain[1]) >= 0
    assert "before:" in told and "after:" in told
    curve = re.search(r"\((-?[\d.]+), (-?[\d.]+)\)", told.rsplit("usage", maxsplit=1)[-1])
    assert curve is not None and float(curve[2]) >= float(curve[1])
