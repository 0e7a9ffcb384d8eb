"""A reward model from its repository or folder: config, tokenizer, weights.

Weights are read from safetensors alone, so nothing is unpickled. Code from a repository runs only with
``trust_remote_code=True``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import Tensor
from transformers.utils import cached_file

from tpo_core.cache_keys import files_key, made_of
from tpo_core.errors import InvalidInputError, ModelError
from tpo_core.rewards.families.entries import Blend, Family, Gate, Logits
from tpo_core.rewards.hf.devices import cpu_has
from tpo_core.rewards.hf.heads import HeadFn, LinearHead, build_head
from tpo_core.rewards.hf.hub import commit_here, only_here
from tpo_core.rewards.hf.owncode import is_own_code, restore_buffers
from tpo_core.rewards.hf.pooled import reads_one_token
from tpo_core.rewards.hf.quiet import without_reports

__all__ = ["Loaded", "Source", "cpu_has"]

_CLASSIFIER = "AutoModelForSequenceClassification"


@dataclass(frozen=True)
class Source:
    """Where a reward model comes from and how it is to be read."""

    name: str
    family: Family
    trust_remote_code: bool = False
    revision: str | None = None
    label: str | int | None = None
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    told: bool = False
    """Whether the caller said which family it is."""
    offline: bool = False
    """Whether only files that are here are read."""

    @property
    def _where(self) -> dict[str, Any]:
        here = {"local_files_only": True} if self.offline else {}
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code, **here}

    def found(self) -> Source:
        """Return where the model is: where the hub cannot be reached, what is here of it.

        Raises:
            ModelError: It is neither on the hub nor here.
        """
        if not self.offline and only_here(self.name, self.revision):
            return replace(self, offline=True)
        return self

    @property
    def cache_key(self) -> str | None:
        """Return what the checkpoint is known by: a folder by its files, a repository by the commit that is here."""
        commit = commit_here(self.name, self.revision)
        return made_of(
            "checkpoint",
            *([] if commit else [files_key(self.name)]),
            name=self.name,
            commit=commit,
            family=self.family,
            code=self.trust_remote_code,
            label=self.label,
            model_kwargs=dict(self.model_kwargs),
        )

    def config(self) -> Any:
        """Return the model's config.

        Raises:
            InvalidInputError: The model needs code from its repository, or is no sequence classifier.
            ModelError: There is no such model.
        """
        if self.family.body == "remote":
            self._need_trust()
        config = self._written_config()
        if "attn_implementation" not in self.model_kwargs and str(config._attn_implementation).startswith("flash"):
            config._attn_implementation = None  # what the authors' machine had; the scores are the same
        if self.family.body != "classifier":
            return config
        if _CLASSIFIER in (getattr(config, "auto_map", None) or {}) and not self.told:
            self._need_trust("; or, if transformers' own class does the same, family='sequence classifier'")
            return config
        kinds = getattr(config, "architectures", None) or ["?"]
        if not kinds[0].endswith("ForSequenceClassification"):
            raise InvalidInputError(
                f"{self.name} is a {kinds[0]}, not a sequence classifier; give family= when it is a known reward model "
                "under another name, or score with a JudgeReward when it writes text"
            )
        return config

    def _need_trust(self, otherwise: str = "") -> None:
        if not self.trust_remote_code:
            raise InvalidInputError(
                f"{self.name} ({self.family.name}) runs code from its repository: read it, then give "
                f"trust_remote_code=True{otherwise}"
            )

    def _written_config(self) -> Any:
        try:
            if self.family.model_type:
                written, _ = transformers.PretrainedConfig.get_config_dict(
                    self.name, revision=self.revision, local_files_only=self.offline
                )
                return transformers.AutoConfig.for_model(**{**written, "model_type": self.family.model_type})
            return transformers.AutoConfig.from_pretrained(self.name, **self._where)
        except (OSError, ValueError) as error:
            if "trust_remote_code" in str(error):
                self._need_trust()
            raise ModelError(f"cannot find the reward model {self.name!r}: {error}") from error

    def tokenizer(self) -> Any:
        """Return the model's tokenizer."""
        try:
            return transformers.AutoTokenizer.from_pretrained(self.name, **self._where)
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot load the tokenizer of {self.name!r}: {error}") from error

    def padding(self, config: Any) -> int | None:
        """Return the token that the class of a classifier passes over where it looks for the last one, if any."""
        padding: int | None = getattr(config.get_text_config(), "pad_token_id", None)
        return padding if self.family.body == "classifier" else None

    def load(self, config: Any, device: torch.device, dtype: torch.dtype) -> Loaded:
        """Read the weights.

        Raises:
            ModelError: There are no safetensors, or weights are missing.
        """
        loader = {"body": "AutoModel", "remote": self.family.loader}.get(self.family.body, _CLASSIFIER)
        model = self._weights(loader, config, device, dtype)
        if self.family.body == "body":
            return Loaded(model, self._head(config, device), config, device, hidden=True)
        if self.family.body == "remote" or is_own_code(model):
            column = 0 if self.label is None else _column(config, self.label, self.name)[0]
            head = LinearHead(None, None, column, ("score",))
            return Loaded(model, head, config, device, hidden=False, alone=True)
        column, names = _column(config, self.label, self.name)
        if reads_one_token(model, self.padding(config), device):
            score = model.score
            head = LinearHead(score.weight.detach(), None if score.bias is None else score.bias.detach(), column, names)
            return Loaded(model.base_model, head, config, device, hidden=True)
        return Loaded(model, LinearHead(None, None, column, names), config, device, hidden=False)

    def _weights(self, loader: str, config: Any, device: torch.device, dtype: torch.dtype) -> Any:
        chosen = {"dtype": dtype, "use_safetensors": True, **self._where, "config": config, **self.model_kwargs}
        if self.family.body == "body":  # the repository's own code is not wanted, even where it is allowed
            chosen["trust_remote_code"] = False
        try:
            with without_reports():  # what is missing is an error below; that a body has no head is as it should be
                model, info = getattr(transformers, loader).from_pretrained(
                    self.name, output_loading_info=True, **chosen
                )
            if is_own_code(model):
                restore_buffers(model)
        except Exception as error:  # files, arguments and code of others: anything may be wrong with them
            raise ModelError(
                f"cannot load the weights of {self.name!r} (safetensors only; pickled ones can be loaded with "
                f"transformers and saved to a folder): {error}"
            ) from error
        if info["missing_keys"]:
            missing = ", ".join(sorted(info["missing_keys"])[:3])
            raise ModelError(f"the checkpoint of {self.name!r} lacks weights of its reward model: {missing}")
        if "device_map" not in self.model_kwargs and getattr(model, "hf_quantizer", None) is None:
            model.to(device)
        return model.eval().requires_grad_(False)

    def _head(self, config: Any, device: torch.device) -> HeadFn:
        spec = self.family.head
        if isinstance(spec, Logits):
            raise ModelError(f"family {self.family.name!r}: a plain body needs a head of its own, not Logits()")
        if isinstance(spec, Gate):
            starts: tuple[str, ...] = (spec.regression, spec.gating, spec.matrix)
        else:
            starts = (spec.means, spec.gate) if isinstance(spec, Blend) else (spec.prefix,)
        tensors = {k: v.to(device) for k, v in self._tensors(starts).items()}
        temperature = float(getattr(config, "gating_temperature", 10.0))
        return build_head(spec, tensors, temperature=temperature, name=self.name)

    def _tensors(self, starts: tuple[str, ...]) -> dict[str, Tensor]:
        """Read the tensors whose names start so, from whichever shards hold them."""
        index = self._file("model.safetensors.index.json")
        if index is None:
            files = {"model.safetensors"}
        else:
            with open(index, encoding="utf-8") as file:
                shards: dict[str, str] = json.load(file)["weight_map"]
            files = {shard for key, shard in shards.items() if key.startswith(starts)}
        found: dict[str, Tensor] = {}
        for path in (self._file(name) for name in sorted(files)):
            if path is None:
                raise ModelError(f"{self.name!r} has no safetensors weights")
            with safe_open(path, framework="pt") as shard:
                found.update({key: shard.get_tensor(key) for key in shard.keys() if key.startswith(starts)})  # noqa: SIM118
        return found

    def _file(self, name: str) -> str | None:
        path: str | None = cached_file(
            self.name,
            name,
            revision=self.revision,
            local_files_only=self.offline,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return path


@dataclass(frozen=True)
class Loaded:
    """A model in memory with its head."""

    model: Any
    """The plain transformer, or the whole classifier where ``hidden`` is False."""
    head: HeadFn
    config: Any
    device: torch.device
    hidden: bool
    """Whether the model gives hidden states to the head, or logits."""
    alone: bool = False
    """Whether one sequence at a time is the only sure way: code of a repository may pool and mask as it likes."""


def _column(config: Any, label: str | int | None, name: str) -> tuple[int, list[str]]:
    """Return which logit is the score, and the names of all."""
    labels = dict(getattr(config, "id2label", None) or {0: "score"})
    names = [str(labels[i]) for i in range(len(labels))]
    if label is None and len(names) > 1:
        raise InvalidInputError(
            f"{name} has {len(names)} labels ({', '.join(names)}): say which is the score with label="
        )
    if isinstance(label, str) and label in names:
        return names.index(label), names
    column = 0 if label is None else label
    if isinstance(column, str) or not 0 <= column < len(names):
        raise InvalidInputError(f"label {label!r} is not one of {name}'s: {', '.join(names)}")
    return column, names
