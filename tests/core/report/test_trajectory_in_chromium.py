"""The page of one trajectory, looked at in a real browser; and in a notebook's."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from selenium.common.exceptions import WebDriverException

from tpo_core import Candidate, Failure, Step, Trajectory, Usage
from tpo_core.report.page import MOST_IN_NOTEBOOK

SAMPLES = (
    Candidate("The quick brown fox jumps over the lazy dog.", reward=1.0, index=0),
    Candidate("Nothing.", reward=-2.0, index=1, feedback="says nothing", heads={"helpful": 0.25}, truncated=True),
    Candidate("", failure=Failure("empty", "the response is empty"), index=2),
)
TREE = Trajectory(
    query=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What does the fox do?"}],
    candidates=(
        *SAMPLES,
        Candidate("The slow red fox leaps over the very lazy dog.", reward=1.5, step=1, fresh=False, index=3),
        Candidate("It jumps.", reward=0.5, step=1, fresh=True, index=4),
    ),
    steps=(Step(1, SAMPLES[0], SAMPLES[1], "The first names the fox.", "Name its colour."),),
    usage=Usage(7, 6, 1000, 200, 300),
    reward_usage=Usage(4, 4, 50, 5),
    stop_reason="patience",
    seconds={"total": 4.2, "sample": 2.0},
    seed=7,
    gold={3: 0.75},
)


def text(page, selector: str = "main") -> str:
    return page.ask("document.querySelector(arguments[0]).innerText", selector)


def test_everything_a_trajectory_has_is_on_its_page(page):
    page.show(TREE.to_html(title="A fox"))
    page.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.until("document.querySelectorAll('.card .body .text').length >= 4")
    shown = text(page)
    for part in (
        "Be brief.", "What does the fox do?", "1.00 → 1.50 (+0.50)", "patience (rounds without gain)",
        "1,200 (1,000 prompt, 300 of them cached, 200 completion)", "55 tokens, 4 pairs scored", "7 in 6 requests",
        "4.20 s (sample 2.00 s)", "Seed\n7", "#0 (1.00) was held against #1 (−2.00).", "The first names the fox.",
        "Name its colour.", "says nothing", "helpful 0.25", "with a shortened prompt", "Held-out reward\n0.75",
        "empty (the response is empty): the response is empty", "later sample", "update of #0", "rejected in round 1",
    ):  # fmt: skip
        assert part in shown, part
    assert page.texts("h1") == ["A fox"] and page.driver.title == "A fox"


def test_an_update_that_follows_earlier_instructions_again_says_so(page):
    again = replace(TREE.candidates[3], step=2, critique=0, index=5)
    page.show(replace(TREE, candidates=(*TREE.candidates, again)).to_html())
    assert page.texts(".role.told") == ["instructions of round 1"]


def test_a_diagnosis_and_failed_rounds_are_told(page):
    weak = [replace(TREE.candidates[3], reward=-3.0, index=i) for i in range(3, 8)]
    failed = Step(2, failure=Failure("error", "critic timed out"))
    page.show(replace(TREE, candidates=(*SAMPLES, *weak), steps=(*TREE.steps, failed)).to_html())
    assert "too weak to follow its feedback" in text(page)
    tree = replace(TREE, steps=(*TREE.steps, Step(2, failure=Failure("error", "critic timed out"))))
    page.show(tree.to_html())
    assert "critic timed out" in text(page)


def test_the_picture_has_a_mark_for_each_candidate_and_a_line_from_each_parent(page):
    page.show(TREE.to_html()).until("document.querySelectorAll('.node').length === 5")
    assert len(page.find(".node .mark.sample")) == 3 and len(page.find(".node .mark.update")) == 1
    assert len(page.find(".node .mark.failed")) == 1 and len(page.find("path.edge")) == 1
    page.find(".node")[1].click()
    assert page.ask("document.querySelector('#candidate-1').open") is True


def test_an_update_is_held_against_its_parent_word_by_word(page):
    page.show(TREE.to_html())
    page.run("document.querySelector('#candidate-3 .switch button:last-child').click()")
    assert page.texts("#candidate-3 del") == ["quick brown", "jumps"]
    assert page.texts("#candidate-3 ins") == ["slow red", "leaps", " very"]


def in_page(page, call: str, *arguments):
    """Run a function of the page's script by itself."""
    source = (files("tpo_core.report") / "static" / "diff.js").read_text(encoding="utf-8")
    return page.run(f"{source}\nreturn {call};", *arguments)


@given(st.lists(st.tuples(*[st.text(st.sampled_from("ab é漢\n.😀"), max_size=30)] * 2), min_size=20, max_size=60))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_stays_and_goes_is_the_old_text_and_what_stays_and_comes_the_new(page, pairs):
    for (before, after), runs in zip(
        pairs, in_page(page, "arguments[0].map((p) => diffWords(...p))", pairs), strict=True
    ):
        assert "".join(r["text"] for r in runs if r["kind"] != "new") == before
        assert "".join(r["text"] for r in runs if r["kind"] != "gone") == after


