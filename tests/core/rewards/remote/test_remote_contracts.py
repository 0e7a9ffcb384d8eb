"""How each kind of reward server is told, what it is sent and how its answers are read: as the real ones behave."""

import copy

import pytest
from tokenizers import decoders

from tpo_core.errors import InvalidInputError, RewardError, UnsupportedError
from tpo_core.rewards import RemoteRewardModel

QUICK = {"backoff": 0.0, "retries": 2, "timeout": 10.0}


@pytest.mark.parametrize("about", [("/model_info", "/get_model_info"), ("/model_info",), ("/get_model_info",)])
def test_sglang_is_known_by_the_old_and_the_new_name_of_its_page(fakes, tokenizer, about):
    with fakes.serving(fakes.Sglang(about=about)) as (url, _):
        (found,) = RemoteRewardModel(url, tokenizer=tokenizer, **QUICK).selftest()
        assert (found.server, found.model) == ("sglang", "org/reward")


@pytest.mark.parametrize(
    ("app", "message"),
    [("sglang", "writes text; start it with --is-embedding"), ("tei", "embedding model, which gives no rewards")],
)
def test_a_server_of_another_kind_of_model_is_refused_with_the_reason(fakes, tokenizer, app, message):
    apps = {"sglang": fakes.Sglang(generates=True), "tei": fakes.Tei(kind="embedding")}
    with fakes.serving(apps[app]) as (url, posts):
        for server in ("auto", app):
            with pytest.raises(UnsupportedError, match=f"{url} serves .*{message}"):
                RemoteRewardModel(url, server=server, tokenizer=tokenizer, **QUICK).score("Why?", ["a"])
        assert not posts


@pytest.mark.parametrize("responses", [["a"], ["a", "bc"], ["a", "bc", "d"]])
def test_tei_cannot_take_texts_for_a_pair_whatever_their_number(fakes, responses):
    with fakes.serving(fakes.Tei()) as (url, posts):
        scores = RemoteRewardModel(url, **QUICK).score("Why?", responses)
        assert scores == pytest.approx([fakes.raw("Why?" + r) for r in responses])
        assert posts[-1][1] == {"inputs": [["Why?", r] for r in responses], "raw_scores": True, "truncate": False}


def test_labels_that_tei_sorts_by_score_are_put_in_the_order_of_the_model(fakes):
    app = fakes.Tei(labels=("verbosity", "helpfulness", "harm"))  # the last has the highest score, and comes first
    with fakes.serving(app) as (url, _):
        for label in (0, 1, 2, -1):
            scores = RemoteRewardModel(url, label=label, **QUICK).score("Why?", ["a", "bc"])
            assert scores == pytest.approx([app.numbers("Why?a")[label], app.numbers("Why?bc")[label]])


def test_a_batch_is_no_larger_than_the_server_says_it_takes(fakes):
    with fakes.serving(fakes.Tei(most=3)) as (url, posts):
        texts = [f"answer {i}" for i in range(8)]
        assert RemoteRewardModel(url, **QUICK).score("Why?", texts) == pytest.approx(
            [fakes.raw("Why?" + t) for t in texts]
        )
        assert [len(body["inputs"]) for _, body in posts] == [3, 1, 3, 3, 2] or len(posts) == 5


def test_what_openrlhf_would_cut_without_a_word_is_an_error(fakes, tokenizer):
    long = "x" * 2100
    with fakes.serving(fakes.OpenRlhf()) as (url, posts):
        reward = RemoteRewardModel(url, tokenizer=tokenizer, **QUICK)
        good, bad = reward.score("Why?", ["a", long])
        assert good == good and "cuts the end of the answer off after 2048" in bad.failure
        assert all(len(text) < 2100 for _, body in posts for text in body["query"])
        with pytest.raises(InvalidInputError, match="max_tokens="):
            reward.score("Why?", [long])
        RemoteRewardModel(url, tokenizer=tokenizer, max_tokens=4096, **QUICK).score("Why?", [long])
        assert long in posts[-1][1]["query"][0]


def test_tokens_that_cannot_be_written_as_text_are_an_error_where_only_text_is_taken(fakes, tokenizer):
    lossy = copy.deepcopy(tokenizer)
    lossy.backend_tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("q", "k")])
    with (
        fakes.serving(fakes.OpenRlhf()) as (url, _),
        pytest.raises(InvalidInputError, match="cannot be written as a text"),
    ):
        RemoteRewardModel(url, tokenizer=lossy, raw=False, **QUICK).score("Why?", ["quick"])
    with fakes.serving(fakes.Vllm()) as (url, _):
        assert RemoteRewardModel(url, tokenizer=lossy, **QUICK).score("Why?", ["quick"])


