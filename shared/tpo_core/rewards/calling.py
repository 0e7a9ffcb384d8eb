"""The shapes in which people write rewards: found from a signature, called with a pair, their answers read."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

from tpo_core.errors import InvalidInputError, RewardContractError
from tpo_core.prompts.rendering import show_query
from tpo_core.rewards.references import REFERENCES, missing_reference, template_fields
from tpo_core.values import Pair, Prompt, Reward

__all__ = ["Kind", "Takes", "arguments", "as_rewards", "find_kind", "is_number", "lift"]

Kind = Literal["pair", "response", "batch", "metric", "args", "evaluator", "runnable"]
"""How a callable wants to be called; see ``FunctionReward``."""

# Parameter names by which people (DSPy's, TRL's and openevals' documentation among them) tell what they take.
_EXAMPLES = {"example", "gold", "ex", "expected"}
_ARGS = {"args", "kwargs", "arguments"}
_PREDICTIONS = {"pred", "prediction"}
_PLURALS = {"responses", "completions", "answers", "texts", "candidates"}
_RESPONSES = {"response", "completion", "answer", "text", "candidate"}
_INPUTS = {"inputs", "input"}
_LABELS = {"references", "reference_output", "label", "ground_truth", "target"}
_OUTPUTS = _RESPONSES | _PREDICTIONS | {"output", "generation", "generated"}


def find_kind(fn: Any) -> Kind:
    """Find out from its signature how a callable wants to be called.

    Raises:
        InvalidInputError: It is not callable, or the signature fits no kind or several.
    """
    if hasattr(fn, "invoke") and hasattr(fn, "ainvoke"):
        return "runnable"
    if not callable(fn) or inspect.isclass(fn):
        raise InvalidInputError(f"fn must be a callable or a Runnable, not {fn!r:.80}")
    try:
        parameters = _parameters(fn)
    except (TypeError, ValueError):
        raise _ambiguous(fn, "it has no signature") from None
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    names = [p.name for p in named]
    if "outputs" in names:
        return "evaluator"
    named = [p for p in named if p.name != "reference"]
    more = [p.name for p in named if p.default is p.empty and (p.kind is p.KEYWORD_ONLY or "completions" in names)]
    if more := [name for name in more if name not in ("prompts", "completions")]:
        raise _ambiguous(fn, f"it also needs {', '.join(more)}, which only its user knows")
    placed = [p for p in named if p.kind is not p.KEYWORD_ONLY]
    required = [p for p in placed if p.default is p.empty]
    if _PLURALS & set(names) or any(_is_list(p.annotation) for p in named[1:2]):
        if "completions" not in names and len(required) > 1 and names[0] in _PLURALS:
            raise _ambiguous(fn, f"{names[0]!r} comes first, where prompts are given")
        return "batch"
    if len(required) == 1 and names[0] in _RESPONSES:
        return "response"
    if len(placed) >= 2 and len(required) <= 2:
        kind = _of_two(fn, placed[0], placed[1], "trace" in names)
        if kind == "pair":
            _refuse_labels(fn, named)
        return kind
    raise _ambiguous(fn, f"it takes ({', '.join(str(p) for p in parameters)})")


def _refuse_labels(fn: Any, named: Sequence[inspect.Parameter]) -> None:
    """Refuse an optional reference among texts, which nobody would fill."""
    if label := next((p.name for p in named[2:] if p.name in _LABELS), None):
        raise _ambiguous(
            fn, f"{label} would stay empty, since labels are not known while answering: call it reference, and "
            "hand one to the call"
        )  # fmt: skip


def _parameters(fn: Any) -> list[inspect.Parameter]:
    # A module's call takes anything, its forward says what; DSPy warns when an instance's is touched, so ask the class.
    forward = getattr(type(fn), "forward", None)
    if forward is not None:
        return list(inspect.signature(forward).parameters.values())[1:]
    return list(inspect.signature(fn).parameters.values())


def _of_two(fn: Any, first: inspect.Parameter, second: inspect.Parameter, traced: bool) -> Kind:
    if first.name in _EXAMPLES or (traced and second.name not in _RESPONSES):
        return "metric"
    if first.name in _ARGS or first.annotation in (dict, "dict"):
        return "args"
    if first.name == "run":
        raise _ambiguous(fn, "LangSmith's (run, example) takes a traced run, which there is none of here")
    if first.name in _INPUTS and second.name in _OUTPUTS:
        raise _ambiguous(
            fn, f"({first.name}, {second.name}) may be texts, which (prompt, response) takes, or the host's own "
            "objects, which (inputs, outputs) takes"
        )  # fmt: skip
    if first.name in _OUTPUTS:  # given the prompt there, it would score that
        raise _ambiguous(fn, f"{first.name!r} comes first, where the prompt is given")
    if second.name in _PREDICTIONS:
        raise _ambiguous(fn, f"{first.name!r} may be an example or arguments")
    return "pair"


def _is_list(annotation: Any) -> bool:
    return (
        str(annotation).replace("typing.", "").lower().startswith(("list[", "sequence[", "collections.abc.sequence["))
    )


def _ambiguous(fn: Any, why: str) -> InvalidInputError:
    name = getattr(fn, "__name__", type(fn).__name__)
    kinds = ", ".join(get_args(Kind))
    return InvalidInputError(
        f"cannot tell how to call reward {name!r}: {why}; wrap it in a lambda of (prompt, response), "
        f"or say FunctionReward(fn, kind=...): {kinds}"
    )


@dataclass(frozen=True)
class Takes:
    """What a callable takes, as far as its signature tells."""

    names: frozenset[str] = frozenset()
    more: bool = False
    """Whether it takes any other name, too."""
    one: bool = False
    """Whether it takes one thing by place."""
    needs: frozenset[str] = frozenset()
    """What it cannot do without."""

    @classmethod
    def of(cls, fn: Any) -> Takes:
        """Read a signature; a builtin, whose kind was given, may have none."""
        try:
            known = inspect.signature(fn).parameters.values()
        except (TypeError, ValueError):
            return cls()
        kinds = [p.kind for p in known]
        placed = [kind for kind in kinds if kind in (_Kind.POSITIONAL_ONLY, _Kind.POSITIONAL_OR_KEYWORD)]
        one = len(placed) == 1 and _Kind.VAR_POSITIONAL not in kinds
        fields = template_fields(fn)
        needed = {p.name for p in known if p.default is p.empty}
        return cls(fields | {p.name for p in known}, _Kind.VAR_KEYWORD in kinds, one, fields | needed)

    @property
    def needs_reference(self) -> bool:
        """Return whether it cannot do without a reference."""
        return bool(REFERENCES & self.needs)

    def by_name(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what it takes of arguments that are given by name."""
        return {name: value for name, value in given.items() if self.more or name in self.names}


