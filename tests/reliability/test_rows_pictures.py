"""T44 to T54 over every dialect: pictures that are none, that are bombs, that are others than they seem."""

from __future__ import annotations

import functools
import io
import random
import struct
import warnings
import zlib
from typing import Any

import pytest
from asked import ALL, ANTHROPIC, CHAT, COMPLETIONS, GENERATE, OPENAI, RESPONSES, SEEING, Dialect, drawn, encoded
from PIL import Image, ImageDraw

pytestmark = pytest.mark.usefixtures("oracles")
each_that_sees = pytest.mark.parametrize("dialect", SEEING, ids=str)


@each_that_sees
def test_t44_t45_what_is_no_picture_is_refused_in_every_dialect(live: Any, dialect: Dialect) -> None:
    draw = random.Random(44)
    good = drawn()
    bad = [b"", b"\0" * 100, b"<svg/>", b"%PDF-1.7", good[:20], good[:-30], draw.randbytes(300)]
    for data in bad:
        dialect.refusal(live, dialect.body("Hello", encoded(data)))
    for text in ("!!!", "====", "aGVsbG8", "\N{SNOWMAN}"):
        dialect.refusal(live, dialect.body("Hello", text))
    found = []
    for _ in range(10):
        damaged = bytearray(good)
        for _ in range(draw.randint(1, 6)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        found.append(dialect.status(live, dialect.body("Hello", encoded(bytes(damaged)), most=1)))
    assert set(found) <= {200, 400}


@pytest.mark.parametrize("dialect", [OPENAI, RESPONSES], ids=str)
def test_t44_forms_of_data_urls(live: Any, dialect: Dialect) -> None:
    good = encoded(drawn())
    assert dialect.status(live, dialect.body("Hello", f"data:image/png;base64,{good}", most=1)) == 200
    odd = (
        "data:",
        "data:,",
        f"data:{good}",
        f"data:text/html;base64,{good}",
        f"data:image/png,{good}",
        f"data:image/svg+xml;base64,{good}",
        "data:image/png;base64,",
        f"data:image/gif;base64,{good},{good}",
        f"data:image/png;base64,{good},{good}",
        f"data:image/png;charset=utf-8;base64,{good}",
    )
    for text in odd:
        dialect.refusal(live, dialect.body("Hello", text))
    for value in (None, 5, [], {}, {"url": None}, {"url": 5}, {"url": ["x"]}):
        part = {"type": "image_url" if dialect is OPENAI else "input_image", "image_url": value}
        turn = {"role": "user", "content": [part]}
        dialect.refusal(live, dialect.body() | {"messages" if dialect is OPENAI else "input": [turn]})


@each_that_sees
def test_t46_pictures_without_number(live: Any, dialect: Dialect) -> None:
    picture = encoded(drawn())
    for count in (33, 1000):
        assert "at most" in dialect.refusal(live, dialect.body("Hello", *[picture] * count))
    frames = [Image.new("RGB", (16, 16), (shade % 256, 0, 0)) for shade in range(400)]
    data = io.BytesIO()
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:])
    assert dialect.status(live, dialect.body("Hello", encoded(data.getvalue()), most=1)) == 200


@functools.cache
def zeros() -> bytes:
    return zlib.compress(bytes(64 << 20), 6)


@each_that_sees
def test_t47_t49_sizes_that_hurt(live: Any, dialect: Dialect) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def png(width: int, height: int, *more: bytes) -> bytes:
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        body = chunk(b"IDAT", zlib.compress(bytes(1 << 16))) + chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + body

    for size in ((0, 5), (5, 0), (50_000, 50_000), (1 << 31, 1), (1, 0xFFFFFFFF)):
        dialect.refusal(live, dialect.body("Hello", encoded(png(*size))))
    packed = zeros()
    text, profile = b"Comment\0\0" + packed, b"p\0\0" + packed
    for bomb in (chunk(b"zTXt", text), chunk(b"iTXt", b"C\0\1\0\0\0" + packed), chunk(b"iCCP", profile)):
        assert dialect.status(live, dialect.body("Hello", encoded(png(40, 30, bomb)), most=1)) in (200, 400)
    for size in ((1, 1), (1, 3000), (3000, 1), (3, 40)):
        assert dialect.status(live, dialect.body("Hello", encoded(drawn(size=size)), most=1)) in (200, 400)


def test_t48_rare_formats_are_refused(live: Any) -> None:
    Image.init()
    image, tried = Image.new("RGB", (20, 20)), []
    for kind in sorted(set(Image.SAVE) - {"PNG", "JPEG", "WEBP", "GIF", "BMP", "MPO", "DIB"}):
        data = io.BytesIO()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                image.save(data, kind)
        except (OSError, ValueError, KeyError, RuntimeError):
            continue
        tried.append(kind)
        GENERATE.refusal(live, GENERATE.body("Hello", encoded(data.getvalue())))
    assert {"TIFF", "PDF", "ICO", "PPM", "TGA", "EPS"} <= set(tried)


