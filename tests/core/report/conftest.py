"""A real Chromium that looks at the pages, with no way out of this machine; and runs to show in it."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tpo_core import Candidate, Failure, Step, Trajectory, Usage

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-default-apps", "--no-default-browser-check", "--window-size=1280,1000",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
PATIENCE = 60.0


class Page:
    """A page in the browser, asked with CSS selectors and with expressions of JavaScript."""

    def __init__(self, driver: webdriver.Chrome, folder: Path) -> None:
        """Take the browser, and a folder for pages."""
        self.driver, self._folder, self._number = driver, folder, 0

    def show(self, html: str, address: str = "") -> Page:
        """Open a page from a file, as a user does, and wait until it is drawn."""
        self._number += 1
        file = self._folder / f"page-{self._number}.html"
        file.write_text(html, encoding="utf-8")
        self.driver.get(file.as_uri() + address)
        return self.until("document.querySelector('main')?.hasAttribute('aria-busy') !== true")

    def run(self, script: str, *arguments: Any) -> Any:
        """Run statements in the page."""
        return self.driver.execute_script(script, *arguments)

    def ask(self, expression: str, *arguments: Any) -> Any:
        """Return the value of an expression."""
        return self.run(f"return {expression}", *arguments)

    def until(self, expression: str, *arguments: Any) -> Page:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.ask(expression, *arguments):
            if time.monotonic() > end:
                raise AssertionError(f"never true: {expression}; the console says {self.console()}")
        return self

    def find(self, selector: str) -> list[WebElement]:
        """Return the elements of a selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """Return the text of each element of a selector, as it is in the page, seen or not."""
        return self.ask("[...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector)

    def click(self, selector: str, place: int = 0) -> None:
        """Click on the element of a selector."""
        self.find(selector)[place].click()

    def console(self) -> list[str]:
        """Return what the console says since the last question: errors and what the policy stopped."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def emulate(self, **features: str) -> None:
        """Set a media type, or features such as ``prefers_color_scheme``; without any, back to none."""
        kinds = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items() if k != "media"]
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"media": features.get("media", ""), "features": kinds}
        )


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium to look at the page with: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium: webdriver.Chrome, tmp_path: Path) -> Iterator[Page]:
    """Give a page that must end without an error in its console."""
    shown = Page(chromium, tmp_path)
    shown.emulate()
    chromium.get("about:blank")
    shown.console()  # what came before
    yield shown
    assert shown.console() == []


@pytest.fixture(scope="session")
def make() -> Callable[..., Trajectory]:
    return trajectory


def trajectory(number: int = 0, *, words: int = 12, width: int = 4, depth: int = 2, gain: bool = True) -> Trajectory:
    """Make up a loop: samples, then rounds of updates that change a word or two of the best."""
    draw = random.Random(number)
    candidates: list[Candidate] = []
    steps: list[Step] = []

    def add(text: str, reward: float | None, step: int, failure: str | None = None) -> None:
        why = Failure(failure, f"it was {failure}") if failure else None
        reward = None if why else reward
        candidates.append(
            Candidate(text, reward=reward, step=step, fresh=step == 0, failure=why, index=len(candidates))
        )

    for _ in range(width):
        add(" ".join(f"w{draw.randrange(500)}" for _ in range(words)), draw.gauss(0, 1), 0)
    for step in range(1, depth + 1):
        scored = [c for c in candidates if c.reward is not None]
        top, low = max(scored, key=lambda c: c.reward or 0), min(scored, key=lambda c: c.reward or 0)
        steps.append(
            Step(step, top, low, f"critique {number} of round {step}", f"instructions {number} of round {step}")
        )
        for k in range(width):
            failed = "length" if k == 0 and number % 3 == 0 else None
            add(f"{top.response} u{step}{k}", (top.reward or 0) + (0.1 * k if gain else -1.0), step, failed)
    return Trajectory(
        query=f"question {number}",
        candidates=tuple(candidates),
        steps=tuple(steps),
        usage=Usage(width + depth * (2 + width), 9, 1000 + number, 500),
        stop_reason="depth" if number % 4 else "patience",
        seconds={"total": 1.0 + number, "sample": 1.0},
    )
