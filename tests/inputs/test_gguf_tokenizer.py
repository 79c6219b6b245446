from __future__ import annotations

import heapq
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers

from lapilli.checkpoints.gguf import read_gguf, write_gguf
from lapilli.errors import TokenizerError
from lapilli.inputs.pretokenizers import RULES
from lapilli.inputs.tokenizer import TextStream, Tokenizer

VOCABULARIES = ["gpt-2", "falcon", "llama-spm", "phi-3"]
SEPARATOR = "\n__ggml_vocab_test__\n"
Metadata = dict[str, Any]


@pytest.fixture(scope="session")
def real(shared_data: Path) -> dict[str, Tokenizer]:
    """The four published vocabularies."""
    files = {name: shared_data / "tokenizers" / f"ggml-vocab-{name}.gguf" for name in VOCABULARIES}
    return {name: Tokenizer.from_gguf(read_gguf(path).metadata) for name, path in files.items()}


def expected_ids(shared_data: Path, name: str) -> list[tuple[str, list[int]]]:
    path = shared_data / "tokenizers" / f"ggml-vocab-{name}.gguf"
    texts = path.with_name(path.name + ".inp").read_bytes().decode().split(SEPARATOR)
    assert texts.pop() == ""
    lines = path.with_name(path.name + ".out").read_text().splitlines()
    return [(text, [int(number) for number in line.split()]) for text, line in zip(texts, lines, strict=True)]


@pytest.mark.parametrize("name", VOCABULARIES)
def test_published_ids(shared_data: Path, real: Mapping[str, Tokenizer], name: str) -> None:
    cases = expected_ids(shared_data, name)
    assert len(cases) > 40
    for text, ids in cases:
        assert real[name].encode(text) == ids, text
        assert real[name].decode(ids) == text


@pytest.mark.parametrize("name", VOCABULARIES)
def test_real_vocabularies_go_there_and_back(shared_data: Path, real: Mapping[str, Tokenizer], name: str) -> None:
    metadata = real[name].to_gguf()
    original = read_gguf(shared_data / "tokenizers" / f"ggml-vocab-{name}.gguf").metadata
    assert metadata["tokenizer.ggml.tokens"] == original["tokenizer.ggml.tokens"]
    again = Tokenizer.from_gguf(metadata)
    for text, _ in expected_ids(shared_data, name):
        for special in (True, False):
            assert again.encode(text + "</s>", special=special) == real[name].encode(text + "</s>", special=special)


def test_real_roles(real: Mapping[str, Tokenizer]) -> None:
    roles = {name: (found.bos_id, found.eos_ids, found.adds_bos, found.vocab_size) for name, found in real.items()}
    assert roles == {
        "gpt-2": (50256, {50256}, False, 50257),
        "falcon": (11, {11}, False, 65024),
        "llama-spm": (1, {2}, True, 32000),
        "phi-3": (1, {32000, 32007}, True, 32064),
    }


def test_phi3_markers_swallow_the_blanks_after_them(real: Mapping[str, Tokenizer]) -> None:
    phi3 = real["phi-3"]
    assert phi3.encode("<|user|>\nHi<|end|>\n", special=True) == [32010, *phi3.encode("Hi"), 32007]


def test_a_real_stream_joins_bytes_and_drops_the_first_blank(real: Mapping[str, Tokenizer]) -> None:
    llama = real["llama-spm"]
    text = "Hello 🦙 and 𒐫 there"
    stream = TextStream(llama)
    parts = [stream.push(index) for index in llama.encode(text)] + [stream.flush()]
    assert "".join(parts) == text
    assert not any("\ufffd" in part for part in parts)
    assert "" in parts


def test_text_that_looks_like_a_real_marker_stays_text(real: Mapping[str, Tokenizer]) -> None:
    assert 2 not in real["llama-spm"].encode("</s>")
    assert real["phi-3"].encode("<|end|>", special=True) == [32007]
    assert real["phi-3"].decode(real["phi-3"].encode("<|end|></s>")) == "<|end|></s>"
    assert 50256 not in real["gpt-2"].encode("<|endoftext|>")


# Pieces with scores


