"""What a reward model on this machine is known by in caches of whole answers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tpo_core.rewards import HFRewardModel

HUB = "models--org--reward"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_folder_is_known_by_its_files_and_how_it_is_read(build: Callable[..., Path]) -> None:
    folder = build(num_labels=2)
    with HFRewardModel(folder, label=0) as reward, HFRewardModel(folder, label=0, max_prefix_bytes=0) as smaller:
        key = reward.cache_key
        assert key is not None and smaller.cache_key == key
    for setting in ({"label": 1}, {"dtype": "bfloat16"}, {"max_tokens": 50}, {"on_long": "middle"},
                    {"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}, {"keep_thinking": True},
                    {"model_kwargs": {"attn_implementation": "eager"}}):  # fmt: skip
        with HFRewardModel(folder, **{"label": 0, **setting}) as other:
            assert other.cache_key not in (None, key)
    os.utime(folder / "model.safetensors", ns=(1, 1))  # trained on, say
    with HFRewardModel(folder, label=0) as again:
        assert again.cache_key not in (None, key)


def test_what_is_loaded_by_an_object_has_no_key(build: Callable[..., Path]) -> None:
    with HFRewardModel(build(), model_kwargs={"device_map": None, "offload_state_dict": None}) as plain:
        assert plain.cache_key is not None
        plain._setup._source.model_kwargs["quantization_config"] = object()
        assert plain.cache_key is None


def test_a_repository_is_known_by_its_commit(
    build: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for constants in ("huggingface_hub.constants.HF_HUB_CACHE", "transformers.utils.hub.constants.HF_HUB_CACHE"):
        monkeypatch.setattr(constants, str(hub))
    snapshots, refs = hub / HUB / "snapshots", hub / HUB / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(COMMIT)
    shutil.copytree(build(), snapshots / COMMIT)
    with HFRewardModel("org/reward") as reward:
        key = reward.cache_key
    os.utime(snapshots / COMMIT / "model.safetensors", ns=(1, 1))  # fetched again
    with HFRewardModel("org/reward") as reward:
        assert reward.cache_key == key is not None
    other = COMMIT[::-1]
    (snapshots / COMMIT).rename(snapshots / other)
    (refs / "main").write_text(other)
    with HFRewardModel("org/reward") as reward:
        assert reward.cache_key not in (None, key)
