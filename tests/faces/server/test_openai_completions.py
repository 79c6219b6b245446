"""OpenAI's /v1/completions, /v1/embeddings, /v1/models and /v1/audio (contract, table 1.10)."""

from __future__ import annotations

import base64
import math
import re
import struct
from typing import Any

import pytest
from dialects import ask, refused, saying, stream

from lapilli.wire.question import Account, Said

COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"


# --- completions ---


def test_a_whole_answer(live: Any) -> None:
    found = ask(live, COMPLETIONS, prompt="Hello", max_tokens=5)
    assert re.fullmatch(r"cmpl-\w+", found["id"])
    assert found["object"] == "text_completion"
    assert found["model"] == "mini"
    assert found["system_fingerprint"] == "fp_ollama"
    (choice,) = found["choices"]
    native = live.whole("/api/generate", prompt="Hello", options={"num_predict": 5})
    assert choice == {"index": 0, "text": native["response"], "finish_reason": "length", "logprobs": None}
    assert found["usage"]["completion_tokens"] == 5
    assert found["usage"]["prompt_tokens"] == native["prompt_eval_count"]


def test_a_stream(live: Any) -> None:
    more = {"max_tokens": 5, "stream_options": {"include_usage": True}}
    told = [data for _, data in stream(live, COMPLETIONS, prompt=["Hello"], **more)]
    *chunks, figures, last = told
    assert last == "[DONE]"
    assert figures["choices"] == []
    assert figures["usage"]["completion_tokens"] == 5
    assert all("usage" not in chunk for chunk in chunks)
    assert all(chunk["object"] == "text_completion" for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert (
        "".join(choice["text"] for choice in choices)
        == ask(live, COMPLETIONS, prompt="Hello", max_tokens=5)["choices"][0]["text"]
    )
    assert choices[-1]["text"] == ""
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["length"]


@pytest.mark.parametrize("top", [0, 2])
def test_likelihoods(live: Any, top: int) -> None:
    found = ask(live, COMPLETIONS, prompt="Hello", max_tokens=3, logprobs=top)["choices"][0]["logprobs"]
    assert list(found) == ["tokens", "token_logprobs", "top_logprobs", "text_offset"]
    assert [len(each) for each in found.values()] == [3] * 4
    assert all(value <= 0 for value in found["token_logprobs"])
    assert all(len(each) == top for each in found["top_logprobs"])
    assert found["text_offset"][:2] == [5, 5 + len(found["tokens"][0])]


def test_options_reach_the_model(live: Any, monkeypatch: Any) -> None:
    asked = saying(monkeypatch)([Said(account=Account(reason="stop"))])
    ask(live, COMPLETIONS, prompt="Hello", suffix="end", stop="a", seed=1, top_p=0.5, n=1, best_of=1, echo=False)
    assert asked[0].sampling == {"temperature": 0, "stop": "a", "seed": 1, "top_p": 0.5}
    assert asked[0].defaults == {"temperature": 1.0, "top_p": 1.0}
    assert asked[0].suffix == "end"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"model": None}, "model is required"),
        ({"prompt": None}, "prompt must be one string"),
        ({"prompt": ["a", "b"]}, "prompt must be one string"),
        ({"prompt": [1, 2]}, "prompt must be one string"),
        ({"prompt": [[1, 2]]}, "prompt must be one string"),
        ({"prompt": ""}, "prompt is empty"),
        ({"echo": True}, "echo is not supported"),
        ({"logit_bias": {"1": 1}}, "logit_bias is not supported"),
        ({"n": 2}, "n must be 1"),
        ({"best_of": 3}, "best_of must be 1"),
        ({"logprobs": 21}, "logprobs must be between 0 and 20"),
        ({"logprobs": True}, "logprobs must be of type integer"),
        ({"suffix": "end"}, "does not support insert"),
        ({"max_tokens": "5"}, "max_tokens must be of type integer"),
    ],
)
def test_completions_that_are_refused(live: Any, body: dict[str, Any], text: str) -> None:
    kind, told = refused(live, COMPLETIONS, 400, {"model": "mini", "prompt": "Hello", **body})
    assert kind == "invalid_request_error"
    assert text in told


