"""What has hurt other servers, tried on ours; after each, the oracles (see support/live_server.py) must hold."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import random
import struct
import threading
import time
import zlib
from typing import Any

import httpx2
import pytest
from PIL import Image
from serving import Raw

GENERATE = "/api/generate"
pytestmark = pytest.mark.usefixtures("oracles")


def statuses(live: Any, bodies: list[dict[str, Any]], path: str = GENERATE) -> list[int]:
    """The status of each; refusals must have their one shape."""
    found = []
    for body in bodies:
        response = live.post(path, {"model": "mini", "prompt": "Hello", "stream": False, **body})
        if response.status_code != 200:
            assert list(response.json()) == ["error"], response.text
        found.append(response.status_code)
    return found


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def drawn(kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **more: Any) -> bytes:
    data = io.BytesIO()
    Image.new(mode, size).save(data, kind, **more)
    return data.getvalue()


def asking(image: bytes | str) -> dict[str, Any]:
    return {"images": [image if isinstance(image, str) else encoded(image)], "options": {"num_predict": 1}}


# --- pictures (T44 to T47, T53) ---


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_damaged_pictures(live: Any, kind: str) -> None:
    draw, data = random.Random(44), drawn(kind)
    damaged = []
    for _ in range(12):
        bytes_ = bytearray(data)
        for _ in range(draw.randint(1, 8)):
            bytes_[draw.randrange(len(bytes_))] = draw.randrange(256)
        damaged.append(bytes(bytes_[: draw.randint(1, len(bytes_))] if draw.random() < 0.5 else bytes_))
    found = statuses(live, [asking(image) for image in damaged])
    assert set(found) <= {200, 400}
    assert 400 in found


@pytest.mark.parametrize("image", ["", "AAAA", encoded(b"\0" * 1000), encoded(b"<svg/>"), encoded(b"%PDF-1.7")])
def test_what_is_no_picture(live: Any, image: str) -> None:
    live.refused(GENERATE, 400, {"model": "mini", "prompt": "a", **asking(image)})
    turns = [{"role": "user", "content": "a", "images": [image]}]
    live.refused("/api/chat", 400, {"model": "mini", "messages": turns})


def test_too_many_pictures(live: Any) -> None:
    image = encoded(drawn("PNG"))
    for count in (33, 1000):
        text = live.refused(GENERATE, 400, {"model": "mini", "prompt": "a", "images": [image] * count})
        assert text == f"{count} images in one request: at most 32 are taken"


def test_moving_pictures(live: Any) -> None:
    frames = [Image.new("RGB", (40, 30), (shade, 0, 0)) for shade in range(100)]
    for kind in ("GIF", "PNG", "WEBP"):
        data = io.BytesIO()
        frames[0].save(data, kind, save_all=True, append_images=frames[1:])
        assert statuses(live, [asking(data.getvalue())])[0] in (200, 400)


def test_pictures_of_odd_shapes(live: Any) -> None:
    sizes = [(1, 1), (1, 3000), (3000, 1), (3, 700), (700, 3), (2, 2)]
    assert set(statuses(live, [asking(drawn("PNG", size=size)) for size in sizes])) <= {200, 400}
    modes = [
        ("1", "PNG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("RGBA", "PNG"),
        ("I;16", "PNG"),
        ("CMYK", "JPEG"),
    ]
    assert set(statuses(live, [asking(drawn(kind, mode)) for mode, kind in modes])) <= {200, 400}


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (30_000, 30_000), (1 << 31, 1), (65_535, 65_535)])
def test_pictures_that_claim_to_be_huge(live: Any, size: tuple[int, int]) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        + chunk(b"IEND", b"")
    )
    assert statuses(live, [asking(bomb)])[0] in (400, 413)


def test_a_picture_for_a_model_that_cannot_see(live: Any, gguf: bytes, picture64: str) -> None:
    digest = f"sha256:{hashlib.sha256(gguf).hexdigest()}"
    live.http.post(f"/api/blobs/{digest}", content=gguf)
    live.post("/api/create", {"model": "blind", "files": {"tiny.gguf": digest}, "stream": False})
    text = live.refused(GENERATE, 400, {"model": "blind", "prompt": "a", "images": [picture64]})
    assert "does not support images" in text
    live.delete("/api/delete", {"model": "blind"})


# --- numbers (T63 to T66, T68) ---

NUMBERS = ("num_ctx", "num_predict", "top_k", "top_p", "min_p", "typical_p", "repeat_last_n", "temperature", "seed",
           "repeat_penalty", "presence_penalty", "frequency_penalty", "num_keep", "num_batch",
           "num_thread", "num_gpu")  # fmt: skip
ODD = (-1, -(1 << 31), 1 << 64, 1e308, "5", [], 0.5)


@pytest.mark.parametrize("name", NUMBERS)
def test_odd_numbers(live: Any, name: str) -> None:
    for value in ODD:
        body = {
            "model": "mini",
            "prompt": "Hello",
            "stream": False,
            "options": {"num_predict": 1, "num_ctx": 256, name: value},
        }
        response = live.post(GENERATE, body)
        assert response.status_code in (200, 400), (value, response.text)
        if response.status_code == 400:
            assert name in response.json()["error"]
        if isinstance(value, str | list | dict):
            assert response.status_code == 400 or name in ("num_batch", "num_thread", "num_gpu", "num_keep")


@pytest.mark.parametrize(
    "options",
    [{"num_predict": 1 << 40}, {"num_ctx": 1 << 31}, {"num_ctx": 1_000_000}, {"num_ctx": 10**9},
     {"stop": ["x"] * 1_000_000}, {"stop": ["x" * 2_000_000]}, {"top_k": 1 << 40}, {"seed": 10**30}],
)  # fmt: skip
def test_numbers_beyond_reason_are_refused_and_cost_nothing(live: Any, options: dict[str, Any]) -> None:
    live.post(GENERATE, {"model": "mini"})
    live.refused(GENERATE, 400, {"model": "mini", "prompt": "Hello", "options": options})
    assert "mini:latest" in live.loaded()


@pytest.mark.parametrize("context", [0, 1, 8, 64])
def test_tiny_contexts_end(live: Any, context: int) -> None:
    body = {"model": "mini", "prompt": "Hello", "stream": False, "options": {"num_ctx": context, "num_predict": -1}}
    response = live.post(GENERATE, body)
    assert response.status_code in (200, 400)
    if response.status_code == 200:
        assert response.json()["done_reason"] in ("stop", "length")


# --- forms of answers (T69 to T74) ---

SCHEMAS: tuple[Any, ...] = (
    {"type": "nothing"}, {"type": 5}, {"type": []}, {"properties": []}, {"enum": []}, {"enum": 5}, {"pattern": "("},
    {"type": "string", "pattern": "[z-a]"}, {"type": "string", "pattern": "(a{1,99999}){1,99999}"},
    {"$ref": "#/nowhere"}, {"$ref": "https://127.0.0.1:1/x"}, {"$ref": "file:///etc/passwd"}, {"allOf": 5},
    {"anyOf": []}, {"type": "integer", "minimum": 5, "maximum": 1}, {"type": "array", "items": 5}, {"not": {}},
    {"type": "object", "required": 5}, {"type": "string", "minLength": -1}, {"type": "string", "minLength": 1 << 40},
    {"type": "array", "minItems": 1 << 40},
)  # fmt: skip


def test_schemas_that_mean_nothing(live: Any) -> None:
    bodies = [{"format": schema, "options": {"num_predict": 2}} for schema in SCHEMAS]
    found = statuses(live, bodies)
    assert set(found) <= {200, 400}
    assert found.count(400) > len(found) // 2


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(.*){1,32000}", "a{1,99999}", "(a|a)*" * 50, "^(([a-z])+.)+[A-Z]([a-z])+$"]
)
def test_patterns_that_explode(live: Any, pattern: str) -> None:
    body = {"format": {"type": "string", "pattern": pattern}, "options": {"num_predict": 3}}
    assert set(statuses(live, [body])) <= {200, 400}


def test_schemas_that_turn_in_circles_or_dive(live: Any) -> None:
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(60):
        deep = {"type": "object", "properties": {"a": deep}}
    bodies = [
        {"format": {"$ref": "#"}},
        {"format": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}},
        {"format": deep},
    ]
    assert set(statuses(live, [{**body, "options": {"num_predict": 2}} for body in bodies])) <= {200, 400}


def test_schemas_without_number(live: Any) -> None:
    bodies = [
        {"format": {"type": "integer", "minimum": n, "maximum": n}, "options": {"num_predict": 1}} for n in range(40)
    ]
    assert set(statuses(live, bodies)) == {200}


def test_json_always_parses_or_says_that_it_was_cut(live: Any) -> None:
    for prompt in ("Write", "What is this? ["):
        for form in (
            "json",
            {"type": "object"},
            {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 3},
        ):
            body = {"prompt": prompt, "format": form, "options": {"num_predict": 24}}
            found = live.whole(GENERATE, **body)
            assert "   " not in found["response"]
            if found["done_reason"] == "stop":
                json.loads(found["response"])


def test_an_answer_without_a_limit_ends(live: Any) -> None:
    body = {"prompt": "Hello", "format": "json", "options": {"num_predict": -1, "num_ctx": 48}}
    assert live.whole(GENERATE, **body)["done_reason"] in ("stop", "length")


# --- HTTP (T75, T76) ---


def test_forms_are_not_read(live: Any) -> None:
    for kind in ("multipart/form-data; boundary=x", "application/x-www-form-urlencoded"):
        body = b"--x\r\n" + b"-" * 1_000_000 + b"\r\n--x--"
        live.refused("/api/generate", 400, content=body, headers={"content-type": kind})


def test_ranges_without_number(live: Any) -> None:
    for count, expected in ((3, (200, 206, 416)), (1_000, (200, 206, 400, 416))):
        ranges = ",".join(f"{n}-{n}" for n in range(count))
        response = live.get("/static/index.html", headers={"range": f"bytes={ranges}"})
        assert response.status_code in expected
    assert live.get("/static/index.html", headers={"range": "bytes=" + "0-0," * 10_000}).status_code == 431


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/private.py",
        "/static//etc/passwd",
        "/static/..%2f..%2ferrors.py",
        "/static/",
    ],
)
def test_static_files_are_only_those(live: Any, path: str) -> None:
    with Raw(live.url) as raw:
        status, body = raw.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()).answer()
    assert status == 404
    assert list(body) == ["error"]


# --- blobs (T23) ---


def test_two_uploads_of_one_blob_at_once(live: Any) -> None:
    data = random.Random(23).randbytes(3 << 20)
    path = f"/api/blobs/sha256:{hashlib.sha256(data).hexdigest()}"
    found: list[int] = []

    def upload() -> None:
        pieces = (data[at : at + 100_000] for at in range(0, len(data), 100_000))
        found.append(httpx2.post(live.url + path, content=pieces, timeout=60).status_code)

    threads = [threading.Thread(target=upload) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) <= {200, 201}
    assert live.http.head(path).status_code == 200


def test_an_upload_of_lies_leaves_nothing(live: Any) -> None:
    blobs = live.home / "models" / "blobs"
    before = {path.name for path in blobs.glob("*")}
    wrong = f"/api/blobs/sha256:{'0' * 64}"
    pieces = (b"x" * 100_000 for _ in range(20))
    assert live.http.post(wrong, content=pieces).status_code == 400
    with Raw(live.url) as raw:
        raw.send(
            f"POST {wrong} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n".encode() + b"x" * 100_000
        )
    assert live.http.head(wrong).status_code == 404
    deadline = time.monotonic() + 3
    while {path.name for path in blobs.glob("*")} != before:
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- paths (T05, T06) ---


@pytest.mark.parametrize(
    "source", ["/etc/passwd", "/nope/nope", "/dev/random", "/dev/zero", "/proc/self/mem", "/tmp", "~"]
)
def test_a_remote_create_never_looks_at_paths(live: Any, source: str) -> None:
    text = live.refused("/api/create", 400, {"model": "x", "from": source, "stream": False})
    assert text == "invalid model name"


# --- leaving (T91) ---


def test_clients_that_leave_at_any_moment_cost_no_place(live: Any, picture64: str) -> None:
    draw = random.Random(91)

    async def leave(client: httpx2.AsyncClient) -> None:
        body = {
            "model": "mini",
            "prompt": "Hello " * draw.randint(1, 300),
            "stream": draw.random() < 0.5,
            "format": "json",
        }
        if draw.random() < 0.3:
            body["images"] = [picture64]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(draw.random() * 0.15):
                await client.post(GENERATE, json=body)

    async def all_leave() -> None:
        async with httpx2.AsyncClient(base_url=live.url) as client:
            await asyncio.gather(*(leave(client) for _ in range(30)))

    asyncio.run(all_leave())
    assert live.is_idle(2)
    assert "499" in live.get("/metrics").text
