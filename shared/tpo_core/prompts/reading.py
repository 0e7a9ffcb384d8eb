"""A signature to chat messages, and a completion back to its text, for hosts that have no ``dspy.Predict``.

Reading is lenient, so that weak policies get through: with one output field, what stands inside markers if there are
any, else the whole completion.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tpo_core.values import Failure

if TYPE_CHECKING:
    import dspy
from tpo_core.prompts.rendering import _output, _words

__all__ = [
    "read",
    "refuse",
    "unecho",
]

_HEADER = re.compile(r"^[ \t]*\[\[ ## (\w+) ## \]\][ \t]*", re.MULTILINE)


_TAG = r"<(?P<tag>{names})>(?P<inside>.*?)(?:</(?P=tag)>|\Z)"


_FENCE = re.compile(r"<([\w-]+)>\n")


_PLACEHOLDER = re.compile(
    r"[\s\"'`*]*([\[{<(]\s*)?(your |the |an? )?(improved|rewritten|revised|new|better|final)?[ _]?"
    r"(response|answer|variable|text)( here)?(\s*[\]}>)])?[\s.:\"'`*]*",
    re.IGNORECASE,
)


_ELLIPSIS = re.compile(r"[\s.…\-_*#`]*")


def read(signature: type[dspy.Signature], completion: str) -> str:
    """Read a completion leniently: what stands inside the output field's markers, else all of it.

    Markers are ``[[ ## field ## ]]`` headings and ``<field>`` tags; a missing end marker is forgiven, and reasoning in
    a leading ``<think>`` block is dropped.
    """
    output = _output(signature)
    text = re.sub(r"\A\s*<think>.*?</think>", "", completion, flags=re.DOTALL)
    headers = list(_HEADER.finditer(text))
    for place, header in enumerate(headers):
        if header[1] == output:
            end = (
                headers[place + 1].start()
                if place + 1 < len(headers) and headers[place + 1][1] == "completed"
                else None
            )
            return _trim(text[header.end() : end])
    if headers and headers[-1][1] == "completed":
        text = text[: headers[-1].start()]
    tagged = re.fullmatch(r"\s*" + _TAG.format(names=f"{output}|{output.upper()}") + r"\s*", text, flags=re.DOTALL)
    return _trim(tagged["inside"] if tagged else text)


def unecho(text: str, inputs: Mapping[str, Any]) -> str:
    """Drop what a weak policy repeats of its prompt: a fence around all its text, and the prompt's sections after it.

    Example:
        >>> from tpo_core.prompts.rendering import fence
        >>> unecho("# Rewrite\\n<response>\\nBetter.\\n</response>", {"current_response": fence("Good.")})
        'Better.'
    """
    fences = {name: found[1] for name, value in inputs.items() if (found := _FENCE.match(str(value)))}
    if not fences:
        return text
    sections = "|".join(rf"{_words(name)}\s*\n\s*<{re.escape(tag)}>" for name, tag in fences.items())
    text = re.split(rf"\n#+ (?:{sections})", text, flags=re.IGNORECASE)[0]
    tags = "|".join(map(re.escape, fences.values()))
    if opening := re.match(rf"\s*(?:#+ [^\n]*\n\s*)?<({tags})>", text):
        return text[opening.end() :].split(f"</{opening[1]}>")[0].strip("\n ")
    closing = re.search(rf"\s*</({tags})>\s*\Z", text)
    return text[: closing.start()] if closing and f"<{closing[1]}>" not in text else text


def refuse(text: str, finish_reason: str | None = None) -> Failure | None:
    """Say why a text cannot be a candidate: unfinished, empty, or nothing but a placeholder. None when it can."""
    if finish_reason == "length":
        return Failure("length", "cut off at the response's token limit; raise max_response_tokens")
    if finish_reason == "content_filter":
        return Failure("content_filter", "withheld by the provider's content filter")
    if not text.strip():
        return Failure("empty", "the response is empty")
    if _ELLIPSIS.fullmatch(text) or (len(text) < 60 and _PLACEHOLDER.fullmatch(text) and not text.strip()[0].isalnum()):
        return Failure("placeholder", f"the response is only a placeholder: {text.strip()!r}")
    return None


def _trim(text: str) -> str:
    """Drop blank lines and spaces around a text, but not the indentation of its first line of several."""
    text = re.sub(r"\A(?:[ \t]*\n)+", "", text).rstrip()
    return text if "\n" in text else text.strip()
