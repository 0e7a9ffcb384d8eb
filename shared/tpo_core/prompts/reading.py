"""A completion back to its text, and whether that can be a candidate.

Reading is lenient, so that weak policies get through: with one output field, what stands inside markers if there are
any, else the whole completion. And it keeps what it is not sure of: an answer loses no word of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tpo_core.prompts.modeltext import after_reasoning, trim, without_reasoning
from tpo_core.prompts.sections import form_of, unannounced, unecho
from tpo_core.values import Failure

if TYPE_CHECKING:
    import dspy

    from tpo_core.prompts.signatures import Signature

__all__ = ["read", "refuse", "unecho"]

_HEADER = re.compile(r"^[ \t]*\[\[ ## (\w+) ## \]\][ \t]*", re.MULTILINE)
# What prompts put where the answer belongs, in brackets: the name of a field, or words for it
_BLANK = re.compile(
    r"improved_\w+|textual[ _](?:loss|gradient)|(?:(?:the|your) )?(?:response|answer)(?: here)?|"
    r"(?:(?:the|your|an?|improved|rewritten|revised|new|better|final)[ _])+(?:response|answer|variable|text)(?: here)?",
    re.IGNORECASE,
)
_BRACKETS = {"{": "}", "[": "]", "<": ">"}
_DRESS = " \t\r\n\"'`*_:.…"  # quotes, markdown and dots


def read(signature: Signature | type[dspy.Signature], completion: str, inputs: Mapping[str, Any] | None = None) -> str:
    """Read a completion leniently: what stands inside the output field's markers, else all of it.

    Markers are ``[[ ## field ## ]]`` headings and ``<field>`` tags; a missing end marker is forgiven. Reasoning before
    the answer is dropped.

    Args:
        signature: What was asked for: one output field.
        completion: What the model wrote.
        inputs: What its prompt showed, to drop what is repeated of it, and what only announces a rewritten response;
            see ``unecho`` and ``unannounced``.
    """
    form, whole = form_of(signature), without_reasoning(completion)
    marked = _in_tags(_under_heading(whole, form.output), form.output)
    text = trim(whole if marked is whole else without_reasoning(marked))
    if inputs and "editing_instructions" in inputs:  # the text is a rewritten response
        text = unannounced(text, str(inputs.get("chosen_response", "")))
    return unecho(text, inputs, (form.ask, form.instructions)) if inputs else text


def refuse(text: str, finish_reason: str | None = None) -> Failure | None:
    """Return why a text cannot be a candidate: unfinished, empty, or a blank of the prompt. None when it can.

    Short answers are answers: a sign, a number, one word. Only what stands for an answer in prompts is a placeholder.
    """
    if finish_reason == "length":
        return Failure("length", "cut off at the response's token limit; raise max_response_tokens")
    if finish_reason == "content_filter":
        return Failure("content_filter", "withheld by the provider's content filter")
    answer = after_reasoning(text)
    if answer is None:
        return Failure("empty", "the response is reasoning that never ends; raise max_response_tokens")
    if not answer.strip():
        return Failure("empty", "the response is empty")
    if _is_placeholder(answer):
        return Failure("placeholder", f"the response is only a placeholder: {answer.strip()!r:.80}")
    return None


def _under_heading(text: str, output: str) -> str:
    """Return what stands under the output's heading, or before a heading that says the end."""
    headers = list(_HEADER.finditer(text)) if "[[ ## " in text else []
    for place, header in enumerate(headers):
        if header[1] == output:
            ended = place + 1 < len(headers) and headers[place + 1][1] == "completed"
            return text[header.end() : headers[place + 1].start() if ended else None]
    return text[: headers[-1].start()] if headers and headers[-1][1] == "completed" else text


def _in_tags(text: str, output: str) -> str:
    """Return what stands between tags of the output's name, where they open the text; the last one closes it."""
    told = text.strip()
    for name in (output, output.upper()) if told.startswith("<") else ():
        if told.startswith(f"<{name}>"):
            inside = told[len(name) + 2 :]
            before, closing, _ = inside.rpartition(f"</{name}>")
            return before if closing else inside
    return text


def _is_placeholder(text: str) -> bool:
    told = text.strip(_DRESS)
    if not told:
        return "…" in text or "..." in text
    if len(told) > 60 or told[-1] != _BRACKETS.get(told[0]):
        return False
    return _BLANK.fullmatch(told[1:-1].strip()) is not None