def test_texts_that_share_nothing_are_not_compared_for_ever(page):
    one, other = (" ".join(f"{letter}{i}" for i in range(100_000)) for letter in "ab")
    spent, runs = in_page(
        page,
        "(() => { const t = Date.now(); const r = diffWords(...arguments); return [Date.now() - t, r]; })()",
        one,
        other,
    )
    assert runs is None and spent < 10_000


@pytest.mark.parametrize(
    "tree",
    [
        Trajectory("q"),
        Trajectory("q", (Candidate("", failure=Failure("error", "x")),), stop_reason="error"),
        Trajectory("q", (Candidate("a", reward=1.0),), (Step(1),), stop_reason="no_contrast"),
        Trajectory(None, (Candidate("a", reward=float("nan")), Candidate("b", reward=1e300))),
        Trajectory("q", (Candidate("a", reward=1.0),), (Step(1, Candidate("elsewhere", index=9)),)),
    ],
)
def test_a_trajectory_that_lacks_something_is_shown_with_what_it_has(page, tree):
    page.show(tree.to_html())
    assert "could not be drawn" not in text(page) and "undefined" not in text(page) and "NaN" not in text(page)


def luminance(colour: str) -> float:
    parts = [int(p) / 255 for p in colour.removeprefix("rgb(").rstrip(")").split(",")]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_and_marks_stand_out_in_light_and_in_dark(page, scheme):
    page.emulate(prefers_color_scheme=scheme)
    page.show(TREE.to_html()).until("document.querySelector('.node')")
    style = "getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    paper, panel = page.ask(style, "body", "backgroundColor"), page.ask(style, ".chart", "backgroundColor")
    assert (luminance(paper) > 0.5) is (scheme == "light")
    for selector in ("body", ".note", ".facts dt", ".snippet", ".role.best", ".delta"):
        assert contrast(page.ask(style, selector, "color"), paper) >= 4.5, selector
    for selector in (".mark.sample", ".mark.update"):
        assert contrast(page.ask(style, selector, "fill"), panel) >= 3, selector
    assert contrast(page.ask(style, ".plot text", "fill"), panel) >= 4.5


def test_a_reader_can_choose_light_or_dark(page):
    page.emulate(prefers_color_scheme="light")
    page.show(TREE.to_html())
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.ask(paper)
    page.click("#head .switch button", 2)
    assert page.ask(paper) != light and page.find('#head [aria-pressed="true"]')[0].text == "Dark"
    page.click("#head .switch button", 1)
    assert page.ask(paper) == light


def test_on_paper_everything_is_unfolded_and_then_folded_again(page):
    page.show(TREE.to_html())
    folded = len(page.find("details.card:not([open])"))
    page.run(
        "window.addEventListener('beforeprint', () => { window.seen ="
        " ['details.card:not([open])', '.card .body:empty'].map((s) => document.querySelectorAll(s).length); })"
    )
    page.driver.execute_cdp_cmd("Page.printToPDF", {})
    assert folded > 0 and page.ask("window.seen") == [0, 0]
    assert len(page.find("details.card:not([open])")) == folded


NOTEBOOK = """<!doctype html><meta charset="utf-8"><main></main>
<style>* { letter-spacing: 3px } p { color: rgb(1, 2, 3) } .card { display: none }
h1 { font-size: 99px }</style>
<div class="card" id="mine">cell</div><p id="theirs">prose</p><div id="output"></div><script>
document.getElementById("output").innerHTML = OUTPUT;
</script>"""


def test_in_a_notebook_no_style_leaks_in_or_out_and_its_script_cannot_reach_the_notebook(page):
    output = json.dumps(TREE._repr_html_()).replace("<", "\\u003c")
    page.show(NOTEBOOK.replace("OUTPUT", output))
    assert page.ask("getComputedStyle(document.querySelector('#theirs')).color") == "rgb(1, 2, 3)"
    assert page.ask("getComputedStyle(document.body).maxWidth") == "none"
    assert "gain +0.5" in page.texts("#output > p")[0]
    page.driver.switch_to.frame(page.find("iframe")[0])
    page.until("document.querySelectorAll('.node').length === 5")
    assert page.ask("getComputedStyle(document.querySelector('.card')).display") != "none"
    assert page.ask("getComputedStyle(document.querySelector('h1')).letterSpacing") == "normal"
    with pytest.raises(WebDriverException, match="Blocked a frame"):
        page.ask("window.parent.document.title")
    page.driver.switch_to.default_content()


def test_a_trajectory_too_large_for_a_notebook_says_how_to_see_it():
    large = replace(TREE, candidates=(Candidate("x" * MOST_IN_NOTEBOOK, reward=1.0),))
    assert "to_html()" in large._repr_html_() and len(large._repr_html_()) < 1000
