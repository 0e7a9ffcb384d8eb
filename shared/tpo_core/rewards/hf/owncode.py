"""Models of a repository's own classes, and what transformers leaves out when it loads them.

transformers 5 makes a model without memory and then fills what the checkpoint holds. Buffers that no checkpoint holds
(the angles of rotary positions, above all) are made again only by classes that know of this; in older code they stay
whatever was in memory, and every score is noise or NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["is_own_code", "restore_buffers"]


def is_own_code(model: Any) -> bool:
    """Return whether a model's class comes from a repository, not from transformers."""
    return not type(model).__module__.startswith("transformers.")


def restore_buffers(model: Any) -> None:
    """Fill the buffers that no checkpoint holds with what the class itself makes of them."""
    held = model.state_dict()
    lost = [name for name, _ in model.named_buffers() if name not in held]
    if not lost:
        return
    with _Hollow():
        twin = type(model)(model.config)
    for name in lost:
        made = twin.get_buffer(name)
        if not made.is_meta:
            model.get_buffer(name).copy_(made)


class _Hollow(TorchFunctionMode):
    """Gives what is made empty, as weights are, no memory; what is made with values, as buffers are, is made."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        more = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **more})
