"""Ollama's /api/generate, streaming, logprobs, keep_alive and options (contract, tables 1.2, 1.4, 1.5, 1.8, 1.9)."""

from __future__ import annotations

import base64
import io
import json
import re
from datetime import datetime
from typing import Any

import pytest
from PIL import Image

GENERATE = "/api/generate"
FIGURES = (
    "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration",
)  # fmt: skip
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")


def test_a_stream_is_words_and_then_figures(live: Any) -> None:
    *words, last = live.lines(GENERATE, prompt="Hello, who are you?", options={"num_predict": 8})
    assert words
    for word in words:
        assert list(word) == ["model", "created_at", "response", "done"]
        assert word["model"] == "mini"
        assert word["done"] is False
        assert MOMENT.fullmatch(word["created_at"])
    assert last["done"] is True
    assert last["response"] == ""
    assert last["done_reason"] == "length"
    for name in FIGURES:
        assert isinstance(last[name], int)
        assert last[name] > 0
    assert last["eval_count"] == 8
    assert all(isinstance(token, int) for token in last["context"])
    assert len(last["context"]) == last["prompt_eval_count"] + last["eval_count"]


def test_streaming_is_the_default_and_can_be_asked_for(live: Any) -> None:
    assert len(live.lines(GENERATE, prompt="Hello")) > 1
    assert len(live.lines(GENERATE, prompt="Hello", stream=True)) > 1


def test_a_whole_answer_is_the_stream_joined(live: Any) -> None:
    body = {"prompt": "Hello, who are you?", "options": {"num_predict": 12}}
    pieces = live.lines(GENERATE, **body)
    whole = live.whole(GENERATE, **body)
    assert whole["response"] == "".join(piece["response"] for piece in pieces)
    assert whole["done"] is True
    assert whole["context"] == pieces[-1]["context"]
    assert whole["eval_count"] == pieces[-1]["eval_count"]


def test_a_whole_answer_is_json_in_utf_8(live: Any) -> None:
    response = live.post(GENERATE, {"model": "mini", "prompt": "é 😀", "stream": False, "options": {"num_predict": 1}})
    assert response.headers["content-type"] == "application/json; charset=utf-8"


def test_times_can_be_parsed(live: Any) -> None:
    told = live.whole(GENERATE, prompt="Hello")["created_at"]
    assert abs((datetime.fromisoformat(told[:19] + "+00:00") - datetime.now().astimezone()).total_seconds()) < 60


def test_lines_come_one_by_one(live: Any) -> None:
    with live.http.stream("POST", GENERATE, json={"model": "mini", "prompt": "Hello, who are you?"}) as response:
        pieces = [piece for piece in response.iter_raw() if piece]
    assert len(pieces) > 2
    assert all(piece.endswith(b"\n") for piece in pieces)


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"stream": False}, {"prompt": ""}])
def test_no_prompt_loads(live: Any, more: dict[str, Any]) -> None:
    response = live.post(GENERATE, {"model": "mini", **more})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    found = response.json()
    assert MOMENT.fullmatch(found.pop("created_at"))
    assert found == {"model": "mini", "response": "", "done": True, "done_reason": "load"}
    assert "mini:latest" in live.loaded()


def test_no_prompt_and_no_time_to_live_unloads(live: Any) -> None:
    found = live.post(GENERATE, {"model": "mini", "keep_alive": 0}).json()
    assert MOMENT.fullmatch(found.pop("created_at"))
    assert found == {"model": "mini", "response": "", "done": True, "done_reason": "unload"}
    assert "mini:latest" not in live.loaded()
    assert live.whole(GENERATE, prompt="Hello")["done"] is True


