"""What reward models want to read: the families people use, and how a conversation becomes a family's tokens.

Nothing here needs torch.
"""

from __future__ import annotations

from tpo_core.rewards.families.entries import Blend, Family, Gate, Head, Logits, Mlp, Steps
from tpo_core.rewards.families.table import FAMILIES, family_named, find_family

__all__ = ["FAMILIES", "Blend", "Family", "Gate", "Head", "Logits", "Mlp", "Steps", "family_named", "find_family"]
