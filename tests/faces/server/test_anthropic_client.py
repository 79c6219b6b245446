"""Anthropic's own Python client, as people use it (contract, table 1.11)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from dialects import HELLO, saying

from lapilli.errors import EngineGoneError
from lapilli.wire.question import Account, Said, ToolCall

DONE = Account(reason="stop", prompt_tokens=10, completion_tokens=5)
CALL = ToolCall(name="weather", arguments={"where": "Rome"}, id="toolu_1")
TOOL: Any = {"name": "weather", "description": "d", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def client(live: Any) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=live.url, api_key="any", max_retries=0) as found:
        yield found


def create(client: anthropic.Anthropic, **more: Any) -> Any:
    # The client's own words for options that newer models of theirs lack are of no concern here.
    asked: Any = {"model": "mini", "messages": HELLO, "max_tokens": 5, "extra_body": {"temperature": 0}, **more}
    return client.messages.create(**asked)


def test_a_message(client: anthropic.Anthropic) -> None:
    found = create(client, system="Be brief.", stop_sequences=["never said"])
    assert found.content[0].text
    assert found.stop_reason == "max_tokens"
    assert found.usage.output_tokens == 5


def test_a_message_with_a_picture(client: anthropic.Anthropic, picture64: str) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": picture64}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is in this picture?"}]
    found = create(client, messages=[{"role": "user", "content": content}])
    assert found.content[0].text
    assert found.usage.image_tokens > 0


def test_a_message_in_pieces(client: anthropic.Anthropic) -> None:
    events = list(create(client, stream=True))
    text = "".join(event.delta.text for event in events if event.type == "content_block_delta")
    whole = create(client)
    assert text == whole.content[0].text
    asked: Any = {"model": "mini", "messages": HELLO, "max_tokens": 5, "extra_body": {"temperature": 0}}
    with client.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == text
        found = stream.get_final_message()
    assert found.stop_reason == "max_tokens"
    assert found.usage.output_tokens == 5
    assert found.usage.input_tokens == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0) - (
        found.usage.cache_read_input_tokens or 0
    )


def test_thoughts_and_calls(client: anthropic.Anthropic, monkeypatch: Any) -> None:
    saying(monkeypatch)([Said(thinking="hm"), Said(text="so"), Said(tool_calls=(CALL,)), Said(account=DONE)])
    asked: Any = {"model": "mini", "messages": HELLO, "max_tokens": 5, "tools": [TOOL]}
    with client.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    for found in (streamed, client.messages.create(**asked)):
        thoughts, words, call = found.content
        assert (thoughts.thinking, words.text) == ("hm", "so")
        assert (call.id, call.name, call.input) == ("toolu_1", "weather", {"where": "Rome"})
        assert found.stop_reason == "tool_use"


def test_errors_have_their_classes(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="model 'nothing' not found"):
        create(client, model="nothing")
    with pytest.raises(anthropic.BadRequestError, match="does not support tools"):
        create(client, tools=[TOOL])
    with pytest.raises(anthropic.BadRequestError, match="max_tokens is required and must be positive"):
        create(client, max_tokens=0, stream=True)


def test_an_error_within_a_stream_is_raised(client: anthropic.Anthropic, monkeypatch: Any) -> None:
    saying(monkeypatch)([Said(text="a")], EngineGoneError("the model's process has ended"))
    with pytest.raises(anthropic.APIError, match="the model's process has ended"):
        list(create(client, stream=True))


def test_all_of_it_asynchronously(live: Any) -> None:
    async def run() -> None:
        async with anthropic.AsyncAnthropic(base_url=live.url, api_key="any", max_retries=0) as client:
            asked: Any = {"model": "mini", "messages": HELLO, "max_tokens": 5, "extra_body": {"temperature": 0}}
            whole = await client.messages.create(**asked)
            async with client.messages.stream(**asked) as stream:
                text = "".join([piece async for piece in stream.text_stream])
            assert text == whole.content[0].text
            with pytest.raises(anthropic.NotFoundError):
                await client.messages.create(**{**asked, "model": "nothing"})

    asyncio.run(run())