def merged_by_score(text: str, scores: Mapping[str, float]) -> list[str]:
    """Sentencepiece's own way: the best-scored pair first, of equals the leftmost."""
    parts = list(text)
    before, after = list(range(-1, len(parts) - 1)), [*range(1, len(parts)), -1]
    queue: list[tuple[float, int, int, int]] = []

    def offer(left: int, right: int) -> None:
        if left >= 0 and right >= 0 and parts[left] + parts[right] in scores:
            pair = parts[left] + parts[right]
            heapq.heappush(queue, (-scores[pair], left, right, len(pair)))

    for right in range(1, len(parts)):
        offer(right - 1, right)
    while queue:
        _, left, right, length = heapq.heappop(queue)
        if not parts[left] or not parts[right] or len(parts[left]) + len(parts[right]) != length:
            continue
        parts[left] += parts[right]
        parts[right] = ""
        after[left] = after[right]
        if after[right] >= 0:
            before[after[right]] = left
        offer(before[left], left)
        offer(left, after[left])
    return [part for part in parts if part]


def in_bytes(parts: list[str], ids: Mapping[str, int]) -> list[int]:
    return [
        index
        for part in parts
        for index in ([ids[part]] if part in ids else [ids[f"<0x{byte:02X}>"] for byte in part.encode()])
    ]


@given(text=st.text(alphabet=" \n\tabceginorst.,-=01é漢", max_size=60))
@settings(max_examples=120, deadline=None)
def test_merging_by_rank_is_merging_by_score(
    real: Mapping[str, Tokenizer], llama_scores: Mapping[str, float], text: str
) -> None:
    llama = real["llama-spm"]
    parts = merged_by_score("▁" + text.replace(" ", "▁") if text else "", llama_scores)
    names = [
        name for part in parts for name in ([part] if part in llama_scores else map("<0x{:02X}>".format, part.encode()))
    ]
    assert llama.encode(text) == [llama.token_id(name) for name in names]


@pytest.fixture(scope="session")
def llama_scores(shared_data: Path) -> dict[str, float]:
    metadata: Metadata = dict(read_gguf(shared_data / "tokenizers" / "ggml-vocab-llama-spm.gguf").metadata)
    columns = (metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores", "token_type"))
    return {token: score for token, score, kind in zip(*columns, strict=True) if kind == 1}


def test_runs_of_blanks_merge_as_by_score(real: Mapping[str, Tokenizer], llama_scores: Mapping[str, float]) -> None:
    llama = real["llama-spm"]
    for count in range(100):
        for text in (" " * count + "x", "x" + " " * count + "\n"):
            parts = merged_by_score("▁" + text.replace(" ", "▁"), llama_scores)
            assert llama.encode(text) == [llama.token_id("<0x0A>" if part == "\n" else part) for part in parts]


def scored(*pieces: tuple[str, float, int], **more: Any) -> Metadata:
    """A small vocabulary of the `llama` kind: unknown, begin, end, all bytes, then `pieces`."""
    head = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    rows = [*head, *((f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)), *pieces]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [text for text, _, _ in rows],
        "tokenizer.ggml.scores": np.array([score for _, score, _ in rows], dtype=np.float32),
        "tokenizer.ggml.token_type": np.array([kind for _, _, kind in rows], dtype=np.int32),
        **more,
    }


LETTERS = [(letter, -100.0 - index, 1) for index, letter in enumerate("▁abc<s>")]


