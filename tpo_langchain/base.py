"""RunnableTPO's manners: what langchain-core expects of a Runnable that is made of others."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping
from typing import Any

from langchain_core.prompts import BasePromptTemplate, ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import ConfigurableField, Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.base import coerce_to_runnable
from langchain_core.runnables.graph import Graph, Node
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.runnables.utils import AnyConfigurableField, ConfigurableFieldSpec, get_unique_config_specs
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel

from tpo_core import InvalidInputError
from tpo_core.config import REWARD_NAMES
from tpo_core.errors import nearest
from tpo_core.prompts.rendering import render
from tpo_core.prompts.signatures import Instructions, TextualGradient, TextualLoss, Update
from tpo_core.rewards import as_reward
from tpo_langchain.chain import dissect, parts_inside
from tpo_langchain.reference import check_reference
from tpo_langchain.roles import TunedPrompt
from tpo_langchain.settings import RETURN_TRAJECTORY, setting_specs

__all__ = ["Composite", "checked_parts"]


class Composite(RunnableSerializable[Any, Any]):
    """The parts of a refined Runnable as fields; see ``RunnableTPO`` for what each is for."""

    runnable: Runnable[Any, Any]
    """What is refined."""
    reward: Any
    """What its output is aligned to, as a ``RewardModel``."""
    llm: Runnable[Any, Any] | None = None
    critic: Runnable[Any, Any] | None = None
    editor: Runnable[Any, Any] | None = None
    gold: Any = None
    query: Any = None
    reference: Any = None
    parser: Any = None
    render: Any = None
    prompts: dict[str, TunedPrompt] = Field(default_factory=dict)
    return_trajectory: bool = False
    """Return the Trajectory instead of the best candidate's value."""
    langsmith_feedback: bool = False
    """Send reward, initial reward and gain to LangSmith as feedback on this run."""
    trace_trajectory: bool = False
    """Put the whole trajectory, prompts and answers included, into the metadata of this run in every tracer."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    _given_reward: Any = PrivateAttr(default=None)
    _hidden: frozenset[str] = PrivateAttr(default=frozenset())

    # -- schemas and settings -----------------------------------------------------------------------------------------

    @property
    def InputType(self) -> Any:
        """Return the wrapped Runnable's."""
        return self.runnable.InputType

    @property
    def OutputType(self) -> Any:
        """Return the wrapped Runnable's; anything where the trajectory is returned."""
        return Any if self.return_trajectory else self.runnable.OutputType

    def get_input_schema(self, config: RunnableConfig | None = None) -> Any:
        """Return the wrapped Runnable's."""
        return self.runnable.get_input_schema(config)

    def get_output_schema(self, config: RunnableConfig | None = None) -> Any:
        """Return the wrapped Runnable's; anything where the trajectory is returned."""
        return RootModel[Any] if self.return_trajectory else self.runnable.get_output_schema(config)

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """Return the parts' own, and the loop's settings as ``tpo_width`` and the like."""
        parts = (self.runnable, self.llm, self.critic, self.editor)
        own = [spec for part in parts if part is not None for spec in part.config_specs]
        whole = ConfigurableFieldSpec(
            id=RETURN_TRAJECTORY, annotation=Any, name="return_trajectory", default=None,
            description="Return the Trajectory, this call only",
        )  # fmt: skip
        return get_unique_config_specs([*own, *setting_specs(self._hidden), whole])

    def configurable_fields(self, **kwargs: AnyConfigurableField) -> RunnableSerializable[Any, Any]:
        """Make fields configurable under ids of your own; see ``RunnableSerializable.configurable_fields``."""
        copy = self.model_copy()
        copy._hidden = self._hidden | {f.id for f in kwargs.values() if isinstance(f, ConfigurableField)}
        return RunnableSerializable.configurable_fields(copy, **kwargs)

    # -- drawing ------------------------------------------------------------------------------------------------------

    def get_graph(self, config: RunnableConfig | None = None) -> Graph:
        """Draw the loop around the wrapped Runnable's own graph; its prompts are the loop's."""
        graph = self.runnable.get_graph(config)
        last, output = graph.last_node(), None
        if last is not None and (edges := [e for e in graph.edges if e.target == last.id]):
            output = graph.add_node(last.data)
            graph.edges = [e for e in graph.edges if e not in edges]
            sources = [graph.nodes[e.source] for e in edges]
            graph.remove_node(last)
        else:
            sources = [last] if last is not None else []
        score = _node(graph, "score")
        for source in sources:
            graph.add_edge(source, score)
        if self.loop_config().rounds:  # type: ignore[attr-defined]
            self._draw_rounds(graph, score)
        if output is not None:
            graph.add_edge(score, output)
        return graph

    def _draw_rounds(self, graph: Graph, score: Node) -> None:
        signatures = {"loss": TextualLoss, "gradient": TextualGradient, "update": Update}
        if self.loop_config().merged_critique:  # type: ignore[attr-defined]
            signatures = {"loss": Instructions, "update": Update}
        last = score
        for name, signature in signatures.items():
            node = graph.add_node(_template(signature, self.prompts.get(name)), f"tpo:{name}")
            graph.add_edge(last, node)
            last = node
        graph.add_edge(last, score, conditional=True)

    # -- leaving the process ------------------------------------------------------------------------------------------

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Say yes: what cannot be written among the parts is written as such, and refused when read."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Return where ``load`` finds it."""
        return ["tpo_langchain"]

    def to_json(self) -> Any:
        """Write the parts; a reward that was given by name or URL is written as that."""
        written: Any = super().to_json()
        if isinstance(self._given_reward, (str, Runnable)):
            written["kwargs"]["reward"] = self._given_reward
        return written

    def __getstate__(self) -> dict[Any, Any]:
        """Return what is pickled.

        Raises:
            TypeError: A part cannot be pickled; the message names it.
        """
        for name in (*type(self).model_fields,):
            try:
                pickle.dumps(getattr(self, name))
            except Exception as error:
                raise TypeError(
                    f"{type(self).__name__} cannot be pickled, because its {name} cannot: {error}; build it anew in "
                    "the other process, or use functions and classes that are defined at the top of a module"
                ) from error
        return super().__getstate__()


