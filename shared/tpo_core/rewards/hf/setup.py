"""How one reward model is put together; called in the worker thread, again after the model was closed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tpo_core.cache_keys import made_of
from tpo_core.errors import InvalidInputError
from tpo_core.rewards.families.conversation import Conversations
from tpo_core.rewards.hf.checkpoint import Source
from tpo_core.rewards.hf.devices import choose_device, choose_dtype
from tpo_core.rewards.hf.packed import row_tokens
from tpo_core.rewards.hf.scoring import Scorer, choose_forward

if TYPE_CHECKING:
    import torch

__all__ = ["Setup"]


@dataclass(frozen=True, kw_only=True)
class _Choices:
    device: str | None
    dtype: str | torch.dtype | None
    max_tokens: int | None
    on_long: Literal["error", "middle"]
    chat_template: str | None
    keep_thinking: bool
    max_batch_tokens: int | None
    max_prefix_bytes: int


class Setup:
    """Makes the scorer of one reward model.

    Args:
        source: Where the model comes from.
        choices: The arguments of ``HFRewardModel`` by the same names.
    """

    def __init__(self, source: Source, **choices: Any) -> None:
        self._source = source
        self._choices = _Choices(**choices)

    @property
    def cache_key(self) -> str | None:
        """Return what the scores follow from: the checkpoint and how it is read, not where or how fast."""
        source, chosen = self._source, self._choices
        return made_of(
            "hf",
            source.cache_key,
            dtype=None if chosen.dtype is None else str(chosen.dtype).removeprefix("torch."),
            max_tokens=chosen.max_tokens,
            on_long=chosen.on_long,
            chat_template=chosen.chat_template,
            keep_thinking=chosen.keep_thinking,
        )

    @property
    def row_tokens(self) -> int:
        """Return the tokens of one forward pass."""
        return self._choices.max_batch_tokens or row_tokens(choose_device(self._choices.device))

    def __call__(self, stopped: Callable[[], bool]) -> Scorer:
        """Load the model; see ``HFRewardModel`` for what is raised.

        Args:
            stopped: Tells whether to give up between two forward passes.
        """
        source, chosen = self._source.found(), self._choices
        config = source.config()
        tokenizer = source.tokenizer()
        template = source.family.template if chosen.chat_template is None else chosen.chat_template
        if template:
            tokenizer.chat_template = template
        end = getattr(config, source.family.end) if source.family.end else None
        conversations = Conversations(
            tokenizer,
            source.family,
            name=source.name,
            max_tokens=_longest(config, tokenizer, chosen.max_tokens, source.name),
            on_long=chosen.on_long,
            end=end,
            padding=source.padding(config),
            keep_thinking=chosen.keep_thinking,
        )
        device = choose_device(chosen.device)
        loaded = source.load(config, device, choose_dtype(chosen.dtype, config, device))
        forward = choose_forward(loaded, chosen.max_batch_tokens, chosen.max_prefix_bytes)
        return Scorer(loaded, conversations, forward, stopped)


def _longest(config: Any, tokenizer: Any, asked: int | None, name: str) -> int:
    """Return the tokens a conversation may have: as asked, or by the config and the tokenizer; each may say nothing.

    Raises:
        InvalidInputError: More are asked for than the model has positions.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if asked is not None:
        if positions and asked > positions:
            raise InvalidInputError(f"max_tokens {asked} is more than the {positions} positions that {name} has")
        return asked
    known = [positions, getattr(tokenizer, "model_max_length", None)]
    return min((int(n) for n in known if n), default=2**31)
