"""The notebook runs from top to bottom; the model behind it is a scripted one on loopback."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from loopback import LoopbackServer

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "02_dspy.ipynb"
HINT = "Use short words and give an example."
STIFF = ["fundamentally", "electromagnetic", "phenomenon", "wavelengths", "particularly", "molecules", "atmosphere"]
PLAIN = ["light", "air", "small", "bits", "bounce", "more", "blue", "sun", "eyes", "see", "sky", "far"]


def written(request: dict[str, Any], number: int) -> str:
    """Write better where the prompt says how: stiff words become plain ones, and an example is added."""
    prompt = "\n".join(str(message["content"]) for message in request["messages"])
    if "new_instruction" in prompt:
        return '{"new_instruction": "' + HINT + '"}'
    draw = random.Random(number)
    hints = (HINT in prompt) + prompt.count("shorter words") + draw.random()
    if "improved_answer" in prompt:
        return sentence(draw, 1 + hints)
    if "textual_gradient" in prompt:
        return "Use shorter words. Add an example. " * (1 + (HINT in prompt))
    if "textual_loss" in prompt:
        return "The chosen answer has fewer long words. Neither has an example that a child would know."
    return (
        f"[[ ## reasoning ## ]]\nA child asks.\n\n[[ ## answer ## ]]\n{sentence(draw, hints)}\n\n[[ ## completed ## ]]"
    )


def sentence(draw: random.Random, skill: float) -> str:
    stiff = max(0, 7 - round(2 * skill) - draw.randint(0, 2))
    words = draw.sample(STIFF, stiff) + draw.sample(PLAIN, 12 - stiff)
    draw.shuffle(words)
    return "It is " + " ".join(words) + (". For example, look at a cup." if draw.random() < skill / 4 else ".")


def test_the_notebook_runs_and_its_plots_are_drawn(
    loopback: Callable[..., LoopbackServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.setenv(name, loopback(answer=written).url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.delenv("TPO_MODEL", raising=False)
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert any(HINT in output.get("text", "") for output in outputs)
    assert (tmp_path / "tuned.json").exists()