@given(data=st.data(), text=st.text(alphabet=" abc", max_size=40))
@settings(max_examples=120, deadline=None)
def test_any_scores_merge_alike(data: st.DataObject, text: str) -> None:
    words = data.draw(st.lists(st.text(alphabet="▁abc", min_size=2, max_size=5), unique=True, max_size=12))
    ranks = data.draw(st.permutations(range(len(words))))
    pieces = [(word, -float(rank), 1) for word, rank in zip(words, ranks, strict=True)]
    metadata = scored(*LETTERS, *pieces)
    tokenizer = Tokenizer.from_gguf(metadata)
    ids = {token: index for index, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    escaped = "▁" + text.replace(" ", "▁") if text else ""
    parts = merged_by_score(escaped, {word: score for word, score, _ in [*LETTERS, *pieces]})
    assert tokenizer.encode(text) == in_bytes(parts, ids)
    assert Tokenizer.from_gguf(tokenizer.to_gguf()).encode(text) == tokenizer.encode(text)


def test_equal_scores_are_refused() -> None:
    with pytest.raises(TokenizerError, match="'ab' and 'bc' share the score -1"):
        Tokenizer.from_gguf(scored(*LETTERS, ("ab", -1.0, 1), ("bc", -1.0, 1)))


def test_a_vocabulary_without_scores_is_refused() -> None:
    metadata = scored(*LETTERS, ("ab", -1.0, 1), ("bc", -2.0, 1))
    del metadata["tokenizer.ggml.scores"]
    with pytest.raises(TokenizerError, match="share the score 0"):
        Tokenizer.from_gguf(metadata)


def test_merges_do_not_reach_control_tokens() -> None:
    metadata = scored(*LETTERS, ("<s", -1.0, 1))
    tokenizer = Tokenizer.from_gguf(metadata)
    assert tokenizer.encode("<s>")[-2:] == [tokenizer.token_id("<s"), tokenizer.token_id(">")]


@pytest.mark.parametrize(("prefix", "first"), [(True, "▁a"), (False, "a")])
def test_the_blank_before_the_text_is_told_by_the_file(prefix: bool, first: str) -> None:
    pieces = [*LETTERS, ("▁a", -1.0, 1)]
    tokenizer = Tokenizer.from_gguf(scored(*pieces, **{"tokenizer.ggml.add_space_prefix": prefix}))
    assert tokenizer.encode("a a") == [tokenizer.token_id(first), tokenizer.token_id("▁a")]
    assert tokenizer.decode(tokenizer.encode("a a")) == "a a"
    assert tokenizer.to_gguf()["tokenizer.ggml.add_space_prefix"] is prefix


def test_user_defined_words_are_found_in_plain_text() -> None:
    tokenizer = Tokenizer.from_gguf(scored(*LETTERS, ("abc", 0.0, 4), ("<abc>", 0.0, 4)))
    assert tokenizer.encode("abcabc") == [tokenizer.token_id("abc")] * 2
    assert tokenizer.token_id("<abc>") not in tokenizer.encode("<abc>")
    assert tokenizer.encode("<abc>", special=True) == [tokenizer.token_id("<abc>")]
    assert tokenizer.special_tokens == {"<unk>": 0, "<s>": 1, "</s>": 2}


def test_merges_that_scores_cannot_say_stay_at_home(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_gguf(scored(*LETTERS, ("ab", -1.0, 1), ("abc", -2.0, 1), ("bc", -3.0, 1)))
    tokenizer.save(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    document["model"]["merges"].remove(["a", "bc"])
    with pytest.raises(TokenizerError, match="cannot be said in scores"):
        Tokenizer.from_json(json.dumps(document)).to_gguf()


# Byte-level pairs

ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CASED = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SLASHED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# As the models' own tokenizer.json write them.
PUBLISHED: dict[str, list[Any]] = {
    "gpt-2": [],
    "smollm": [pre_tokenizers.Digits(individual_digits=True)],
    "llama-bpe": [ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + REST],
    "dbrx": [ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + REST],
    "qwen2": [normalizers.NFC(), ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + REST],
    "tekken": [CASED + "|" + UPPER + r"|\p{N}|" + SLASHED],
    "gpt-4o": [CASED + ENDINGS + "?|" + UPPER + ENDINGS + r"?|\p{N}{1,3}|" + SLASHED],
    "deepseek-v3": [
        r"\p{N}{1,3}",
        "[一-龥\u3040-ゟ゠-ヿ]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
        "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    ],
    "bloom": [r" ?[^(\s|.,!?…。，、।۔،)]+"],
}


def published(name: str) -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer(models.BPE(ignore_merges=name in ("llama-bpe", "tekken")))
    steps: list[Any] = []
    for step in PUBLISHED[name]:
        if isinstance(step, str):
            steps.append(pre_tokenizers.Split(Regex(step), behavior="isolated"))
        elif isinstance(step, normalizers.NFC):
            library.normalizer = step
        else:
            steps.append(step)
    by_regex = all(isinstance(step, pre_tokenizers.Digits) for step in steps)
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=by_regex))
    library.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return library


def trained(library: tokenizers.Tokenizer, texts: list[str]) -> tokenizers.Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>", "<image>"],
        show_progress=False,
    )
    library.train_from_iterator(texts * 2, trainer)
    return library


def byte_level(library: tokenizers.Tokenizer, pre: str, **more: Any) -> Metadata:
    """GGUF metadata written by hand from a trained library tokenizer."""
    vocab = library.get_vocab()
    tokens = sorted(vocab, key=vocab.__getitem__)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if index < 3 else 1 for index in range(len(tokens))],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in json.loads(library.to_str())["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        **more,
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_pre_tokenizers_give_the_librarys_ids(many_texts: list[str], name: str) -> None:
    library = trained(published(name), many_texts)
    tokenizer = Tokenizer.from_gguf(byte_level(library, name))
    for text in [*many_texts, *("".join(pair) for pair in zip(many_texts, many_texts[3:], strict=False))]:
        assert tokenizer.encode(text) == library.encode(text).ids, text


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_pre_tokenizers_leave_by_their_name(many_texts: list[str], name: str) -> None:
    library = trained(published(name), many_texts)
    library.decoder = tokenizers.decoders.ByteLevel()
    metadata = Tokenizer.from_json(library.to_str()).to_gguf()
    assert metadata["tokenizer.ggml.pre"] == name
    again = Tokenizer.from_gguf(metadata)
    for text in many_texts:
        assert again.encode(text) == library.encode(text).ids


@pytest.mark.parametrize("name", RULES)
def test_every_rule_goes_there_and_back(many_texts: list[str], good: Metadata, tmp_path: Path, name: str) -> None:
    tokenizer = Tokenizer.from_gguf({**good, "tokenizer.ggml.pre": name})
    write_gguf(tmp_path / "vocabulary.gguf", tokenizer.to_gguf(), [])
    with read_gguf(tmp_path / "vocabulary.gguf") as file:
        again = Tokenizer.from_gguf(file.metadata)
    tokenizer.save(tmp_path)
    saved = Tokenizer.from_folder(tmp_path)
    assert again.eos_ids == saved.eos_ids == {1}
    assert (
        again.adds_bos
        == saved.adds_bos
        == (name in ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "tekken"))
    )
    for text in many_texts:
        assert again.encode(text) == saved.encode(text) == tokenizer.encode(text)