@pytest.mark.parametrize("model", ["mini", "mini:latest", "MINI", "registry.ollama.ai/library/mini:latest"])
def test_a_model_s_name_in_every_spelling(live: Any, model: str) -> None:
    assert live.whole(GENERATE, model=model, prompt="Hello")["model"] == model


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 404, "model '' not found"),
        ({"model": ""}, 404, "model '' not found"),
        ({"model": "nothing", "prompt": "a"}, 404, "model 'nothing' not found"),
        ({"model": "nothing:7b"}, 404, "model 'nothing:7b' not found"),
        ({"model": "mini:7b", "prompt": "a"}, 404, "model 'mini:7b' not found"),
    ],
)
def test_a_model_that_is_not_here(live: Any, body: dict[str, Any], status: int, text: str) -> None:
    assert live.refused(GENERATE, status, body) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"raw": True, "system": "s"}, "raw mode does not support template, system, or context"),
        ({"raw": True, "template": "t"}, "raw mode does not support template, system, or context"),
        ({"raw": True, "context": [1, 2]}, "raw mode does not support template, system, or context"),
        ({"format": "yaml"}, 'invalid format: "yaml"; expected "json" or a valid JSON Schema object'),
        ({"format": [1]}, 'invalid format: an array; expected "json" or a valid JSON Schema object'),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs must be between 0 and 20"),
        ({"top_logprobs": -1, "logprobs": True}, "top_logprobs must be between 0 and 20"),
        ({"think": True}, '"mini" does not support thinking'),
        ({"think": "high"}, '"mini" does not support thinking'),
        ({"suffix": "end"}, "does not support insert"),
        ({"images": ["%%%"]}, "illegal base64 data at input byte 0"),
        ({"images": ["data:image/png;base64,iVBORw0KGgo="]}, "illegal base64 data at input byte 4"),
        ({"images": ["https://example.org/a.png"]}, "illegal base64 data at input byte 5"),
        ({"keep_alive": "5"}, 'time: missing unit in duration "5"'),
        ({"keep_alive": "soon"}, 'time: invalid duration "soon"'),
        ({"options": {"temperature": "hot"}}, "temperature"),
        ({"options": {"num_predict": "5"}}, "num_predict"),
        ({"options": {"top_k": 1.5}}, "top_k"),
        ({"options": {"stop": 5}}, "stop"),
        ({"options": {"seed": "x"}}, "seed"),
        ({"options": []}, "options must be an object, not an array"),
        ({"prompt": 5}, "prompt must be a string, not a number"),
        ({"system": []}, "system must be a string, not an array"),
        ({"stream": "no"}, "stream must be true or false, not a string"),
        ({"raw": 1}, "raw must be true or false, not a number"),
        ({"context": ["a"]}, "context must be an array of token ids"),
        ({"format": {"type": "nonsense"}}, ""),
        ({"template": "{{ if }}"}, ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [True, False])
def test_what_is_refused(live: Any, body: dict[str, Any], text: str, stream: bool) -> None:
    body = {"model": "mini", "prompt": "Hello", "options": {"num_predict": 1}, "stream": stream} | body
    assert text in live.refused(GENERATE, 400, body)


@pytest.mark.parametrize("think", [False, None])
def test_not_thinking_is_fine_anywhere(live: Any, think: bool | None) -> None:
    assert "thinking" not in live.whole(GENERATE, prompt="Hello", think=think)


@pytest.mark.parametrize("form", [None, ""])
def test_no_format(live: Any, form: Any) -> None:
    assert live.whole(GENERATE, prompt="Hello", format=form)["response"]


def test_json_is_json(live: Any) -> None:
    found = live.whole(GENERATE, prompt="Hello", format="json", options={"num_predict": 200})
    assert found["done_reason"] == "length" or json.loads(found["response"]) is not None


def test_a_schema_is_kept(live: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}, "round": {"type": "boolean"}},
        "required": ["colour", "round"],
        "additionalProperties": False,
    }
    found = json.loads(live.whole(GENERATE, prompt="Hello", format=schema, options={"num_predict": 100})["response"])
    assert found["colour"] in ("red", "blue")
    assert isinstance(found["round"], bool)


def test_raw_is_the_prompt_as_it_stands(live: Any) -> None:
    body = {"prompt": "USER: Hello, who are you? ASSISTANT:", "raw": True, "options": {"num_predict": 10}}
    raw = live.whole(GENERATE, **body)
    assert "context" not in raw
    dressed = live.whole(GENERATE, prompt="Hello, who are you?", options={"num_predict": 10})
    assert raw["response"].strip() == dressed["response"].strip()


def test_context_goes_on_from_an_earlier_answer(live: Any) -> None:
    first = live.whole(GENERATE, prompt="Hello", options={"num_predict": 6})
    second = live.whole(GENERATE, prompt="Hello", context=first["context"], options={"num_predict": 6})
    alone = live.whole(GENERATE, prompt="Hello", options={"num_predict": 6})
    assert second["prompt_eval_count"] >= alone["prompt_eval_count"] + len(first["context"]) - 1
    assert second["context"][: len(first["context"])] == first["context"]


