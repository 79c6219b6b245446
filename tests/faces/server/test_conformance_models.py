"""Ollama's management of models (contract, table 1.7)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from faulty_registry import FaultyRegistry
from serving import Raw

DETAILS = {"parent_model", "format", "family", "families", "parameter_size", "quantization_level"}
# None of these may ever be a model's name, whatever is asked of it.
HOSTILE = (
    "../../etc/passwd", "a/../../b", "C:\\x", "a:..", "a//b", "%2e%2e/", "a\0b", "a\u202eb", "x" * 10_000,
    "/etc/passwd", "./mini", "~/x", "a:b:c", "", " ", "a b", "-a", ".a", "a/b/c/d/e", "file:///etc/passwd",
    "hf:../..", "é",
)  # fmt: skip


@pytest.fixture
def copied(live: Any) -> Iterator[str]:
    """A model of the store's own, gone after the test."""
    assert live.post("/api/copy", {"source": "mini", "destination": "mine"}).status_code == 200
    yield "mine"
    live.delete("/api/delete", {"model": "mine"})


def listed(live: Any) -> dict[str, Any]:
    return {model["name"]: model for model in live.get("/api/tags").json()["models"]}


# --- tags, ps ---


def test_tags_tell_of_each_model(live: Any, copied: str) -> None:
    found = listed(live)
    assert {"mini:latest", "mine:latest"} <= set(found)
    for name, model in found.items():
        assert model["model"] == name
        assert datetime.fromisoformat(model["modified_at"]).tzinfo is not None
        assert isinstance(model["size"], int)
        assert model["size"] > 0
        assert re.fullmatch("[0-9a-f]{64}", model["digest"])
        assert set(model["details"]) >= DETAILS
        assert "completion" in model["capabilities"]
    assert "vision" in found["mini:latest"]["capabilities"]


def test_tags_put_the_latest_first(live: Any, copied: str) -> None:
    moments = [datetime.fromisoformat(model["modified_at"]) for model in live.get("/api/tags").json()["models"]]
    assert moments == sorted(moments, reverse=True)


def test_ps_tells_of_models_in_memory(live: Any) -> None:
    live.whole("/api/generate", prompt="Hello", keep_alive="5m")
    model = live.loaded()["mini:latest"]
    assert model["name"] == model["model"] == "mini:latest"
    assert model["size"] > 1 << 20
    assert re.fullmatch("[0-9a-f]{64}", model["digest"])
    assert model["digest"] == listed(live)["mini:latest"]["digest"]
    assert set(model["details"]) >= DETAILS
    assert datetime.fromisoformat(model["expires_at"]).tzinfo is not None
    assert model["size_vram"] in (0, model["size"])
    assert model["context_length"] == 2048


# --- show ---


@pytest.mark.parametrize("field", ["model", "name"])
def test_show_tells_all(live: Any, field: str) -> None:
    response = live.post("/api/show", {field: "mini"})
    assert response.status_code == 200
    found = response.json()
    assert set(found) >= {"modelfile", "details", "model_info", "capabilities", "modified_at", "template", "license"}
    assert set(found["details"]) >= DETAILS
    assert found["capabilities"][:2] == ["completion", "vision"]
    assert found["modelfile"].splitlines()[3].startswith("FROM mini")
    info = found["model_info"]
    assert info["general.architecture"]
    assert isinstance(info["general.parameter_count"], int)
    assert "general.name" not in info
    assert "tokenizer.chat_template" not in info
    assert datetime.fromisoformat(found["modified_at"]).tzinfo is not None


def test_show_keeps_long_lists_for_whoever_asks(live: Any) -> None:
    brief = live.post("/api/show", {"model": "mini"}).json()
    assert all(len(value) <= 5 for value in brief["model_info"].values() if isinstance(value, list))
    full = live.post("/api/show", {"model": "mini", "verbose": True}).json()
    assert full["model_info"].keys() >= brief["model_info"].keys()
    assert all({"name", "type", "shape"} <= set(tensor) for tensor in full["tensors"])


