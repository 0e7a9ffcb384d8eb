"""Test-Time Preference Optimization (arXiv:2501.12895) for DSPy."""

from tpo_dspy.tpo import TPO

__all__ = ["TPO"]
