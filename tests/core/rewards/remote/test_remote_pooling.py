"""Where a server reads the score of a text that ends with the padding token: its self-test says so."""

from __future__ import annotations

import copy
import logging

import pytest

from tpo_core.rewards import RemoteRewardModel


@pytest.fixture
def padded(tokenizer):
    """The tokenizer as TRL leaves it: the token that ends texts is its padding token, too."""
    mine = copy.deepcopy(tokenizer)
    mine.pad_token = mine.eos_token
    return mine


def passing_over(fakes, kind, padding):
    """Return a server that pools as transformers' classes do: at the last token that is not padding."""

    class Passing(kind):
        def post(self, path, body):
            if "input" in body:
                body = {**body, "input": [cut(ids) for ids in body["input"]]}
            return super().post(path, body)

    def cut(ids):
        while ids[-1] == padding:
            ids = ids[:-1]
        return ids

    return Passing()


def test_a_server_that_reads_the_padding_token_is_said_to_and_warned_of_once(fakes, padded, caplog):
    with fakes.serving(fakes.Vllm()) as (url, posts), caplog.at_level(logging.WARNING):
        reward = RemoteRewardModel(url, tokenizer=padded)
        reward.score("Why?", ["a", "b"])
        assert [r.message for r in caplog.records if "its class in transformers reads the token before" in r.message]
        assert len(caplog.records) == 1
        (found,) = reward.selftest()
        assert found.reads_padding is True and len(found.scores) == 4
        assert all(ids[-1] == padded.pad_token_id for ids in posts[1][1]["input"])  # what is scored is sent whole


def test_a_server_that_passes_over_padding_as_the_class_does_is_not_warned_of(fakes, padded, caplog):
    server = passing_over(fakes, fakes.Vllm, padded.pad_token_id)
    with fakes.serving(server) as (url, _), caplog.at_level(logging.WARNING):
        (found,) = RemoteRewardModel(url, tokenizer=padded).selftest()
        assert found.reads_padding is False and not caplog.records


def test_nothing_is_said_where_no_text_ends_with_the_padding_token(fakes, tokenizer, caplog):
    other = copy.deepcopy(tokenizer)
    other.pad_token = "<s>"
    for known in (tokenizer, other, None):
        with fakes.serving(fakes.Vllm()) as (url, _), caplog.at_level(logging.WARNING):
            (found,) = RemoteRewardModel(url, tokenizer=known).selftest()
            assert found.reads_padding is None and not caplog.records


@pytest.mark.parametrize("server", ["vllm-pooling", "sglang", "sglang-score", "openrlhf"])
def test_every_kind_of_server_that_takes_tokens_is_asked(fakes, padded, server):
    kinds = {"vllm-pooling": fakes.Vllm, "sglang": fakes.Sglang, "sglang-score": fakes.Sglang}
    with fakes.serving(kinds.get(server, fakes.OpenRlhf)()) as (url, _):
        (found,) = RemoteRewardModel(url, server=server, tokenizer=padded).selftest()
        assert found.reads_padding is True