def test_show_names_no_folder_of_this_machine(live: Any, copied: str) -> None:
    for name in ("mini", copied):
        text = live.post("/api/show", {"model": name, "verbose": True}).text
        assert str(live.home) not in text
        assert "site-packages" not in text


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "model is required"),
        ({"model": ""}, 400, "model is required"),
        ({"model": "nothing"}, 404, "model 'nothing' not found"),
        ({"model": "mini:7b"}, 404, "model 'mini:7b' not found"),
        ({"model": 5}, 400, "model must be a string, not a number"),
        ({"model": "mini", "verbose": "very"}, 400, "verbose must be true or false, not a string"),
    ],
)
def test_what_show_refuses(live: Any, body: dict[str, Any], status: int, text: str) -> None:
    assert live.refused("/api/show", status, body) == text


# --- copy, delete ---


def test_a_copy_answers_as_the_model_it_was_made_of(live: Any, copied: str) -> None:
    body = {"prompt": "Hello, who are you?", "options": {"num_predict": 8}}
    assert (
        live.whole("/api/generate", model=copied, **body)["response"] == live.whole("/api/generate", **body)["response"]
    )


def test_copy_says_nothing(live: Any) -> None:
    response = live.post("/api/copy", {"source": "mini", "destination": "other/mine:tag"})
    assert (response.status_code, response.content) == (200, b"")
    assert "other/mine:tag" in listed(live)
    response = live.delete("/api/delete", {"model": "other/mine:tag"})
    assert (response.status_code, response.content) == (200, b"")
    assert "other/mine:tag" not in listed(live)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"source": "nothing", "destination": "a"}, 404, 'model "nothing" not found'),
        ({"source": "mini", "destination": ".."}, 400, "invalid model name"),
        ({"source": "..", "destination": "a"}, 400, "invalid model name"),
        ({"source": "mini"}, 400, "invalid model name"),
        ({"destination": "a"}, 400, "invalid model name"),
        ({}, 400, "invalid model name"),
        ({"source": "nothing", "destination": "mini"}, 400, "mini is built in and cannot be replaced"),
    ],
)
def test_what_copy_refuses(live: Any, body: dict[str, Any], status: int, text: str) -> None:
    assert live.refused("/api/copy", status, body) == text


@pytest.mark.parametrize("field", ["model", "name"])
def test_delete_by_either_word(live: Any, copied: str, field: str) -> None:
    assert live.delete("/api/delete", {field: copied}).status_code == 200
    assert live.refused("/api/delete", 404, {field: copied}, method="DELETE") == "model 'mine' not found"
    assert live.refused("/api/show", 404, {"model": copied}) == "model 'mine' not found"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "model is required"),
        ({"model": "nothing"}, 404, "model 'nothing' not found"),
        ({"model": "mini"}, 400, "mini is built in and cannot be removed"),
    ],
)
def test_what_delete_refuses(live: Any, body: dict[str, Any], status: int, text: str) -> None:
    assert live.refused("/api/delete", status, body, method="DELETE") == text


def test_names_are_matched_whatever_their_case(live: Any, copied: str) -> None:
    assert live.post("/api/show", {"model": "MINE:Latest"}).status_code == 200


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused_alike_everywhere(live: Any, name: str) -> None:
    before = {path for path in live.home.rglob("*") if "blobs" not in path.parts}
    required = "model is required" if not name else "invalid model name"
    for path in ("/api/show", "/api/pull", "/api/push", "/api/create"):
        assert live.refused(path, 400, {"model": name, "from": "mini"}) == required
    assert live.refused("/api/delete", 400, {"model": name}, method="DELETE") == required
    assert live.refused("/api/copy", 400, {"source": name, "destination": "a"}) == "invalid model name"
    assert live.refused("/api/copy", 400, {"source": "mini", "destination": name}) == "invalid model name"
    assert {path for path in live.home.rglob("*") if "blobs" not in path.parts} == before


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.strip()])
def test_hostile_names_cannot_be_asked(live: Any, name: str) -> None:
    texts = {
        live.refused("/api/generate", 400, {"model": name, "prompt": "a"}),
        live.refused("/api/chat", 400, {"model": name, "messages": [{"role": "user", "content": "a"}]}),
        live.refused("/api/embed", 400, {"model": name, "input": "a"}),
    }
    assert texts == {"invalid model name"}


