"""Reward servers on loopback: found out, asked for raw scores, and believed only when they give them."""

import asyncio
import json
import math
import socket
import threading

import pytest

from tpo_core.errors import InvalidInputError, ModelError, RewardError, UnsupportedError
from tpo_core.rewards import RemoteRewardModel, as_reward
from tpo_core.values import Pair

QUICK = {"backoff": 0.0, "retries": 2, "timeout": 10.0}
CHAT = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Why?"}]


def ids_of(tokenizer, prompt, response):
    messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    turns = [*messages, {"role": "assistant", "content": response}]
    return tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)


@pytest.mark.parametrize(
    ("kind", "server", "path"),
    [
        ("Vllm", "auto", "/classify"),
        ("Vllm", "vllm-pooling", "/pooling"),
        ("Sglang", "auto", "/classify"),
        ("Sglang", "sglang-score", "/v1/score"),
    ],
)
async def test_token_ids_made_here_go_to_servers_that_take_them(fakes, tokenizer, kind, server, path):
    prompts, responses = ["Why?", CHAT, "Why?"], ["Because.", "So.", "It is ünïcode."]
    wanted = [fakes.raw(ids_of(tokenizer, p, r)) for p, r in zip(prompts, responses, strict=True)]
    with fakes.serving(getattr(fakes, kind)()) as (url, posts):
        reward = RemoteRewardModel(url, server=server, tokenizer=tokenizer, **QUICK)
        assert reward.score(prompts, responses) == pytest.approx(wanted, abs=1e-9)
        assert await reward.ascore(prompts, responses) == pytest.approx(wanted, abs=1e-9)
        reward.close()
        assert reward.score(prompts[:1], responses[:1]) == pytest.approx(wanted[:1])  # usable after close
        assert {p for p, _ in posts} == {path}
        for _, body in posts:
            sent = body.get("input") or body.get("input_ids") or [body["query"] + i for i in body.get("items", [])]
            assert all(ids.count(tokenizer.bos_token_id) == 1 for ids in sent)


@pytest.mark.parametrize("knob", ["use_activation", "activation", "softmax"])
def test_vllm_takes_messages_where_there_is_no_tokenizer_and_every_name_of_its_knob_is_sent(fakes, knob):
    with fakes.serving(fakes.Vllm(knob=knob)) as (url, posts):
        reward = as_reward(url)
        wanted = [fakes.raw(fakes.shown_messages([*CHAT, {"role": "assistant", "content": r}])) for r in ("a", "bc")]
        assert reward.score([CHAT, CHAT], ["a", "bc"]) == pytest.approx(wanted)
        assert all("messages" in body for _, body in posts)


def test_tei_is_sent_pairs(fakes):
    with fakes.serving(fakes.Tei()) as (url, posts):
        reward = RemoteRewardModel(url, **QUICK)
        assert reward.score("Why?", ["a", "b"]) == pytest.approx([fakes.raw("Why?a"), fakes.raw("Why?b")])
        assert posts[-1][1]["inputs"] == [["Why?", "a"], ["Why?", "b"]]


def test_openrlhf_is_sent_the_template_written_out(fakes, tokenizer):
    with fakes.serving(fakes.OpenRlhf()) as (url, posts):
        reward = RemoteRewardModel(url, tokenizer=tokenizer, **QUICK)
        reward.score("Why?", ["a"])
        assert posts[-1][1]["query"] == ["<s>[user]Why?</s>[assistant]a</s>"]
        with pytest.raises(UnsupportedError, match=r"tokenizer=.*or text="):
            RemoteRewardModel(url, **QUICK).score("Why?", ["a"])
        mine = RemoteRewardModel(url, text=lambda pair: f"{pair.prompt}|{pair.response}", **QUICK)
        assert mine.score("Why?", ["a"]) == pytest.approx([fakes.raw("Why?|a")])


