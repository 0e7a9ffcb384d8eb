"""Public benchmarks: what they ask, how answers are scored here or by their official tools, and a page of it all."""

from __future__ import annotations

from tpo_core.studies.benchmarks.entries import BENCHMARKS, Benchmark, Dialogue, Hub, Template, benchmark, table
from tpo_core.studies.benchmarks.loading import load, prompts

__all__ = ["BENCHMARKS", "Benchmark", "Dialogue", "Hub", "Template", "benchmark", "load", "prompts", "table"]
