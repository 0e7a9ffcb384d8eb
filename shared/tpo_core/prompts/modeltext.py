"""What a language model wrote, taken apart: the answer after its reasoning, JSON in it, its words.

A model's text is of any length and any form, and it is read while others wait: everything here takes time linear in it.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["after_reasoning", "pieces", "read_json", "trim", "without_reasoning"]

_REASONING = {"<think>": "</think>", "<thinking>": "</thinking>"}
_VISIBLE = re.compile(r"\S")
_PIECE = re.compile(r"\s+\S*|\S+")
_DECODER = json.JSONDecoder(strict=False)  # models write line breaks into strings
# A string, which may be unfinished, or a bracket. Each part takes all it can, so nothing is looked at twice.
_STRUCTURE = re.compile(r'(?P<open>")[^"\\]*(?:\\(?:.|\Z)[^"\\]*)*(?P<mark>"|\Z)|[][{}]', re.DOTALL)


def after_reasoning(text: str) -> str | None:
    r"""Return the answer in what a reasoning model wrote: the text itself where there is no reasoning before it.

    Reasoning is what leading ``<think>`` or ``<thinking>`` tags hold; or, where the chat template has opened it, what
    stands before a first ``</think>`` on a line of its own. Tags elsewhere are an answer's own.

    Returns:
        The answer, without blank lines before it; None where the reasoning never ends.

    Example:
        >>> after_reasoning("<think>6 x 7?</think>\n42"), after_reasoning("6 x 7?\n</think>\n\n42")
        ('42', '42')
        >>> after_reasoning("End it with </think> and go on.")
        'End it with </think> and go on.'
    """
    if "think" not in text:
        return text
    at = 0
    while tag := next((t for t in _REASONING if text.startswith(t, _visible(text, at))), None):
        end = text.find(_REASONING[tag], at)
        if end < 0:
            return None
        at = end + len(_REASONING[tag])
    return _behind(text, at) if at else _after_closing(text)


def without_reasoning(text: str) -> str:
    """Return a text without the reasoning before it; all of it where the reasoning never ends."""
    answer = after_reasoning(text)
    return text if answer is None else answer


def trim(text: str) -> str:
    """Drop blank lines and spaces around a text, but not the indentation of its first line of several."""
    text = text.rstrip()
    if "\n" not in text:
        return text.lstrip()
    text = text[text.rfind("\n", 0, _visible(text, 0)) + 1 :]
    return text if "\n" in text else text.lstrip()


def read_json(text: str) -> Any:
    r"""Read JSON as models write it: alone or in a Markdown fence, with remarks after it, its last brackets missing.

    Raises:
        JSONDecodeError: There is none.

    Example:
        >>> read_json('Here it is:\n```json\n{"answer": [4, 2]\n```')
        {'answer': [4, 2]}
    """
    fenced = text.partition("```")[2].removeprefix("json")
    bodies = [body.strip(" \n\r\t`") for body in (text, fenced, fenced.rpartition("\n```")[0])]
    error: Exception | None = None
    for body in (*bodies, *map(_closed, bodies)):
        try:
            return _DECODER.raw_decode(body)[0]
        except (ValueError, RecursionError) as failure:  # also what is nested too deep, and numbers too long
            error = error or failure
    if isinstance(error, json.JSONDecodeError):
        raise error
    raise json.JSONDecodeError(f"no JSON that can be read ({error})", "", 0) from error


def pieces(text: str) -> list[str]:
    """Split a text into words, each with the white space before it; that at the end goes with the last word."""
    found = _PIECE.findall(text)
    return [*found[:-2], "".join(found[-2:])] if found[-1:] and found[-1].isspace() else found


def _closed(text: str) -> str:
    """Add what a JSON text lacks at its end: a quotation mark, brackets."""
    still: list[str] = []
    for match in _STRUCTURE.finditer(text):
        if match["open"] is not None:
            text = text if match["mark"] else text.removesuffix("\\") + '"'
        elif match[0] in "[{":
            still.append("]" if match[0] == "[" else "}")
        elif still:
            still.pop()
    return text + "".join(reversed(still))


def _after_closing(text: str) -> str:
    for opening, closing in _REASONING.items():
        before, found, after = text.partition(closing)
        if found and opening not in before and _ends_line(before) and _starts_line(after):
            return _behind(text, len(text) - len(after))
    return text


def _ends_line(text: str) -> bool:
    rest = text.rstrip(" \t")
    return not rest or rest.endswith("\n")


def _starts_line(text: str) -> bool:
    rest = text.lstrip(" \t\r")
    return not rest or rest.startswith("\n")


def _visible(text: str, at: int) -> int:
    found = _VISIBLE.search(text, at)
    return found.start() if found else len(text)


def _behind(text: str, at: int) -> str:
    """Return what follows, without blank lines before it; the rest of the same line without its indentation."""
    first = _visible(text, at)
    line = text.rfind("\n", at, first)
    return text[first if line < 0 else line + 1 :]
