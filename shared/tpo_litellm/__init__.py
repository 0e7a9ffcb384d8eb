"""Test-Time Preference Optimization (arXiv:2501.12895) as a litellm provider."""

from tpo_litellm.provider import TPOHandler, register

__all__ = ["TPOHandler", "register"]
