"""Spans of every query of this process, in DSPy programs, LangChain chains, behind litellm, and of the engine itself.

    invoke_workflow tpo            one query: rewards, gain, tokens, why it stopped
    ├── tpo.round                  one round: its rewards, the best so far
    │   ├── tpo.sample             one call each: tokens, finish reasons, failures; what a host or a client library
    │   ├── tpo.sample             traces inside it is inside this span
    │   └── tpo.score              one scoring: the rewards, and an event for each
    └── tpo.round
        ├── tpo.loss, tpo.gradient, tpo.update, tpo.score

Attributes have the names of OpenTelemetry's semantic conventions for generative AI (``gen_ai.*``) where those have one,
and begin with ``tpo.`` where not. No prompt, answer or critique is in a span unless it is asked for, nor the message of
an exception, which may quote them.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tpo_core.drivers.tracing import trace_with
from tpo_core.errors import InvalidInputError

try:
    from opentelemetry import trace
except ImportError as error:
    raise InvalidInputError(f'tpo_otel needs OpenTelemetry: pip install "tpo[otel]" ({error})') from error
from tpo_otel.spans import SpanTracer

__all__ = ["TPOInstrumentor", "instrument", "uninstrument"]

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The environment variable by which OpenTelemetry's own instrumentations are asked for texts."""

_ASKED = ("true", "1", "span_only", "span_and_event")


def instrument(tracer_provider: trace.TracerProvider | None = None, *, capture_content: bool | None = None) -> None:
    """Make spans of every query that starts in this process from now on; calling it again replaces the settings.

    Args:
        tracer_provider: Where the spans go; by default OpenTelemetry's global one at the time of each query.
        capture_content: Whether the spans hold texts, too: prompts, answers, critiques, a reward's remarks, the
            messages of errors. Keys that are in use are masked in them. By default as the environment variable
            ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` says, and False without it.

    Raises:
        InvalidInputError: An argument is of the wrong kind.

    Example:
        >>> instrument()
        >>> uninstrument()
    """
    if tracer_provider is not None and not callable(getattr(tracer_provider, "get_tracer", None)):
        raise InvalidInputError(f"tracer_provider must be a TracerProvider, not {tracer_provider!r:.80}")
    if capture_content is None:
        capture_content = os.environ.get(CAPTURE, "").strip().lower() in _ASKED
    trace_with(SpanTracer(trace.get_tracer("tpo", _version(), tracer_provider), bool(capture_content)))


def uninstrument() -> None:
    """Make no spans of the queries that start from now on."""
    trace_with(None)


class TPOInstrumentor:
    """What ``opentelemetry-instrument`` finds among the installed packages and calls at a process's start."""

    def instrument(self, **settings: Any) -> None:
        """Make spans from now on; of the settings only ``tracer_provider`` is read."""
        instrument(settings.get("tracer_provider"))

    def uninstrument(self, **settings: Any) -> None:
        """Make no more spans."""
        uninstrument()


def _version() -> str:
    try:
        return version("tpo")
    except PackageNotFoundError:  # run from its source
        return ""