def test_t50_equal_bytes_in_another_shape_are_another_picture(live: Any) -> None:
    wide, tall = Image.new("L", (100, 30)), Image.new("L", (30, 100))
    pattern = bytes(random.Random(50).randrange(256) for _ in range(3000))
    wide.frombytes(pattern)
    tall.frombytes(pattern)
    files = []
    for image in (wide, tall):
        for mode in ("L", "RGB"):
            data = io.BytesIO()
            image.convert(mode).save(data, "PNG")
            files.append(encoded(data.getvalue()))
    solo = [GENERATE.said(live, "Describe it.", file, most=8) for file in files]
    again = [CHAT.said(live, "Describe it.", file, most=8) for file in reversed(files)]
    assert solo == again[::-1]
    assert solo[0] == solo[1], "the same pixels, grey or in colour"


def test_t51_eight_orientations_are_one_picture(live: Any) -> None:
    arrow = Image.new("RGB", (64, 48), "white")
    ImageDraw.Draw(arrow).polygon([(10, 24), (40, 6), (40, 42)], fill="blue")
    turns = [
        None,
        Image.Transpose.FLIP_LEFT_RIGHT,
        Image.Transpose.ROTATE_180,
        Image.Transpose.FLIP_TOP_BOTTOM,
        Image.Transpose.TRANSPOSE,
        Image.Transpose.ROTATE_90,
        Image.Transpose.TRANSVERSE,
        Image.Transpose.ROTATE_270,
    ]
    said = set()
    for place, turn in enumerate(turns, 1):
        exif = Image.Exif()
        exif[274] = place
        data = io.BytesIO()
        (arrow if turn is None else arrow.transpose(turn)).save(data, "PNG", exif=exif)
        said.add(GENERATE.said(live, "What is it?", encoded(data.getvalue()), most=8))
    assert len(said) == 1


MARKERS = (
    "<image>",
    "<image><image>",
    "<image>" * 3000,
    "<|image_pad|>",
    "[IMG]",
    "[img-0]",
    "[img-99999999]",
    "<__media__>",
    "</s>",
    "<s>",
    "<|im_end|>",
    "<|im_start|>system",
    "\x02",
    "{{ .System }}",
    "{% raw %}",
    "USER: ",
    "<0x0A>",
)


@pytest.mark.parametrize("dialect", ALL, ids=str)
def test_t52_placeholders_in_words_are_words(live: Any, dialect: Dialect) -> None:
    for marker in MARKERS:
        found = dialect.status(live, dialect.body(marker, most=1))
        assert found == 200 or (found == 400 and len(marker) > 1000), marker
    if dialect.sees:
        picture = encoded(drawn())
        for marker in MARKERS[:2]:
            assert dialect.status(live, dialect.body(marker, picture, most=1)) == 200


def test_t52_placeholders_of_the_system_s_words_too(live: Any) -> None:
    picture = encoded(drawn())
    for marker in ("<image>", "[img-1]", "<|image_pad|>"):
        asked = [
            (GENERATE, GENERATE.body("Hello", picture, system=marker, most=1)),
            (ANTHROPIC, ANTHROPIC.body("Hello", picture, system=marker, most=1)),
            (RESPONSES, RESPONSES.body("Hello", picture, instructions=marker, most=1)),
        ]
        for dialect, body in asked:
            assert dialect.status(live, body) == 200
    raw = GENERATE.body("<image>", raw=True, most=1)
    assert GENERATE.status(live, raw) == 400, "a raw prompt is read as it stands: a place without a picture"
    assert GENERATE.status(live, GENERATE.body("<image><image>", picture, raw=True, most=1)) == 400


def test_t53_pictures_where_none_belong(live: Any) -> None:
    picture = encoded(drawn())
    part, block = OPENAI.body("x", picture)["messages"][0]["content"][0], ANTHROPIC.body("x", picture)["messages"][0]
    item = RESPONSES.body("x", picture)["input"][0]["content"]
    for role in ("system", "assistant"):
        user = {"role": "user", "content": "Hello"}
        CHAT.refusal(live, CHAT.body() | {"messages": [{"role": role, "content": "x", "images": [picture]}, user]})
        OPENAI.refusal(live, OPENAI.body() | {"messages": [{"role": role, "content": [part]}, user]})
        ANTHROPIC.refusal(live, ANTHROPIC.body() | {"messages": [{**block, "role": role}, user]})
        RESPONSES.refusal(live, RESPONSES.body() | {"input": [{"role": role, "content": item}, user]})
    ANTHROPIC.refusal(live, ANTHROPIC.body(system=block["content"]))
    for images in ("x", 5, {}, [[picture]], [{"data": picture}], [None]):
        GENERATE.refusal(live, GENERATE.body() | {"images": images})
    assert COMPLETIONS.status(live, COMPLETIONS.body(images=[picture])) == 200  # that call knows no pictures


def test_t54_each_picture_has_its_own_answer(live: Any) -> None:
    draw = random.Random(54)
    colours = ["red", "green", "blue", "yellow", "black", "white"]
    files = [encoded(drawn(color=colour, size=(48 + 8 * place, 48))) for place, colour in enumerate(colours)]
    solo = [GENERATE.said(live, "What colour is it?", file, most=6) for file in files]
    assert len(set(solo)) > 1
    for _ in range(20):
        place, dialect = draw.randrange(len(files)), draw.choice((GENERATE, CHAT, OPENAI, RESPONSES, ANTHROPIC))
        said = dialect.said(live, "What colour is it?", files[place], most=6)
        expected = solo[place]
        assert said.strip() == expected.strip(), (dialect.path, colours[place])
