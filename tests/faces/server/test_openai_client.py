"""OpenAI's own Python client, as people use it (contract, table 1.10)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest
from dialects import HELLO, TOOL, saying

from lapilli.wire.question import Account, Said, ToolCall

DONE = Account(reason="stop", prompt_tokens=10, completion_tokens=5)
CALL = ToolCall(name="weather", arguments={"where": "Rome"}, id="call_1")


class Number(pydantic.BaseModel):
    """What an answer is to be."""

    n: bool


@pytest.fixture(scope="module")
def client(live: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0) as found:
        yield found


def with_async(live: Any, work: Any) -> Any:
    """What `work(client)` comes to with the asynchronous client."""

    async def run() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0) as client:
            return await work(client)

    return asyncio.run(run())


def chat(client: openai.OpenAI, **more: Any) -> Any:
    asked: Any = {"model": "mini", "messages": HELLO, "temperature": 0, "max_tokens": 5, **more}
    return client.chat.completions.create(**asked)


def test_chat(client: openai.OpenAI) -> None:
    found = chat(client)
    assert found.choices[0].message.content
    assert found.choices[0].finish_reason == "length"
    assert found.usage.completion_tokens == 5
    assert found.usage.prompt_tokens_details.cached_tokens >= 0


def test_chat_in_pieces(client: openai.OpenAI) -> None:
    pieces = list(chat(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == chat(client).choices[0].message.content
    assert pieces[-1].usage.completion_tokens == 5


def test_chat_with_a_picture(client: openai.OpenAI, picture64: str) -> None:
    parts = [
        {"type": "text", "text": "What is in this picture?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture64}"}},
    ]
    found = chat(client, messages=[{"role": "user", "content": parts}])
    assert found.choices[0].message.content
    assert found.usage.prompt_tokens_details.image_tokens > 0


def test_a_form_by_a_class(client: openai.OpenAI) -> None:
    found = client.chat.completions.parse(model="mini", messages=HELLO, response_format=Number, temperature=0)
    assert isinstance(found.choices[0].message.parsed, Number)


def test_likelihoods(client: openai.OpenAI) -> None:
    found = chat(client, logprobs=True, top_logprobs=2)
    assert len(found.choices[0].logprobs.content) == 5
    assert all(len(token.top_logprobs) == 2 for token in found.choices[0].logprobs.content)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_the_helper_for_streams(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="mini", messages=HELLO, temperature=0, stop="mini") as stream:
        kinds = {event.type for event in stream}
        found = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert found.choices[0].message.content == chat(client, stop="mini").choices[0].message.content


def test_calls_of_tools(client: openai.OpenAI, live: Any, monkeypatch: Any) -> None:
    saying(monkeypatch)([Said(tool_calls=(CALL,)), Said(account=DONE)])
    (call,) = chat(client, tools=[TOOL]).choices[0].message.tool_calls
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "weather", '{"where": "Rome"}')
    with client.chat.completions.stream(model="mini", messages=HELLO, tools=[TOOL]) as stream:
        (call,) = stream.get_final_completion().choices[0].message.tool_calls or ()
    assert call.function.arguments == '{"where": "Rome"}'


def test_errors_have_their_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="model 'nothing' not found"):
        chat(client, model="nothing")
    with pytest.raises(openai.BadRequestError, match="does not support tools"):
        chat(client, tools=[TOOL])
    with pytest.raises(openai.BadRequestError, match="n must be 1"):
        chat(client, n=2)
    with pytest.raises(openai.NotFoundError):
        chat(client, model="nothing", stream=True)


def test_an_error_within_a_stream_is_raised(client: openai.OpenAI, monkeypatch: Any) -> None:
    from lapilli.errors import EngineGoneError

    saying(monkeypatch)([Said(text="a")], EngineGoneError("the model's process has ended"))
    with pytest.raises(openai.APIError, match="the model's process has ended"):
        list(chat(client, stream=True))


def test_completions(client: openai.OpenAI) -> None:
    found = client.completions.create(model="mini", prompt="Hello", max_tokens=5, temperature=0, logprobs=2)
    assert found.choices[0].text
    assert found.choices[0].logprobs is not None
    assert len(found.choices[0].logprobs.tokens or ()) == 5
    pieces = client.completions.create(model="mini", prompt="Hello", max_tokens=5, temperature=0, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == found.choices[0].text


def test_vectors(client: openai.OpenAI) -> None:
    packed = client.embeddings.create(model="mini", input=["Hello", "the sky"], dimensions=16)
    plain = client.embeddings.create(model="mini", input=["Hello", "the sky"], dimensions=16, encoding_format="float")
    assert [len(item.embedding) for item in packed.data] == [16, 16]
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)


def test_models(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert "mini:latest" in names
    assert client.models.retrieve("mini").owned_by == "library"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


def test_responses(client: openai.OpenAI) -> None:
    found = client.responses.create(model="mini", input="Hello", instructions="Be brief.", temperature=0)
    assert found.output_text
    assert found.status == "completed"
    assert found.usage is not None
    assert found.usage.output_tokens > 0


def test_responses_in_pieces(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="mini", input="Hello", temperature=0)
    events = list(client.responses.create(model="mini", input="Hello", temperature=0, stream=True))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text
    assert events[-1].type == "response.completed"
    with client.responses.stream(model="mini", input="Hello", temperature=0) as stream:
        assert stream.get_final_response().output_text == text


def test_responses_of_a_form_and_of_calls(client: openai.OpenAI, monkeypatch: Any) -> None:
    assert client.responses.parse(model="mini", input="Hello", text_format=Number).output_parsed is not None
    saying(monkeypatch)([Said(thinking="hm"), Said(tool_calls=(CALL,)), Said(account=DONE)])
    tool: Any = {"type": "function", "strict": False, **TOOL["function"]}
    with client.responses.stream(model="mini", input="Hello", tools=[tool]) as stream:
        thoughts, call = stream.get_final_response().output
    assert thoughts.type == "reasoning"
    assert thoughts.summary[0].text == "hm"
    assert call.type == "function_call"
    assert call.arguments == '{"where": "Rome"}'


def test_all_of_it_asynchronously(live: Any) -> None:
    async def work(client: openai.AsyncOpenAI) -> None:
        asked: Any = {"model": "mini", "messages": HELLO, "temperature": 0, "max_tokens": 5}
        whole = await client.chat.completions.create(**asked)
        text = ""
        async for piece in await client.chat.completions.create(**asked, stream=True):
            text += piece.choices[0].delta.content or ""
        assert text == whole.choices[0].message.content
        assert (await client.responses.create(model="mini", input="Hello", temperature=0)).output_text
        assert (await client.embeddings.create(model="mini", input="Hello")).data[0].embedding
        assert [model.id async for model in client.models.list()]
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(**{**asked, "model": "nothing"})

    with_async(live, work)
