"""Test-Time Preference Optimization (arXiv:2501.12895) for DSPy."""

from tpo_dspy.best_of_n import BestOfN
from tpo_dspy.refine import Refine
from tpo_dspy.tpo import TPO

__all__ = ["TPO", "BestOfN", "Refine"]
