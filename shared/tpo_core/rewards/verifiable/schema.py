"""JSON by its schema, with every error named as a remark for critic and editor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from tpo_core.cache_keys import made_of
from tpo_core.errors import InvalidInputError
from tpo_core.rewards.base import RewardModel
from tpo_core.values import Pair, Reward

__all__ = ["JSONSchemaReward"]

_SHOWN = 5
"""Errors that the feedback names."""
_LONGEST = 160


class JSONSchemaReward(RewardModel):
    """1 where an answer is JSON that fits a schema, 1 / (1 + errors) where it is JSON that does not, else 0.

    The feedback names the errors with their places, as in ``$.items[2].price: 'ten' is not of type 'number'``. An
    answer must be JSON and nothing else; NaN and Infinity are none. Nothing is fetched: a ``$ref`` must lead into the
    schema.

    Args:
        schema: A JSON schema (``jsonschema`` reads it, its draft by ``$schema``), or a pydantic model.
        name: How errors and feedback keys call it.

    Raises:
        InvalidInputError: It is no schema.

    Example:
        >>> reward = JSONSchemaReward({"type": "object", "required": ["name"], "properties": {"age": {"minimum": 0}}})
        >>> [score] = reward.score("Who?", ['{"age": -1}'])
        >>> print(round(score, 2), score.feedback)
        0.33 2 errors: $: 'name' is a required property; $.age: -1 is less than the minimum of 0
    """

    def __init__(self, schema: Any, *, name: str = "schema") -> None:
        from jsonschema import Draft202012Validator, SchemaError
        from jsonschema.validators import validator_for
        from referencing import Registry

        if hasattr(schema, "model_json_schema"):
            schema = schema.model_json_schema()
        if not isinstance(schema, Mapping):
            raise InvalidInputError(f"schema must be a mapping or a pydantic model, not {type(schema).__name__}")
        kind = validator_for(schema, default=Draft202012Validator)
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            raise InvalidInputError(f"schema is none: {error.json_path}: {error.message:.200}") from error
        self._schema = schema
        self._validator = kind(schema, registry=Registry())  # a registry of its own: nothing is fetched
        self.name = name

    @property
    def cache_key(self) -> str | None:
        """Return the schema; see ``RewardModel``."""
        return made_of("json schema", schema=json.dumps(self._schema, sort_keys=True, default=repr))

    def score_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Check each answer; see ``RewardModel``."""
        return [self._score(pair.response) for pair in pairs]

    async def ascore_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Check each answer where the caller is: it is quick."""
        return self.score_batch(pairs)

    def _score(self, response: str) -> Reward:
        try:
            value = json.loads(response, parse_constant=_refuse)
            found = sorted(self._validator.iter_errors(value), key=lambda error: str(error.json_path))
            errors = [f"{error.json_path}: {_short(error.message)}" for error in found]
        except (ValueError, RecursionError) as error:
            told = _short(str(error) or type(error).__name__)
            remark = f"is not JSON ({told}); write JSON and nothing else, with no words or code fence around it"
            return Reward(0.0, feedback=remark, heads={"json": 0.0, "valid": 0.0})
        if not errors:
            return Reward(1.0, heads={"json": 1.0, "valid": 1.0})
        count = f"{len(errors)} error{'s' if len(errors) > 1 else ''}"
        shown = "; ".join(errors[:_SHOWN])
        return Reward(1 / (1 + len(errors)), feedback=f"{count}: {shown}", heads={"json": 1.0, "valid": 0.0})


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
