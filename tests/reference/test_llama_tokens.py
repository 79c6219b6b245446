"""Token ids equal to llama.cpp's, on vocabularies trained here and written as GGUF."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from lapilli.checkpoints.gguf import write_gguf
from lapilli.inputs.pretokenizers import RULES
from lapilli.inputs.tokenizer import Tokenizer

pytestmark = pytest.mark.reference

ARCHITECTURE: dict[str, object] = {
    "general.architecture": "llama",
    "general.name": "vocabulary",
    "llama.context_length": 512,
    "llama.embedding_length": 64,
    "llama.block_count": 1,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.dimension_count": 32,
}
CHARACTERS = list("aA bB'sStT0123 9\n\r\t .,!?-/éÜßñ漢字かカ한яЯ²½٣😀\u0301\u200d$+<=>^~|`_()[]ǅʰ")
# llama.cpp tells capitals by A-Z in these and knows no marks, where the models' own tokenizer.json asks Unicode.
ASCII_CAPITALS = {"tekken", "gpt-4o", "llama4"}


def texts_for(name: str, many_texts: list[str]) -> list[str]:
    chance = random.Random(1)
    texts = many_texts + ["".join(chance.choices(CHARACTERS, k=chance.randint(1, 30))) for _ in range(800)]
    if RULES[name].normalizer is not None:
        # llama.cpp does not normalise
        texts = [unicodedata.normalize("NFC", text) for text in texts]
    if name in ASCII_CAPITALS:
        told_apart = ("Lu", "Ll", "Lt", "Mn", "Mc", "Me")
        texts = [t for t in texts if all(c.isascii() or unicodedata.category(c) not in told_apart for c in t)]
        assert len(texts) > 50
    return texts


def llama_cpp(path: Path, metadata: dict[str, object], size: int) -> Any:
    llama = pytest.importorskip("llama_cpp")
    write_gguf(path, {**ARCHITECTURE, **metadata, "llama.vocab_size": size}, [])
    return llama.Llama(str(path), vocab_only=True, verbose=False)


@pytest.mark.parametrize("name", RULES)
def test_byte_level_ids(tmp_path: Path, many_texts: list[str], name: str) -> None:
    rule = RULES[name]
    model = {"type": "BPE", "vocab": {}, "merges": [], "ignore_merges": rule.ignore_merges}
    frame = {"normalizer": rule.normalizer, "pre_tokenizer": rule.pre_tokenizer, "model": model}
    library = tokenizers.Tokenizer.from_str(json.dumps(frame))
    library.decoder = tokenizers.decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>", "<image>"],
        show_progress=False,
    )
    library.train_from_iterator(many_texts * 2, trainer)
    ours = Tokenizer.from_json(library.to_str(), config={"bos_token": "<s>", "eos_token": "</s>"})
    theirs = llama_cpp(tmp_path / "v.gguf", {**ours.to_gguf(), "tokenizer.ggml.pre": name}, ours.vocab_size)
    for text in texts_for(name, many_texts):
        assert ours.encode(text) == theirs.tokenize(text.encode(), add_bos=False, special=False), text
    marked = "<s>USER: <image>\nWhat is this?</s>"
    assert ours.encode(marked, special=True) == theirs.tokenize(marked.encode(), add_bos=False, special=True)
    assert (theirs.token_bos(), theirs.token_eos()) == (ours.bos_id, ours.eos_id)


@pytest.mark.parametrize("prefix", [True, False])
def test_scored_ids(tmp_path: Path, many_texts: list[str], prefix: bool) -> None:
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
    library.train_from_iterator(many_texts * 2, trainers.BpeTrainer(vocab_size=1200, show_progress=False))
    merges = json.loads(library.to_str())["model"]["merges"]
    ranks = {left + right: -float(rank) for rank, (left, right) in reversed(list(enumerate(merges)))}
    head = [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("<image>", 3), *((f"<0x{byte:02X}>", 6) for byte in range(256))]
    pieces = [*head, *((token, 1) for token in sorted(library.get_vocab()))]
    metadata: dict[str, object] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [text for text, _ in pieces],
        "tokenizer.ggml.scores": [ranks.get(text, -1e6 - index) for index, (text, _) in enumerate(pieces)],
        "tokenizer.ggml.token_type": [kind for _, kind in pieces],
        "tokenizer.ggml.add_space_prefix": prefix,
    }
    ours = Tokenizer.from_gguf(metadata)
    theirs = llama_cpp(tmp_path / "theirs.gguf", metadata, ours.vocab_size)
    exported = llama_cpp(tmp_path / "ours.gguf", ours.to_gguf(), ours.vocab_size)
    for text in texts_for("gpt-2", many_texts):
        ids = ours.encode(text)
        assert ids == theirs.tokenize(text.encode(), add_bos=False, special=False), text
        assert ids == exported.tokenize(text.encode(), add_bos=False, special=False), text
    marked = "USER: <image>\nWhat is this?</s>"
    assert ours.encode(marked, special=True) == theirs.tokenize(marked.encode(), add_bos=False, special=True)
    assert theirs.tokenize(b"x")[0] == ours.bos_id == 1
    assert ours.adds_bos


@pytest.mark.parametrize("name", ["gpt-2", "falcon", "llama-spm", "phi-3"])
def test_real_vocabularies(shared_data: Path, many_texts: list[str], name: str) -> None:
    from lapilli.checkpoints.gguf import read_gguf

    llama = pytest.importorskip("llama_cpp")
    path = shared_data / "tokenizers" / f"ggml-vocab-{name}.gguf"
    ours = Tokenizer.from_gguf(read_gguf(path).metadata)
    theirs = llama.Llama(str(path), vocab_only=True, verbose=False)
    for text in texts_for("gpt-2", many_texts):
        ids = ours.encode(text)
        assert ids == theirs.tokenize(text.encode(), add_bos=False, special=False), text
        assert theirs.detokenize(ids).decode("utf-8", "replace").removeprefix(" " * ours.strips_blank) == ours.decode(
            ids
        )
