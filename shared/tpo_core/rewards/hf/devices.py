"""Where a reward model runs, and in which precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tpo_core.errors import InvalidInputError

__all__ = ["choose_device", "choose_dtype", "cpu_has"]


def choose_device(device: str | None) -> torch.device:
    """Return the device asked for, or the accelerator there is, or the CPU.

    Raises:
        InvalidInputError: There is no such device.
    """
    if device is not None:
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise InvalidInputError(f"device {device!r} is not there: {str(error).splitlines()[0]}") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(dtype: str | torch.dtype | None, config: Any, device: torch.device) -> torch.dtype:
    """Return the dtype asked for; else the checkpoint's where the device computes fast in it, else float32.

    Away from the CPU large models in float32 run in bfloat16: their authors keep them so, and run them so.

    Raises:
        InvalidInputError: It is no floating-point dtype.
    """
    if dtype is not None:
        found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
        if not isinstance(found, torch.dtype) or not found.is_floating_point:
            raise InvalidInputError(f"dtype {dtype!r} is not known; give 'float32', 'bfloat16' or 'float16'")
        return found
    stored = getattr(config, "dtype", None) or torch.float32
    if device.type == "cpu":
        fast = any(map(cpu_has, ("avx512_bf16", "amx_bf16", "bf16")))
        return torch.bfloat16 if stored == torch.bfloat16 and fast else torch.float32
    return torch.bfloat16 if stored == torch.float32 and _is_large(config.get_text_config()) else stored


def _is_large(config: Any) -> bool:
    """Return whether a model's layers have some two billion weights or more, by the usual twelve squares a layer."""
    layers, width = getattr(config, "num_hidden_layers", 0), getattr(config, "hidden_size", 0)
    return bool(12 * layers * width**2 > 2e9)


def cpu_has(feature: str) -> bool:
    """Return whether the CPU has an instruction set, by torch's name for it; no where torch does not tell."""
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in older releases
    return bool(capabilities.get(feature))
