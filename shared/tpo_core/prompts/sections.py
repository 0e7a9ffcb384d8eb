"""The sections of a prompt, and what a weak policy repeats of them around its answer.

Only what is provably not the answer goes: a section of the prompt with its content at the end of the text, a fence of
the prompt around all of it, a first line that only announces a rewritten response. An answer loses no word of its own,
so in doubt everything stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tpo_core.errors import InvalidInputError
from tpo_core.prompts.control_tokens import join_control_tokens
from tpo_core.prompts.modeltext import trim
from tpo_core.prompts.signatures import Signature

if TYPE_CHECKING:
    import dspy

__all__ = ["Form", "form_of", "section", "unannounced", "unecho"]

_FENCE = re.compile(r"<([\w-]+)>\n")
_TOKEN = re.compile(r"</?[\w-]+>|[^\s<]+|<")  # tags apart from what they touch
# What policies put over a rewritten response: words of the engine's prompts and their like, and no others
_LABEL = frozenset(
    {
        *("the", "your", "my", "here", "is"),
        *("current", "chosen", "rejected", "improved", "revised", "rewritten", "updated", "edited", "new", "better"),
        *("final", "rewrite", "response", "answer", "text", "version", "query", "editing", "instructions"),
    }
)
# "Certainly! Here's the improved response with the required changes:", alone on the first line. Each part is bounded.
_ANNOUNCEMENT = re.compile(
    r"\s{0,20}[*_]{0,3}(?:(?:sure|certainly|absolutely|of course|okay|ok)\b[.,!]? {0,2})?"
    r"(?:(?:here(?:['’]s| is)|below is) (?:the|an?|my|your) (?:improved|revised|rewritten|updated|edited)"
    r" (?:response|version|answer|text)\b[^\n:<]{0,80}"
    r"|the (?:improved|revised|rewritten|updated|edited) (?:response|version|answer|text)(?: is(?: as follows)?)?)"
    r":[*_]{0,3}[ \t\r]{0,20}\n",
    re.IGNORECASE,
)


def section(name: str, value: Any) -> str:
    """Write one input of a prompt under its name."""
    return f"# {_words(name).capitalize()}\n{value}"


@dataclass(frozen=True)
class Form:
    """What prompts need to know of a signature."""

    name: str
    instructions: str
    inputs: tuple[str, ...]
    """The names of its input fields."""
    output: str
    """The name of its output field."""
    ask: str
    """The last line of a prompt: what is to be written."""


_known: WeakKeyDictionary[Any, Form] = WeakKeyDictionary()


def form_of(signature: Signature | type[dspy.Signature]) -> Form:
    """Return a signature's form, read once: DSPy goes through all fields for each name that it is asked for.

    Raises:
        InvalidInputError: It has several output fields.
    """
    if (form := _known.get(signature)) is None:
        form = _known[signature] = _form(signature)
    return form


def _form(signature: Signature | type[dspy.Signature]) -> Form:
    name, outputs = getattr(signature, "__name__", None) or signature.name, signature.output_fields
    if len(outputs) != 1:
        raise InvalidInputError(f"signature {name} has {len(outputs)} output fields; one is needed here")
    [(output, field)] = outputs.items()
    told = field if isinstance(field, str) else field.json_schema_extra["desc"]
    asked = f"Write the {_words(output)}: {told}."
    return Form(name, signature.instructions, tuple(signature.input_fields), output, asked)


def unannounced(text: str, rewritten: str) -> str:
    """Drop a first line that only says that the improved response follows, where more stands below it.

    Args:
        text: What the policy wrote.
        rewritten: The response that it rewrites, as it was shown: a line that is its own stays.

    Example:
        >>> unannounced("Sure, here's the improved response:\\n\\nBetter.", "Good.")
        'Better.'
        >>> unannounced("Here is the recipe:\\n\\nBetter.", "Good.")
        'Here is the recipe:\\n\\nBetter.'
    """
    found = _ANNOUNCEMENT.match(text)
    if found is None or found[0].strip() in rewritten:
        return text
    return trim(text[found.end() :]) or text


def unecho(text: str, inputs: Mapping[str, Any], asked: Sequence[str] = ()) -> str:
    """Drop what a weak policy repeats of its prompt: sections after its text, and a fence around all of it.

    Control tokens that fences show in two parts are whole again.

    Args:
        text: What the policy wrote.
        inputs: What its prompt showed; only values that are fenced can be told from an answer's own text.
        asked: What stands behind the sections in the prompt, its last line first.

    Example:
        >>> shown = {"chosen_response": "<response>\\nGood.\\n</response>"}
        >>> unecho("# Rewrite\\n<response>\\nBetter.\\n</response>", shown)
        'Better.'
        >>> unecho("Better.\\n\\n# Chosen response\\n<response>\\nGood.\\n</response>", shown)
        'Better.'
        >>> unecho("Write it so:\\n<response>\\nBetter.\\n</response>\\nand send it.", shown)
        'Write it so:\\n<response>\\nBetter.\\n</response>\\nand send it.'
    """
    text = join_control_tokens(text)
    if "<" not in text:
        return text
    inputs = {name: join_control_tokens(str(value)) for name, value in inputs.items()}
    fences = {name: tags for name, value in inputs.items() if (tags := _fences_of(value))}
    tags = [tag for found in fences.values() for tag in found]
    if not any(f"<{tag}>" in text or f"</{tag}>" in text for tag in tags):
        return text
    shown = [form for name in fences for form in _forms(name, inputs[name])]
    return _unfenced(_without_sections(text, shown, asked), tags)


def _fences_of(value: str) -> list[str]:
    """Return the tags of the fences that a value begins with, one after the other."""
    tags, at = [], 0
    while found := _FENCE.match(value, at):
        tags.append(found[1])
        end = value.find(f"\n</{found[1]}>\n", at)
        if end < 0:
            break
        at = end + len(found[1]) + 5
    return tags


def _words(name: str) -> str:
    return name.replace("_", " ")


def _forms(name: str, value: str) -> Iterator[str]:
    """Write a section in the form of the engine's prompts and in that of DSPy's."""
    yield section(name, value)
    yield f"[[ ## {name} ## ]]\n{value}"


def _without_sections(text: str, sections: Sequence[str], asked: Sequence[str]) -> str:
    """Cut sections of the prompt, whole or broken off, off the end of a text; each once, as the prompt has them."""
    told, left = _tokens(text), [_tokens(s) for s in sections]
    end = len(told)
    for last in map(_tokens, asked):
        if told[end - len(last) : end] == last:
            end -= len(last)
    after = end
    while hit := next(((s, at) for s in left if (at := _start(told, end, s))), None):
        left.remove(hit[0])
        end = hit[1]
    if end == after:
        return text
    at = next(islice(_TOKEN.finditer(text), end, None)).start()
    kept = text[:at].rstrip(" \t")
    announced = kept.rstrip().endswith(":")  # then what follows belongs to it
    return kept.rstrip() if kept.endswith("\n") and not announced else text


def _tokens(text: str) -> list[str]:
    return ["#" if not token.strip("#") else token.casefold() for token in _TOKEN.findall(text)]


def _start(told: list[str], end: int, shown: list[str]) -> int:
    """Return where the last tokens before ``end`` begin to repeat a section, from its heading on; 0 if they do not."""
    head = next(i for i, token in enumerate(shown) if token.startswith("<")) + 1
    try:
        tag = end - 1 - told[:end][::-1].index(shown[head - 1])
    except ValueError:
        return 0
    start = tag - head + 1
    length = end - start
    return start if start > 0 and head < length and told[start:end] == shown[:length] else 0


def _unfenced(text: str, tags: Sequence[str]) -> str:
    """Take a fence of the prompt off a text that stands in it as a whole, under a label or under none."""
    told = text.strip()
    first, _, rest = told.partition("\n")
    labelled = rest.lstrip() if _is_label(first) else told
    for tag in tags:
        opening, closing = f"<{tag}>", f"</{tag}>"
        if labelled.startswith(opening):
            inside = _inside(labelled[len(opening) :], opening, closing)
            return text if inside is None else inside
        if told.endswith("\n" + closing) and opening not in told and told.count(closing) == 1:
            return told[: -len(closing)].rstrip()
    return text


def _inside(body: str, opening: str, closing: str) -> str | None:
    """Return what stands between an opening tag and the end of the text; None where the fence does not hold it all."""
    if body.endswith(closing):
        body = body[: -len(closing)]
    elif not body.startswith("\n"):  # a tag that is never closed is the prompt's only in the prompt's own form
        return None
    return None if opening in body or closing in body else trim(body)


def _is_label(line: str) -> bool:
    told = line.strip("#*_: \t").casefold().split() if line.startswith("#") and len(line) < 80 else []
    return bool(told) and _LABEL.issuperset(told)
