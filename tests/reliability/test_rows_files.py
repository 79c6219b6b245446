"""T35, T39, T40 and T43 from outside: model files and templates that want to be run."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from asked import CHAT, GENERATE, assert_shape

pytestmark = pytest.mark.usefixtures("oracles")


def test_t35_pickles_are_no_models(live: Any, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
    for data in (code, b"\x80\x04" + code, b"PK\x03\x04" + code, b"\x93NUMPY\x01\x00" + code):
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        live.http.post(f"/api/blobs/{digest}", content=data)
        for name in (
            "pytorch_model.bin",
            "model.pt",
            "model.ckpt",
            "model.npy",
            "model.safetensors",
            "model.gguf",
            "a.pkl",
        ):
            response = live.post("/api/create", {"model": "x", "files": {name: digest}, "stream": False})
            assert response.status_code == 400
            assert_shape("/api/create", response)
    assert not marker.exists()


ESCAPES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch MARKER').read() }}",
    "{{ lipsum.__globals__['os'].popen('touch MARKER').read() }}",
    "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ self._TemplateReference__context }}",
    "{% set ns = namespace(**{'__init__': 1}) %}{{ ns.__class__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{{ messages.__class__ }}",
)


def test_t39_no_template_gets_out(live: Any, tmp_path: Path) -> None:
    """A template comes with a question, or with a model that is made of ours."""
    marker = tmp_path / "marker"
    for escape in ESCAPES:
        text = escape.replace("MARKER", str(marker)) + "{% for m in messages %}{{ m.content }}{% endfor %}"
        GENERATE.refusal(live, GENERATE.body(template=text))
        response = live.post("/api/create", {"model": "escaping", "from": "mini", "template": text, "stream": False})
        if response.status_code == 200:
            assert CHAT.refusal(live, CHAT.body() | {"model": "escaping"})
            live.delete("/api/delete", {"model": "escaping"})
        else:
            assert_shape("/api/create", response)
    assert not marker.exists()


BOMBS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'a' * 10**10 }}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ " + "(" * 6000 + "1" + ")" * 6000 + " }}",
    "{{ range .Messages }}" * 3000,
    '{{ define "a" }}{{ template "a" . }}{{ template "a" . }}{{ end }}{{ template "a" . }}',
)


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_t40_a_bomb_in_one_request_delays_no_other(live: Any, bomb: str) -> None:
    slowest = [0.0]
    over = threading.Event()

    def others() -> None:
        while not over.is_set():
            began = time.monotonic()
            assert live.get("/api/version").status_code == 200
            slowest.append(time.monotonic() - began)
            time.sleep(0.05)

    beside = threading.Thread(target=others)
    beside.start()
    try:
        began = time.monotonic()
        GENERATE.refusal(live, GENERATE.body(template=bomb))
        assert time.monotonic() - began < 20  # two of them, each ended after a few seconds at most
    finally:
        over.set()
        beside.join()
    assert max(slowest) < 2


def test_t43_a_run_of_one_letter_is_read_in_time(live: Any) -> None:
    for text in ("a" * 100_000, " " * 100_000 + "a", "a1" * 50_000, "\N{GRINNING FACE}" * 30_000):
        began = time.monotonic()
        assert "context" in GENERATE.refusal(live, GENERATE.body(text))
        assert time.monotonic() - began < 8