# --- blobs ---


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_blob_is_kept_once(live: Any) -> None:
    data = b"a blob of bytes" * 10_000
    path = f"/api/blobs/{digest_of(data)}"
    assert live.http.head(path).status_code == 404
    first = live.http.post(path, content=data)
    assert (first.status_code, first.content) == (201, b"")
    assert live.http.head(path).status_code == 200
    assert live.http.head(path.replace(":", "-")).status_code == 200
    again = live.http.post(path, content=data)
    assert (again.status_code, again.content) == (200, b"")
    kept = live.home / "models" / "blobs" / digest_of(data).replace(":", "-")
    assert kept.read_bytes() == data


def test_a_blob_may_come_in_chunks(live: Any) -> None:
    data = b"0123456789" * 50_000
    pieces = (data[at : at + 7_777] for at in range(0, len(data), 7_777))
    assert live.http.post(f"/api/blobs/{digest_of(data)}", content=pieces).status_code == 201


def test_a_blob_may_be_larger_than_any_other_body(live: Any) -> None:
    data = bytes(70 << 20)
    pieces = (data[at : at + (1 << 20)] for at in range(0, len(data), 1 << 20))
    assert live.http.post(f"/api/blobs/{digest_of(data)}", content=pieces).status_code == 201


def test_other_bytes_than_the_digest_says_are_refused(live: Any) -> None:
    wrong = digest_of(b"something else")
    text = live.refused(f"/api/blobs/{wrong}", 400, content=b"the bytes")
    assert text == f'digest mismatch, expected "{wrong}", got "{digest_of(b"the bytes")}"'
    assert live.http.head(f"/api/blobs/{wrong}").status_code == 404


@pytest.mark.parametrize(
    "digest",
    ["abc", "sha256:" + "0" * 63, "sha256:" + "0" * 65, "sha512:" + "0" * 64, "sha256:" + "g" * 64, "sha256:../../x",
     "sha256:" + "0" * 62 + "/a", "%2e%2e%2f%2e%2e%2fx", "sha256:%00" + "0" * 61, "", "sha256:" + "٠" * 64],
)  # fmt: skip
def test_what_is_no_digest_is_refused(live: Any, digest: str) -> None:
    assert live.refused(f"/api/blobs/{digest}", 400, content=b"x") == "invalid digest format"
    assert live.http.head(f"/api/blobs/{digest}").status_code == 400


def test_a_blob_cut_short_is_not_kept(live: Any) -> None:
    data = b"never all of it" * 1000
    with Raw(live.url) as raw:
        raw.send(f"POST /api/blobs/{digest_of(data)} HTTP/1.1\r\nHost: localhost\r\n".encode())
        raw.send(f"Content-Length: {len(data)}\r\n\r\n".encode() + data[:5000])
    assert live.is_idle()
    assert live.http.head(f"/api/blobs/{digest_of(data)}").status_code == 404
    live.get("/api/version")
    assert not list((live.home / "models" / "blobs").glob("incoming-*"))


# --- create ---