def checked_parts(names: Collection[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Check the constructor's arguments, and make Runnables and reward models of what was given as such.

    Raises:
        InvalidInputError: One is missing, unknown or of the wrong kind, or every sample would be written to a history.
    """
    if unknown := sorted(set(given) - set(names)):
        meant = "; did you mean reward?" if unknown[0] in REWARD_NAMES else nearest(unknown[0], names)
        raise InvalidInputError(f"unknown argument {', '.join(unknown)}{meant}")
    if given.get("runnable") is None or given.get("reward") is None:
        missing = "runnable" if given.get("runnable") is None else "reward"
        raise InvalidInputError(f"{missing} is missing: RunnableTPO(chain, reward)")
    parts = dict(given)
    try:
        parts["runnable"] = coerce_to_runnable(given["runnable"])
    except TypeError as error:
        raise InvalidInputError(f"runnable must be a Runnable or a function, not {given['runnable']!r:.80}") from error
    if any(isinstance(part, RunnableWithMessageHistory) for part in parts_inside(parts["runnable"])):
        raise InvalidInputError(
            "runnable holds a RunnableWithMessageHistory, whose history every sample would write to: wrap it the other "
            "way round, RunnableWithMessageHistory(prompt | RunnableTPO(model, reward), get_session_history, ...)"
        )
    for name in ("llm", "critic", "editor"):
        if given.get(name) is not None and not isinstance(given[name], Runnable):
            raise InvalidInputError(f"{name} must be a chat model, not {given[name]!r:.80}")
        if given.get(name) is not None:
            _refuse_own_prompt(name, given[name])
    for name in ("query", "reference", "parser", "render"):
        thing, may_be = given.get(name), (Runnable, str) if name in ("query", "reference") else Runnable
        if not (thing is None or callable(thing) or isinstance(thing, may_be)):
            raise InvalidInputError(f"{name} must be a function or a Runnable, not {thing!r:.80}")
    parts["reward"] = as_reward(given["reward"])
    parts["gold"] = None if given.get("gold") is None else as_reward(given["gold"])
    for reward in (parts["reward"], parts["gold"]):
        check_reference(reward, given.get("reference"))
    return parts


def _refuse_own_prompt(name: str, writer: Runnable[Any, Any]) -> None:
    """Refuse a critic or an editor that keeps a history, or whose prompt has no place for the loop's own messages."""
    if any(isinstance(part, RunnableWithMessageHistory) for part in parts_inside(writer)):
        raise InvalidInputError(
            f"{name} holds a RunnableWithMessageHistory, to whose history every critique and update would be written: "
            f"give {name} the chat model itself; what was said before reaches it through the chain's own messages"
        )
    first = next(iter(dissect(writer).before), None)
    if isinstance(first, BasePromptTemplate):
        places = [m for m in getattr(first, "messages", ()) if isinstance(m, MessagesPlaceholder)]
        if [m.variable_name for m in places] != first.input_variables:
            raise InvalidInputError(
                f"{name} begins with a prompt that takes {', '.join(first.input_variables) or 'nothing'}, but it is "
                f"asked with messages that are complete: give {name} the chat model itself, or a prompt whose one "
                "variable is MessagesPlaceholder('messages')"
            )


def _node(graph: Graph, name: str) -> Node:
    class Scoring(BaseModel):
        """The reward model."""

    return graph.add_node(Scoring, f"tpo:{name}")


def _template(signature: Any, tuned: TunedPrompt | None) -> ChatPromptTemplate:
    """Return one of the loop's prompts as LangChain shows prompts."""
    signature = signature if tuned is None else signature.with_instructions(tuned.instructions)
    fields = {name: "{" + name + "}" for name in signature.input_fields}
    return ChatPromptTemplate.from_messages([(m["role"], m["content"]) for m in render(signature, fields)])
