"""A page as text: one file, one policy, one script, and data that cannot become markup."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from tpo_core import Candidate, Step, Trajectory
from tpo_core.report import Entry, run_page, trajectory_page, write_run_page
from tpo_core.report.page import CHUNK

NASTY = "</script><script>alert(1)</script><!--<script>]]>&amp;\u2028\u2029\u202e\ud800\x1b[31m\x00"


class Scripts(HTMLParser):
    """Collects the blocks of a page as a browser splits them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.blocks: list[tuple[dict[str, str | None], str]] = []
        self.tags: list[str] = []
        self._open = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open = tag in ("script", "style")
        if self._open:
            self.blocks.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            self.blocks[-1] = (self.blocks[-1][0], self.blocks[-1][1] + data)


def data_of(html: str, name: str) -> Any:
    """Return the data of a block by its id."""
    return json.loads(html.split(f'id="{name}">', 1)[1].split("</script>", 1)[0])


def pages(make):
    return {"trajectory": trajectory_page(make(1)), "run": run_page([make(i) for i in range(3)])}


@pytest.mark.parametrize("kind", ["trajectory", "run"])
def test_the_policy_allows_the_page_s_own_script_and_style_and_nothing_else(make, kind):
    html = pages(make)[kind]
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    blocks = [text for attributes, text in Scripts(html).blocks if "type" not in attributes]
    assert len(blocks) == 2 and policy.startswith("default-src 'none'; ")
    for block in blocks:
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy


@pytest.mark.parametrize("kind", ["trajectory", "run"])
def test_a_page_asks_for_nothing_from_elsewhere_and_makes_no_markup_of_strings(make, kind):
    html = pages(make)[kind].replace("http://www.w3.org/2000/svg", "")
    assert "http:" not in html and "https:" not in html
    words = (
        "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "fetch(",
        "XMLHttpRequest", "import(", "url(", "@import", " src=", " style=", "setHTML", "createContextualFragment",
    )  # fmt: skip
    assert [word for word in words if word in html] == []


@pytest.mark.parametrize("field", ["response", "query", "loss", "feedback", "heads", "title", "about", "name", "error"])
def test_hostile_text_stays_data_wherever_it_stands(make, field):
    t = Trajectory(
        query=NASTY if field == "query" else "q",
        candidates=(
            Candidate(
                NASTY if field == "response" else "a",
                reward=1.0,
                feedback=NASTY if field == "feedback" else None,
                heads={NASTY: 1.0} if field == "heads" else {},
            ),
        ),
        steps=(Step(1, loss=NASTY if field == "loss" else "l"),),
    )
    entry = Entry(t, name=NASTY if field == "name" else "", error=NASTY if field == "error" else "")
    title = NASTY if field == "title" else "title"
    about = {NASTY: NASTY} if field == "about" else {}
    plain = Scripts(run_page([make(1)], title="title"))
    for html in (run_page([entry], title=title, about=about), trajectory_page(t, title=title)):
        html.encode("utf-8")  # no lone surrogate is left
        assert "alert(1)</script>" not in html and "\u202e" not in html and "\x1b" not in html
        assert set(Scripts(html).tags) <= set(plain.tags)
    assert len(Scripts(run_page([entry], title=title, about=about)).blocks) == len(plain.blocks)


def test_data_comes_back_as_it_went_in():
    t = Trajectory(NASTY, (Candidate(NASTY, reward=1.5),))
    assert data_of(trajectory_page(t), "trajectory")["candidates"][0]["text"] == NASTY
    [packed] = re.findall(r'class="trees">([^<]+)<', run_page([t]))
    assert json.loads(gzip.decompress(base64.b64decode(packed)))[0]["query"] == [["", NASTY]]


def test_each_text_is_kept_once_and_others_point_at_it(make):
    data = data_of(trajectory_page(make(2)), "trajectory")
    first = make(2).steps[0]
    assert json.dumps(data).count(first.rejected.response) == 1
    assert data["steps"][0]["chosen"] == first.chosen.index
    assert {c["parent"] for c in data["candidates"] if c.get("update")} == {s["chosen"] for s in data["steps"]}


def test_an_update_s_parent_is_the_chosen_of_its_critique_where_a_round_has_several():
    parents = (Candidate("a", reward=2.0, index=0), Candidate("b", reward=1.0, index=1))
    update = Candidate("c", reward=3.0, step=1, fresh=False, critique=1, index=2)
    again = Candidate("d", reward=2.5, step=2, fresh=False, critique=1, index=3)
    t = Trajectory("q", (*parents, update, again), (Step(1, parents[0]), Step(1, parents[1])))
    first, second = data_of(trajectory_page(t), "trajectory")["candidates"][2:]
    assert first["parent"] == second["parent"] == 1
    assert "told" not in first and second["told"] == 1  # by the instructions of an earlier round


def test_a_page_is_written_piece_by_piece_while_its_queries_arrive(make):
    file, sizes = io.StringIO(), []

    def arriving():
        for i in range(200):
            sizes.append(file.tell())
            yield make(i, words=300)

    summary = write_run_page(file, arriving())
    assert summary.queries == 200 and len(set(sizes)) > 5
    blocks = re.findall(r'class="trees">([^<]+)<', file.getvalue())
    assert len(blocks) > 5 and all(len(gzip.decompress(base64.b64decode(b))) < 2 * CHUNK for b in blocks)


def test_the_same_run_gives_the_same_page(make):
    assert run_page([make(1), make(2)]) == run_page(iter([make(1), make(2)]))


def test_trees_are_left_out_where_so_asked_but_no_query_is(make):
    html = run_page((make(i) for i in range(5)), trees=2)
    [packed] = re.findall(r'class="trees">([^<]+)<', html)
    kept = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert ["candidates" in tree for tree in kept] == [True, True, False, False, False]
    assert data_of(html, "summary")["queries"] == 5


def test_the_bytes_of_a_picture_in_a_query_are_left_out_and_the_page_says_so():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    t = Trajectory([{"role": "user", "content": [{"type": "text", "text": "what is it?"}, image]}])
    html = trajectory_page(t)
    assert len(html) < 70_000 and "[100,000 characters left out here]" in html and "what is it?" in html


def test_a_page_without_a_script_still_says_the_figures(make):
    html = run_page([make(1)])
    assert "gain: +" in re.findall(r"<noscript><pre>(.*?)</pre>", html, re.DOTALL)[0]
