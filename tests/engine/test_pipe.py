"""Frames: everything that crosses comes back equal, and what is no frame is refused before memory is taken for it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from lapilli import errors
from lapilli.engine import pipe
from lapilli.engine.ask import Ask, Finished, LoadOrder, News, TokenNews
from lapilli.errors import InputError, LapilliError
from lapilli.inputs.templates import TemplateText


def crossed(data: bytes) -> pipe.Frame | None:
    """What the other end receives."""
    incoming, outgoing = os.pipe()
    os.write(outgoing, data)
    os.close(outgoing)
    with os.fdopen(incoming, "rb", buffering=0) as file:
        return pipe.receive_blocking(file)


def test_an_ask_comes_back_equal() -> None:
    ask = Ask(
        messages=({"role": "user", "content": "Ünï \ud800 \n", "pictures": [1, 0]},),
        before=(1, 2),
        pictures=(b"\x00\xff", b"", b"abc"),
        template=TemplateText(language="jinja", text="{{ messages }}"),
        tools=({"type": "function", "function": {"name": "f"}},),
        think="high",
        sampling={"temperature": 0.1, "stop": ["a"]},
        constraint=("json", "{}"),
        adapter=Path("/a/b"),
        context=7,
    )
    assert pipe.read_ask(crossed(pipe.ask_frame(3, ask).packed())) == ask


def test_an_order_comes_back_equal() -> None:
    template = TemplateText(language="go", text="{{ .Prompt }}")
    order = LoadOrder(path=Path("a"), projector=Path("b"), template=template, engine={"running": 2})
    assert pipe.read_order(crossed(pipe.order_frame(order).packed())) == order


def test_news_come_back_equal() -> None:
    token = TokenNews(data=b"\xf0\x9f", logprob=-0.1, top=((b"\xff", -float("inf")), (b"a", -1e-45)))
    finished = Finished(reason="stop", ids=(1, 2, 3), heatmap=b"\x89PNG", queue_seconds=1 / 3)
    for news in (News(text="ä", tokens=(token,)), News(finished=finished)):
        assert pipe.read_news(crossed(pipe.news_frame(9, news).packed())) == news


def test_an_error_comes_back_as_its_own_class() -> None:
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, LapilliError):
            again = pipe.read_error(crossed(pipe.error_frame(1, kind("both numbers")).packed()))
            assert (type(again), str(again)) == (kind, "both numbers")
    again = pipe.read_error(pipe.error_frame(1, ZeroDivisionError("by\nzero")))
    assert type(again) is LapilliError
    assert str(again) == "the engine failed: ZeroDivisionError: by zero"


@pytest.mark.parametrize("name", ["Exception", "annotations", "no_such", "__builtins__"])
def test_no_other_class_is_made_of_a_name(name: str) -> None:
    assert type(pipe.read_error(pipe.Frame({"error": name, "text": "x"}))) is LapilliError


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff" * 8, "a frame of 4294967295 and 4294967295 bytes"),
        ((pipe.HEAD_LIMIT + 1).to_bytes(4, "big") + b"\0" * 4, "bytes, 134217728 and"),
        (b"\0\0\0\2\0\0\0\0[]", "an object, not list"),
        (b"\0\0\0\2\0\0\0\0{'", "no JSON"),
        (b"\0\1\x86\xa0\0\0\0\0" + b"[" * 100_000, "no JSON"),
    ],
)
def test_what_is_no_frame_is_refused(data: bytes, message: str) -> None:
    async def received() -> None:
        stream = asyncio.StreamReader()
        stream.feed_data(data)
        stream.feed_eof()
        with pytest.raises(pipe.PipeError, match=message):
            await pipe.receive(stream)

    asyncio.run(received())
    if len(data) < 60_000:  # what a pipe holds
        with pytest.raises(pipe.PipeError, match=message):
            crossed(data)


def test_half_a_frame_is_the_end() -> None:
    whole = pipe.Frame({"kind": "x"}, b"abc").packed()
    assert crossed(whole) == pipe.Frame({"kind": "x"}, b"abc")
    assert all(crossed(whole[:cut]) is None for cut in range(len(whole)))


def test_what_is_no_plain_value_is_refused() -> None:
    with pytest.raises(InputError, match="plain values"):
        pipe.ask_frame(1, Ask(sampling={"seed": object()})).packed()
