"""What servers report for several choices of one request: the honest are believed, the others noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from full import either
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tpo_core import LiteLLMChat, TPOConfig, Trajectory, Usage, run
from tpo_core.models.token_reports import least_tokens, of_all_choices
from tpo_core.rewards import FunctionReward

ROOT = Path(__file__).parents[3]
LENGTH = FunctionReward(lambda prompt, response: float(len(response)))


def counted(text: str) -> int:
    """Count with cl100k, which litellm brings along."""
    import litellm

    return len(litellm.encoding.encode(text, disallowed_special=()))


@settings(max_examples=either(500, short=60), deadline=None)
@given(st.text(max_size=60) | st.text("ab'’_ .,-\n1—é中文", max_size=60))
@example("don't \"do\" it, he said: players' _x_ (foo)")
@example("हिन्दी में लिखा है। ภาษาไทย สวัสดี e\u0301te\u0301 naïve café")
@example("나무는 단단하다. 木は硬い。木头很硬，也很美。")
@example('{"name": "oak", "tags": ["a", "b"], "n": 1_000}\n```python\nfoo(bar[i])->baz;\n```')
@example("哈哈哈哈哈哈哈哈 ... --- === !!!!!! ???")
def test_no_text_has_fewer_tokens_than_its_least(text):
    assert least_tokens(text) <= counted(text)


def test_the_least_is_most_of_what_there_is():
    paragraphs = [p for path in ROOT.glob("docs/*.md") for p in path.read_text().split("\n\n") if p.strip()]
    least, real = sum(map(least_tokens, paragraphs)), sum(map(counted, paragraphs))
    assert all(least_tokens(p) <= counted(p) for p in paragraphs)
    assert least > 0.6 * real  # so that a report of one choice of two cannot pass


@settings(max_examples=either(200, short=40), deadline=None)
@given(st.lists(st.text(max_size=40) | st.sampled_from(["Oak is hard.", "", "Yes", "中文"]), min_size=1, max_size=5))
def test_a_report_of_all_choices_is_believed(texts):
    usage = Usage(0, 1, 10, sum(map(counted, texts)), 5)
    assert of_all_choices(usage, texts) == usage


def test_a_report_of_no_tokens_stays_one():
    assert of_all_choices(Usage(), ["a b c", "d e f"]) == Usage()


@pytest.mark.parametrize("cut", [True, False])
def test_a_report_of_the_first_choice_is_replaced_by_an_estimate_of_all(cut):
    sentences = ["Oak is a hard and heavy wood that lasts.", "Pine is soft; it grows fast, and it is cheap.", "Balsa."]
    usage = of_all_choices(Usage(0, 1, 10, counted(sentences[0])), sentences, lambda place: cut)
    real = 3 * counted(sentences[0]) if cut else sum(map(counted, sentences))  # those cut short are equally long
    assert usage.estimated and usage.prompt_tokens == 10
    assert usage.completion_tokens == real if cut else abs(usage.completion_tokens - real) <= 0.2 * real


def test_estimates_add_up_and_survive_json():
    mixed = Usage(1, 1, 2, 3, 1) + Usage(1, 1, 2, 3, 1, estimated=True)
    assert mixed.estimated and not (Usage() + Usage()).estimated
    trajectory = Trajectory("q", usage=mixed)
    assert Trajectory.from_json(trajectory.to_json()) == trajectory
    data = trajectory.to_dict()
    del data["usage"]["estimated"]  # written by an earlier version
    assert Trajectory.from_dict(data).usage == Usage(2, 2, 4, 6, 2)


@pytest.mark.parametrize("text", ["!" * 10**6, "a'" * 500_000, "é\u0301" * 500_000, "中" * 10**6, " !" * 500_000])
def test_a_megabyte_is_read_once(text):
    assert 0 < least_tokens(text) <= len(text)


# -- through a server -------------------------------------------------------------------------------------------------

ANSWERS = ["Oak is a hard and heavy wood that lasts.", "Pine is a soft wood, and grows fast.", "Balsa is very light."]


@pytest.mark.parametrize("reports", ["all", "first"])
def test_the_tokens_of_a_run_are_those_of_all_its_samples(loopback, reports):
    server = loopback(lambda request, number: ANSWERS[number % 3], reports=reports)
    config = TPOConfig(mode="bon", width=3)
    usage = run("hi", LiteLLMChat("openai/smol", api_base=server.url), LENGTH, config).usage
    assert usage.requests == 1 and usage.estimated is (reports == "first")
    assert usage.completion_tokens == pytest.approx(21, rel=0 if reports == "all" else 0.25)  # words, to this server


def test_a_token_budget_counts_the_samples_that_the_server_did_not_report(loopback):
    server = loopback(lambda request, number: f"{number} {ANSWERS[number % 3]}", reports="first")
    config = TPOConfig(width=3, depth=2, max_tokens=20)
    trajectory = run("hi", LiteLLMChat("openai/smol", api_base=server.url), LENGTH, config)
    assert trajectory.stop_reason == "max_tokens" and len(server.requests) == 1
