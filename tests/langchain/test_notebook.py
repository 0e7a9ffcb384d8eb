"""The notebook runs from top to bottom, shows a gain, and calls its tool once."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "03_langchain.ipynb"


def test_the_notebook_runs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = "\n".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs)
    for words in ("gain: 2.0", "tpo:stopped", "Advice(steps=['Wipe it with a damp cloth.'", "called for ['Berlin']"):
        assert words in shown
    assert not any(output.output_type == "error" for output in outputs)
