"""The report in a browser: for every width, light and hand, without a network, ten thousand trials at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_trials import intervention, made_trials

from lapilli.apps.trials.report import Shown, write_report

pytestmark = pytest.mark.browser


@pytest.fixture
def open_report(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens the report of some trials from its file; what it complains of, or asks the network for, fails the test."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def open_(trials: list[Shown], *, size: tuple[int, int] = (1280, 900), scheme: str = "light") -> Any:
        path = tmp_path / "report.html"
        write_report(path, "Made-up trials", lambda: trials)
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, offline=True)
        contexts.append(context)
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(f"{error}"))
        page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
        page.on("request", lambda asked: not asked.url.startswith(("file:", "data:")) and complaints.append(asked.url))
        page.goto(path.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


def told(page: Any) -> str:
    return str(page.locator("output").inner_text())


def test_spans_are_lit_where_they_stand(open_report: Callable[..., Any]) -> None:
    page = open_report(list(made_trials(5)))
    first = page.locator("article").first
    assert first.locator("h2 mark").inner_text() == "Lapillin1"
    assert first.locator("dd mark").all_inner_texts() == ["5 mg1", "by mouth1", "twice daily1", "placebo2"]
    assert first.locator("li b").all_inner_texts() == ["1. Lapillin", "2. placebo"]


def test_filters_and_words_choose_the_trials(open_report: Callable[..., Any]) -> None:
    page = open_report(list(made_trials(100)))
    assert told(page) == "1–20 of 100"
    page.get_by_label("Status").select_option("failed")
    page.locator("article .told").first.wait_for()
    assert told(page) == "1–7 of 7"
    assert "too_long" in page.locator("article .told").first.inner_text()
    page.get_by_label("Register").select_option("ChiCTR")
    registers = page.locator("article .head span:first-of-type").all_inner_texts()
    assert registers
    assert set(registers) == {"ChiCTR"}
    page.get_by_label("Register").select_option("")
    page.get_by_label("Status").select_option("")
    page.get_by_label("Type").select_option("Biological")
    page.get_by_label("Search").fill("basalt made00000001")
    page.get_by_text("1–1 of 1", exact=True).wait_for()
    assert page.locator("article strong").inner_text() == "MADE00000001"
    page.get_by_label("Search").fill("no such words")
    page.get_by_text("No trial is like that.").wait_for()


def test_pages_turn_by_hand_and_by_key(open_report: Callable[..., Any]) -> None:
    page = open_report(list(made_trials(50)))
    assert page.get_by_label("Earlier trials").is_disabled()
    page.get_by_label("Later trials").click()
    assert told(page) == "21–40 of 50"
    page.keyboard.press("Enter")
    assert told(page) == "41–50 of 50"
    assert page.get_by_label("Later trials").is_disabled()
    assert page.locator("article").count() == 10


def test_words_of_strangers_run_nowhere(open_report: Callable[..., Any]) -> None:
    words = "</script><img src=x onerror=document.title='gone'><b>x</b>"
    trial = Shown((words,), words, "ok", [intervention(words, "Drug")], {"public_title": words, words: words})
    page = open_report([trial])
    assert page.locator("h2").inner_text() == words
    assert page.title() == "Made-up trials"
    assert page.locator("article img").count() == 0


def test_ten_thousand_trials_answer_at_once(open_report: Callable[..., Any]) -> None:
    page = open_report(list(made_trials(10_000)))
    assert told(page) == "1–20 of 10000"
    assert page.locator("article").count() == 20
    page.get_by_label("Search").fill("made00009999")
    page.get_by_text("1–1 of 1", exact=True).wait_for()
    assert page.locator("article strong").inner_text() == "MADE00009999"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_sticks_out(
    open_report: Callable[..., Any], axe: str, width: int, scheme: str
) -> None:
    page = open_report(list(made_trials(40)), size=(width, 844), scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    # The page's own rules let no script in but its own: what looks at it comes by the debugger's way.
    page.context.new_cdp_session(page).send("Runtime.evaluate", {"expression": axe})
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
    assert [
        f"{each['id']}: {node['target']} {node['failureSummary']}" for each in found for node in each["nodes"]
    ] == []
