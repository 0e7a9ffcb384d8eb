"""The loop's prompts, tuned in DSPy and used here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tpo_core import InvalidInputError
from tpo_core.prompts.signatures import TextualGradient, TextualLoss, Update
from tpo_langchain.roles import TunedPrompt

__all__ = ["load_prompts"]

_SIGNATURES: dict[str, Any] = {"loss": TextualLoss, "gradient": TextualGradient, "update": Update}
_TASK = "\n\nThe task that the response must fulfil:"  # what tpo_dspy adds of the program around which it was tuned


def load_prompts(path: str | Path, *, module: str | None = None) -> dict[str, TunedPrompt]:
    """Read the prompts of a ``tpo_dspy.TPO`` that DSPy's optimizers tuned, from the JSON that ``save`` wrote.

    Instructions and worked examples are taken; what the prompts said about the DSPy program's own task is not.

    Args:
        path: The file.
        module: Where the TPO stands inside the saved program, such as ``answer.refined``, if there are several.

    Returns:
        For ``RunnableTPO(prompts=...)``: a prompt for each of ``loss``, ``gradient`` and ``update`` that is there.

    Raises:
        InvalidInputError: The file cannot be read, or holds no such prompts, or those of several modules.
    """
    state = _state(Path(path))
    found: dict[str, dict[str, TunedPrompt]] = {}
    for name, kept in state.items():
        place, _, task = name.rpartition(".")
        if task in _SIGNATURES and isinstance(kept, Mapping) and "signature" in kept:
            found.setdefault(place, {})[task] = _prompt(task, kept)
    if module is not None:
        found = {place: prompts for place, prompts in found.items() if place == module}
    if not found:
        raise InvalidInputError(f"path: {path} has no predictors whose names end in loss, gradient or update")
    if len(found) > 1:
        raise InvalidInputError(f"module is needed: {path} has the prompts of {', '.join(sorted(found))}")
    [prompts] = found.values()
    return prompts


def _state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(f"path: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInputError(f"path: {path} is not JSON; save the program with program.save('name.json')") from error
    if not isinstance(state, dict):
        raise InvalidInputError(f"path: {path} is not the state of a DSPy program")
    return state


def _prompt(task: str, kept: Mapping[str, Any]) -> TunedPrompt:
    instructions = str(kept["signature"].get("instructions") or _SIGNATURES[task].instructions)
    demos = (_demo(_SIGNATURES[task], demo) for demo in kept.get("demos") or ())
    return TunedPrompt(instructions.split(_TASK)[0], tuple(demo for demo in demos if demo))


def _demo(signature: Any, demo: Mapping[str, Any]) -> dict[str, str]:
    """Return a worked example in this prompt's own field names; DSPy's update is named after the program's fields."""
    inputs = {name: str(demo[name]) for name in signature.input_fields if name in demo}
    outputs = [str(v) for k, v in demo.items() if k not in inputs and k not in ("augmented", "reasoning") and v]
    [output] = signature.output_fields
    return {**inputs, output: "\n\n".join(outputs)} if outputs else {}