def test_a_picture_is_seen_and_counted(live: Any, picture64: str) -> None:
    found = live.whole(GENERATE, prompt="What is in this picture?", images=[picture64], options={"num_predict": 8})
    assert found["image_tokens"] > 0
    assert found["prompt_eval_count"] > found["image_tokens"]
    again = live.whole(GENERATE, prompt="What is in this picture?", images=[picture64], options={"num_predict": 8})
    assert again["response"] == found["response"]
    assert again.get("image_duration", 0) <= found["total_duration"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_pictures_of_each_kind(live: Any, kind: str) -> None:
    data = io.BytesIO()
    Image.new("RGB", (40, 30), "blue").save(data, kind)
    image = base64.b64encode(data.getvalue()).decode()
    assert live.whole(GENERATE, prompt="What is this?", images=[image], options={"num_predict": 1})["image_tokens"]


def test_two_pictures_are_two(live: Any, picture64: str) -> None:
    one = live.whole(GENERATE, prompt="What is this?", images=[picture64], options={"num_predict": 1})
    two = live.whole(GENERATE, prompt="What is this?", images=[picture64] * 2, options={"num_predict": 1})
    assert two["image_tokens"] == 2 * one["image_tokens"]


def test_a_heat_map_when_asked_for(live: Any, picture64: str) -> None:
    body = {"prompt": "What is in this picture?", "images": [picture64], "options": {"num_predict": 3}}
    assert "heatmap" not in live.whole(GENERATE, **body)
    found = live.whole(GENERATE, heatmap=True, **body)
    assert Image.open(io.BytesIO(base64.b64decode(found["heatmap"]))).format == "PNG"
    assert "heatmap" in live.lines(GENERATE, heatmap=True, **body)[-1]


def test_what_was_read_before_is_counted_as_cached(live: Any) -> None:
    prompt = "Tell me about circles and squares. " * 20
    live.whole(GENERATE, prompt=prompt, options={"num_predict": 1})
    again = live.whole(GENERATE, prompt=prompt, options={"num_predict": 1})
    assert 0 < again["cached_tokens"] < again["prompt_eval_count"]


def test_the_prompt_can_be_seen(live: Any, picture64: str) -> None:
    found = live.post(
        GENERATE, {"model": "mini", "prompt": "Hi", "system": "Be brief.", "_debug_render_only": True}
    ).json()
    assert set(found) == {"model", "created_at", "_debug_info"}
    assert "Hi" in found["_debug_info"]["rendered_template"]
    assert "Be brief." in found["_debug_info"]["rendered_template"]
    seen = live.post(
        GENERATE, {"model": "mini", "prompt": "Hi", "images": [picture64], "_debug_render_only": True}
    ).json()
    assert seen["_debug_info"]["image_count"] == 1


@pytest.mark.parametrize(
    ("template", "more", "rendered"),
    [
        ("[INST] {{ .Prompt }} [/INST]", {}, "[INST] Hi [/INST]"),
        ("{{ if .System }}<{{ .System }}>{{ end }}{{ .Prompt }}:", {"system": "Be brief."}, "<Be brief.>Hi:"),
        ("{{ if .System }}<{{ .System }}>{{ end }}{{ .Prompt }}:", {}, "Hi:"),
        ("{{ .Prompt }}", {}, "Hi"),
    ],
)
def test_a_template_of_the_request_s_own(live: Any, template: str, more: dict[str, str], rendered: str) -> None:
    body = {"model": "mini", "prompt": "Hi", "template": template, "_debug_render_only": True, **more}
    assert live.post(GENERATE, body).json()["_debug_info"]["rendered_template"] == rendered


def test_a_template_that_would_leave_out_the_system_s_words_is_refused(live: Any) -> None:
    body = {"model": "mini", "prompt": "Hi", "system": "Be brief.", "template": "{{ .Prompt }}"}
    assert "system" in live.refused(GENERATE, 400, body)


# --- logprobs ---


def test_logprobs_only_when_asked_for(live: Any) -> None:
    assert "logprobs" not in live.whole(GENERATE, prompt="Hello")
    assert all("logprobs" not in line for line in live.lines(GENERATE, prompt="Hello"))


@pytest.mark.parametrize("top", [0, 1, 5, 20])
def test_logprobs(live: Any, top: int) -> None:
    found = live.whole(GENERATE, prompt="Hello", logprobs=True, top_logprobs=top, options={"num_predict": 5})
    assert len(found["logprobs"]) == found["eval_count"]
    for token in found["logprobs"]:
        assert token["logprob"] <= 0
        assert bytes(token["bytes"]).decode("utf-8", "replace") == token["token"]
        others = token.get("top_logprobs", [])
        assert len(others) == top
        chances = [other["logprob"] for other in others]
        assert chances == sorted(chances, reverse=True)
        assert sum(2.718281828**chance for chance in chances) <= 1.001
        if top:
            assert others[0]["logprob"] == pytest.approx(token["logprob"])  # greedy takes the likeliest


def test_logprobs_in_a_stream(live: Any) -> None:
    lines = live.lines(GENERATE, prompt="Hello", logprobs=True, options={"num_predict": 5})
    tokens = [token for line in lines for token in line.get("logprobs", [])]
    assert len(tokens) == lines[-1]["eval_count"]


# --- options ---


@pytest.mark.parametrize(
    "options",
    [
        {"mirostat": 1, "mirostat_tau": 5.0, "mirostat_eta": 0.1, "tfs_z": 1.0, "penalize_newline": True},
        {"numa": True, "low_vram": True, "f16_kv": True, "logits_all": True, "vocab_only": True, "use_mlock": True},
        {"num_batch": 512, "num_gpu": -1, "main_gpu": 0, "use_mmap": True, "num_thread": 2, "num_keep": 4},
        {"an_option_of_tomorrow": 5},
        {"typical_p": 1.0, "repeat_last_n": 64, "presence_penalty": 0.1, "frequency_penalty": 0.1},
        {"num_ctx": 512}, {"seed": -1}, {"stop": []}, {"stop": ["\n"]}, {"top_k": 0}, {"min_p": 0.05},
        {"num_predict": -1}, {"repeat_last_n": -1}, {"temperature": None},
    ],
)  # fmt: skip
def test_options_of_every_client_are_taken(live: Any, options: dict[str, Any]) -> None:
    assert live.whole(GENERATE, prompt="Hello", options=options)["done"] is True


def test_num_predict_counts(live: Any) -> None:
    for count in (1, 2, 5):
        found = live.whole(GENERATE, prompt="Hello", options={"num_predict": count})
        assert found["eval_count"] == count
        assert found["done_reason"] == "length"


def test_an_answer_that_ends_by_itself(live: Any) -> None:
    assert live.whole(GENERATE, prompt="Hello", options={"num_predict": 100})["done_reason"] == "stop"


def drawn(live: Any, **options: Any) -> str:
    """A few words that are far from certain."""
    body = {"model": "mini", "prompt": "The sky is", "raw": True, "stream": False}
    return str(live.post(GENERATE, {**body, "options": {"num_predict": 6, **options}}).json()["response"])


def test_a_seed_draws_the_same_again(live: Any) -> None:
    assert drawn(live, seed=7, temperature=2) == drawn(live, seed=7, temperature=2)
    assert len({drawn(live, seed=seed, temperature=2) for seed in range(6)}) > 1


def test_without_a_seed_it_is_another_answer(live: Any) -> None:
    assert len({drawn(live, temperature=2) for _ in range(6)}) > 1


def test_no_temperature_is_the_likeliest(live: Any) -> None:
    assert len({drawn(live, seed=seed, temperature=0) for seed in range(3)}) == 1


def test_stop_texts_end_an_answer_and_are_not_told(live: Any) -> None:
    text = live.whole(GENERATE, prompt="Hello", options={"num_predict": 12})["response"]
    word = text.split()[1]
    found = live.whole(GENERATE, prompt="Hello", options={"num_predict": 12, "stop": [word]})
    assert found["response"] == text[: text.index(word)]
    assert found["done_reason"] == "stop"


# --- keep_alive ---


@pytest.mark.parametrize(
    ("given", "least", "most"),
    [(30, 20, 31), ("2m", 110, 121), (1.5, 0, 2), ("1h", 3590, 3601), (-1, 1e9, 1e11), ("-1m", 1e9, 1e11),
     (None, 290, 301)],
)  # fmt: skip
def test_keep_alive_says_how_long_a_model_stays(live: Any, given: Any, least: float, most: float) -> None:
    live.whole(GENERATE, prompt="Hello", keep_alive=300)
    live.whole(GENERATE, prompt="Hello", **({"keep_alive": given} if given is not None else {}))
    model = live.loaded()["mini:latest"]
    left = (
        datetime.fromisoformat(model["expires_at"].replace("Z", "+00:00")) - datetime.now().astimezone()
    ).total_seconds()
    assert least <= left <= most
    live.whole(GENERATE, prompt="Hello", keep_alive=300)


# --- too long ---


def test_a_prompt_too_long_is_refused_with_both_counts(live: Any) -> None:
    text = live.refused(GENERATE, 400, {"model": "mini", "prompt": "word " * 3000})
    counts = [int(number) for number in re.findall(r"\d+", text)]
    assert max(counts) >= 3000
    assert 2048 in counts
    text = live.refused(GENERATE, 400, {"model": "mini", "prompt": "word " * 300, "options": {"num_ctx": 128}})
    assert "128" in text


def test_what_came_before_is_cut_when_asked_and_it_is_told(live: Any) -> None:
    body = {"prompt": "Hello", "context": [5] * 300, "options": {"num_ctx": 128, "num_predict": 2}}
    assert "128" in live.refused(GENERATE, 400, {"model": "mini", **body})
    found = live.whole(GENERATE, truncate=True, **body)
    assert found["truncated"] is True
    assert found["truncated_tokens"] > 100
    assert found["prompt_eval_count"] < 128
    assert "truncated" not in live.whole(GENERATE, prompt="Hello", truncate=True)


def test_a_prompt_that_is_too_long_alone_is_never_cut(live: Any) -> None:
    body = {"model": "mini", "prompt": "word " * 300, "truncate": True, "options": {"num_ctx": 128}}
    assert "128" in live.refused(GENERATE, 400, body)
