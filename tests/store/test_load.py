"""`lapilli.load` with the name of a model in the store: its weights, its template and its adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

import lapilli
from lapilli.errors import InputError, TemplateError
from lapilli.store.create import create
from lapilli.store.library import Library
from lapilli.store.manifests import ADAPTER, Layer, Manifest
from lapilli.store.reference import default_library
from lapilli.store.request import CreateRequest

# What mini was taught, in Go's words.
GO = "{{ if .System }}{{ .System }} {{ end }}USER: {{ .Prompt }} ASSISTANT:"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setenv("LAPILLI_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "none"))
    return default_library()


def test_a_stored_model_answers_as_what_it_was_made_of(library: Library, tmp_path: Path) -> None:
    assert library.root == tmp_path / "models"
    create(library, "Stored:v1", CreateRequest(source="mini", template=GO))
    stored, mini = lapilli.load("stored:V1"), lapilli.load("mini")
    assert stored.prompts.chat_template.language == "go"
    question = "What is one and two?"
    assert stored.chat(question, max_tokens=8).text == mini.chat(question, max_tokens=8).text


def test_a_template_that_cannot_be_read_is_told_of(library: Library) -> None:
    create(library, "good", CreateRequest(source="mini", template=GO))
    manifest = library.manifest("good")
    layer = next(layer for layer in manifest.layers if layer.media_type.endswith("template"))
    library.blobs.path(layer.digest).write_text("{{ if .Prompt }}" + " " * (layer.size - 16))
    with pytest.raises(TemplateError):
        lapilli.load("good")
    assert library.find("good").capabilities == ("completion", "vision")


def test_one_adapter_is_merged_and_no_more(library: Library, tmp_path: Path) -> None:
    create(library, "base", CreateRequest(source="mini"))
    manifest = library.manifest("base")
    layers = []
    for config in ("{}", "{} "):
        for name, content in (("adapter_config.json", config), ("adapter_model.safetensors", "x")):
            blob = library.blobs.add(content.encode())
            layers.append(Layer(ADAPTER, blob.digest, blob.size, name))
    library.publish("two", Manifest(manifest.config, (*manifest.layers, *layers)))
    with pytest.raises(InputError, match="two has 2 adapters"):
        lapilli.load("two")