_Kind = inspect.Parameter


def arguments(
    kind: Kind, takes: Takes, pairs: Sequence[Pair], fields: tuple[str, str], name: str = "reward"
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that say these pairs (one, unless the kind is ``batch``) in the callable's own terms.

    Args:
        kind: How it is called.
        takes: What it takes; a Runnable is called by its ``invoke``.
        pairs: What it is called about.
        fields: The names of what is built of prompt and response for ``metric`` and ``args``.
        name: How errors call it.

    Raises:
        InvalidInputError: It compares with a reference, and none is known.
    """
    if kind == "batch":
        prompts, responses = [_own(p.prompt) for p in pairs], [p.response for p in pairs]
        if "completions" in takes.names:  # TRL calls by name, and its functions may take completions alone
            given = {"prompts": prompts, "completions": responses}
            return (), takes.by_name(given)
        return (responses,) if takes.one else (prompts, responses), {}
    (pair,) = pairs
    if takes.needs_reference and _reference(pair) is None:
        raise InvalidInputError(missing_reference(name))
    if kind == "response":
        return (pair.response,), {}
    if kind == "metric":
        return (_example(pair, fields[0]), _prediction(pair, fields[1])), {}
    if kind == "args":
        return (_args(pair, fields[0]), _prediction(pair, fields[1])), {}
    if kind == "evaluator":
        given = {
            "inputs": _own(pair.asked) if _is_chat(pair.inputs) else _unwrapped(pair.inputs),
            "outputs": pair.response if _is_chat(pair.value) else _unwrapped(pair.value),
            "reference_outputs": _reference(pair),
        }
        if "context" in takes.names:  # of what retrieves: the documents stand in what the answering model saw
            given["context"] = show_query(pair.prompt)
        return (), takes.by_name(given)
    if kind == "runnable":
        quiet = {"config": {"tags": ["nostream", "tpo:reward"]}} if "config" in takes.names else {}
        return ({"prompt": _own(pair.prompt), "response": pair.response},), quiet  # LangGraph streams all but these
    known = {"reference": _reference(pair)} if "reference" in takes.names else {}
    return (_own(pair.prompt), pair.response), known


def _reference(pair: Pair) -> Any:
    return getattr(pair.inputs, "reference_outputs", None) if pair.reference is None else pair.reference


def _own(prompt: Prompt) -> Prompt:
    return prompt if isinstance(prompt, str) else copy.deepcopy(list(prompt))  # a function may write in its list


def _is_chat(thing: Any) -> bool:
    """Return whether there is nothing, or what evaluators cannot read: LangChain messages or a prompt value."""
    several = isinstance(thing, (list, tuple)) and any(hasattr(m, "content") for m in thing)
    return thing is None or hasattr(thing, "content") or hasattr(thing, "to_messages") or several


def _unwrapped(thing: Any) -> Any:
    return dict(thing.items()) if hasattr(thing, "toDict") else thing  # evaluators know no DSPy objects


def _example(pair: Pair, field: str) -> Any:
    import dspy

    from tpo_core.rewards.labelled import Labelled

    if isinstance(pair.inputs, dspy.Example):
        return pair.inputs
    given = _args(pair, field)
    known = dict(pair.reference) if isinstance(pair.reference, Mapping) else {}
    if pair.reference is not None:
        known[pair.reference_name] = pair.reference
    return Labelled({**known, **given}).with_inputs(*given)


def _args(pair: Pair, field: str) -> dict[str, Any]:
    if isinstance(pair.inputs, Mapping):
        return dict(pair.inputs)
    if hasattr(pair.inputs, "toDict"):
        return dict(pair.inputs.items())
    return {field: _own(pair.asked)}


def _prediction(pair: Pair, field: str) -> Any:
    import dspy

    if isinstance(pair.value, dspy.Prediction):
        return pair.value
    compared = {} if pair.reference is None else {pair.reference_name: pair.response}  # pred.answer, example.answer
    return dspy.Prediction(**{**compared, field: pair.response})


def as_rewards(answers: Any, name: str) -> list[Reward]:
    """Read a batch function's answer; the count is checked by the caller.

    Raises:
        RewardContractError: It is not a list of answers.
    """
    if hasattr(answers, "tolist"):  # an array or a tensor
        answers = answers.tolist()
    if not isinstance(answers, Sequence) or isinstance(answers, (str, bytes)):
        raise RewardContractError(f"reward {name!r} returned {type(answers).__name__}; a batch function returns a list")
    return [lift(a) for a in answers]


def is_number(thing: Any) -> bool:
    """Return whether this is a finite number, Python's or numpy's."""
    return isinstance(thing, Real) and math.isfinite(thing)


def lift(answer: Any) -> Reward:
    """Read one answer of a user's function: a number, (number, feedback), a mapping, a Prediction, evaluator results.

    What cannot be read is NaN with the reason, never a default number.
    """
    if isinstance(answer, Reward):
        return answer
    if isinstance(answer, (float, int)) and math.isfinite(answer):
        return Reward(answer)
    if isinstance(answer, tuple) and len(answer) == 2 and not isinstance(answer[1], Real):
        return _reward(answer[0], answer[1])
    if isinstance(answer, Mapping):
        return _reward(_first(answer.get, "score", "reward"), _first(answer.get, "feedback", "comment", "reasoning"))
    if isinstance(answer, Sequence) and not isinstance(answer, str) and answer:
        if len(answer) == 1 and isinstance(answer[0], Real):
            return lift(answer[0])
        if any(isinstance(a, Real) for a in answer):  # one number per character, say, of a function made for lists
            return Reward(math.nan, failure=f"{answer!r:.80} is not one number; a function of lists needs kind='batch'")
        return _averaged(answer)
    if hasattr(answer, "score"):  # dspy.Prediction, langsmith's EvaluationResult; both raise on unknown attributes
        return _reward(answer.score, _first(_getter(answer), "feedback", "comment"))
    return _reward(getattr(answer, "content", answer), None)


def _first(get: Callable[[str], Any], *names: str) -> Any:
    return next((v for v in map(get, names) if v is not None), None)


def _getter(thing: Any) -> Callable[[str], Any]:
    return lambda name: getattr(thing, name, None)


def _averaged(answers: Sequence[Any]) -> Reward:
    parts = [lift(a) for a in answers]
    keys = [str(a.get("key", i)) if isinstance(a, Mapping) else str(i) for i, a in enumerate(answers)]
    failure = next((p.failure for p in parts if math.isnan(p)), None)
    said = "\n".join(f"{k}: {p.feedback}" for k, p in zip(keys, parts, strict=True) if p.feedback)
    mean = sum(parts) / len(parts)
    return Reward(mean, feedback=said or None, heads=dict(zip(keys, map(float, parts), strict=True)), failure=failure)


def _reward(value: Any, feedback: Any) -> Reward:
    said = None if feedback is None else str(feedback)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return Reward(math.nan, feedback=said, failure=f"{value!r:.80} is not a number")
    return Reward(number, feedback=said, failure=None if math.isfinite(number) else f"the reward is {number}")
