"""The page of a run, looked at in a real browser: figures, table, trees, keyboard, paper."""

from __future__ import annotations

import base64
import re
import time
from dataclasses import replace

from full import either
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tpo_core import Candidate, Trajectory
from tpo_core.report import Entry, run_page

GAIN = 5  # column of the table


def column(page, number: int) -> list[str]:
    return page.texts(f"tr.line td:nth-child({number})")


def run(make, queries: int = 60, **settings):
    items = [make(i, gain=i % 3 != 0) for i in range(queries)]
    return run_page([*items, Entry(None, error="ModelError: no server")], **settings)


def test_every_figure_is_drawn_with_named_axes_and_its_numbers_as_a_table(page, make):
    page.show(run(make, title="A run", about={"policy": "made up"}))
    assert page.texts("h1") == ["A run"] and page.texts(".about dd") == ["made up"]
    titles = page.texts("figure h3")
    assert {"Reward over rounds", "Spread within a round", "Reward against tokens", "Gains"} <= set(titles)
    page.until("document.querySelectorAll('figure .plot svg').length === arguments[0]", len(titles))
    assert {"round", "reward", "queries", "tokens of the query", "gain (reward)"} <= set(page.texts("text.label"))
    assert all(page.ask("[...document.querySelectorAll('.plot > svg')].map((s) => s.getAttribute('aria-label'))"))
    assert len(page.find("details.numbers:not([hidden])")) >= 6
    assert "NaN" not in page.ask("document.body.innerHTML") and "undefined" not in page.ask("document.body.innerText")


def test_the_page_says_what_it_cannot_show(page, make):
    page.show(run(make))
    limits = " ".join(page.texts(".limits li"))
    assert "optimised" in limits and "best-of-N" in limits and "longer" in limits and "failed" in limits


def test_the_curves_show_rewards_or_gains(page, make):
    page.show(run(make)).until("document.querySelector('figure .plot svg')")
    assert page.texts("figure:first-child text.label")[0] == "reward"
    page.click("figure:first-child .switch button", 1)
    assert page.texts("figure:first-child text.label")[0] == "reward above the first best"
    assert page.texts("figure:first-child .numbers td")[0].startswith("0")


def test_a_tip_tells_a_round_s_means_with_their_intervals(page, make):
    page.show(run(make)).until("document.querySelector('figure .plot rect.hit')")
    ActionChains(page.driver).move_to_element(page.find("figure:first-child rect.hit")[1]).perform()
    page.until("!document.querySelector('#tip').hidden")
    tip = page.ask("document.querySelector('#tip').innerText")
    assert "Round 1" in tip and "best so far" in tip and " to " in tip and "n 60" in tip


def number(text: str) -> float:
    return float(text.replace("−", "-").replace("+", "").replace(",", ""))


def test_sorting_goes_both_ways_and_what_has_no_value_is_last(page, make):
    page.show(run(make))
    for order in ("descending", "ascending"):
        page.click('[data-key="gain"] button')
        assert page.ask("document.querySelector('[data-key=gain]').getAttribute('aria-sort')") == order
        page.run("const s = document.querySelector('.scroller'); s.scrollTop = 0")
        top = [number(text) for text in column(page, GAIN)]
        assert top == sorted(top, reverse=order == "descending")
        page.run("const s = document.querySelector('.scroller'); s.scrollTop = s.scrollHeight")
        page.until("document.querySelector('tr.line:nth-last-child(2) td, tr.line:last-child td') !== null")
        page.until(
            "[...document.querySelectorAll('tr.line')].at(-1).querySelector('td:nth-child(11)').textContent === 'error'"
        )
    page.click('[data-key="query"] button')
    assert column(page, 2)[:3] == ["question 0", "question 1", "question 10"]


def test_filters_narrow_the_table_down_and_clear_again(page, make):
    page.show(run(make))
    status = "document.querySelector('[role=status]').textContent"
    assert page.ask(status) == "61 queries"
    page.find("input[type=search]")[0].send_keys("question 1")
    assert page.ask(status) == "11 of 61 queries" and all("question 1" in q for q in column(page, 2))
    page.find("input[type=search]")[0].send_keys("zzz")
    assert page.texts("tbody td.words") == ["No query matches."]
    page.click(".filters button:not(.chip)")
    page.find("select[data-key=stop] option[value=patience]")[0].click()
    assert page.ask(status) == "15 of 61 queries" and set(column(page, 11)) == {"patience"}
    page.find("select[data-key=failure] option[value=length]")[0].click()
    assert page.ask(status) == "5 of 61 queries"
    page.click(".filters button:not(.chip)")
    assert page.ask(status) == "61 queries"


def test_a_bar_filters_the_table_by_mouse_and_by_key(page, make):
    page.show(run(make)).until("document.querySelectorAll('.counts .pick').length > 2")
    page.run(
        "[...document.querySelectorAll('.counts .pick')].find((b) => b.textContent.includes('first sample')).focus()"
    )
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert set(column(page, 6)) == {"first sample"}
    page.click(".filters button:not(.chip)")
    ActionChains(page.driver).move_to_element(page.find(".charts figure:nth-child(4) .pick .bar")[-1]).click().perform()
    [chip] = page.find(".chip")
    low = number(re.findall(r"Gain ([\d.]+)", chip.text)[0])
    assert column(page, GAIN) and all(number(gain) >= low - 0.005 for gain in column(page, GAIN))
    chip.click()
    assert page.ask("document.querySelector('[role=status]').textContent") == "61 queries"


