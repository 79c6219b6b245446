"""The web page in a browser, before the real server and `mini`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page import ask, give, last
from serving import serving

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from lapilli.faces.residents import Residents
    from lapilli.faces.server.app import build_app
    from lapilli.ground.settings import Settings
    from lapilli.store.library import Library

    settings = Settings(models=tmp_path_factory.mktemp("models"), ollama_models=None, drain=2)
    library = Library(settings.models)
    with serving(build_app(library, Residents(library, settings), settings)) as address:
        yield address


@pytest.fixture
def page(open_page: Callable[..., Any], real: str) -> Any:
    return open_page(origin=real)


def settle(page: Any, **options: str) -> None:
    page.get_by_role("button", name="Settings").click()
    for label, value in {"Temperature": "0", **options}.items():
        page.get_by_label(label.replace("_", " ")).fill(value)
    page.keyboard.press("Escape")


def test_pasted_asked_streamed_edited_reloaded(page: Any, shapes: Path) -> None:
    page.set_default_timeout(60_000)
    settle(page)
    page.get_by_role("button", name="Where it looks").click()
    give(page, shapes, "paste")
    ask(page, "What is in this picture?")
    first = last(page).inner_text()
    assert "red" in first
    assert "blue" in first
    figures = page.locator(".answer .figures").inner_text()
    assert "tokens/s" in figures
    assert "image tokens" in figures
    stack = page.locator(".stack")
    stack.locator("canvas").wait_for()
    over, under = stack.locator("canvas").bounding_box(), stack.locator("img").bounding_box()
    assert all(abs(over[side] - under[side]) <= 1 for side in ("x", "y", "width", "height"))
    page.locator("#words").press("ArrowUp")
    page.get_by_role("textbox", name="Edit your message").fill("What colour is the circle?")
    page.keyboard.press("Enter")
    page.locator(".asked .count", has_text="2 / 2").wait_for()
    page.locator(".answer .figures").wait_for()
    assert "cached" in page.locator(".answer .figures").inner_text() or "red" in last(page).inner_text().lower()
    page.reload()
    page.locator(".answer .figures").wait_for()
    page.get_by_role("button", name="Earlier version").click()
    assert last(page).inner_text() == first


def test_stopped_and_asked_again(page: Any) -> None:
    page.set_default_timeout(60_000)
    settle(page, Most_tokens="2000")
    ask(page, "Tell me a long story about stones.", wait=False)
    page.locator(".answer.streaming").wait_for()
    page.keyboard.press("Escape")
    page.locator(".figures", has_text="stopped").wait_for()
    page.get_by_role("button", name="Ask again").click()
    page.locator(".answer .count", has_text="2 / 2").wait_for()
