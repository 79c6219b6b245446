"""The web page in a browser: for every width, light, hand and ear."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_ollama import PLAIN, WEB, Fake
from page import ask, give

pytestmark = pytest.mark.browser

SIZES = """["html", "#scroll", ".composer"].map((each) => {
  const found = document.querySelector(each);
  return [found.scrollWidth, found.clientWidth];
})"""
NAME = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim()"
SERIOUS = ("serious", "critical")


def findings(page: Any, axe: str) -> list[str]:
    page.wait_for_timeout(400)  # until nothing fades any more: half-faded text has half its contrast
    page.evaluate(axe)
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    open_page: Callable[..., Any], fake: Fake, shapes: Path, axe: str, width: int, scheme: str
) -> None:
    page = open_page(size=(width, 844), color_scheme=scheme)
    assert findings(page, axe) == []
    page.get_by_role("button", name="Where it looks").click()
    give(page, shapes, "paste")
    assert findings(page, axe) == []
    ask(page, "code, please")
    page.locator(".stack canvas").wait_for()
    assert findings(page, axe) == []
    fake.problem = (500, "the model stopped")
    ask_and_fail(page)
    if width == 390:
        page.get_by_role("button", name="Show conversations").click()
    assert findings(page, axe) == []
    page.keyboard.press("Escape")
    page.locator("#model").click()
    assert findings(page, axe) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Settings").click()
    assert findings(page, axe) == []


def ask_and_fail(page: Any) -> None:
    page.locator("#words").fill("and now?")
    page.locator("#words").press("Enter")
    page.locator(".turn .problem", has_text="the model stopped").wait_for()


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_sticks_out_sideways(open_page: Callable[..., Any], shapes: Path, width: int) -> None:
    page = open_page(size=(width, 844))
    give(page, shapes, "paste")
    ask(page, "code, please, and a-word-without-any-blank-" + "x" * 200)
    sizes = page.evaluate(SIZES)
    assert all(inner <= outer + 1 for inner, outer in sizes)
    page.locator("#model").click()
    box = page.locator("#model-list").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width


def test_the_keyboard_reaches_everything_in_order(page: Any, shapes: Path) -> None:
    ask(page, "hello")
    page.locator(".skip").focus()
    seen = ["Skip to the message box"]
    for _ in range(24):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(NAME))
    wanted = [
        "Skip to the message box", "Hide conversations", "New conversation", "hello", "Export all",
        "Model: mini, can see pictures", "Theme: as the system", "Settings", "Edit this message", "Ask again",
        "Message", "Add pictures",
    ]  # fmt: skip
    assert [each for each in seen if each in wanted][: len(wanted)] == wanted


def test_focus_is_seen(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_finished_answer_is_read_out(page: Any, fake: Fake) -> None:
    ask(page, "hello")
    assert page.locator("[role=status]#status").inner_text() == PLAIN
    assert page.locator(".answer").get_attribute("aria-busy") == "false"


def test_the_theme_is_switched_and_kept(open_page: Callable[..., Any]) -> None:
    page = open_page(color_scheme="light")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.get_by_role("button", name="Theme: as the system").click()
    page.get_by_role("button", name="Theme: light").click()
    dark = page.evaluate(paper)
    assert dark != light
    page.reload()
    assert page.evaluate(paper) == dark


def test_who_wants_no_motion_sees_none(open_page: Callable[..., Any], fake: Fake) -> None:
    page = open_page(reduced_motion="reduce")
    fake.pace = 0.05
    ask(page, "long", wait=False)
    page.locator(".answer", has_text="Paragraph").wait_for()
    assert page.evaluate("document.getAnimations().length") == 0


def test_the_conversations_slide_over_the_page_on_a_phone(open_page: Callable[..., Any]) -> None:
    page = open_page(size=(390, 844))
    ask(page, "hello")
    assert not page.locator("#list").is_visible()
    page.get_by_role("button", name="Show conversations").click()
    page.locator("#list .open", has_text="hello").click()
    page.locator("#list").wait_for(state="hidden")
    assert page.locator(".answer").is_visible()


def test_words_typed_outlive_a_reload(page: Any) -> None:
    page.locator("#words").fill("half a thought")
    page.reload()
    assert page.locator("#words").input_value() == "half a thought"


def test_what_is_answered_elsewhere_goes_on(page: Any, fake: Fake) -> None:
    fake.pace = 0.02
    ask(page, "long", wait=False)
    page.get_by_role("button", name="New conversation").click()
    assert page.get_by_role("button", name="Send", exact=True).is_visible()
    fake.pace = 0.001
    page.locator("#list .open", has_text="long").click()
    page.locator(".answer .figures").wait_for()
    assert "Paragraph 39" in page.locator(".answer").inner_text()


def test_the_page_needs_no_one_else() -> None:
    for file in WEB.iterdir():
        if file.suffix in (".html", ".css", ".js"):
            text = file.read_text()
            assert "innerHTML" not in text
            assert "eval(" not in text
            assert "@import" not in text
            assert file.suffix == ".js" or "url(" not in text
            assert " style=" not in text
            assert len(text.splitlines()) < 300, file.name