def test_a_model_that_is_not_here(live: Any) -> None:
    assert refused(live, COMPLETIONS, 404, {"model": "nothing", "prompt": "a"}) == (
        "not_found_error",
        "model 'nothing' not found",
    )
    assert refused(live, EMBEDDINGS, 404, {"model": "nothing", "input": "a"}) == (
        "not_found_error",
        'model "nothing" not found, try pulling it first',
    )


# --- vectors ---


def embed(live: Any, **body: Any) -> Any:
    response = live.post(EMBEDDINGS, {"model": "mini", **body})
    assert response.status_code == 200, response.text
    return response.json()


def test_vectors(live: Any) -> None:
    found = embed(live, input=["Hello", "the sky"])
    assert list(found) == ["object", "data", "model", "usage"][: len(found)]
    assert found["object"] == "list"
    assert found["model"] == "mini"
    assert [(item["object"], item["index"]) for item in found["data"]] == [("embedding", 0), ("embedding", 1)]
    native = live.post("/api/embed", {"model": "mini", "input": ["Hello", "the sky"]}).json()
    assert [item["embedding"] for item in found["data"]] == native["embeddings"]
    assert found["usage"]["prompt_tokens"] == found["usage"]["total_tokens"] == native["prompt_eval_count"]
    assert embed(live, input="Hello")["data"][0]["embedding"] == pytest.approx(native["embeddings"][0], abs=1e-6)


def test_vectors_in_base64(live: Any) -> None:
    (packed,) = embed(live, input="Hello", encoding_format="base64", dimensions=8)["data"]
    (plain,) = embed(live, input="Hello", encoding_format="float", dimensions=8)["data"]
    numbers = struct.unpack("<8f", base64.b64decode(packed["embedding"]))
    assert numbers == pytest.approx(plain["embedding"], abs=1e-6)
    assert math.hypot(*numbers) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"input": []}, "invalid input"),
        ({"input": None}, "invalid input"),
        ({"input": [1, 2]}, "invalid input type"),
        ({"input": [[1]]}, "invalid input type"),
        ({"input": {}}, "invalid input type"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format 'hex' is not known"),
        ({"input": "a", "dimensions": 0}, "dimensions must be positive, not 0"),
        ({"input": "a", "dimensions": "8"}, "dimensions must be of type integer"),
        ({"input": "a", "model": ""}, "model is required"),
    ],
)
def test_vectors_that_are_refused(live: Any, body: dict[str, Any], text: str) -> None:
    kind, told = refused(live, EMBEDDINGS, 400, {"model": "mini", **body})
    assert kind == "invalid_request_error"
    assert text in told


# --- models ---


def test_models(live: Any) -> None:
    found = live.get("/v1/models").json()
    assert found["object"] == "list"
    names = {model["name"] for model in live.get("/api/tags").json()["models"]}
    assert {model["id"] for model in found["data"]} == names
    for model in found["data"]:
        assert list(model) == ["id", "object", "created", "owned_by"]
        assert model["object"] == "model"
        assert isinstance(model["created"], int)
        assert model["owned_by"]


@pytest.mark.parametrize("name", ["mini", "mini:latest", "library%2Fmini", "MINI"])
def test_one_model(live: Any, name: str) -> None:
    found = live.get(f"/v1/models/{name}").json()
    assert found["id"] == "mini:latest"
    assert found["owned_by"] == "library"


@pytest.mark.parametrize("name", ["nothing", "a/b:c", "mini:7b"])
def test_a_model_that_nobody_has(live: Any, name: str) -> None:
    response = live.get(f"/v1/models/{name}")
    assert response.status_code == 404
    error = response.json()["error"]
    assert error == {"message": f"model '{name}' not found", "type": "not_found_error", "param": None, "code": None}


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/speech", "/v1/audio/translations"])
def test_nobody_hears(live: Any, path: str) -> None:
    kind, told = refused(live, path, 501)
    assert kind == "api_error"
    assert "audio is not part of this server" in told


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/files", "/v1/chat", "/v1/responses/resp_1"])
def test_what_is_not_here(live: Any, path: str) -> None:
    assert refused(live, path, 404) == ("not_found_error", "404 page not found")