def test_a_query_opens_its_tree_and_the_address_leads_back_to_it(page, make):
    page.show(run(make))
    page.click("tr.line", 3)
    page.until("document.querySelector('dialog .tree')")
    assert page.texts("dialog h2") == ["Query #3"] and "critique 3 of round 1" in page.ask(
        "document.querySelector('dialog').innerText"
    )
    assert page.ask("location.hash") == "#3" and page.find("dialog .node")
    page.click(".sheet-head button", 1)  # next
    page.until("document.querySelector('dialog h2').textContent === 'Query #4'")
    page.driver.back()
    page.until("document.querySelector('dialog h2').textContent === 'Query #3'")
    page.driver.back()
    page.until("!document.querySelector('dialog').open")
    page.show(run(make), "#7").until("document.querySelector('dialog[open] .tree')")
    assert page.texts("dialog h2") == ["Query #7"]


def test_the_keyboard_alone_reaches_a_tree_and_leaves_it(page, make):
    page.show(run(make))
    page.run("document.querySelector('tr.line .open').focus()")
    ActionChains(page.driver).send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ENTER).perform()
    page.until("document.querySelector('dialog[open] .tree')")
    assert page.texts("dialog h2") == ["Query #2"]
    page.run("document.querySelector('dialog .node').focus()")
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.ask("document.activeElement.closest('details').open")
    ActionChains(page.driver).send_keys(Keys.ESCAPE).perform()
    page.until("!document.querySelector('dialog').open && !location.hash")
    assert page.ask("document.activeElement.className") == "open"
    ActionChains(page.driver).send_keys(Keys.END).perform()
    assert page.ask("document.activeElement.closest('tr').dataset.at") == "60"


def test_a_query_that_failed_says_why(page, make):
    page.show(run(make), "#60").until("document.querySelector('dialog[open] .callout.bad')")
    assert "ModelError: no server" in page.texts(".callout.bad")[0]


def test_a_tree_that_cannot_be_unpacked_says_so(page, make):
    html = re.sub(r'(class="trees">)[^<]+', r"\1H4sIAAAA", run(make))
    page.show(html, "#1").until("document.querySelector('dialog[open] .callout.bad')")
    assert "cannot be read" in page.texts(".callout.bad")[0]


def test_a_left_out_tree_says_so(page, make):
    page.show(run(make, trees=1), "#1").until("document.querySelector('dialog[open] .empty')")
    page.until("document.querySelector('dialog .empty').textContent.includes('first 1 query only')")


def test_a_run_of_nothing_and_runs_without_rewards_updates_or_tokens_say_so(page, make):
    page.show(run_page([])).until("document.querySelector('figure .empty')")
    assert "No queries." in page.texts("tbody td") and "No query has a scored answer." in page.texts(".empty")
    page.show(run_page([Trajectory("q", (Candidate("a", reward=1.0),))])).until(
        "document.querySelector('figure .empty')"
    )
    empty = page.texts(".empty")
    assert "No tokens were reported." in empty and "No candidate failed." in empty
    assert "NaN" not in page.ask("document.body.innerText") and page.texts("tr.line td:nth-child(2)") == ["q"]


def test_names_stand_where_a_run_has_them_and_are_searched(page, make):
    page.show(run_page([Entry(make(i), name=f"batch-{i}") for i in range(5)]))
    assert column(page, 1) == [f"batch-{i}" for i in range(5)]
    page.find("input[type=search]")[0].send_keys("batch-4")
    assert column(page, 1) == ["batch-4"]


def test_thousands_of_queries_load_sort_filter_and_open_within_seconds(page, make):
    many = either(10_000, short=2_000)
    trees = [make(i, words=40, width=5) for i in range(50)]
    html = run_page(replace(trees[i % 50], query=f"question {i}") for i in range(many))
    start = time.monotonic()
    page.show(html)
    assert time.monotonic() - start < 40  # a second or two on a machine at rest
    assert page.ask("document.querySelectorAll('*').length") < 8000
    assert page.ask("document.querySelector('table.queries').getAttribute('aria-rowcount')") == str(many + 1)
    spent = page.ask(
        "(() => { const t = performance.now(); document.querySelector('[data-key=tokens] button').click();"
        " return performance.now() - t; })()"
    )
    assert spent < 5000
    page.run("const s = document.querySelector('.scroller'); s.scrollTop = s.scrollHeight")
    page.until(f"document.querySelector('tr.line[data-at=\"{many - 1}\"]')")
    assert len(page.find("tr.line")) < 100
    page.find("input[type=search]")[0].send_keys(f"question {many - 1}")
    page.click("tr.line")
    page.until("document.querySelector('dialog .tree')")
    assert page.texts("dialog .query .text") == [f"question {many - 1}"]


def test_on_paper_the_figures_and_the_first_queries_stand_without_controls(page, make):
    page.show(run(make, 200))
    pdf = page.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(pdf))) <= 12
    page.emulate(media="print")
    assert page.ask("getComputedStyle(document.querySelector('.filters')).display") == "none"
    assert page.ask("getComputedStyle(document.querySelector('.switch')).display") == "none"
    page.emulate(media="print", prefers_color_scheme="dark")
    assert page.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
