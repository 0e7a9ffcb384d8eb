"""Test-Time Preference Optimization (arXiv:2501.12895) in OpenTelemetry: spans of queries, rounds and calls."""

from __future__ import annotations

from tpo_otel.instrumentation import instrument, uninstrument

__all__ = ["instrument", "uninstrument"]