def progress(live: Any, path: str, **body: Any) -> list[dict[str, Any]]:
    response = live.post(path, body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def test_create_from_a_model(live: Any) -> None:
    steps = progress(
        live, "/api/create", model="made", **{"from": "mini"}, system="You count.", license=["one", "two"],
        parameters={"temperature": 0.5, "stop": ["END"]}, messages=[{"role": "user", "content": "Hi"}],
    )  # fmt: skip
    words = [step["status"] for step in steps]
    assert words[-2:] == ["writing manifest", "success"]
    assert any(re.fullmatch("(using existing|creating new) layer sha256:[0-9a-f]{64}", word) for word in words)
    found = live.post("/api/show", {"model": "made"}).json()
    assert found["system"] == "You count."
    assert "one" in found["license"]
    assert "two" in found["license"]
    assert re.search(r'^stop {27}"?END"?$', found["parameters"], re.MULTILINE)
    assert re.search(r"^temperature {20}0\.5$", found["parameters"], re.MULTILINE)
    assert found["messages"] == [{"role": "user", "content": "Hi"}]
    assert 'SYSTEM "You count."' in found["modelfile"] or "SYSTEM You count." in found["modelfile"]
    assert live.delete("/api/delete", {"model": "made"}).status_code == 200


def test_what_a_model_was_made_with_is_what_it_answers_with(live: Any) -> None:
    progress(live, "/api/create", model="made", **{"from": "mini"}, system="Count.", parameters={"num_predict": 3},
             template="<{{ .System }}>{{ .Prompt }}:")  # fmt: skip
    found = live.post("/api/generate", {"model": "made", "prompt": "Hi", "stream": False}).json()
    assert found["eval_count"] <= 3
    info = live.post("/api/generate", {"model": "made", "prompt": "Hi", "_debug_render_only": True}).json()
    assert info["_debug_info"]["rendered_template"] == "<Count.>Hi:"
    other = {"model": "made", "prompt": "Hi", "system": "Other.", "_debug_render_only": True}
    assert live.post("/api/generate", other).json()["_debug_info"]["rendered_template"] == "<Other.>Hi:"
    live.delete("/api/delete", {"model": "made"})


def test_create_without_a_stream_is_its_last_word(live: Any) -> None:
    response = live.post("/api/create", {"model": "made", "from": "mini", "stream": False})
    assert response.json() == {"status": "success"}
    assert live.delete("/api/delete", {"model": "made"}).status_code == 200


def test_create_from_a_file(live: Any, gguf: bytes) -> None:
    data = gguf
    live.http.post(f"/api/blobs/{digest_of(data)}", content=data)
    steps = progress(live, "/api/create", model="filed", files={"tiny.gguf": digest_of(data)})
    assert "parsing GGUF" in [step["status"] for step in steps]
    assert listed(live)["filed:latest"]["details"]["format"] == "gguf"
    assert live.delete("/api/delete", {"model": "filed"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "model is required"),
        ({"model": "x"}, "neither 'from' or 'files' was specified"),
        ({"model": "x", "from": "/etc/passwd"}, "invalid model name"),
        ({"model": "x", "from": "/nope/nope"}, "invalid model name"),
        ({"model": "x", "from": "/dev/zero"}, "invalid model name"),
        ({"model": "x", "from": "."}, "invalid model name"),
        ({"model": "x", "from": "mini", "quantize": "Q99"}, "unsupported quantization type Q99"),
        ({"model": "x", "from": "mini", "template": "{{ if }}"}, "template"),
        ({"model": "x", "from": "mini", "parameters": {"nonsense": 1}}, "unknown parameter 'nonsense'"),
        ({"model": "x", "from": "mini", "parameters": {"top_k": "x"}}, 'option "top_k" must be of type integer'),
        ({"model": "x", "from": "mini", "messages": [{"role": "x", "content": "y"}]}, "message role must be one of"),
        ({"model": "x", "from": "mini", "license": 5}, "license must be a string or a list of strings"),
        ({"model": "x", "files": {"a.gguf": "sha256:abc"}}, "invalid digest format"),
        ({"model": "x", "files": {"../a.gguf": "sha256:" + "0" * 64}}, "is no plain name of a file"),
        ({"model": "x", "files": {"a.gguf": "sha256:" + "0" * 64}}, ""),
        ({"model": "x", "files": {"a.gguf": 5}}, "must be a string"),
        ({"model": "x", "files": ["a"]}, "files must be an object"),
        ({"model": "mini", "from": "mini"}, "mini is built in and cannot be replaced"),
    ],
)
def test_what_create_refuses(live: Any, body: dict[str, Any], text: str) -> None:
    assert text in live.refused("/api/create", 400, {**body, "stream": False})
    assert "x:latest" not in listed(live)


