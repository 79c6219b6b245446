"""Manifests: what registries and Ollama write is read, anything else refused with a reason."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapilli.errors import StoreError
from lapilli.store.manifests import CONFIG, MODEL, PROJECTOR, Layer, Manifest

HEX = "0123456789abcdef" * 4
LAYER = {"mediaType": MODEL, "digest": f"sha256:{HEX}", "size": 3}


def written(**changes: Any) -> bytes:
    values = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": CONFIG, "digest": f"sha256:{HEX[::-1]}", "size": 10},
        "layers": [LAYER],
    }
    return json.dumps(values | changes).encode()


def test_what_a_registry_sends_is_read_and_its_hash_is_the_model() -> None:
    raw = written(layers=[{**LAYER, "from": "other"}, {**LAYER, "mediaType": PROJECTOR, "name": "eyes"}], extra=[1])
    found = Manifest.parse(raw)
    assert found.config == Layer(CONFIG, f"sha256:{HEX[::-1]}", 10)
    assert found.layers == (Layer(MODEL, LAYER["digest"], 3), Layer(PROJECTOR, LAYER["digest"], 3, "eyes"))
    assert found.to_bytes() == raw
    assert found.digest == hashlib.sha256(raw).hexdigest()
    assert found.size == 16
    assert [layer.name for layer in found.of(PROJECTOR)] == ["eyes"]


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "not UTF-8": b"\xff\xfe{}",
    "null": b"null",
    "a list": b"[]",
    "a number": b"3",
    "an empty object": b"{}",
    "another version": written(schemaVersion=1),
    "no layers": written(layers=[]),
    "layers null": written(layers=None),
    "layers an object": written(layers={}),
    "a layer null": written(layers=[None]),
    "a layer of text": written(layers=["sha256:" + HEX]),
    "no config": written(config=None),
    "config a list": written(config=[]),
    "config without digest": written(config={"mediaType": CONFIG, "size": 1}),
    "a million layers": written(layers=[{}] * 1_000_000)[: 4 << 20],
    "too many layers": written(layers=[LAYER] * 9000),
    "one digest, two sizes": written(layers=[LAYER, {**LAYER, "size": 4}]),
    "nested": b'{"layers":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "deeper": b"[" * 200_000,
    "five megabytes": written(extra="x" * (5 << 20)),
    **{
        f"size {size!r:.30}": written(layers=[{**LAYER, "size": size}])
        for size in (-1, 2**63, 2**64, 1.5, "3", None, True)
    },
    "a size of many digits": written().replace(b'"size": 3', b'"size": ' + b"9" * 5000),
    "an infinite size": written().replace(b'"size": 3', b'"size": Infinity'),
    **{
        f"digest {digest!r:.40}": written(layers=[{**LAYER, "digest": digest}])
        for digest in (
            "", "sha256:", "sha256:../../x", "sha256:" + HEX[1:], "sha256:" + HEX + "0", "sha256:" + HEX.upper(),
            "sha512:" + HEX, "sha256-" + HEX + "/..", "sha256:" + HEX[1:] + "\0", "sha256:" + "٣" * 64, None, 3, [],
            "x" * 1_000_000,
        )
    },
    **{f"mediaType {kind!r:.20}": written(layers=[{**LAYER, "mediaType": kind}]) for kind in (None, 3, "", "x" * 2000)},
    **{f"name {name!r:.20}": written(layers=[{**LAYER, "name": name}]) for name in (3, [], "x" * 2000)},
}  # fmt: skip


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_anything_else_is_refused_in_one_short_line_and_at_once(raw: bytes) -> None:
    start = time.monotonic()
    with pytest.raises(StoreError) as error:
        Manifest.parse(raw)
    assert str(error.value).startswith("the manifest ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300
    assert time.monotonic() - start < 5


digests = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format)
layers = st.builds(Layer, st.text(min_size=1, max_size=40), digests, st.integers(0, 1 << 50), st.text(max_size=40))


@given(config=layers, parts=st.lists(layers, min_size=1, max_size=5, unique_by=lambda layer: layer.digest))
def test_what_is_written_is_read_back(config: Layer, parts: list[Layer]) -> None:
    made = Manifest(config, tuple(layer for layer in parts if layer.digest != config.digest) or (config,))
    read = Manifest.parse(made.to_bytes())
    assert read == made
    assert read.digest == made.digest
