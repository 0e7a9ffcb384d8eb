"""What a chat template puts around a response.

The template is rendered once per prompt, around a mark that stands for the response; the response then takes the
mark's place word for word. So no template can rewrite a response (Qwen3's moves text before ``</think>`` into another
block), the place where the response starts is known, and N responses cost one rendering. Dates are frozen: some
templates insert today's, and scores must not change overnight.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tpo_core.errors import InvalidInputError
from tpo_core.rewards.families.entries import Family

__all__ = ["Frames"]

_DATE = "26 Jul 2024"  # what Llama 3.1's own template writes, and what 3.2's writes when it has no clock
_CLOCK = (
    f"{{% macro strftime_now(format) %}}{_DATE}{{% endmacro %}}"  # for templates that ask the clock and no one else
)


class Frames:
    """Renders prompts with one tokenizer's chat template.

    Args:
        tokenizer: The model's; without a template of its own, nothing stands around a response.
        family: What its authors show the model.
        name: How errors call the model.
    """

    def __init__(self, tokenizer: Any, family: Family, name: str) -> None:
        self._tokenizer, self._family, self._name = tokenizer, family, name
        template = getattr(tokenizer, "chat_template", None)
        self.templated = bool(template)
        """Whether there is a template."""
        if isinstance(template, str) and "strftime_now" in template and not template.startswith(_CLOCK):
            tokenizer.chat_template = _CLOCK + template
        self.trim = self._measure_trim() if template else _unchanged
        """What the template does to the white space around a response."""

    def around(self, messages: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
        """Return what stands before and after the response to a prompt."""
        if not self.templated:
            return "", ""
        longest = max((len(x) for m in messages for x in re.findall("TPO_RESPONSE(X*)", m["content"])), default=-1)
        mark = "TPO_RESPONSE" + "X" * (longest + 1)
        before, found, after = self._render(messages, mark).rpartition(mark)
        if not found:
            raise InvalidInputError(f"the chat template of {self._name} leaves the response out of this conversation")
        bos = self._tokenizer.bos_token
        if self._family.bos == "one" and bos:
            before = before.removeprefix(bos)
        return before, after

    def _render(self, messages: Sequence[Mapping[str, Any]], response: str) -> str:
        import jinja2

        try:
            text: str = self._tokenizer.apply_chat_template(
                [*messages, {"role": "assistant", "content": response}],
                tokenize=False,
                add_generation_prompt=False,
                date_string=_DATE,
            )
        except (jinja2.TemplateError, TypeError, ValueError, AttributeError, KeyError) as error:
            raise InvalidInputError(f"the chat template of {self._name} refuses this conversation: {error}") from error
        return text

    def _measure_trim(self) -> Callable[[str], str]:
        """Return what the template does to the white space around a response."""
        probe = [{"role": "user", "content": "question"}]

        def keeps(response: str) -> bool:
            return self._render(probe, response) == self._render(probe, "RESPONSE").replace("RESPONSE", response)

        try:
            if not keeps("\u2003RESPONSE\u2003"):
                return str.strip
            return _unchanged if keeps("\n\nRESPONSE") else _without_leading_newlines
        except InvalidInputError:  # a template that refuses the probe may still take the user's conversations
            return _unchanged


def _unchanged(text: str) -> str:
    return text


def _without_leading_newlines(text: str) -> str:
    return text.lstrip("\n")
