"""Worked examples and settings that help a very small policy to follow the engine's prompts.

Without them the embedded model answers the critique's prompt with another answer, and 12 of 15 updates never end; with
them all 15 are candidates. Larger models need none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tpo_core.loop.effects import Task
from tpo_core.prompts.rendering import fence

__all__ = ["DEMOS", "SAMPLING"]

_QUERY = fence("How do I keep cut flowers fresh?", "query")
_WORSE = fence("Flowers are lovely and many people enjoy them. Some are red and some are yellow.")
_BETTER = fence("Trim the stems and put the flowers in clean water. Keep the vase out of the sun.")
_LOSS = (
    "The chosen response gives clear steps that answer the question. The rejected response only says that flowers are "
    "lovely and gives no advice. The chosen response does not say how often to change the water or how to trim the "
    "stems."
)
_GRADIENT = (
    "- Keep the clear steps.\n- Say how to trim the stems.\n- Say how often to change the water.\n- Keep it short."
)
_UPDATE = (
    "Trim the stems at an angle and put the flowers in clean water. Change the water every two days. Keep the vase out "
    "of the sun and away from heat."
)

DEMOS: Mapping[Task, Sequence[Mapping[str, Any]]] = {
    "loss": [
        {"query": _QUERY, "chosen_response": _BETTER, "rejected_response": _WORSE, "textual_loss": _LOSS},
    ],
    "gradient": [
        {
            "query": _QUERY,
            "chosen_response": _BETTER,
            "critique": fence(_LOSS, "critique"),
            "textual_gradient": _GRADIENT,
        }
    ],
    "update": [
        {
            "query": _QUERY,
            "chosen_response": _BETTER,
            "editing_instructions": fence(_GRADIENT, "instructions"),
            "improved_response": _UPDATE,
        }
    ],
}
"""One example for each prompt, for ``ChatPolicy(demos=...)``."""

SAMPLING: Mapping[str, Any] = {"repeat_penalty": 1.05, "dry_multiplier": 0.8, "dry_penalty_last_n": 64}
"""For ``LocalChat(sampling=...)``: left to itself, so small a model ends in a loop and repeats a sentence until its
tokens are used up."""