def test_an_endpoint_of_ones_own(fakes):
    with fakes.serving(fakes.Mine()) as (url, _):
        reward = RemoteRewardModel(
            url + "/my/rm",
            request=lambda pairs: {"rows": [{"q": p.prompt, "a": p.response} for p in pairs]},
            parse=lambda answer: answer["result"]["values"],
            **QUICK,
        )
        assert reward.score("Why?", ["a", "bc"]) == pytest.approx([fakes.raw("a"), fakes.raw("bc")])


def test_an_unknown_server_is_an_error_that_says_what_to_do(fakes):
    with fakes.serving(fakes.Mine()) as (url, _), pytest.raises(UnsupportedError, match=f"{url}.*server=.*request="):
        RemoteRewardModel(url, **QUICK).score("Why?", ["a"])


def test_the_self_test_shows_what_was_found(fakes):
    with fakes.serving(fakes.Vllm()) as (url, _):
        (found,) = RemoteRewardModel(url, **QUICK).selftest()
        assert (found.url, found.server, found.model) == (url, "vllm", "org/reward")
        assert len(set(found.scores)) == 4 and isinstance(found.prefers_good, bool)


@pytest.mark.parametrize(
    ("app", "message"),
    [("squashing", "squashes scores to 0..1"), ("tei", "squashes"), ("constant", "alike")],
)
def test_a_server_that_squashes_or_always_answers_one_is_an_error_and_no_score(fakes, app, message):
    apps = {"squashing": fakes.Vllm(obey=False), "tei": fakes.Tei(obey=False), "constant": fakes.Constant()}
    with fakes.serving(apps[app]) as (url, _):
        for call in (lambda r: r.score("Why?", ["a", "b"]), lambda r: r.selftest()):
            with pytest.raises(UnsupportedError, match=f"{url} failed its self-test.*{message}"):
                call(RemoteRewardModel(url, **QUICK))


def test_a_model_whose_own_scale_is_zero_to_one_is_accepted_on_request(fakes):
    with fakes.serving(fakes.Tei(obey=False)) as (url, posts):
        (reward,) = RemoteRewardModel(url, raw=False, **QUICK).score("Why?", ["a"])
        assert 0.0 <= reward <= 1.0 and len(posts) == 1


def test_a_model_with_several_numbers_needs_a_label(fakes):
    class Many(fakes.Sglang):
        def post(self, path, body):
            return [{"embedding": [0.1, fakes.raw(t), 9.0]} for t in body["text"]]

    settings = {"text": lambda pair: pair.response, **QUICK}
    with fakes.serving(Many()) as (url, _):
        with pytest.raises(UnsupportedError, match=r"3 numbers.*label="):
            RemoteRewardModel(url, **settings).score("Why?", ["a"])
        (reward,) = RemoteRewardModel(url, label=1, **settings).score("Why?", ["a"])
        assert reward == pytest.approx(fakes.raw("a")) and reward.heads["2"] == 9.0


JSON, HTML = "application/json", "text/html"


def after_test(answer):
    """Let the self-test (one post) pass, then answer the next posts otherwise, for as long as ``answer`` has any."""
    answers = iter(answer)
    return lambda number, path, body: None if number == 1 else next(answers, None)


@pytest.mark.parametrize(
    ("status", "kind", "data"),
    [(500, HTML, b"<h1>oops</h1>"), (503, JSON, b"{}"), (429, JSON, b"{}"), (502, HTML, b"")],
)
def test_what_may_pass_is_tried_again(fakes, status, kind, data):
    fault = after_test([(status, kind, data)] * 2)
    with fakes.serving(fakes.Tei(), fault) as (url, posts):
        assert RemoteRewardModel(url, **QUICK).score("Why?", ["a"]) == pytest.approx([fakes.raw("Why?a")])
        assert len(posts) == 4


