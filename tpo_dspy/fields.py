"""What a program takes and gives, and the prompts derived from it: the loss, the gradient and the update."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.adapters.types.base_type import Type
from dspy.adapters.utils import serialize_for_json

from tpo_core.errors import InvalidInputError
from tpo_core.prompts.modeltext import without_reasoning
from tpo_core.prompts.rendering import render_fields
from tpo_core.prompts.signatures import (
    Instructions,
    SelfCritique,
    SelfInstructions,
    Signature,
    TextualGradient,
    TextualLoss,
    Update,
)
from tpo_core.records import repr_without_texts
from tpo_core.values import Prompt

__all__ = ["PRIVILEGED", "Shape", "bind", "pick_query", "seen_text", "shape_of", "show"]

REASONING = ("reasoning", "rationale")
PRIVILEGED = ("config", "demos", "lm", "signature")
"""Keywords that Predict takes beside its input fields."""


@dataclass(frozen=True)
class Shape:
    """The fields of a program, as far as they can be known before it runs."""

    inputs: Mapping[str, Any]
    """Input fields by name."""
    outputs: Mapping[str, Any]
    """The output fields that are scored, criticised and rewritten, by name."""
    instructions: str
    """What the program's last prompt asks for."""
    context: Mapping[str, Any]
    """Input fields that the query's text cannot hold (images, audio, files, what an agent did): the critic and the
    editor are given them too."""

    __repr__ = repr_without_texts()

    @property
    def improved(self) -> dict[str, str]:
        """Return the update's name of each output field; unlike any field of the task."""
        taken = {*self.inputs, *self.outputs}
        names = {}
        for name in self.outputs:
            new = f"improved_{name}"
            while new in taken:
                new += "_"
            names[name] = new
        return names

    def loss(self, *, contrast: bool, merged: bool = False) -> type[dspy.Signature]:
        """Return the prompt of the textual loss, or the one that stands for loss and gradient."""
        if merged:
            return self._about_task(Instructions if contrast else SelfInstructions)
        return self._about_task(TextualLoss if contrast else SelfCritique)

    def gradient(self) -> type[dspy.Signature]:
        """Return the prompt of the textual gradient."""
        return self._about_task(TextualGradient)

    def update(self) -> type[dspy.Signature]:
        """Return the prompt of the update: the engine's, with the program's own output types."""
        signature = self._about_task(Update).delete("improved_response")
        for name, improved in self.improved.items():
            signature = signature.append(improved, _improved_field(name, self.outputs[name]))
        return signature  # type: ignore[no-any-return]

    def query(self, kwargs: Mapping[str, Any]) -> str:
        """Write a call's inputs as text."""
        known = {k: v for k, v in kwargs.items() if k in self.inputs}
        shown = known or {k: v for k, v in kwargs.items() if k not in PRIVILEGED}
        return render_fields({k: show(v) for k, v in shown.items()}) if shown else ""

    def response(self, prediction: Any) -> str:
        """Write the scored fields of a program's prediction as text.

        Raises:
            InvalidInputError: The program returned something else, or a field is missing.
        """
        if not isinstance(prediction, dspy.Prediction):
            raise InvalidInputError(
                f"program must return a dspy.Prediction, not {type(prediction).__name__}: return dspy.Prediction(...)"
            )
        missing = [name for name in self.outputs if name not in prediction]
        if missing:
            raise InvalidInputError(
                f"fields names {', '.join(missing)}, which the program's Prediction lacks; it has "
                f"{', '.join(prediction.keys()) or 'nothing'}: say which to refine, such as fields=['answer']"
            )
        return render_fields({name: without_reasoning(show(prediction[name])) for name in self.outputs})

    def _about_task(self, asked: Signature) -> type[dspy.Signature]:
        """Add the program's own instructions, and the inputs that the query's text cannot hold."""
        signature = _as_dspy(asked)
        if self.instructions:
            task = f"The task that the response must fulfil:\n{self.instructions}"
            signature = signature.with_instructions(f"{signature.instructions}\n\n{task}")
        for name, info in reversed(list(self.context.items())):
            if name not in signature.fields:
                signature = signature.prepend(name, copy.deepcopy(info), (info.annotation or str) | None)
        return signature


def _as_dspy(signature: Signature) -> type[dspy.Signature]:
    """Make DSPy's class of one of the engine's prompts."""
    fields = {name: (str, dspy.InputField(desc=desc)) for name, desc in signature.input_fields.items()}
    fields |= {name: (str, dspy.OutputField(desc=desc)) for name, desc in signature.output_fields.items()}
    return dspy.Signature(fields, signature.instructions, signature_name=signature.name)  # type: ignore[no-any-return]


