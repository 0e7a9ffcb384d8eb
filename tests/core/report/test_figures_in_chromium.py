"""A page of tables and charts, looked at in a real browser."""

from __future__ import annotations

from tpo_core.report import Chart, Figures, Mean, Series, Table, figures_page

HOSTILE = "</script><img src=x onerror=\"document.title='hacked'\">\u202e"


def figures(text: str = "paper") -> Figures:
    means = (Mean(3, 1.0, 0.5, 1.5), Mean(3, 2.0, 1.0, 3.0), Mean())
    return Figures(
        "Plans",
        {"policy": text},
        (f"A warning about {text}.",),
        (Table("Results", ("plan", "mean"), ((text, "1.5"), ("bon", "")), f"A note on {text}."),),
        (
            Chart("Reward", (0, 1, 2), "step", "reward", (Series(text, means), Series("bon", means))),
            Chart("Nothing yet", (0, 1), "step", "reward", (Series("bon", (Mean(), Mean())),)),
        ),
    )


def test_tables_and_charts_are_drawn_with_their_numbers(page):
    page.show(figures_page(figures()))
    page.until("document.querySelector('figure .plot svg')")
    assert page.texts("h1") == ["Plans"] and page.texts(".results th") == ["plan", "mean", "paper", "bon"]
    assert page.texts(".limits li") == ["A warning about paper."] and page.texts("figure h3") == [
        "Reward",
        "Nothing yet",
    ]
    assert page.ask("document.querySelectorAll('figure:first-child path.curve.line-0').length") >= 1
    assert page.texts("p.empty") == ["Nothing to draw yet."]
    numbers = page.ask("document.querySelector('details.numbers').innerText || ''")
    assert "NaN" not in page.ask("document.body.innerHTML") and "undefined" not in numbers


def test_what_stands_in_the_figures_is_text_and_nothing_else(page):
    page.show(figures_page(figures(HOSTILE)))
    page.until("document.querySelector('figure .plot svg')")
    assert page.driver.title == "Plans" and page.ask("document.querySelectorAll('img').length") == 0
    assert "<img src=x" in page.texts(".limits li")[0] and "U+202E" in page.texts(".limits li")[0]
