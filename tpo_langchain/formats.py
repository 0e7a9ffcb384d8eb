"""The format that an updated text must have, where it becomes data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

__all__ = ["format_asked", "format_like"]


def format_asked(steps: Sequence[Any]) -> str:
    """Return what the first parser among a chain's steps says of the format it reads; nothing where none does."""
    for step in steps:
        asked = getattr(step, "get_format_instructions", None)
        if asked is not None:
            try:
                return str(asked())
            except NotImplementedError:  # it reads any text
                return ""
    return ""


def format_like(value: Any) -> str:
    """Return the format of data like this; nothing for text and messages."""
    if isinstance(value, BaseModel) and not hasattr(value, "content"):
        return f"Write JSON that fits this schema:\n{json.dumps(type(value).model_json_schema())}"
    if isinstance(value, dict) and "messages" not in value:
        return f"Write a JSON object with the keys {', '.join(map(str, value))}."
    return "Write a JSON array." if isinstance(value, list) else ""
