"""Ollama's own Python client, every call of it, as people use it (contract, table 1.12)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import ollama
import pytest
from faulty_registry import FaultyRegistry

GREEDY = {"temperature": 0, "num_predict": 5}
HELLO = [{"role": "user", "content": "Hello, who are you?"}]


@pytest.fixture(scope="module")
def client(live: Any) -> Iterator[ollama.Client]:
    with ollama.Client(host=live.url) as found:
        yield found


def with_async(live: Any, work: Any) -> Any:
    """What `work(client)` comes to with the asynchronous client."""

    async def run() -> Any:
        async with ollama.AsyncClient(host=live.url) as client:
            return await work(client)

    return asyncio.run(run())


@pytest.fixture
def photo(tmp_path: Path, picture: bytes) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(picture)
    return path


# --- one after the other ---


def test_generate(client: ollama.Client) -> None:
    found = client.generate("mini", "Hello", options=GREEDY)
    assert found.done
    assert found.response
    assert found.eval_count == 5
    assert found["total_duration"] > 0
    assert found.context


def test_generate_in_pieces(client: ollama.Client) -> None:
    pieces = list(client.generate("mini", "Hello", stream=True, options=GREEDY))
    assert (
        "".join(piece.response or "" for piece in pieces) == client.generate("mini", "Hello", options=GREEDY).response
    )
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "base64"])
def test_generate_with_a_picture(client: ollama.Client, photo: Path, picture: bytes, picture64: str, kind: str) -> None:
    shown = {"path": photo, "text": str(photo), "bytes": picture, "base64": picture64}[kind]
    found = client.generate("mini", "What is in this picture?", images=[shown], options=GREEDY)
    assert (found.prompt_eval_count or 0) > 50


def test_generate_with_everything(client: ollama.Client) -> None:
    found = client.generate(
        "mini", "Hello", system="Be brief.", raw=False, format="json", keep_alive="5m", think=False, logprobs=True,
        top_logprobs=2, options=ollama.Options(temperature=0, num_predict=5, num_ctx=1024, seed=1, mirostat=0),
    )  # fmt: skip
    assert found.logprobs
    assert all(len(token.top_logprobs or ()) <= 2 for token in found.logprobs)


def test_chat(client: ollama.Client) -> None:
    found = client.chat("mini", HELLO, options=GREEDY)
    assert found.message.role == "assistant"
    assert found["message"]["content"]
    assert found.done_reason == "length"


def test_chat_in_pieces(client: ollama.Client) -> None:
    text = "".join(piece["message"]["content"] for piece in client.chat("mini", HELLO, stream=True, options=GREEDY))
    assert text == client.chat("mini", HELLO, options=GREEDY).message.content


def test_chat_with_a_picture_and_a_schema(client: ollama.Client, photo: Path) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    asked = ollama.Message(role="user", content="How many?", images=[ollama.Image(value=photo)])
    found = client.chat("mini", [asked], format=schema, options={"temperature": 0, "num_predict": 60})
    assert json.loads(found.message.content or "")["n"] in (1, 2)


def test_tools_are_refused_where_a_model_has_none(client: ollama.Client) -> None:
    def weather(city: str) -> str:
        """The weather.

        Args:
            city: where
        """
        return city

    with pytest.raises(ollama.ResponseError, match="does not support tools") as caught:
        client.chat("mini", HELLO, tools=[weather])
    assert caught.value.status_code == 400


def test_embed(client: ollama.Client) -> None:
    one, two = (client.embed("mini", given).embeddings for given in ("a circle", ["a circle", "a square"]))
    assert one[0] == two[0]
    assert len(client.embed("mini", "a circle", dimensions=8).embeddings[0]) == 8


def test_embeddings(client: ollama.Client) -> None:
    assert len(client.embeddings("mini", "a circle").embedding) > 8


def test_list_and_ps(client: ollama.Client) -> None:
    client.generate("mini", "Hello", options=GREEDY)
    listed = {model.model: model for model in client.list().models}
    assert isinstance(listed["mini:latest"].modified_at, datetime)
    assert listed["mini:latest"].details is not None
    running = {model.name: model for model in client.ps().models}
    assert isinstance(running["mini:latest"].expires_at, datetime)
    assert running["mini:latest"].context_length == 2048


def test_show(client: ollama.Client) -> None:
    found = client.show("mini")
    assert found.modelinfo
    assert found.capabilities
    assert "vision" in found.capabilities
    assert found.details is not None
    assert isinstance(found.modified_at, datetime)


def test_copy_and_delete(client: ollama.Client) -> None:
    assert client.copy("mini", "copied").status == "success"
    assert client.delete("copied").status == "success"
    with pytest.raises(ollama.ResponseError, match="model 'copied' not found") as caught:
        client.delete("copied")
    assert caught.value.status_code == 404


def test_create(client: ollama.Client) -> None:
    assert client.create("created", from_="mini", system="Be brief.").status == "success"
    steps = [step.status for step in client.create("created", from_="mini", stream=True)]
    assert steps[-1] == "success"
    client.delete("created")


def test_create_from_a_file(client: ollama.Client, tmp_path: Path, gguf: bytes) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf)
    digest = client.create_blob(path)
    assert client.create("filed", files={"tiny.gguf": digest}).status == "success"
    client.delete("filed")


def test_pull(client: ollama.Client, registry: FaultyRegistry, gguf: bytes) -> None:
    registry.add("me/pulled:latest", gguf)
    name = f"{registry.host}/me/pulled"
    steps = list(client.pull(name, insecure=True, stream=True))
    assert steps[0].status == "pulling manifest"
    assert steps[-1].status == "success"
    assert max(step.completed or 0 for step in steps) == len(gguf)
    assert client.pull(name, insecure=True).status == "success"
    client.delete(name)


def test_push(client: ollama.Client, registry: FaultyRegistry) -> None:
    name = f"{registry.host}/me/pushed"
    client.copy("mini", name)
    steps = [step.status or "" for step in client.push(name, insecure=True, stream=True)]
    assert steps[0] == "retrieving manifest"
    assert steps[-2:] == ["pushing manifest", "success"]
    assert any(step.startswith("pushing ") for step in steps[1:-2])
    assert client.push(name, insecure=True).status == "success"
    client.delete(name)


def test_what_is_not_here_is_404(client: ollama.Client) -> None:
    for call in (
        lambda: client.generate("nothing", "a"),
        lambda: client.chat("nothing", HELLO),
        lambda: client.embed("nothing", "a"),
        lambda: client.show("nothing"),
        lambda: list(client.chat("nothing", HELLO, stream=True)),
    ):
        with pytest.raises(ollama.ResponseError, match="not found") as caught:
            call()
        assert caught.value.status_code == 404


# --- all at once ---


def test_async_generate_and_chat(live: Any) -> None:
    async def work(client: ollama.AsyncClient) -> tuple[Any, ...]:
        return tuple(
            await asyncio.gather(
                client.generate("mini", "Hello", options=GREEDY),
                client.generate("mini", "Hello", options=GREEDY),
                client.chat("mini", HELLO, options=GREEDY),
            )
        )

    first, second, chat = with_async(live, work)
    assert first.response == second.response
    assert chat.message.content


def test_async_streams(live: Any) -> None:
    async def work(client: ollama.AsyncClient) -> list[str]:
        texts = ["", ""]
        async for piece in await client.generate("mini", "Hello", stream=True, options=GREEDY):
            texts[0] += piece.response or ""
        async for piece in await client.chat("mini", HELLO, stream=True, options=GREEDY):
            texts[1] += piece.message.content or ""
        return texts

    assert all(with_async(live, work))


def test_async_models(live: Any, tmp_path: Path, gguf: bytes) -> None:
    async def work(client: ollama.AsyncClient) -> None:
        assert (await client.list()).models
        assert (await client.show("mini")).capabilities
        assert (await client.ps()).models is not None
        assert (await client.embed("mini", "a")).embeddings
        assert (await client.embeddings("mini", "a")).embedding
        assert (await client.copy("mini", "async-copy")).status == "success"
        assert (await client.delete("async-copy")).status == "success"
        assert (await client.create("async-made", from_="mini")).status == "success"
        steps = [step.status async for step in await client.create("async-made", from_="mini", stream=True)]
        assert steps[-1] == "success"
        await client.delete("async-made")
        path = tmp_path / "tiny.gguf"
        path.write_bytes(gguf)
        digest = await client.create_blob(path)
        assert live.http.head(f"/api/blobs/{digest}").status_code == 200

    with_async(live, work)


def test_async_pull_and_push(live: Any, registry: FaultyRegistry, gguf: bytes) -> None:
    registry.add("me/async:latest", gguf)
    name = f"{registry.host}/me/async"

    async def work(client: ollama.AsyncClient) -> None:
        assert [step.status async for step in await client.pull(name, insecure=True, stream=True)][-1] == "success"
        assert (await client.pull(name, insecure=True)).status == "success"
        assert [step.status async for step in await client.push(name, insecure=True, stream=True)][-1] == "success"
        assert (await client.push(name, insecure=True)).status == "success"
        await client.delete(name)

    with_async(live, work)


def test_an_async_client_that_stops_listening_leaves_no_trace(live: Any) -> None:
    async def work(client: ollama.AsyncClient) -> None:
        async for _ in await client.generate("mini", "Hello", stream=True, options={"num_predict": 500}, format="json"):
            break

    with_async(live, work)
    assert live.is_idle()
