"""What a judge is set up with, checked: an error names the argument before any model is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tpo_core.errors import InvalidInputError
from tpo_core.rewards.calling import is_number

__all__ = ["QUESTION", "check_choices", "check_numbers", "criteria_of"]

QUESTION = "Is the response a good answer to the query?"
"""What is asked where nothing else is."""


def criteria_of(question: str | None, rubric: str | Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
    """Return what is asked about, by head; the head is empty when there is but one thing.

    Raises:
        InvalidInputError: Both are given, or one holds no text.
    """
    if question is not None and rubric is not None:
        raise InvalidInputError("give question or rubric, not both")
    named, given = ("question", question) if rubric is None else ("rubric", rubric)
    if given is None:
        return {"": QUESTION}
    if isinstance(given, str):
        texts = {"": given}
    elif isinstance(given, Mapping):
        texts = dict(given)
    elif isinstance(given, Sequence) and named == "rubric":
        texts = {str(text): text for text in given}
    else:
        raise InvalidInputError(f"{named} must be text, not {type(given).__name__}")
    if not texts or not all(isinstance(t, str) and t.strip() for t in texts.values()):
        raise InvalidInputError(f"{named} must hold text, not {given!r:.80}")
    return texts


def check_choices(mode: Any, logprobs: Any, reference: Any) -> None:
    """Check what is chosen by name.

    Raises:
        InvalidInputError: One of them is something else.
    """
    if mode not in ("pointwise", "pairwise"):
        raise InvalidInputError(f"mode must be 'pointwise' or 'pairwise', not {mode!r}")
    if logprobs not in ("auto", "require", "never"):
        raise InvalidInputError(f"logprobs must be 'auto', 'require' or 'never', not {logprobs!r}")
    if not (reference is None or isinstance(reference, str) or callable(reference)):
        raise InvalidInputError(f"reference must be a text or a function of the pair, not {type(reference).__name__}")


def check_numbers(scale: Any, temperature: Any, **counts: Any) -> None:
    """Check what is given as numbers.

    Raises:
        InvalidInputError: One of them is out of range.
    """
    whole = isinstance(scale, Sequence) and len(scale) == 2 and all(isinstance(s, int) for s in scale)
    if not whole or not 0 <= scale[0] < scale[1]:
        raise InvalidInputError(
            f"scale must be (lowest, highest), two whole numbers with 0 <= lowest < highest, not {scale!r}"
        )
    if temperature is not None and not (is_number(temperature) and temperature >= 0):
        raise InvalidInputError(f"temperature must be None or at least 0, not {temperature!r}")
    for name, count in counts.items():
        if count is not None and not (isinstance(count, int) and count >= 1):
            raise InvalidInputError(f"{name} must be a whole number of at least 1, not {count!r}")
