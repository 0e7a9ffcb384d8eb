"""Keys go to the server they are for, and stand in nothing that is said."""

import pytest

from tpo_core.errors import InvalidInputError, RewardError
from tpo_core.rewards import RemoteRewardModel

QUICK = {"backoff": 0.0, "retries": 0, "timeout": 10.0}
KEY = "sk-0123456789abcdef"


def test_a_server_that_wants_a_key_says_so_and_gets_it(fakes):
    class Guarded(fakes.Tei):
        open = False

        def get(self, path):
            if not self.open:
                raise fakes.Refusal(401, {"error": "Unauthorized"})
            return super().get(path)

    app = Guarded()
    with fakes.serving(app) as (url, posts):
        with pytest.raises(RewardError, match=r"401.*Unauthorized.*headers="):
            RemoteRewardModel(url, **QUICK).score("Why?", ["a"])
        app.open = True
        RemoteRewardModel(url, headers={"authorization": f"Bearer {KEY}\n"}, **QUICK).score("Why?", ["a"])
        assert posts.headers[-1]["Authorization"] == f"Bearer {KEY}"  # the newline of a file is left out


def test_what_a_server_repeats_of_a_key_is_not_passed_on(fakes):
    answer = (400, "application/json", f'{{"error": "bad key {KEY} in Bearer {KEY}"}}'.encode())
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}):
        with fakes.serving(fakes.Tei(), lambda *post: answer) as (url, _), pytest.raises(RewardError) as caught:
            RemoteRewardModel(url, headers=headers, **QUICK).score("Why?", ["a"])
        assert "bad key ***" in str(caught.value) and KEY not in str(caught.value)


def test_a_key_at_the_place_where_a_server_s_words_are_cut_leaves_no_part_of_it(fakes):
    answer = (400, "application/json", ("x" * 290 + KEY).encode())
    with fakes.serving(fakes.Tei(), lambda *post: answer) as (url, _), pytest.raises(RewardError) as caught:
        RemoteRewardModel(url, headers={"X-API-Key": KEY}, retries=0).score("why?", ["a"])
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("value", [f"{KEY}\nX-Other: 1", f"{KEY}é", 5])
def test_a_header_that_cannot_be_sent_is_refused_without_showing_it(value):
    with pytest.raises(InvalidInputError, match="headers") as caught:
        RemoteRewardModel("http://127.0.0.1:9", headers={"X-API-Key": value})
    assert KEY not in str(caught.value)


def test_the_password_of_a_url_is_sent_and_never_said(fakes):
    with fakes.serving(fakes.Tei()) as (url, posts):
        reward = RemoteRewardModel(url.replace("//", f"//me:{KEY}@"), **QUICK)
        assert reward.score("Why?", ["a"]) == pytest.approx([fakes.raw("Why?a")])
        assert posts.headers[-1]["Authorization"].startswith("Basic ")
        (found,) = reward.selftest()
        assert KEY not in repr(found) + repr(reward) + reward.name
    with pytest.raises(RewardError, match=r"http://127\.0\.0\.1:9 cannot be reached") as caught:
        RemoteRewardModel(f"http://me:{KEY}@127.0.0.1:9?key={KEY}", server="tei", **QUICK).score("Why?", ["b"])
    assert KEY not in str(caught.value)
    with pytest.raises(InvalidInputError) as caught:
        RemoteRewardModel(f"ftp://me:{KEY}@host")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_said_and_not_followed(fakes, status):
    with fakes.serving(fakes.Tei()) as (other, reached):
        moved = (status, "text/html", b"", [("Location", other + "/predict")])
        with fakes.serving(fakes.Tei(), lambda *post: moved) as (url, _), pytest.raises(RewardError) as caught:
            RemoteRewardModel(url, headers={"Authorization": f"Bearer {KEY}"}, **QUICK).score("Why?", ["a"])
        assert f"{other}/predict" in str(caught.value) and "not followed" in str(caught.value)
        assert not reached and not reached.got


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(fakes, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nothing listens
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with fakes.serving(fakes.Tei()) as (url, _):
        for host in ("127.0.0.1", "localhost"):
            reward = RemoteRewardModel(url.replace("127.0.0.1", host), **QUICK)
            assert reward.score("Why?", ["a"]) == pytest.approx([fakes.raw("Why?a")])
    with pytest.raises(RewardError, match="cannot be reached"):  # of another host, the proxy is asked
        RemoteRewardModel("http://198.51.100.1:8000", backoff=0.0, retries=0, timeout=5).score("Why?", ["a"])
