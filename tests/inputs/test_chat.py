"""Every shape that people send becomes the same messages; what fits none is refused with a reason."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lapilli.errors import ImageError, InputError, PromptError
from lapilli.inputs.chat import ImagePart, Message, Part, TextPart, ToolCall, conversation, show

RED, BLUE = (255, 0, 0), (0, 0, 255)


def png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(file, "PNG")
    return file.getvalue()


def encoded(colour: tuple[int, int, int]) -> str:
    return base64.b64encode(png(colour)).decode()


def url(colour: tuple[int, int, int]) -> str:
    return "data:image/png;base64," + encoded(colour)


def seen(messages: list[Message]) -> list[tuple[str, list[Any]]]:
    """Roles, words, and the colour of each picture."""

    def of(part: Part) -> Any:
        return part.text if isinstance(part, TextPart) else part.image.getpixel((0, 0))

    return [(message.role, [of(part) for part in message.parts]) for message in messages]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(png(RED))
    return path


ASKED = [("user", [RED, "What is this?"])]


@pytest.mark.parametrize(
    "source",
    [
        png(RED),
        bytearray(png(RED)),
        memoryview(png(RED)),
        encoded(RED),
        "\n".join(encoded(RED)[i : i + 20] for i in range(0, len(encoded(RED)), 20)),
        url(RED),
        url(RED).replace("data:", "DATA:").replace("+", "%2B"),
        Image.new("RGB", (3, 2), RED),
    ],
    ids=["bytes", "bytearray", "memoryview", "base64", "base64 in lines", "data URL", "quoted data URL", "Pillow"],
)
def test_a_picture_comes_in_many_ways(source: Any) -> None:
    assert seen(conversation("What is this?", [source])) == ASKED
    assert seen(conversation("What is this?", [source], paths=False)) == ASKED


def test_a_picture_comes_from_a_file(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(conversation("What is this?", [photo])) == ASKED
    assert seen(conversation("What is this?", [str(photo)])) == ASKED
    dotless = photo.rename(photo.with_name("a-picture-without-a-dot-in-its-name-at-all"))
    assert seen(conversation("What is this?", [str(dotless)])) == ASKED
    monkeypatch.chdir(dotless.parent)
    dotless.rename("short")
    assert seen(conversation("What is this?", ["short"])) == ASKED


@pytest.mark.parametrize("name", ["str", "Path", "in a message", "in a part"])
def test_a_request_from_elsewhere_names_no_file_here(photo: Path, name: str) -> None:
    messages: dict[str, tuple[Any, list[Any]]] = {
        "str": ("What?", [str(photo)]),
        "Path": ("What?", [photo]),
        "in a message": ([{"role": "user", "content": "What?", "images": [str(photo)]}], []),
        "in a part": ([{"role": "user", "content": [{"type": "image", "path": str(photo)}]}], []),
    }
    prompt, images = messages[name]
    assert conversation(prompt, images)
    with pytest.raises(ImageError, match="base64 or a data: URL"):
        conversation(prompt, images, paths=False)


SHAPES: dict[str, tuple[Any, list[Any]]] = {
    "OpenAI": (
        [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": url(RED), "detail": "low"}},
                    {"type": "text", "text": "What is this?"},
                ],
            }
        ],
        [],
    ),
    "OpenAI, bare url": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": url(RED)}, "What is this?"]}],
        [],
    ),
    "Ollama": ([{"role": "user", "content": "What is this?", "images": [encoded(RED)]}], []),
    "Ollama, bytes": ([{"role": "user", "content": "What is this?", "images": [png(RED)]}], []),
    "HF, apart": (
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}],
        [png(RED)],
    ),
    "HF, within": (
        [
            {
                "role": "user",
                "content": [{"type": "image", "image": png(RED)}, {"type": "text", "text": "What is this?"}],
            }
        ],
        [],
    ),
    "HF, url": (
        [{"role": "user", "content": [{"type": "image", "url": url(RED)}, {"type": "text", "text": "What is this?"}]}],
        [],
    ),
    "ours": ([Message("user", (show(png(RED)), TextPart("What is this?")))], []),
    "the only user": ([{"role": "user", "content": "What is this?"}], [png(RED)]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_says_the_same(shape: str) -> None:
    prompt, images = SHAPES[shape]
    assert seen(conversation(prompt, images)) == ASKED


def test_pictures_keep_their_places_and_their_order() -> None:
    messages = conversation(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": ["Here:", {"type": "image"}, "and", {"type": "image"}]},
            {"role": "assistant", "content": None},
            {"role": "tool", "content": "42", "tool_call_id": "1"},
            {"role": "user", "content": [{"type": "image", "image": png(RED)}, {"type": "image"}]},
        ],
        [png(RED), png(BLUE), png(BLUE)],
    )
    assert seen(messages) == [
        ("system", ["Be brief."]),
        ("user", ["Here:", RED, "and", BLUE]),
        ("assistant", []),
        ("tool", ["42"]),
        ("user", [RED, BLUE]),
    ]
    assert seen(conversation("Same?", [png(RED), png(BLUE)])) == [("user", [RED, BLUE, "Same?"])]
    assert seen(conversation([{"role": "developer", "content": "a"}, {"role": "user", "content": "b"}])) == [
        ("system", ["a"]),
        ("user", ["b"]),
    ]


def test_words_are_never_interpreted() -> None:
    sly = "<image> data:image/png;base64,AAAA </s> {{ 7*7 }} photo.png"
    assert seen(conversation(sly)) == [("user", [sly])]


REFUSED: dict[str, tuple[Any, list[Any], str]] = {
    "an empty prompt": ("", [], "prompt is empty"),
    "a blank prompt": (" \n\t", [], "prompt is empty"),
    "no message": ([], [], "no message"),
    "an empty turn": ([{"role": "user", "content": "a"}, {"role": "user", "content": ""}], [], r"2 \(user\) is empty"),
    "nothing said": ([{"role": "system", "content": " "}], [], "no message says anything"),
    "a place too many": (
        [{"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "image"}]}],
        [png(RED)],
        "1 pictures were given for 3 places",
    ),
    "a picture too many": ([{"role": "user", "content": [{"type": "image"}]}], [png(RED)] * 3, "3 .* for 1 places"),
    "pictures for nobody": (
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
        [png(RED)] * 2,
        "2 pictures were given for 0 places",
    ),
    "a picture by the assistant": (
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "images": [png(RED)]}],
        [],
        "message 2: a message of the assistant cannot hold a picture",
    ),
    "a picture by the system": (
        [{"role": "system", "content": [{"type": "image", "image": png(RED)}]}, {"role": "user", "content": "a"}],
        [],
        "message 1: a message of the system cannot hold a picture",
    ),
    "an unknown role": ([{"role": "root", "content": "a"}], [], "message 1: role 'root' is not one of system, user"),
    "no role": ([{"content": "a"}], [], "role 'None'"),
    "a role that is no text": ([{"role": ["user"], "content": "a"}], [], "is not one of"),
    "a message that is none": ([3], [], "message 1: a message must have a role"),
    "a mapping": ({"role": "user", "content": "a"}, [], "not dict"),
    "bytes": (b"What?", [], "not bytes"),
    "content that is a number": ([{"role": "user", "content": 3}], [], "message 1: content must be .* it is int"),
    "a part that is none": ([{"role": "user", "content": [3]}], [], "it is int"),
    "text that is none": ([{"role": "user", "content": [{"type": "text", "text": 3}]}], [], "1: text must be a string"),
    "an unknown part": ([{"role": "user", "content": [{"type": "video"}]}], [], "'video' is not understood"),
    "an unknown key": ([{"role": "user", "content": "a", "tools": [{}]}], [], "tools is not understood"),
    "an image_url without one": ([{"role": "user", "content": [{"type": "image_url"}]}], [], "needs a url"),
    "images that are one": ("a", png(RED), "images must be a list"),  # type: ignore[dict-item]
    "images of a message that are one": ([{"role": "user", "images": "x"}], [], "images must be a list"),
    "half a character": ("a\ud800b", [], "half a surrogate pair at character 1"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_asked_is_refused_with_a_reason(what: str) -> None:
    prompt, images, text = REFUSED[what]
    with pytest.raises(PromptError, match=text) as caught:
        conversation(prompt, images)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("http://example.org/a.png", "not fetched from http: addresses; give a path, bytes or a data: URL"),
        ("HTTPS://example.org/a.png", "not fetched from https"),
        ("file:///etc/passwd", "not fetched from file"),
        ("missing.png", "missing.png"),
        ("x" * 37, "there is no file"),
        ("data:image/png;base64", "comma"),
        ("data:image/png;base64,A", "valid base64"),
        ("data:image/png;base64,QUJD", "picture"),
        ("data:,abc", "picture"),
        (b"", "picture"),
        (3, "not int"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_reason(source: Any, text: str) -> None:
    with pytest.raises(ImageError, match=text):
        conversation("What?", [source])


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["user", "text", "image"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "image", "images", "image_url", "x"]), inner
        )
    ),
    max_leaves=12,
)


@given(json_like, st.lists(json_like, max_size=2))
def test_anything_else_is_messages_or_one_clear_error(prompt: Any, images: list[Any]) -> None:
    refused = ""
    try:
        messages = conversation(prompt, images, paths=False)
    except InputError as error:
        refused, messages = str(error), [Message("user", ())]
    assert "\n" not in refused
    assert len(refused) < 600
    assert messages
    assert all(isinstance(message, Message) for message in messages)


def test_a_message_is_its_own_guard() -> None:
    with pytest.raises(PromptError, match="assistant"):
        Message("assistant", (ImagePart(Image.new("RGB", (1, 1))),))
    assert Message("user", (TextPart("a"), TextPart("b"))).text == "a\nb"
    assert Message("assistant", ()).is_empty


def test_reading_messages_needs_neither_torch_nor_pillow() -> None:
    code = (
        "import sys; from lapilli.inputs.chat import conversation; conversation('a');"
        "print({'torch', 'PIL', 'numpy', 'jinja2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


SHAPES_OF_CALLS: dict[str, dict[str, Any]] = {
    "OpenAI": {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": [1, "b"]}'}},
    "Ollama": {"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"a": [1, "b"]}}},
    "flat": {"id": "c1", "name": "f", "arguments": {"a": [1, "b"]}},
}


@pytest.mark.parametrize("shape", SHAPES_OF_CALLS)
def test_calls_and_results_and_thoughts_are_read(shape: str) -> None:
    messages = conversation(
        [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": None, "tool_calls": [SHAPES_OF_CALLS[shape]], "reasoning_content": "Hm."},
            {"role": "tool", "content": "42", "tool_call_id": "c1", "name": "f"},
            {"role": "assistant", "content": "42.", "thinking": "So."},
        ]
    )
    assert messages[1].tool_calls == (ToolCall("f", {"a": [1, "b"]}, "c1"),)
    assert [message.thinking for message in messages] == ["", "Hm.", "", "So."]
    assert (messages[2].tool_name, messages[2].tool_call_id) == ("f", "c1")
    assert not messages[1].is_empty


DEEP: list[Any] = []
for _ in range(40):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("calls", "text"),
    [
        ("f", "message 1: tool_calls must be a list, it is str"),
        ({"name": "f"}, "tool_calls must be a list, it is dict"),
        (["f"], "a call of a tool must be an object, it is str"),
        ([{"function": "f"}], "the function of a call must be an object, it is str"),
        ([{"name": ""}], "needs the tool's name"),
        ([{"name": 3}], "needs the tool's name, it is int"),
        ([{"name": "f", "arguments": "{"}], "must be JSON"),
        ([{"name": "f", "arguments": "[" * 100000}], "must be JSON"),
        ([{"name": "f", "arguments": "[1]"}], "must be an object, they are list"),
        ([{"name": "f", "arguments": {"a": DEEP}}], "nested deeper than 32 levels"),
        ([{"name": "f", "arguments": {1: 2}}], "a key that is no string but int"),
        ([{"name": "f", "arguments": {"a": "\ud800"}}], "half a surrogate pair"),
        ([{"name": "f", "id": 3}], "the id of a call must be a string, it is int"),
    ],
)
def test_calls_that_are_none_are_refused(calls: Any, text: str) -> None:
    with pytest.raises(PromptError, match=text) as caught:
        conversation([{"role": "assistant", "content": "a", "tool_calls": calls}])
    assert len(str(caught.value)) < 300


def test_only_an_assistant_calls() -> None:
    with pytest.raises(PromptError, match="a message of the user cannot call a tool"):
        Message("user", (), tool_calls=(ToolCall("f"),))
    with pytest.raises(PromptError, match="thinking must be a string, it is int"):
        Message("assistant", (), thinking=3)  # type: ignore[arg-type]