def test_whole_words_skip_the_merges_where_llama_3_says_so(good: Metadata) -> None:
    tokens, types = [*good["tokenizer.ggml.tokens"], "qxz"], [*good["tokenizer.ggml.token_type"], 1]
    metadata = {**good, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    whole = [len(tokens) - 1]
    assert Tokenizer.from_gguf({**metadata, "tokenizer.ggml.pre": "llama-bpe"}).encode("qxz") == whole
    assert Tokenizer.from_gguf({**metadata, "tokenizer.ggml.pre": "dbrx"}).encode("qxz") != whole


def test_rows_past_the_vocabulary_are_filled(good: Metadata) -> None:
    tokenizer = Tokenizer.from_gguf(good)
    size = tokenizer.vocab_size
    metadata: Metadata = tokenizer.to_gguf(rows=size + 3)
    assert metadata["tokenizer.ggml.tokens"][size:] == [f"[PAD{index}]" for index in range(size, size + 3)]
    assert metadata["tokenizer.ggml.token_type"][size:].tolist() == [5, 5, 5]
    with pytest.raises(TokenizerError, match=f"has 5 rows, the tokenizer needs {size}"):
        tokenizer.to_gguf(rows=5)


def test_a_cut_without_a_name_in_gguf_stays_at_home(many_texts: list[str]) -> None:
    library = trained(published("gpt-2"), many_texts)
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    library.decoder = tokenizers.decoders.ByteLevel()
    with pytest.raises(TokenizerError, match="no name in GGUF"):
        Tokenizer.from_json(library.to_str()).to_gguf()


# Metadata of strangers


@pytest.fixture(scope="session")
def good(many_texts: list[str]) -> Metadata:
    return byte_level(trained(published("gpt-2"), many_texts), "gpt-2")


MISSING = object()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model", MISSING, "is 'None'"),
        ("model", "bert", "is 'bert'; we read 'llama' and 'gpt2'"),
        ("pre", MISSING, "tokenizer.ggml.pre is missing"),
        ("pre", "kimi-k2", "'kimi-k2' is not one we know: .*llama-bpe"),
        ("pre", "x" * 10_000, "not one we know"),
        ("tokens", MISSING, "tokens is missing"),
        ("tokens", [], "tokens is empty"),
        ("tokens", "text", "a str, not a list"),
        ("tokens", [b"a", "b"], "tokens.0. is a bytes"),
        ("tokens", ["a", 7], "tokens.1. is a int"),
        ("tokens", ["\ud800", "b"], "not valid UTF-8"),
        ("tokens", ["x" * 5000], "5000 characters"),
        ("token_type", [1], "1 entries for"),
        ("token_type", "1" * 100, "a str, not a list"),
        ("merges", MISSING, "merges is missing"),
        ("merges", ["a"], "merge"),
        ("merges", ["a qqqq"], "not of tokens in the vocabulary"),
        ("merges", [""], "merge"),
        ("merges", [["a", "b"]], "a list, not a text"),
        ("bos_token_id", 10**9, "but there are"),
        ("bos_token_id", -1, "but there are"),
        ("bos_token_id", "0", "not a token's number"),
        ("bos_token_id", True, "not a token's number"),
        ("eos_token_id", 1.5, "not a token's number"),
        ("eot_token_id", 10**9, "but there are"),
        ("add_bos_token", 1, "not true or false"),
        ("scores", [float("nan")], "entries for"),
    ],
)
def test_metadata_we_cannot_trust_are_refused(good: Metadata, key: str, value: Any, said: str) -> None:
    metadata = {**good, f"tokenizer.ggml.{key}": value}
    if value is MISSING:
        del metadata[f"tokenizer.ggml.{key}"]
    with pytest.raises(TokenizerError, match=said):
        Tokenizer.from_gguf(metadata)


