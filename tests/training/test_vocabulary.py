import json
import random

import pytest
import tokenizers

from lapilli.errors import TrainingError
from lapilli.inputs.tokenizer import Tokenizer
from lapilli.training.vocabulary import BOS_ID, EOS_ID, IMAGE_ID, PAD_ID, SPECIAL_TOKENS, build_vocabulary

TEXTS = ["The cat sat on the mat.", " A planet is not a plane; the cat said so.", "two planets and 12 cats"]


@pytest.fixture(scope="module")
def document() -> bytes:
    return build_vocabulary(TEXTS, 290, whole=["planet", "cat", "cats", 'says "'])


@pytest.fixture(scope="module")
def library(document: bytes) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(document.decode())


@pytest.fixture(scope="module")
def random_texts() -> list[str]:
    """2,000 texts: words of the vocabulary, blanks, quotes, marks, letters of many scripts, in any order."""
    chance = random.Random(5)
    words = ["planet", "cat", "cats", "The", "the", "pla", "a", "p", "USER:", "<s>", "</s>", "<image>", "12", "7"]
    others = [" ", " ", "  ", "\n", "\t", "\u00a0", '"', "'s", "'", ".", "?", "-", "_", "<", ">", "é", "我", "ж", "😀"]
    pieces = words + others
    return ["".join(chance.choices(pieces, k=chance.randint(1, 14))) for _ in range(2000)]


def test_a_word_after_a_blank_is_one_token_and_a_word_in_quotes_is_letters(library: tokenizers.Tokenizer) -> None:
    tokens = library.encode('It says "planet" planet cats', add_special_tokens=False).tokens

    assert tokens[tokens.index('Ġ"') :] == ['Ġ"', *"planet", '"', "Ġplanet", "Ġcats"]


def test_every_merge_lets_a_word_grow_from_its_blank(document: bytes) -> None:
    merges = json.loads(document)["model"]["merges"]

    assert merges
    assert all(left.startswith("Ġ") and len(right) == 1 and right != "Ġ" for left, right in merges)


def test_special_tokens_keep_their_ids_whatever_the_texts(document: bytes) -> None:
    other = tokenizers.Tokenizer.from_str(build_vocabulary(["something else"], 300).decode())

    for name, number in zip(SPECIAL_TOKENS, (PAD_ID, BOS_ID, EOS_ID, IMAGE_ID), strict=True):
        assert other.token_to_id(name) == number == Tokenizer.from_json(document).token_id(name)
    assert other.encode("x").ids[0] == BOS_ID


def test_the_size_is_kept_and_too_small_a_size_is_refused_with_both_numbers(library: tokenizers.Tokenizer) -> None:
    assert library.get_vocab_size() == 290
    with pytest.raises(TrainingError, match=r"262 tokens has room for 2 .* need 6"):
        build_vocabulary([], 262, whole=["planet"])


def test_the_most_useful_beginnings_win() -> None:
    built = tokenizers.Tokenizer.from_str(build_vocabulary(["x dog dog dog axe"], 263).decode())

    assert built.encode(" dog axe", add_special_tokens=False).tokens == ["Ġdog", "Ġ", "a", "x", "e"]


def test_any_text_comes_back_whole(library: tokenizers.Tokenizer, random_texts: list[str]) -> None:
    for text in random_texts:
        ids = library.encode(text, add_special_tokens=False).ids
        assert library.decode(ids, skip_special_tokens=False) == text


def test_three_readers_give_equal_ids(
    document: bytes, library: tokenizers.Tokenizer, random_texts: list[str], tmp_path
) -> None:
    from transformers import PreTrainedTokenizerFast

    (tmp_path / "tokenizer.json").write_bytes(document)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.from_json(document)

    for text in random_texts:
        ids = library.encode(text).ids
        assert theirs(text)["input_ids"] == ids
        assert [BOS_ID, *ours.encode(text, special=True)] == ids


@pytest.mark.reference
def test_llama_cpp_gives_equal_ids(document: bytes, random_texts: list[str], tmp_path) -> None:
    import gguf
    import llama_cpp
    import numpy as np

    config = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    ours = Tokenizer.from_json(document, config=config)
    path = tmp_path / "vocabulary.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in ours.to_gguf().items():
        if isinstance(value, list | np.ndarray):
            writer.add_array(name, list(map(int, value)) if isinstance(value, np.ndarray) else value)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        else:
            writer.add_string(name, str(value))
    writer.add_tensor("token_embd.weight", np.zeros((ours.vocab_size, 32), np.float32))
    for add, value in (
        (writer.add_context_length, 64), (writer.add_embedding_length, 32), (writer.add_block_count, 1),
        (writer.add_feed_forward_length, 32), (writer.add_head_count, 1), (writer.add_layer_norm_rms_eps, 1e-5),
    ):  # fmt: skip
        add(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    theirs = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)

    for text in random_texts:
        assert theirs.tokenize(text.encode(), add_bos=True, special=True) == [BOS_ID, *ours.encode(text, special=True)]
    theirs.close()
