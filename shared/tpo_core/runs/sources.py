"""The prompts of a run, read one by one from wherever they are: the file never stands in memory as a whole."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tpo_core.errors import InvalidInputError
from tpo_core.prompts.rendering import as_messages
from tpo_core.runs import openai_batch
from tpo_core.runs.items import Item
from tpo_core.runs.rows import Format, Row, rows_of

__all__ = ["Source"]

logger = logging.getLogger(__name__)

_PROMPT_FIELDS = ("prompt", "messages")
_ID_FIELDS = ("custom_id", "id")


class Source(Iterator[Item]):
    """An iterator of the queries of a file, a data set or standard input.

    A line with ``custom_id`` and ``body`` is one of an OpenAI batch, where no field is named for the prompt.

    Args:
        source: A path (``.jsonl``, ``.csv``, ``.tsv``, ``.parquet``), ``-`` for JSON lines on standard input, or the
            name of a data set on the Hugging Face hub or its folder.
        prompt_field: The field with the prompt, text or a list of chat messages; ``prompt`` or ``messages`` by default.
        id_field: The field with the id; by default ``custom_id`` or ``id`` where the first line has one, else the
            line's number.
        format: What the source is, where its name does not tell.
        split: Of a data set.
        skip_bad_lines: Count lines that cannot be used instead of raising.
        system: A system message for prompts that have none.

    Raises:
        InvalidInputError: There is no such source, or, while iterating, a line cannot be used or there is none at all;
            names the line and what to do.

    Example:
        >>> from tempfile import NamedTemporaryFile
        >>> with NamedTemporaryFile("w+", suffix=".csv") as file:
        ...     _ = file.write("question,topic\\nHow do bees sleep?,bees\\n")
        ...     file.flush()
        ...     [item] = Source(file.name, prompt_field="question")
        >>> item.id, item.prompt, item.row["topic"], item.line
        ('2', 'How do bees sleep?', 'bees', 2)
    """

    def __init__(
        self,
        source: str | Path,
        *,
        prompt_field: str | None = None,
        id_field: str | None = None,
        format: Format | None = None,
        split: str = "train",
        skip_bad_lines: bool = False,
        system: str | None = None,
    ) -> None:
        """Find the source; a file is opened at the first step."""
        self.name = "standard input" if str(source) == "-" else str(source)
        self.skipped = 0
        """Lines left out so far, as ``skip_bad_lines`` allows."""
        self._rows = rows_of(source, format, split)
        self._skips, self._system = skip_bad_lines, system
        self._prompt_field, self._id_field = prompt_field, id_field
        self._batch: bool | None = None
        self._first_bad = ""
        self._read = 0

    def __next__(self) -> Item:
        """Return the next query."""
        for line, row in self._rows:
            try:
                item = self._with_system(self._item(row, line))
            except InvalidInputError as error:
                self.refuse(InvalidInputError(f"{self.name}, line {line}: {error}"))
                continue
            self._read += 1
            return item
        if not self._read:
            told = (
                f"not one of its {self.skipped} lines can be used; {self._first_bad}" if self.skipped else "it is empty"
            )
            raise InvalidInputError(f"{self.name} holds no prompts: {told}")
        raise StopIteration

    def refuse(self, error: InvalidInputError) -> None:
        """Count a line that cannot be used where that is allowed, else raise."""
        if not self._skips:
            raise error
        self.skipped += 1
        self._first_bad = self._first_bad or str(error)
        logger.info("left out: %s", error)

    def _item(self, row: Row, line: int) -> Item:
        if isinstance(row, InvalidInputError):
            raise row
        if self._batch is None:
            self._batch = self._prompt_field is None and openai_batch.is_batch_line(row)
            self._id_field = self._id_field or next((name for name in _ID_FIELDS if name in row), None)
        if self._batch:
            return openai_batch.item_of(row, line)
        return Item(self._id(row, line), self._prompt(row), row, line)

    def _with_system(self, item: Item) -> Item:
        messages = as_messages(item.prompt)
        if self._system is None or any(message.get("role") == "system" for message in messages):
            return item
        return replace(item, prompt=[{"role": "system", "content": self._system}, *messages])

    def _prompt(self, row: Mapping[str, Any]) -> Any:
        names = _PROMPT_FIELDS if self._prompt_field is None else (self._prompt_field,)
        name = next((name for name in names if name in row), None)
        if name is None:
            raise InvalidInputError(
                f"it has no field {' or '.join(map(repr, names))}; its fields are {', '.join(map(repr, row))}: "
                "name the one with the prompt"
            )
        prompt = row[name]
        if not isinstance(prompt, (str, list)):
            raise InvalidInputError(f"its {name!r} is {prompt!r:.80}; a prompt is text or a list of chat messages")
        return prompt

    def _id(self, row: Mapping[str, Any], line: int) -> str:
        if self._id_field is None:
            return str(line)
        id = row.get(self._id_field)
        if isinstance(id, bool) or not isinstance(id, (str, int)) or id == "":
            raise InvalidInputError(f"its id, {self._id_field!r}, is {id!r:.80}; give each line a text or a number")
        return str(id)
