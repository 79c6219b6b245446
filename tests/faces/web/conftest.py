"""The page in a browser, and a server with made-up answers behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_ollama import Fake
from serving import serving

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def served() -> Iterator[tuple[Fake, str]]:
    fake = Fake()
    with serving(fake.app()) as address:
        yield fake, address


@pytest.fixture
def fake(served: tuple[Fake, str]) -> Fake:
    """The server behind the page, as it is when it starts."""
    served[0].__init__()  # type: ignore[misc]
    return served[0]


@pytest.fixture
def address(served: tuple[Fake, str]) -> str:
    return served[1]


@pytest.fixture
def open_page(browser: Any, fake: Fake, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page in a browser of its own; what it complains of, or asks of others, fails the test."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def open_(
        path: str = "/",
        *,
        origin: str = address,
        size: tuple[int, int] = (1280, 800),
        ready: bool = True,
        **options: Any,
    ) -> Any:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        contexts.append(context)
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(f"{error}"))
        page.on("console", lambda said: _refused(said.text) and complaints.append(said.text))
        page.on("request", lambda request: _outside(request.url, origin) and complaints.append(request.url))
        page.goto(origin + path)
        if ready:
            page.get_by_role("button", name="can see pictures").wait_for()
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


def _refused(text: str) -> bool:
    return "Content Security Policy" in text or "Refused to" in text


def _outside(url: str, address: str) -> bool:
    return not url.startswith((address, "blob:", "data:"))


@pytest.fixture
def page(open_page: Callable[..., Any]) -> Any:
    return open_page()


@pytest.fixture
def shapes() -> Path:
    return ROOT / "examples" / "shapes.png"


@pytest.fixture
def stars() -> Path:
    return ROOT / "examples" / "stars.png"