def shape_of(program: dspy.Module, fields: Sequence[str] | None, final: dspy.Module | None = None) -> Shape:
    """Find out what a program takes and gives.

    Args:
        program: The user's program.
        fields: Names of the output fields to refine; by default those of its last prompt, reasoning left out.
        final: The part that writes the answer, where the program is an agent.

    Raises:
        InvalidInputError: ``fields`` is not a list of names, or is needed and missing.
    """
    if fields is not None and (isinstance(fields, str) or not fields or not all(isinstance(f, str) for f in fields)):
        raise InvalidInputError(f"fields must be a list of output field names, such as ['answer'], not {fields!r}")
    inner = _of_loops(program)
    predictors = [p for p in program.predictors() or _all_predictors(program) if id(p) not in inner]
    outer = getattr(program, "signature", None)
    own: Any = outer if inspect.isclass(outer) and issubclass(outer, dspy.Signature) else None
    last = (final.predictors() or [None])[-1] if final is not None else (predictors[-1] if predictors else None)
    answer: Any = own or (last.signature if last is not None else None)
    if answer is None and fields is None:
        raise InvalidInputError("program has no predictor to take output fields from: name them with fields=['...']")
    known = {name: info for p in predictors for name, info in p.signature.output_fields.items()}
    known |= dict(answer.output_fields) if answer is not None else {}
    wanted = fields if fields is not None else _but_reasoning(answer.output_fields)
    inputs = dict((own or predictors[0].signature).input_fields) if own or len(predictors) == 1 else {}
    context = {n: i for p in predictors for n, i in p.signature.input_fields.items() if _is_media(i) and n not in known}
    if final is not None:
        context["trajectory"] = dspy.InputField(desc="what the agent did, and what its tools returned")
    return Shape(
        inputs=inputs,
        outputs={name: known.get(name) or dspy.OutputField(desc=f"${{{name}}}") for name in wanted},
        instructions=answer.instructions if answer is not None else "",
        context=context,
    )


def bind(program: dspy.Module, args: Iterable[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Name a call's positional arguments after the parameters of the program's ``forward``.

    Raises:
        InvalidInputError: They have no names there.
    """
    positional = list(args)
    if not positional:
        return dict(kwargs)
    forward = inspect.signature(type(program).forward).parameters.values()
    names = [p.name for p in list(forward)[1:] if p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(names) < len(positional):
        raise InvalidInputError(f"{type(program).__name__} takes keyword arguments only, such as question='...'")
    return {**dict(zip(names, positional, strict=False)), **kwargs}


def pick_query(query: str | Callable[[Any], Prompt] | None, shape: Shape, inputs: dspy.Example) -> Prompt:
    """Return what the critic and the reward model are shown as the question.

    Raises:
        InvalidInputError: The input field that ``query`` names is not given.
    """
    if query is None:
        asked = shape.query(dict(inputs.inputs().items()))
        if not asked.strip():
            takes = ", ".join(f"{name}=..." for name in shape.inputs) or "its inputs"
            raise InvalidInputError(f"query is empty: the call holds nothing that is asked; the program takes {takes}")
        return asked
    if callable(query):
        return query(inputs)
    if query not in inputs:
        raise InvalidInputError(f"query names the input {query!r}, which this call lacks; it has {list(inputs.keys())}")
    return show(inputs[query])


def seen_text(inputs: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """Write what a predictor was given, below those of the call's inputs that are not among it.

    None where it was given what the call was given, in whatever order.
    """
    asked, seen = ({k: show(v) for k, v in of.items() if k not in PRIVILEGED} for of in (inputs, given))
    if not set(seen.values()) - set(asked.values()):
        return None
    return render_fields({**{k: v for k, v in asked.items() if v not in seen.values() and k not in seen}, **seen})


def show(value: Any) -> str:
    """Write a field's value as text: a string as it is, structures as JSON, media by their kind."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, dspy.History):
        return "\n\n".join(render_fields({k: show(v) for k, v in turn.items()}) for turn in value.messages)
    if isinstance(value, Type) and _is_media_type(type(value)):
        return f"[{type(value).__name__.lower()}]"
    plain = serialize_for_json(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _improved_field(name: str, info: Any) -> Any:
    field = copy.deepcopy(info)
    if field.annotation is dspy.Reasoning or field.annotation is None:
        field.annotation = str
    extra = dict(field.json_schema_extra or {})
    desc = extra.get("desc") or f"${{{name}}}"
    told = f"the improved {name.replace('_', ' ')}, nothing else"
    extra |= {
        "desc": told if desc == f"${{{name}}}" else f"{told}: {desc}",
        "prefix": f"Improved {name.replace('_', ' ').title()}:",
        "__dspy_field_type": "output",
    }
    field.json_schema_extra = extra
    return field


def _but_reasoning(fields: Mapping[str, Any]) -> list[str]:
    rest = [n for n, i in fields.items() if n not in REASONING and i.annotation is not dspy.Reasoning]
    return rest or list(fields)


def _all_predictors(program: dspy.Module) -> list[dspy.Predict]:
    """Return the predictors of a compiled, and therefore frozen, program."""
    return [module for _, module in program.named_sub_modules(dspy.Predict)]


def _of_loops(program: dspy.Module) -> set[int]:
    """Return the ids of the predictors by which refined modules inside a program criticise and update."""
    loops = [m for _, m in program.named_sub_modules() if {"program", "loss", "gradient", "update"} <= vars(m).keys()]
    tasks = [vars(loop)[task] for loop in loops for task in ("loss", "gradient", "update")]
    return {id(p) for task in tasks if isinstance(task, dspy.Module) for p in _all_predictors(task)}


def _is_media(info: Any) -> bool:
    annotation = info.annotation
    options = [annotation, *getattr(annotation, "__args__", ())]
    return any(inspect.isclass(option) and _is_media_type(option) for option in options)


def _is_media_type(kind: type) -> bool:
    return issubclass(kind, (dspy.Image, dspy.Audio, dspy.File))
