"""Text encoders: the vectors of transformers from the same files, whatever layout; and no others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_encoder import save_encoder, transformers_vectors

from lapilli.apps.encoders import EncoderEmbedder
from lapilli.checkpoints.encoder import is_encoder, open_encoder, usual_prefixes
from lapilli.errors import CheckpointError, TokenizerError

MEAN = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "word_embedding_dimension": 32}
CLS = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "word_embedding_dimension": 32}
TEXTS = [
    "The red circle.",
    "searching pictures of the star, and passages: (a-b) 42?",
    "Naïve É 北京 e\u0301 \u00a0 tab\there",
    "unknown ☃ words é",
    "word " * 100,
    "x",
    "",
]


def vectors(folder: Path, texts: list[str] = TEXTS) -> np.ndarray:
    return EncoderEmbedder(open_encoder(folder), "tiny", "0").embed(texts)


def close(ours: np.ndarray, theirs: torch.Tensor) -> bool:
    return float(np.abs(ours - theirs.numpy()).max()) <= 1e-5


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("head", [False, True], ids=["bare", "with a head"])
def test_vectors_are_those_of_transformers(family: str, head: bool, tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, family, head=head)
    assert close(vectors(folder), transformers_vectors(folder, TEXTS, first=False, most=72))


@pytest.mark.parametrize(("pooling", "first"), [(MEAN, False), (CLS, True), ({"pooling_mode": "cls"}, True)])
def test_a_folder_of_sentence_transformers_pools_as_it_says(pooling: dict, first: bool, tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, pooling=pooling)
    assert close(vectors(folder), transformers_vectors(folder, TEXTS, first=first))
    assert not close(vectors(folder), transformers_vectors(folder, TEXTS, first=not first))


def test_vocab_txt_is_as_good_as_tokenizer_json(tmp_path: Path) -> None:
    fast, plain = save_encoder(tmp_path / "a"), save_encoder(tmp_path / "b", fast=False)
    assert np.array_equal(vectors(fast), vectors(plain))


def test_tokens_are_those_of_transformers(tmp_path: Path, many_texts: list[str]) -> None:
    import transformers

    folder = save_encoder(tmp_path)
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    ours = open_encoder(folder).tokenizer
    for text in many_texts + TEXTS:
        assert ours.encode(text, most=50) == theirs(text, truncation=True, max_length=50)["input_ids"]


def test_what_looks_like_a_marker_stays_text(tmp_path: Path) -> None:
    tokenizer = open_encoder(save_encoder(tmp_path)).tokenizer
    assert tokenizer.encode("a [SEP] b", most=50).count(tokenizer.end_id) == 1


def test_the_words_of_tensorflow_are_read_too(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path)
    before = vectors(folder)
    file = folder / "model.safetensors"
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in load_file(file).items()
    }
    save_file({**renamed, "embeddings.position_ids": torch.arange(72)[None]}, file)
    assert np.array_equal(vectors(folder), before)


def test_a_text_has_the_same_bits_alone_and_in_company(tmp_path: Path) -> None:
    embedder = EncoderEmbedder(open_encoder(save_encoder(tmp_path)), "tiny", "0")
    texts = [f"star {'and ' * (number % 40)} {number}" for number in range(60)]
    together = embedder.embed(texts)
    assert np.array_equal(together, embedder.embed(texts[::-1])[::-1])
    for place in range(0, 60, 7):
        assert np.array_equal(embedder.embed([texts[place]])[0], together[place])


def test_families_known_by_name_do_as_they_were_trained(tmp_path: Path) -> None:
    checkpoint = open_encoder(save_encoder(tmp_path / "bge-small-en-v1.5"))
    assert (checkpoint.pooling, checkpoint.text_prefix) == ("cls", "")
    assert checkpoint.query_prefix == "Represent this sentence for searching relevant passages: "
    assert open_encoder(save_encoder(tmp_path / "other")).query_prefix == ""
    assert usual_prefixes("intfloat/e5-small-v2") == ("query: ", "passage: ")
    assert usual_prefixes("bge-m3") == ("", "")


def test_what_comes_before_a_question_is_read_before_it(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, pooling=MEAN, prompts={"query": "query: ", "document": "passage: "})
    embedder = EncoderEmbedder(open_encoder(folder), "tiny", "0")
    asked = transformers_vectors(folder, ["query: star"], first=False)
    told = transformers_vectors(folder, ["passage: star"], first=False)
    assert close(embedder.embed(["star"], query=True), asked)
    assert close(embedder.embed(["star"]), told)


def change(folder: Path, name: str, **values: object) -> Path:
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return folder


def test_other_kinds_are_refused_by_name(tmp_path: Path) -> None:
    for number, (key, value) in enumerate(
        {"model_type": "mpnet", "position_embedding_type": "relative_key", "hidden_act": "sigmoid"}.items()
    ):
        folder = change(save_encoder(tmp_path / str(number)), "config.json", **{key: value})
        with pytest.raises(CheckpointError, match=str(value)):
            open_encoder(folder)


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("modules.json", '[{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]', "Dense"),
        ("modules.json", '[{"type": "x.Pooling", "path": "../../etc"}]', "no folder of a module"),
        ("modules.json", "{}", "a list is needed"),
        ("1_Pooling/config.json", '{"pooling_mode_max_tokens": true}', "max_tokens"),
        ("1_Pooling/config.json", '{"pooling_mode_max_tokens": true, "pooling_mode_cls_token": true}', "max_tokens"),
        ("sentence_bert_config.json", '{"max_seq_length": 2}', "2 tokens"),
        ("config.json", "", "JSON"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(file: str, text: str, words: str, tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, pooling=MEAN)
    (folder / file).write_text(text)
    with pytest.raises(CheckpointError, match=words) as told:
        open_encoder(folder)
    assert "\n" not in str(told.value)


def test_missing_extra_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    file = save_encoder(tmp_path) / "model.safetensors"
    whole = load_file(file)
    name = "encoder.layer.1.output.dense.bias"
    for changed, words in (
        ({key: value for key, value in whole.items() if key != name}, "missing"),
        ({**whole, "encoder.layer.9.strange": torch.zeros(2)}, "not known here"),
        ({**whole, name: torch.zeros(3)}, "must have"),
    ):
        save_file(changed, file)
        with pytest.raises(CheckpointError, match=words):
            open_encoder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"type": "BPE", "vocab": {}, "merges": []}}, "BPE"),
        ({"normalizer": {"type": "NFC"}}, "normalizer"),
        ({"pre_tokenizer": {"type": "Split"}}, "cuts words"),
        ({"model": {"type": "WordPiece", "vocab": {"[CLS]": 0, "[SEP]": 1, "[PAD]": 2}}}, "UNK"),
        ({"model": {"type": "WordPiece", "vocab": {"[CLS]": 0, "[SEP]": 0}}}, "same number"),
        ({"model": {"type": "WordPiece", "vocab": {"[CLS]": -1}}}, "number '-1'"),
        ({"model": {"type": "WordPiece", "vocab": {}}}, "0 tokens"),
    ],
)
def test_a_tokenizer_that_is_none_is_refused(changes: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=words):
        open_encoder(change(save_encoder(tmp_path), "tokenizer.json", **changes))


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the tokenizer has"):
        open_encoder(save_encoder(tmp_path, vocab_size=50))


def test_a_decoder_is_no_encoder(tmp_path: Path) -> None:
    assert is_encoder(save_encoder(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b/config.json").write_text('{"model_type": "llama"}')
    assert not is_encoder(tmp_path / "b")
    assert not is_encoder(tmp_path / "nowhere")