def test_a_beginning_that_is_not_named_is_refused(good: Metadata) -> None:
    metadata = {**good, "tokenizer.ggml.add_bos_token": True}
    del metadata["tokenizer.ggml.bos_token_id"]
    with pytest.raises(TokenizerError, match="bos_token_id is missing"):
        Tokenizer.from_gguf(metadata)


def test_a_token_listed_twice_is_refused(good: Metadata) -> None:
    tokens = [*good["tokenizer.ggml.tokens"]]
    tokens[300] = tokens[7]
    with pytest.raises(TokenizerError, match="is listed twice, as 7 and 300"):
        Tokenizer.from_gguf({**good, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": []})


def test_a_token_without_text_gets_a_name(good: Metadata) -> None:
    tokens, types = [*good["tokenizer.ggml.tokens"], ""], [*good["tokenizer.ggml.token_type"], 5]
    metadata = {**good, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    assert Tokenizer.from_gguf(metadata).token_id(f"[EMPTY_{len(tokens) - 1}]") == len(tokens) - 1


def test_scores_that_are_no_numbers_are_refused() -> None:
    metadata = scored(*LETTERS)
    metadata["tokenizer.ggml.scores"][5] = np.nan
    with pytest.raises(TokenizerError, match="not a number"):
        Tokenizer.from_gguf(metadata)


def test_long_pieces_with_scores_are_refused() -> None:
    with pytest.raises(TokenizerError, match="the longest piece has 300 characters"):
        Tokenizer.from_gguf(scored(*LETTERS, ("a" * 300, -1.0, 1)))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2000),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.text(max_size=3) | st.integers(0, 7) | st.floats(), max_size=5),
    st.sampled_from([np.zeros((2, 2)), np.int64(3), np.array(["a", "b"]), np.array([1, 2], dtype=np.int32)]),
)


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_mutilated_metadata_are_refused_or_work(good: Metadata, data: st.DataObject) -> None:
    keys = [
        *good,
        "tokenizer.ggml.scores",
        "tokenizer.ggml.add_space_prefix",
        "general.name",
        "tokenizer.ggml.eom_token_id",
    ]
    changes = data.draw(st.dictionaries(st.sampled_from(keys), VALUES, min_size=1, max_size=3))
    try:
        tokenizer = Tokenizer.from_gguf({**good, **changes})
    except TokenizerError:
        return
    assert tokenizer.decode(tokenizer.encode("the dog 😀")) == "the dog 😀"
