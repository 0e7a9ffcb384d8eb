"""The tiny reward models that these tests build."""

from tiny_rewards import _one_thread, build

__all__ = ["_one_thread", "build"]