@pytest.mark.parametrize("kind", ["Vllm", "Sglang"])
def test_an_answer_that_is_too_long_for_the_server_costs_only_itself(fakes, tokenizer, kind):
    app = getattr(fakes, kind)()
    app.longest = 300
    texts = [f"answer {i}" for i in range(32)]
    texts[13] = "x" * 400
    with fakes.serving(app) as (url, posts):
        scores = RemoteRewardModel(url, tokenizer=tokenizer, **QUICK).score("Why?", texts)
        assert "longer" in scores[13].failure or "maximum context length is 300" in scores[13].failure
        assert [i for i, s in enumerate(scores) if s != s] == [13]
        assert len(posts) <= 1 + 11  # the self-test; then halves of halves


def test_texts_that_break_the_server_cost_only_themselves_wherever_they_stand(fakes, tokenizer):
    def fault(number, path, body):
        return (500, "text/plain", b"Internal Server Error") if "poison" in "".join(body["query"]) else None

    texts = ["poison", *(f"answer {i}" for i in range(13)), "poison", "answer"]
    with fakes.serving(fakes.OpenRlhf(), fault) as (url, _):
        scores = RemoteRewardModel(url, tokenizer=tokenizer, **QUICK).score("Why?", texts)
        assert [i for i, s in enumerate(scores) if s != s] == [0, 14]


@pytest.mark.parametrize("most", [1, 5])
def test_a_batch_that_breaks_the_server_is_sent_in_smaller_parts(fakes, tokenizer, most):
    def fault(number, path, body):  # one text that it cannot take, or more than its memory holds
        bad = "poison" in "".join(body["query"]) if most == 1 else len(body["query"]) > most
        return (500, "text/plain", b"Internal Server Error") if bad else None

    texts = [f"answer {i}" for i in range(16)]
    texts[3] = "poison" if most == 1 else texts[3]
    with fakes.serving(fakes.OpenRlhf(), fault) as (url, posts):
        scores = RemoteRewardModel(url, tokenizer=tokenizer, **QUICK).score("Why?", texts)
        assert [i for i, s in enumerate(scores) if s != s] == ([3] if most == 1 else [])
        assert len(posts) <= 1 + 3 * 5 + 4  # the self-test; what failed, three times; and the rest


def test_answers_of_vllm_are_read_by_their_index(fakes, tokenizer):
    class Shuffled(fakes.Vllm):
        def post(self, path, body):
            answer = super().post(path, body)
            return {**answer, "data": answer["data"][::-1]}

    class Twice(fakes.Vllm):
        def post(self, path, body):
            answer = super().post(path, body)
            return {**answer, "data": [{**entry, "index": 0} for entry in answer["data"]]}

    with fakes.serving(fakes.Vllm()) as (plain, _), fakes.serving(Shuffled()) as (url, _):
        wanted = RemoteRewardModel(plain, tokenizer=tokenizer, **QUICK).score("Why?", ["a", "bc", "d"])
        assert RemoteRewardModel(url, tokenizer=tokenizer, **QUICK).score("Why?", ["a", "bc", "d"]) == wanted
    with fakes.serving(Twice()) as (url, _), pytest.raises(RewardError, match="indexes of the answer"):
        RemoteRewardModel(url, tokenizer=tokenizer, **QUICK).score("Why?", ["a", "bc"])


def test_an_endpoint_of_ones_own_is_asked_nothing_but_what_its_function_writes(fakes):
    with fakes.serving(fakes.Mine()) as (url, posts):
        reward = RemoteRewardModel(
            url + "/my/rm",
            request=lambda pairs: {"rows": [{"a": p.response} for p in pairs]},
            parse=lambda answer: answer["result"]["values"],
            **QUICK,
        )
        reward.score("Why?", ["a"])
        assert posts.got == [] and len(posts) == 1


def test_replicas_of_two_kinds_are_refused(fakes, tokenizer):
    with fakes.serving(fakes.Vllm()) as (one, _), fakes.serving(fakes.Sglang()) as (two, _):
        reward = RemoteRewardModel([one, two], tokenizer=tokenizer, **QUICK)
        with pytest.raises(UnsupportedError, match=r"of the kind vllm .*of sglang"):
            reward.selftest()


def test_a_url_with_the_path_of_an_api_is_explained(fakes):
    with fakes.serving(fakes.Vllm()) as (url, _), pytest.raises(UnsupportedError, match="ends before the /v1"):
        RemoteRewardModel(url + "/v1", **QUICK).score("Why?", ["a"])