@pytest.mark.parametrize(
    ("status", "kind", "data", "message"),
    [
        (500, HTML, b"<h1>oops</h1>", "with 500: <h1>oops</h1>"),
        (404, JSON, b'{"error":"gone"}', 'with 404: {"error":"gone"}'),
        (200, HTML, b"<html>login</html>", "with no JSON: <html>login"),
        (200, JSON, b'[[{"score":1.0}]]', "returned 1 rewards for 2 responses"),
        (200, JSON, b'{"error":"x"}', "did not answer as tei does"),
        (200, JSON, b"[]", "returned 0 rewards for 2"),
        (200, JSON, b"[" * 100_000, "with no JSON"),
        (200, JSON, b'[[{"score":1%s}],[{"score":2}]]' % (b"0" * 400), "did not answer as tei does"),
    ],
)
def test_what_does_not_pass_is_an_error_that_names_the_url_and_the_model_works_afterwards(
    fakes, status, kind, data, message
):
    tries = 3 * 3 if status == 500 else 1  # what breaks a server is sent again in halves
    fault = after_test([(status, kind, data)] * tries)
    with fakes.serving(fakes.Tei(), fault) as (url, _):
        reward = RemoteRewardModel(url, **QUICK)
        with pytest.raises(RewardError) as caught:
            reward.score("Why?", ["a", "b"])
        assert url in str(caught.value) and message in str(caught.value)
        assert len(reward.score("Why?", ["a", "b"])) == 2


def test_a_slow_server_is_an_error_in_time(fakes):
    release = threading.Event()

    def stalls(number, path, body):
        if number > 1:
            release.wait(20)

    with fakes.serving(fakes.Tei(), stalls) as (url, _):
        reward = RemoteRewardModel(url, backoff=0.0, retries=1, timeout=0.3)
        try:
            with pytest.raises(RewardError, match=f"{url} did not answer POST /predict in time"):
                reward.score("Why?", ["a"])
        finally:
            release.set()


def test_a_server_that_is_not_there_is_an_error():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(RewardError, match=f"{url} cannot be reached"):
            RemoteRewardModel(url, **QUICK).score("Why?", ["a"])


def test_a_batch_that_fails_costs_only_its_pairs(fakes):
    def fault(number, path, body):
        return (400, JSON, b'{"error":"no"}') if ["Why?", "b"] in body["inputs"] else None

    with fakes.serving(fakes.Tei(), fault) as (url, _):
        good, bad = RemoteRewardModel(url, batch_size=1, **QUICK).score("Why?", ["a", "b"])
        assert good == pytest.approx(fakes.raw("Why?a"))
        assert math.isnan(bad) and "400" in bad.failure


def test_a_score_that_is_no_number_is_nan_and_said_to_be(fakes):
    fault = after_test([(200, JSON, b'[[{"score":NaN}],[{"score":2.5}]]')])
    with fakes.serving(fakes.Tei(), fault) as (url, _):
        bad, good = RemoteRewardModel(url, **QUICK).score("Why?", ["a", "b"])
        assert math.isnan(bad) and bad.failure and good == 2.5


def test_a_replica_that_fails_is_replaced_by_another_and_work_is_spread(fakes):
    down = threading.Event()

    def fault(number, path, body):
        return (503, JSON, b"{}") if down.is_set() else None

    with fakes.serving(fakes.Tei(), fault) as (one, first), fakes.serving(fakes.Tei()) as (two, second):
        reward = RemoteRewardModel([one, two], batch_size=1, **QUICK)
        texts = [f"answer {i}" for i in range(16)]
        wanted = pytest.approx([fakes.raw("Why?" + t) for t in texts])
        assert reward.score("Why?", texts) == wanted
        assert len(first) > 1 and len(second) > 1
        down.set()
        assert reward.score("Why?", texts) == wanted


