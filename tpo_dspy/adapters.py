"""The host's adapter with two things added: every sample its own, and one-field answers read leniently.

An adapter is the one place that sees every predictor call of a program with its language model, so that samples can be
told apart there without copying or changing the program. What is made here is still an instance of the host's adapter.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, get_args

import dspy
from dspy.adapters.utils import parse_value
from pydantic import TypeAdapter

from tpo_core.prompts.control_tokens import join_control_tokens
from tpo_core.prompts.modeltext import read_json, without_reasoning
from tpo_core.prompts.reading import read
from tpo_core.prompts.sections import unecho
from tpo_core.records import repr_without_texts

__all__ = ["Sampling", "lenient", "salted"]

_REPAIRED = 4000
"""How many characters of JSON are repaired, at most: DSPy's way takes half a second for them at worst."""


@dataclass(frozen=True)
class Sampling:
    """How one sample is drawn."""

    salt: tuple[int, ...] = ()
    """Numbers unlike those of any other sample, one for each loop that this one runs in."""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    """Sent to the provider; None sends none."""
    forgiving: bool = False
    """Whether an answer of one text without the adapter's markers is taken whole, where it is in plain text."""
    rewrite: Callable[[Any, Mapping[str, Any]], tuple[Any, Mapping[str, Any]]] | None = None
    """Given the signature and the inputs of every predictor call, returns those that are sent."""
    shown: Mapping[str, Any] = field(default_factory=dict)
    """What the prompt showed, to tell what an answer repeats of it."""

    __repr__ = repr_without_texts("salt")

    def of(self, lm: Any, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return a call's settings.

        A predictor's own settings win, except that its rollout id is made another for each sample. Of two token limits
        the lower holds. Reasoning models, which take no sampling settings, are sent none.
        """
        given = {**getattr(lm, "kwargs", {}), **own}
        settings = {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        limits = [limit for limit in (given.get("max_tokens"), self.max_tokens) if limit is not None]
        settings["max_tokens"] = min(limits, default=None)
        if "max_completion_tokens" in given:
            settings = {}
        added = {k: v for k, v in settings.items() if v is not None and k not in own}
        return {**added, **own, "rollout_id": _mix(given.get("rollout_id"), self.salt)}


def salted(adapter: dspy.Adapter | None, sampling: Sampling) -> dspy.Adapter:
    """Return the adapter (DSPy's default for None) so that all it sends is drawn as ``sampling`` says."""
    return _made(adapter, sampling, _Salted)


def lenient(adapter: dspy.Adapter | None, sampling: Sampling) -> dspy.Adapter:
    """Return the adapter, salted, so that an answer of one field is read even without the adapter's markers."""
    return _made(adapter, sampling, _Lenient)


class _Salted:
    """Sends each call with its sample's settings."""

    _sampling: Sampling

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Stop here: the next in line would report each format and parse to callbacks once more."""

    def __call__(self, lm: Any, lm_kwargs: dict[str, Any], signature: Any, demos: Any, inputs: Any) -> Any:
        return super().__call__(*self._sent(lm, lm_kwargs, signature, demos, inputs))  # type: ignore[misc]

    async def acall(self, lm: Any, lm_kwargs: dict[str, Any], signature: Any, demos: Any, inputs: Any) -> Any:
        return await super().acall(*self._sent(lm, lm_kwargs, signature, demos, inputs))  # type: ignore[misc]

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        try:
            return dict(super().parse(signature, _answer(signature, completion)))  # type: ignore[misc]
        except dspy.AdapterParseError:
            fields = [(name, info.annotation) for name, info in signature.output_fields.items()]
            if not (self._sampling.forgiving and len(fields) == 1 and fields[0][1] is str and _is_plain_chat(self)):
                raise
            return {fields[0][0]: read(signature, completion)}

    def _sent(self, lm: Any, own: Mapping[str, Any], signature: Any, demos: Any, inputs: Any) -> tuple[Any, ...]:
        if self._sampling.rewrite is not None:
            signature, inputs = self._sampling.rewrite(signature, inputs)
        return lm, self._sampling.of(lm, own), signature, demos, inputs


class _Lenient(_Salted):
    """Reads an answer of one field leniently; several fields are read as the adapter does."""

    # The plain pipeline of the base class is run for one field: it goes through ``parse`` below, and asks no second
    # time in JSON when markers are missing.

    def __call__(self, lm: Any, lm_kwargs: dict[str, Any], signature: Any, demos: Any, inputs: Any) -> Any:
        if len(signature.output_fields) != 1:
            return super().__call__(lm, lm_kwargs, signature, demos, inputs)
        return dspy.Adapter.__call__(self, *self._sent(lm, lm_kwargs, signature, demos, inputs))

    async def acall(self, lm: Any, lm_kwargs: dict[str, Any], signature: Any, demos: Any, inputs: Any) -> Any:
        if len(signature.output_fields) != 1:
            return await super().acall(lm, lm_kwargs, signature, demos, inputs)
        return await dspy.Adapter.acall(self, *self._sent(lm, lm_kwargs, signature, demos, inputs))

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        completion = join_control_tokens(completion)
        if len(signature.output_fields) != 1:
            return dict(super().parse(signature, completion))
        [(name, info)] = signature.output_fields.items()
        if not _reads_plainly(self):
            try:
                found = super().parse(signature, completion)[name]
                return {name: unecho(found.strip("\n "), self._sampling.shown) if isinstance(found, str) else found}
            except Exception:  # noqa: BLE001 - whatever the adapter does not find in it, the text is still there
                pass
        try:
            return {name: _value(read(signature, completion, self._sampling.shown), info.annotation)}
        except Exception as error:
            raise dspy.AdapterParseError(
                adapter_name=type(self).__name__, signature=signature, lm_response=completion, message=str(error)
            ) from error


def _answer(signature: Any, completion: str) -> str:
    """Return a completion without the reasoning before it, where no output field is called as such."""
    named = {"think", "thinking"} & set(signature.output_fields)
    return completion if named else without_reasoning(completion)


def _value(text: str, annotation: Any) -> Any:
    """Read a field's value as DSPy does, but without its repair of broken JSON where that would take long."""
    if len(text) <= _REPAIRED or annotation is str or {str, type(None)} <= set(get_args(annotation)):
        return parse_value(text, annotation)
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    try:
        return adapter.validate_python(read_json(text))
    except ValueError:  # no JSON, or not of this type: perhaps the type takes text
        return adapter.validate_python(text)


def _reads_plainly(adapter: Any) -> bool:
    """Return whether ``prompting.read`` reads all that the adapter can, and more."""
    # A TwoStepAdapter's own parse would ask another model to copy out the text.
    return isinstance(adapter, dspy.TwoStepAdapter) or _is_plain_chat(adapter)


def _is_plain_chat(adapter: Any) -> bool:
    return isinstance(adapter, dspy.ChatAdapter) and not isinstance(adapter, (dspy.JSONAdapter, dspy.XMLAdapter))


def _made(adapter: dspy.Adapter | None, sampling: Sampling, kind: type[_Salted]) -> dspy.Adapter:
    base = dspy.ChatAdapter() if adapter is None else adapter
    made = copy.copy(base)
    outer = getattr(base, "_sampling", None)
    if outer is not None:  # a loop inside a loop: both tell their samples apart
        sampling = replace(sampling, salt=(*outer.salt, *sampling.salt), rewrite=_both(outer.rewrite, sampling.rewrite))
    host: Any = getattr(type(base), "_host", type(base))
    made.__class__ = _mixed(host, kind)  # type: ignore[arg-type]
    made._sampling = sampling
    return made


def _both(outer: Any, inner: Any) -> Any:
    if outer is None or inner is None:
        return outer or inner
    return lambda signature, inputs: outer(*inner(signature, inputs))


@lru_cache(maxsize=64)  # bounded: some hosts make an adapter class per call
def _mixed(host: Any, kind: Any) -> Any:
    return type(host.__name__, (kind, host), {"_host": host, "__module__": host.__module__})


def _mix(own: Any, salt: tuple[int, ...]) -> int:
    """Return a rollout id of its own for each rollout id and salt: small ones stay readable, others are hashed."""
    if own is None and len(salt) == 1:
        return salt[0]
    digest = hashlib.blake2b(repr((own, salt)).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")
