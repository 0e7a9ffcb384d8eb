"""The fast forward pass: rows of segments without padding, over the keys and values of known prefixes.

Every layer of a transformers model asks a registered function for its attention. Ours reads the row that came along as
a keyword and lets each segment look at its prefix and at itself: nothing is masked, padded or copied. Positions count
from the start of the conversation, so the result is that of the whole conversation alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from tpo_core.rewards.attention import attend
from tpo_core.rewards.checkpoint import Loaded
from tpo_core.rewards.conversation import Encoded
from tpo_core.rewards.planning import Segment, plan_rows
from tpo_core.rewards.prefixes import Prefix, PrefixStore

__all__ = ["ATTENTION", "PackedForward"]

ATTENTION = "tpo_packed"
"""The name of our attention among those of transformers."""


class PackedForward:
    """Runs a causal body over rows of segments.

    Args:
        loaded: The model; its attention is replaced.
        max_batch_tokens: Tokens per row; by default 16384, and on a CPU 256, or 1024 in bfloat16: larger ones leave its
            caches, smaller ones do not pay for the packing of weights that bfloat16 products begin with.
        max_prefix_bytes: Memory for keys and values that outlive a call.
    """

    def __init__(self, loaded: Loaded, max_batch_tokens: int | None, max_prefix_bytes: int) -> None:
        self._loaded = loaded
        on_cpu = 1024 if loaded.model.dtype == torch.bfloat16 else 256
        self._budget = max_batch_tokens or (on_cpu if loaded.device.type == "cpu" else 16384)
        self._least = 16
        config = loaded.config.get_text_config()
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = 2 * config.num_hidden_layers * heads * head * loaded.model.dtype.itemsize
        self.store = PrefixStore(max_prefix_bytes, size, self._least)
        loaded.model.set_attn_implementation(ATTENTION)
        self._chosen = ChosenTokens(loaded.model)

    def __call__(self, sequences: Sequence[Encoded], stopped: Callable[[], bool] = lambda: False) -> list[Tensor]:
        """Return the hidden states at each sequence's places, (places, hidden); see ``Forward``."""
        found: dict[int, Tensor] = {}
        row: list[Segment] = []
        rows = list(plan_rows(sequences, self.store, budget=self._budget, least=self._least))
        try:
            while rows:
                if stopped():
                    raise InterruptedError("the model was closed while it was scoring")
                row = rows.pop(0)  # a prefix that is not kept goes with the last segment that needs it
                found.update(self._fitted(row))
        except BaseException:
            for segment in itertools.chain(row, *rows):  # announced, and now never filled
                if segment.leaves is not None:
                    self.store.drop(segment.leaves)
            raise
        return [found[i] for i in range(len(sequences))]

    def _fitted(self, row: Sequence[Segment]) -> list[tuple[int, Tensor]]:
        """Run a row, in halves where the device has no room for it; who leaves a prefix stands before who needs it."""
        try:
            return list(self._run(row))
        except torch.cuda.OutOfMemoryError:
            if len(row) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(row) // 2
        return [*self._fitted(row[:half]), *self._fitted(row[half:])]

    def _run(self, segments: Sequence[Segment]) -> Iterator[tuple[int, Tensor]]:
        device = self._loaded.device
        ids = torch.tensor([[t for s in segments for t in s.sequence.ids[s.shared :]]], device=device)
        positions = torch.cat([torch.arange(s.shared, s.shared + s.length) for s in segments])[None].to(device)
        row = Row(segments, self._chosen.layer)
        with self._chosen.only(row.chosen, device):
            output = self._loaded.model(input_ids=ids, position_ids=positions, use_cache=False, packed=row)
        states = output.last_hidden_state[0]
        start = 0
        for segment in segments:
            yield segment.index, _at_places(segment, states[start : start + segment.length])
            start += segment.length


def _at_places(segment: Segment, states: Tensor) -> Tensor:
    """Return a segment's hidden states at its places, and leave to its prefix entry those that belong there."""
    known = segment.prefix.states if segment.prefix is not None else {}
    at = {p: known[p] if p < segment.shared else states[p - segment.shared] for p in segment.sequence.places}
    if segment.leaves is not None:
        segment.leaves.states.update({p: at[p].clone() for p in segment.leaves.places})
    return torch.stack(list(at.values())) if at else states[:0]


