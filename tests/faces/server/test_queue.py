"""A queue that is full says so, at once, whether the model is loaded or not (T92)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from serving import serving


@pytest.fixture(scope="module")
def crowded(home: Path) -> Iterator[str]:
    """A server with one place and a queue of four."""
    from lapilli.faces.residents import Residents
    from lapilli.faces.server.app import build_app
    from lapilli.ground.settings import Settings
    from lapilli.store.library import Library

    settings = Settings(models=home / "models", ollama_models=None, num_parallel=1, max_queue=4, drain=1)
    library = Library(settings.models)
    with serving(build_app(library, Residents(library, settings), settings)) as url:
        yield url


@pytest.mark.parametrize("loaded", [False, True])
def test_a_queue_that_is_full_says_so(crowded: str, loaded: bool) -> None:
    async def ask(client: httpx2.AsyncClient) -> httpx2.Response:
        options = {"num_predict": 40, "temperature": 0}
        body = {"model": "mini", "prompt": "Hello", "stream": False, "format": "json", "options": options}
        return await client.post("/api/generate", json=body)

    async def all_ask() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=crowded, timeout=120, limits=limits) as client:
            return await asyncio.gather(*(ask(client) for _ in range(30)))

    found = asyncio.run(all_ask())
    refused = [response for response in found if response.status_code == 503]
    answers = [response.json()["response"] for response in found if response.status_code == 200]
    assert len(refused) + len(answers) == 30
    assert 5 <= len(answers) <= 8  # one may have been answered before the last had come
    assert len(set(answers)) == 1 or not answers
    for response in refused:
        assert response.headers["retry-after"] == "1"
        assert response.json() == {"error": "server busy, please try again.  maximum pending requests exceeded"}
