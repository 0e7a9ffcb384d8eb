"""Models and reward models in Ray actors, on one machine or a cluster: the calls are made there, and nothing else.

The loops, their budgets and the store of a run stay in the process that drives them. So what holds for a run holds for
one whose calls are made by a cluster: an answer is committed before it is used, and an actor or a node that is gone
costs the calls that it was making, which are made again by another.
"""

from __future__ import annotations

from tpo_core.runs.ray.actors import RayActors
from tpo_core.runs.ray.cluster import connected
from tpo_core.runs.ray.models import RayPolicy, RayReward

__all__ = ["RayActors", "RayPolicy", "RayReward", "connected"]
