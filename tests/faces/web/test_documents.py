"""The desk in a browser, before the real server: files fall in, a question is answered, a citation is lit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import serving

pytestmark = pytest.mark.browser

LIGHT = "# Crow Island\n\nThe lighthouse of Crow Island was built in 1871 by Mira Holt.\n\nIts keeper has two goats.\n"


@pytest.fixture
def real(tmp_path: Path) -> Iterator[str]:
    from lapilli.faces.residents import Residents
    from lapilli.faces.server.app import build_app
    from lapilli.ground.settings import Settings
    from lapilli.store.library import Library

    settings = Settings(models=tmp_path / "models", ollama_models=None, drain=2, documents=tmp_path / "documents")
    library = Library(settings.models)
    with serving(build_app(library, Residents(library, settings), settings)) as address:
        yield address


@pytest.fixture
def desk(open_page: Callable[..., Any], real: str) -> Callable[..., Any]:
    def opened(**options: Any) -> Any:
        page = open_page(origin=real, **options)
        page.set_default_timeout(60_000)
        if not page.get_by_role("button", name="Documents").is_visible():
            page.get_by_role("button", name="Show conversations").click()
        page.get_by_role("button", name="Documents").click()
        page.get_by_text("Nothing here yet.").wait_for()
        return page

    return opened


def give(page: Any, *files: tuple[str, str, bytes]) -> None:
    page.locator(".desk input[type=file]").set_input_files(
        [{"name": name, "mimeType": kind, "buffer": data} for name, kind, data in files]
    )


def shot(page: Any, name: str) -> None:
    """Kept for people's eyes, where a folder is named."""
    if folder := os.environ.get("SHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_added_asked_cited_lit_and_removed(
    desk: Callable[..., Any], shapes: Path, axe: str, width: int, height: int, scheme: str
) -> None:
    page = desk(size=(width, height), color_scheme=scheme)
    give(page, ("light.md", "text/markdown", LIGHT.encode()), ("shapes.png", "image/png", shapes.read_bytes()))
    page.locator(".papers .open").nth(1).wait_for()
    page.get_by_label("Question", exact=True).fill("Who built the lighthouse of Crow Island?")
    page.keyboard.press("Enter")
    page.locator(".said .cite").first.click()
    mark = page.locator(".paper mark")
    mark.wait_for()
    assert "Mira Holt" in mark.inner_text()
    assert mark.evaluate(
        "(mark) => { const r = mark.getBoundingClientRect(); return r.top >= 0 && r.bottom <= innerHeight; }"
    )
    assert page.locator(".paper-text").inner_text().startswith("# Crow Island")
    page.evaluate(axe)
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
    shot(page, f"desk-{width}-{scheme}")
    page.locator(".papers .open", has_text="shapes.png").click()
    page.locator(".paper img").wait_for()
    page.get_by_role("button", name="Remove light").or_(page.get_by_role("button", name="Remove Crow Island")).click()
    page.get_by_role("button", name="Remove", exact=True).click()
    page.locator(".papers .open").nth(1).wait_for(state="detached")
    page.get_by_label("Question", exact=True).fill("Who built the lighthouse of Crow Island?")
    page.keyboard.press("Enter")
    page.get_by_text("Not in your documents.").wait_for()


def test_what_is_no_document_says_so_and_the_rest_goes_on(desk: Callable[..., Any]) -> None:
    page = desk()
    give(page, ("broken.pdf", "application/pdf", b"%PDF-1.7 nothing"), ("light.txt", "text/plain", LIGHT.encode()))
    page.locator(".toast").wait_for()
    page.locator(".papers .open", has_text="light.txt").wait_for()
    assert page.locator(".papers .open").count() == 1
    page.keyboard.press("Escape")
    assert not page.locator(".desk").is_visible()


def test_markup_in_a_document_stays_text(desk: Callable[..., Any]) -> None:
    page = desk()
    evil = "The lamp of Nuro Bay burns <img src=x onerror=alert(1)> oil of rape."
    give(page, ("<b>lamp.txt", "text/plain", evil.encode()))
    page.get_by_label("Question", exact=True).fill("What does the lamp of Nuro Bay burn?")
    page.keyboard.press("Enter")
    page.locator(".said .cite").first.click()
    assert evil in page.locator(".paper mark").inner_text()
    assert page.locator(".desk img[src=x]").count() == 0