# --- pull, push ---


def test_pull_tells_how_far_it_is(live: Any, registry: FaultyRegistry, gguf: bytes) -> None:
    blobs = registry.add("me/tiny:latest", gguf, b"a licence")
    name = f"{registry.host}/me/tiny"
    steps = progress(live, "/api/pull", model=name, insecure=True)
    words = [step["status"] for step in steps]
    assert words[0] == "pulling manifest"
    assert words[-3:] in (
        ["verifying sha256 digest", "writing manifest", "success"],
        ["writing manifest", "removing unused layers", "success"],
    )
    for digest, blob in blobs.items():
        ticks = [step for step in steps if step.get("digest") == digest]
        assert ticks
        assert ticks[0]["status"] == f"pulling {digest[7:19]}"
        assert ticks[-1]["completed"] == ticks[-1]["total"] == len(blob)
    assert f"{name}:latest" in listed(live)
    again = progress(live, "/api/pull", name=name, insecure=True)
    assert again[-1] == {"status": "success"}
    assert live.post("/api/pull", {"model": name, "insecure": True, "stream": False}).json() == {"status": "success"}
    assert live.delete("/api/delete", {"model": name}).status_code == 200


def test_a_pull_of_what_is_built_in_is_done_already(live: Any) -> None:
    assert progress(live, "/api/pull", model="mini") == [{"status": "success"}]


def test_a_pull_of_what_is_not_there(live: Any, registry: FaultyRegistry) -> None:
    body = {"model": f"{registry.host}/me/nothing", "insecure": True}
    steps = progress(live, "/api/pull", **body)
    assert steps[0] == {"status": "pulling manifest"}
    assert steps[-1] == {"error": "pull model manifest: file does not exist"}
    response = live.post("/api/pull", {**body, "stream": False})
    assert response.status_code in (404, 500, 502)
    assert response.json() == {"error": "pull model manifest: file does not exist"}


def test_a_pull_over_http_must_be_asked_for(live: Any, registry: FaultyRegistry) -> None:
    registry.add("me/tiny:latest", b"x")
    response = live.post("/api/pull", {"model": f"http://{registry.host}/me/tiny", "stream": False})
    assert response.status_code >= 400
    assert list(response.json()) == ["error"]


def test_other_registries_are_not_reached(live: Any) -> None:
    for path in ("/api/pull", "/api/push"):
        text = live.refused(path, 403, {"model": "evil.example/a/b", "stream": False})
        assert "LAPILLI_ALLOWED_REGISTRIES" in text


@pytest.mark.parametrize("path", ["/api/pull", "/api/push"])
@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "model is required"),
        ({"model": "a/../../b"}, "invalid model name"),
        ({"model": "mini", "insecure": "yes"}, "insecure must be true or false, not a string"),
        ({"model": ["mini"]}, "model must be a string, not an array"),
    ],
)
def test_what_pull_and_push_refuse(live: Any, path: str, body: dict[str, Any], text: str) -> None:
    assert live.refused(path, 400, body) == text


def test_a_push_of_what_is_not_there(live: Any, registry: FaultyRegistry) -> None:
    response = live.post("/api/push", {"model": f"{registry.host}/me/nothing", "insecure": True, "stream": False})
    assert response.status_code == 404
    assert "not found" in response.json()["error"]
