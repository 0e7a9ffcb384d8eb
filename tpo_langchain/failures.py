"""Why what a chain returned or raised is no candidate."""

from __future__ import annotations

from json import JSONDecodeError
from typing import Any

from langchain_core.exceptions import OutputParserException
from pydantic import ValidationError

from tpo_core import Failure
from tpo_core.masking import masked
from tpo_core.models.refusals import one_line

__all__ = ["failed", "missing", "unparsable"]

_UNPARSABLE = (OutputParserException, ValidationError, JSONDecodeError)


def missing(value: Any) -> Failure | None:
    """Return why a value is none; None when it is one."""
    if value is None:
        return Failure("empty", "the chain returned None")
    if isinstance(value, Exception):
        return failed(value)
    if isinstance(value, dict) and (error := value.get("parsing_error")) is not None and "raw" in value:
        known = isinstance(error, Exception)
        return Failure("unparsable", _why(error), error) if known else Failure("unparsable", str(error))
    return None


def failed(raised: Exception) -> Failure:
    """Return why there is no value, as its exception says."""
    error = masked(raised)  # it was returned, not raised: nobody else has seen it
    return unparsable(error) or Failure("error", one_line(error), error)


def unparsable(error: Exception) -> Failure | None:
    """Return what an answer that could not be parsed is; None for another error."""
    if type(error).__name__ == "LengthFinishReasonError":  # openai's client, on structured output cut short
        return Failure("length", str(error), error)
    return Failure("unparsable", _why(error), error) if isinstance(error, _UNPARSABLE) else None


def _why(error: BaseException) -> str:
    """Write a parser's exception in one line, without the text that it quotes: that stands in no error and no log."""
    inner = error.__cause__ or error.__context__
    if isinstance(error, ValidationError):
        found = error.errors(include_input=False, include_url=False, include_context=False)
        told = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}" for each in found)
        return f"{type(error).__name__}: {told.splitlines()[0]}"
    if isinstance(error, OutputParserException):
        if isinstance(inner, (ValidationError, JSONDecodeError)):
            return _why(inner)
        if error.llm_output:
            return f"{type(error).__name__}: its parser could not read the {len(error.llm_output)} characters that came"
    return one_line(error)
