"""Ollama's embeddings (contract, table 1.6)."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest


def length(vector: list[float]) -> float:
    return math.sqrt(sum(number * number for number in vector))


def embed(live: Any, **body: Any) -> Any:
    response = live.post("/api/embed", {"model": "mini", **body})
    assert response.status_code == 200, response.text
    return response.json()


def test_a_text_is_a_vector_of_length_one(live: Any) -> None:
    found = embed(live, input="a red circle")
    assert found["model"] == "mini"
    (vector,) = found["embeddings"]
    assert len(vector) > 8
    assert length(vector) == pytest.approx(1, abs=1e-4)
    assert found["prompt_eval_count"] > 0
    assert found["total_duration"] > 0
    assert isinstance(found["total_duration"], int)


def test_texts_are_vectors_in_order_whoever_is_beside_them(live: Any) -> None:
    texts = ["a red circle", "two blue squares", "a red circle"]
    many = embed(live, input=texts)
    assert len(many["embeddings"]) == 3
    assert many["embeddings"][0] == many["embeddings"][2]
    assert many["embeddings"][1] == embed(live, input=texts[1])["embeddings"][0]
    assert many["prompt_eval_count"] == sum(embed(live, input=text)["prompt_eval_count"] for text in texts)


@pytest.mark.parametrize("given", ["", [], None])
def test_no_text_is_no_vector(live: Any, given: Any) -> None:
    found = embed(live, input=given)
    assert found["embeddings"] == []
    assert found["model"] == "mini"


@pytest.mark.parametrize("given", [1, {"a": 1}, [1], ["a", None], [["a"]], True])
def test_other_inputs_are_refused(live: Any, given: Any) -> None:
    assert live.refused("/api/embed", 400, {"model": "mini", "input": given}) == "invalid input type"


@pytest.mark.parametrize("dimensions", [1, 4, 16])
def test_fewer_dimensions_are_of_length_one_again(live: Any, dimensions: int) -> None:
    whole = embed(live, input="a red circle")["embeddings"][0]
    cut = embed(live, input="a red circle", dimensions=dimensions)["embeddings"][0]
    assert len(cut) == dimensions
    assert length(cut) == pytest.approx(1, abs=1e-4)
    scale = length(whole[:dimensions])
    assert cut == pytest.approx([number / scale for number in whole[:dimensions]], abs=1e-4)


@pytest.mark.parametrize("dimensions", [None, 0, 1 << 20])
def test_as_many_dimensions_as_there_are(live: Any, dimensions: int | None) -> None:
    whole = embed(live, input="a")["embeddings"][0]
    assert len(embed(live, input="a", dimensions=dimensions)["embeddings"][0]) == len(whole)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"input": "a"}, 400, "model is required"),
        ({"model": "nothing", "input": "a"}, 404, 'model "nothing" not found, try pulling it first'),
        ({"model": "mini", "input": "a", "dimensions": -1}, 400, "dimensions must be positive, not -1"),
        ({"model": "mini", "input": "a", "dimensions": "4"}, 400, "dimensions must be of type integer"),
        ({"model": "mini", "input": "a", "dimensions": 2**40}, 400, "dimensions is out of range"),
        ({"model": "mini", "input": "a", "truncate": "yes"}, 400, "truncate must be true or false"),
        ({"model": "mini", "input": "a", "keep_alive": "x"}, 400, 'time: invalid duration "x"'),
        ({"model": "mini", "input": "a", "options": 5}, 400, "options must be an object"),
    ],
)
def test_what_is_refused(live: Any, body: dict[str, Any], status: int, text: str) -> None:
    assert text in live.refused("/api/embed", status, body)


@pytest.mark.parametrize("more", [{}, {"truncate": False}])
def test_a_text_too_long_is_refused_with_both_counts(live: Any, more: dict[str, Any]) -> None:
    text = live.refused("/api/embed", 400, {"model": "mini", "input": "word " * 3000, **more})
    assert "the input length exceeds the context length" in text
    counts = [int(number) for number in re.findall(r"\d+", text)]
    assert 2048 in counts
    assert max(counts) >= 3000


def test_a_text_too_long_is_cut_when_asked_and_it_is_told(live: Any) -> None:
    found = embed(live, input="word " * 3000, truncate=True)
    assert found["truncated"] is True
    assert found["prompt_eval_count"] <= 2048
    assert len(found["embeddings"]) == 1


def test_the_older_call(live: Any) -> None:
    response = live.post("/api/embeddings", {"model": "mini", "prompt": "a red circle"})
    assert response.status_code == 200
    assert list(response.json()) == ["embedding"]
    assert response.json()["embedding"] == pytest.approx(embed(live, input="a red circle")["embeddings"][0], abs=1e-5)


@pytest.mark.parametrize("more", [{}, {"prompt": ""}, {"prompt": None}])
def test_the_older_call_without_a_text_loads(live: Any, more: dict[str, Any]) -> None:
    assert live.post("/api/embeddings", {"model": "mini", **more}).json() == {"embedding": []}


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"prompt": "a"}, 400, "model is required"),
        ({"model": "nothing", "prompt": "a"}, 404, 'model "nothing" not found, try pulling it first'),
        ({"model": "mini", "prompt": ["a"]}, 400, "prompt must be a string, not an array"),
    ],
)
def test_what_the_older_call_refuses(live: Any, body: dict[str, Any], status: int, text: str) -> None:
    assert text in live.refused("/api/embeddings", status, body)
