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

from tpo_core.rewards.families.conversation import Encoded
from tpo_core.rewards.hf.attention import joins
from tpo_core.rewards.hf.checkpoint import Loaded
from tpo_core.rewards.hf.planning import Segment, cut, plan_rows
from tpo_core.rewards.hf.prefixes import PrefixStore
from tpo_core.rewards.hf.quiet import set_attention
from tpo_core.rewards.hf.rows import Row
from tpo_core.rewards.hf.varlen import VarlenRow

__all__ = ["ATTENTION", "PackedForward"]

ATTENTION = "tpo_packed"
"""The name of our attention among those of transformers."""


class PackedForward:
    """Runs a causal body over rows of segments.

    Args:
        loaded: The model; its attention is replaced.
        max_batch_tokens: Tokens per row; by default what is fastest on the device.
        max_prefix_bytes: Memory for keys and values that outlive a call.
    """

    def __init__(self, loaded: Loaded, max_batch_tokens: int | None, max_prefix_bytes: int) -> None:
        self._loaded = loaded
        self.varlen = False
        """Whether all segments of a row attend at once, where ``takes_varlen`` says that can be."""
        self._budget, self._most = (max_batch_tokens,) * 2 if max_batch_tokens else _sizes(loaded)
        self._least = 16
        config = loaded.config.get_text_config()
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = 2 * config.num_hidden_layers * heads * head * loaded.model.dtype.itemsize
        self.store = PrefixStore(max_prefix_bytes, size, self._least)
        set_attention(loaded.model, ATTENTION)
        self._chosen = ChosenTokens(loaded.model)

    def __call__(self, sequences: Sequence[Encoded], stopped: Callable[[], bool] = lambda: False) -> list[Tensor]:
        """Return the hidden states at each sequence's places, (places, hidden); see ``Forward``."""
        found: list[dict[int, Tensor]] = [{} for _ in sequences]
        row: list[Segment] = []
        rows = list(plan_rows(sequences, self.store, budget=self._budget, most=self._most, least=self._least))
        try:
            while rows:
                if stopped():
                    raise InterruptedError("the model was closed while it was scoring")
                row = rows.pop(0)  # a prefix that is not kept goes with the last segment that needs it
                self._fitted(row, found)
        except BaseException:
            for segment in itertools.chain(row, *rows):  # announced, and now never filled
                if segment.memory is not None and segment.fills:
                    self.store.drop(segment.memory)
            raise
        return [torch.stack([states[p] for p in s.places]) for s, states in zip(sequences, found, strict=True)]

    def _fitted(self, row: Sequence[Segment], found: list[dict[int, Tensor]]) -> None:
        """Run a row, in halves where the device has no room for it; who leaves a prefix stands before who needs it."""
        try:
            self._run(row, found)
            return
        except torch.cuda.OutOfMemoryError:
            if sum(s.length for s in row) == 1:
                raise
        torch.cuda.empty_cache()
        halves = row if len(row) > 1 else cut(row[0], (row[0].length + 1) // 2)
        half = len(halves) // 2
        self._fitted(halves[:half], found)
        self._fitted(halves[half:], found)

    def _run(self, segments: Sequence[Segment], found: list[dict[int, Tensor]]) -> None:
        device = self._loaded.device
        ids = torch.tensor([[t for s in segments for t in s.sequence.ids[s.start : s.end]]], device=device)
        positions = torch.cat([torch.arange(s.start, s.end) for s in segments])[None].to(device)
        if self.varlen:
            row: Row = VarlenRow(segments, self._chosen.layer, device)
        else:
            row = Row(segments, self._chosen.layer, joint=joins(device, self._loaded.model.dtype))
        with self._chosen.only(row.chosen, device):
            output = self._loaded.model(input_ids=ids, position_ids=positions, use_cache=False, packed=row)
        states = output.last_hidden_state[0]
        for segment in segments:
            _keep(segment, states[: segment.length], found[segment.index])
            states = states[segment.length :]


def _sizes(loaded: Loaded) -> tuple[int, int]:
    """Return the tokens of a row and of one segment that are fastest.

    On a CPU larger rows leave the caches; smaller ones give a second core too little of each operation, and do not pay
    for the packing of weights that bfloat16 products begin with. Float32 attention to a prompt in parts is slower than
    to the whole.
    """
    row = row_tokens(loaded.device)
    return row, row if loaded.device.type != "cpu" or loaded.model.dtype == torch.bfloat16 else 4096


def row_tokens(device: torch.device) -> int:
    """Return the tokens of a row that are fastest on a device."""
    return 1024 if device.type == "cpu" else 16384


def _keep(segment: Segment, states: Tensor, found: dict[int, Tensor]) -> None:
    """Add a segment's hidden states at its places to what was found; leave to its memory those that belong there."""
    known = segment.takes or segment.memory
    for p in segment.sequence.places:
        if segment.start <= p < segment.end:
            found[p] = states[p - segment.start].clone()
        elif p < segment.start and p not in found and known is not None:
            found[p] = known.states[p]
    if segment.memory is not None and segment.fills:
        segment.memory.states.update({p: found[p] for p in segment.memory.places if p in found})


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
        self._chosen = torch.tensor(chosen, dtype=torch.long, device=device)
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