class ChosenTokens:
    """Spares the last layer what nobody reads: only the tokens a head looks at go on from there.

    Every other token is needed for its key and value alone. Hooks narrow the token-wise modules of that layer to the
    chosen tokens and put zeros at the others.
    """

    def __init__(self, model: Any) -> None:
        layers = getattr(model, "layers", None) or [None]
        self.layer = len(layers) - 1
        self._chosen: Tensor | None = None
        attention = getattr(layers[-1], "self_attn", None)
        for module in (getattr(layers[-1], "mlp", None), *(getattr(attention, n, None) for n in ("q_proj", "o_proj"))):
            if module is not None:
                module.register_forward_pre_hook(self._narrow)
                module.register_forward_hook(self._widen)

    @contextmanager
    def only(self, chosen: Sequence[int], device: torch.device) -> Iterator[None]:
        """Compute the last layer for these tokens of the row."""
        self._chosen = torch.tensor(chosen, device=device)
        try:
            yield
        finally:
            self._chosen = None

    def _narrow(self, module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if self._chosen is None:
            return None
        self._tokens = args[0].shape[1]
        return (args[0][:, self._chosen], *args[1:])

    def _widen(self, module: Any, args: Any, output: Tensor) -> Tensor | None:
        if self._chosen is None:
            return None
        full = output.new_zeros(1, self._tokens, output.shape[2])
        full[:, self._chosen] = output
        return full


class Row:
    """The segments of one forward pass, as the attention of every layer sees them.

    Args:
        segments: What is laid end to end.
        last: The number of the last layer, where only chosen tokens go on.
    """

    def __init__(self, segments: Sequence[Segment], last: int) -> None:
        ends = list(itertools.accumulate(s.length for s in segments))
        self._last = last
        self._spans = [(segment, end - segment.length, end) for segment, end in zip(segments, ends, strict=True)]
        self._own = [[p - s.shared for p in sorted(s.sequence.places) if p >= s.shared] for s in segments]
        self.chosen = [start + p for (_, start, _), own in zip(self._spans, self._own, strict=True) for p in own]
        """The tokens of the row that heads read."""
        self.longest = max(len(s.sequence.ids) for s in segments)
        """Tokens of the longest conversation."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """Return the attention of each segment to its prefix and itself.

        Args:
            layer: The layer's number.
            query: (1, heads, tokens, head size).
            key: (1, key-value heads, tokens, head size), and likewise ``value``.
            scale: What scores are multiplied by.

        Returns:
            (1, tokens, heads, head size); in the last layer zeros where nobody looks.
        """
        output = torch.zeros_like(query) if layer == self._last else torch.empty_like(query)
        for (segment, start, end), own in zip(self._spans, self._own, strict=True):
            q, k, v, out = (t[:, :, start:end] for t in (query, key, value, output))
            prefix, shared = segment.prefix, segment.shared
            before = (
                None if prefix is None else (prefix.keys[layer][:, :, :shared], prefix.values[layer][:, :, :shared])
            )
            if layer == self._last:
                for p in own:
                    out[:, :, p : p + 1] = attend(q[:, :, p : p + 1], k[:, :, : p + 1], v[:, :, : p + 1], before, scale)
            else:
                out[:] = attend(q, k, v, before, scale)
            if segment.leaves is not None:
                _leave(segment.leaves, layer, shared, before, k, v)
        return output.transpose(1, 2)


def _leave(prefix: Prefix, layer: int, shared: int, before: tuple[Tensor, Tensor] | None, k: Tensor, v: Tensor) -> None:
    own = len(prefix.ids) - shared
    if before is None:
        prefix.keys[layer], prefix.values[layer] = k[:, :, :own].clone(), v[:, :, :own].clone()
    else:
        prefix.keys[layer] = torch.cat([before[0], k[:, :, :own]], 2)
        prefix.values[layer] = torch.cat([before[1], v[:, :, :own]], 2)


def _packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Answer a layer's attention; what is not plain causal attention is refused."""
    row = more.get("packed")
    unknown = [k for k in ("softcap", "s_aux", "position_bias") if more.get(k) is not None]
    if not isinstance(row, Row) or unknown or (more.get("sliding_window") or row.longest) < row.longest:
        raise NotImplementedError(f"packed rows do not know this attention {unknown}")
    return row.attend(module.layer_idx, query, key, value, scaling), None


AttentionInterface.register(ATTENTION, _packed_attention)
AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)
