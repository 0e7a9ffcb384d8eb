"""The loop's settings as pydantic fields, for objects that LangChain configures field by field and call by call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from difflib import get_close_matches
from typing import Any

from langchain_core.runnables import ConfigurableFieldSpec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tpo_core import Experience, InvalidInputError, TPOConfig
from tpo_core.config import Mode, PlanName
from tpo_core.errors import nearest

__all__ = [
    "PREFIX",
    "RETURN_TRAJECTORY",
    "LoopSettings",
    "loop_settings",
    "named",
    "refuse_settings",
    "setting_specs",
    "spread",
]

PREFIX = "tpo_"
"""In front of a setting's name under ``config["configurable"]``."""

RETURN_TRAJECTORY = PREFIX + "return_trajectory"
"""The key by which one call asks for the Trajectory."""


class LoopSettings(BaseModel):
    """The fields of ``TPOConfig``, with the same meaning and the same defaults but for one.

    ``temperature`` is None here: a LangChain model carries its own, set by its owner.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    mode: Mode = "tpo"
    """``tpo``; ``revision`` critiques the best alone; ``bon`` only samples."""
    plan: PlanName = "paper"
    """``paper``, or ``adaptive``: each round what is expected to raise the best most for what is left of the budget."""
    width: int = 5
    """N, candidates a round."""
    depth: int = 2
    """D, rounds of loss, gradient and update."""
    fresh: int = 0
    """How many of a round's candidates are new runs of the chain instead of updates."""
    critiques: int = 1
    """How many critiques a round has, each of a contrast of its own; they share the round's updates."""
    merged_critique: bool = False
    """Whether the textual loss and the textual gradient are one request."""
    samples_at_once: int | None = None
    """How many of the first samples are asked before they are scored; None asks them all at once."""
    temperature: float | None = None
    """For every model call of the loop, the chain's included; None leaves each model's own."""
    top_p: float | None = None
    """Likewise nucleus sampling."""
    max_response_tokens: int | None = None
    """Likewise the most tokens of one response."""
    min_spread: float = 0.0
    """A round whose best and worst rewards differ by no more than this is not critiqued."""
    max_calls: int | None = None
    """Budget: most samples asked of chain, critic and editor together."""
    max_tokens: int | None = None
    """Budget: start nothing new once this many prompt and completion tokens are reported."""
    prompt_price: float = 1.0
    """What a prompt token counts against ``max_tokens``, where a completion token counts 1."""
    deadline: float | None = None
    """Budget: seconds from the first request to the answer."""
    stop_at: float | None = None
    """Stop as soon as a reward reaches this."""
    patience: int | None = None
    """Stop after this many rounds in a row without a better best."""
    max_shown_chars: int | None = None
    """Longest text shown to critic and editor in one piece."""
    seed: int | None = None
    """Makes the samples' seeds reproducible; sent to models that have a ``seed``."""
    experience: Experience | None = Field(default_factory=Experience, exclude=True, repr=False)
    """What is learned of chain, critic, editor and reward, call by call; a new one where none is given."""

    def loop_config(self, configurable: Mapping[str, Any] | None = None) -> TPOConfig:
        """Return the settings of one call: the object's own, and over them ``tpo_width`` and the like.

        Raises:
            InvalidInputError: A value is out of range, or a ``tpo_`` key is none of these settings.
        """
        own = loop_settings(self)
        if not configurable:
            return checked(self._learning(own))
        given = {k: v for k, v in configurable.items() if k.startswith(PREFIX)}
        known = {RETURN_TRAJECTORY, *(PREFIX + name for name in _NAMES), *getattr(self, "_hidden", ())}
        if unknown := sorted(set(given) - known):
            raise InvalidInputError(f"config has no setting {unknown[0]}{nearest(unknown[0], known)}")
        over = {k.removeprefix(PREFIX): v for k, v in given.items() if v is not None}
        return checked(self._learning({**own, **over}))

    def _learning(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Leave out an experience that nobody gave where no plan reads it."""
        unread = settings["plan"] == "paper" and "experience" not in self.model_fields_set
        return {**settings, "experience": None} if unread else settings


def refuse_settings(kwargs: Mapping[str, Any], taken: Callable[[], Collection[str]] = tuple) -> None:
    """Refuse settings of the loop among the keyword arguments of a call, which go to the wrapped Runnable.

    Args:
        kwargs: The arguments.
        taken: Returns the names that the Runnable is known to take: these are not misspelt settings.

    Raises:
        InvalidInputError: One is a setting, or nearly one, and no argument that models take.
    """
    for name in kwargs:
        near = get_close_matches(name, _NO_MODELS, 1, 0.8)
        if name.startswith(PREFIX) or name in _NO_MODELS or (near and name not in taken()):
            key = PREFIX + (near[0] if near else name.removeprefix(PREFIX))
            known = [RETURN_TRAJECTORY, *(PREFIX + setting for setting in _NAMES)]
            key = key if key in known else next(iter(get_close_matches(key, known, 1)), RETURN_TRAJECTORY)
            meant = "" if key in (name, PREFIX + name) else f"; did you mean {key.removeprefix(PREFIX)}?"
            raise InvalidInputError(
                f"{name} is no argument of a call{meant or ';'} set it for one call by "
                f'invoke(x, {{"configurable": {{"{key}": ...}}}}), or when wrapping'
            )


def loop_settings(settings: LoopSettings) -> dict[str, Any]:
    """Return the settings by name."""
    return {name: getattr(settings, name) for name in _NAMES}


_NAMES = tuple(f.name for f in fields(TPOConfig))
_NO_MODELS = frozenset({*_NAMES, "return_trajectory"} - {"temperature", "top_p", "max_tokens", "seed", "mode"})
"""Settings that no chat model takes under the same name."""


def checked(settings: Mapping[str, Any]) -> TPOConfig:
    """Return the settings as a ``TPOConfig``, which refuses what is out of range."""
    return TPOConfig(**{name: settings[name] for name in _NAMES if name in settings})


def spread(given: dict[str, Any]) -> dict[str, Any]:
    """Replace ``config=TPOConfig(...)`` among constructor arguments by its fields; what is given beside it wins.

    Raises:
        InvalidInputError: A setting is out of range.
    """
    config = given.pop("config", None)
    if config is not None and not isinstance(config, TPOConfig):
        raise InvalidInputError(f"config must be a TPOConfig, not {type(config).__name__}")
    if config is not None:
        given = {**asdict(config), **given}
    checked(given)
    return given


@contextmanager
def named() -> Iterator[None]:
    """Turn pydantic's complaints about arguments into this project's."""
    try:
        yield
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(str(place) for place in wrong["loc"])
        raise InvalidInputError(f"{where} is wrong: {wrong['msg']}, not {wrong['input']!r:.80}") from error


def setting_specs(hidden: frozenset[str] = frozenset()) -> list[ConfigurableFieldSpec]:
    """Return what a call may set under ``config["configurable"]``; None leaves the object's own."""
    return [
        ConfigurableFieldSpec(
            id=PREFIX + name, annotation=Any, name=name, default=None, description=f"{name} of the loop, this call only"
        )
        for name in _NAMES
        if PREFIX + name not in hidden
    ]