def test_replicas_that_disagree_are_an_error(fakes):
    class Shifted(fakes.Tei):
        def post(self, path, body):
            return [[{"score": labels[0]["score"] + 3.0, "label": "LABEL_0"}] for labels in super().post(path, body)]

    with fakes.serving(fakes.Tei()) as (one, _), fakes.serving(Shifted()) as (two, _):
        reward = RemoteRewardModel([one, two], batch_size=1, **QUICK)
        with pytest.raises(UnsupportedError, match="score the same answers up to 3 apart"):
            reward.selftest()
        with pytest.raises(UnsupportedError, match="must serve one model"):
            reward.score("Why?", ["a", "b", "c", "d"])


def test_many_threads_and_tasks_get_what_one_by_one_gets(fakes):
    texts = [f"answer {i}" for i in range(64)]
    wanted = pytest.approx([fakes.raw("Why?" + t) for t in texts])
    with fakes.serving(fakes.Tei()) as (url, posts):
        reward = RemoteRewardModel(url, **QUICK)
        found = {}
        threads = [threading.Thread(target=lambda t=t: found.update({t: reward.score("Why?", [t])[0]})) for t in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found[t] for t in texts] == wanted

        async def at_once():
            return await asyncio.gather(*[reward.ascore("Why?", [t]) for t in texts])

        for _ in range(2):  # two event loops, one after the other
            assert [r for (r,) in asyncio.run(at_once())] == wanted
        assert sum(len(body["inputs"]) == 4 for _, body in posts) == 1  # one self-test


def test_inputs_that_cannot_be_sent_cost_only_themselves(fakes, tokenizer):
    with fakes.serving(fakes.Vllm()) as (url, _):
        reward = RemoteRewardModel(url, tokenizer=tokenizer, max_tokens=200, **QUICK)
        lone, good, huge = reward.score_pairs([Pair("Why?", "\ud800"), Pair("Why?", "fine"), Pair("Why?", "x" * 10**6)])
        assert math.isnan(lone) and math.isnan(huge) and "200" in huge.failure
        assert good == pytest.approx(fakes.raw(ids_of(tokenizer, "Why?", "fine")))
        with pytest.raises(InvalidInputError, match="200"):
            reward.score("Why?", ["x" * 500])
        cut = RemoteRewardModel(url, tokenizer=tokenizer, max_tokens=200, on_long="middle", **QUICK)
        (reward,) = cut.score("Why? " * 100, ["fine"])
        assert reward.truncated


def test_a_million_characters_are_sent_whole(fakes):
    with fakes.serving(fakes.Tei()) as (url, posts):
        RemoteRewardModel(url, **QUICK).score("Why?", ["x" * 10**6])
        assert len(posts[-1][1]["inputs"][0][1]) == 10**6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": []}, "url must be"),
        ({"url": "localhost:8000"}, "url must be"),
        ({"server": "triton"}, "server must be"),
        ({"request": json.dumps}, "request and parse"),
        ({"batch_size": 0}, "batch_size"),
        ({"retries": -1}, "retries"),
        ({"timeout": None}, "timeout"),
        ({"timeout": 0}, "timeout"),
        ({"backoff": math.nan}, "backoff"),
        ({"on_long": "middle"}, "on_long='middle' needs max_tokens="),
        ({"on_long": "cut"}, "on_long"),
        ({"max_tokens": 9}, "max_tokens needs tokenizer="),
        ({"tokenizer": "internlm/POLAR-7B"}, "beside a reference answer"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, message):
    with pytest.raises(InvalidInputError, match=message):
        RemoteRewardModel(settings.pop("url", "http://127.0.0.1:9"), **settings)


def test_a_tokenizer_that_is_not_there_is_an_error_that_names_it(fakes, tmp_path):
    with fakes.serving(fakes.Vllm()) as (url, _), pytest.raises((ModelError, RewardError), match="cannot be loaded"):
        RemoteRewardModel(url, tokenizer=str(tmp_path), **QUICK).score("Why?", ["a"])
