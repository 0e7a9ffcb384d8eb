"""One query of a run as it was read: its id, its prompt, and the row it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tpo_core.errors import InvalidInputError
from tpo_core.prompts.rendering import show_query
from tpo_core.records import repr_without_texts
from tpo_core.values import Prompt

__all__ = ["Item", "decode", "encode"]


@dataclass(frozen=True)
class Item:
    """One thing to answer.

    Raises:
        InvalidInputError: The id or the prompt is empty or no text, or the prompt is no list of chat messages either.

    Example:
        >>> Item("a", "How do bees sleep?").sampling
        {}
    """

    id: str
    """Unlike any other of the run."""
    prompt: Prompt
    """Text, or chat messages."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """The row as it was read, in JSON's types; for the export."""
    line: int = 0
    """Which line of the file it began on, or which row; from 1. 0 for none."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``TPOConfig`` that this query sets for itself, as an OpenAI batch line may."""
    model: str | None = None
    """The model that an OpenAI batch line names."""

    __repr__ = repr_without_texts("id", "sampling", "model")

    def __post_init__(self) -> None:
        """Refuse what no loop, server or file would take."""
        if not isinstance(self.id, str) or not self.id:
            raise InvalidInputError(f"the id is {self.id!r}; give each query a text of its own")
        show_query(self.prompt)
        try:
            encode([self.id, self.prompt]).decode()
        except (UnicodeDecodeError, TypeError, ValueError) as error:
            what = "a lone surrogate" if isinstance(error, UnicodeDecodeError) else "what JSON cannot"
            raise InvalidInputError(f"the id or the prompt holds {what}, which no server takes") from error

    @property
    def hash(self) -> bytes:
        """Return what tells this query from another with the same id: a hash of all that decides its answer."""
        asked = json.dumps([self.prompt, dict(self.sampling), self.model], sort_keys=True, default=dict)
        return hashlib.blake2b(asked.encode(), digest_size=16).digest()

    def to_bytes(self) -> bytes:
        """Return what ``from_bytes`` reads, less the id and the line."""
        return encode({"prompt": self.prompt, "row": self.row, "sampling": self.sampling, "model": self.model})

    @classmethod
    def from_bytes(cls, id: str, line: int, data: bytes) -> Item:
        """Rebuild an item."""
        return cls(id, line=line, **decode(data))


def encode(data: Any) -> bytes:
    r"""Write JSON as bytes that ``decode`` reads back exactly: lone surrogates, NaN and infinities included.

    Example:
        >>> decode(encode({"text": "\ud83d"})) == {"text": "\ud83d"}
        True
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), default=dict)
    return text.encode("utf-8", "surrogatepass")  # with \u escapes, two lone surrogates would be read as one character


def decode(data: bytes) -> Any:
    """Read what ``encode`` wrote."""
    return json.loads(data.decode("utf-8", "surrogatepass"))
