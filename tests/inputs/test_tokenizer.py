from __future__ import annotations

import json
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from lapilli.errors import InputError, TokenizerError
from lapilli.inputs.pretokenizers import RULES
from lapilli.inputs.tokenizer import TextStream, Tokenizer

Library = tokenizers.Tokenizer
MARKERS = ["<unk>", "<s>", "</s>", "<image>", "<|im_end|>"]
CONFIG = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}


def train(library: Library, texts: list[str], alphabet: list[str]) -> Library:
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, special_tokens=MARKERS, show_progress=False
    )
    library.train_from_iterator(texts, trainer)
    return library


@pytest.fixture(scope="session")
def byte_level(many_texts: list[str]) -> Library:
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    train(library, many_texts, pre_tokenizers.ByteLevel.alphabet())
    library.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return library


@pytest.fixture(scope="session")
def with_blanks(many_texts: list[str]) -> Library:
    """A Llama-2-like vocabulary: blanks written as ▁, unknown characters as bytes."""
    library = Library(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    byte_names = [f"<0x{byte:02X}>" for byte in range(256)]
    latin = [text for text in many_texts if text.isascii()]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=MARKERS + byte_names, show_progress=False)
    library.train_from_iterator(latin, trainer)
    document = json.loads(library.to_str())
    document["added_tokens"] = [token for token in document["added_tokens"] if token["content"] in MARKERS]
    return Library.from_str(json.dumps(document))


@pytest.fixture(scope="session")
def both(byte_level: Library, with_blanks: Library) -> list[Tokenizer]:
    return [Tokenizer.from_json(library.to_str(), config=CONFIG) for library in (byte_level, with_blanks)]


@pytest.fixture(params=["byte_level", "with_blanks"])
def library(request: pytest.FixtureRequest) -> Library:
    found: Library = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def tokenizer(library: Library) -> Tokenizer:
    return Tokenizer.from_json(library.to_str(), config=CONFIG)


def changed(library: Library, **parts: Any) -> dict[str, Any]:
    return {**json.loads(library.to_str()), **parts}


def library_ids(library: Library, text: str) -> list[int]:
    return list(library.encode(text, add_special_tokens=False).ids)


# Text to ids


def test_ids_are_the_librarys(library: Library, tokenizer: Tokenizer, many_texts: list[str]) -> None:
    for text in many_texts:
        assert tokenizer.encode(text) == library_ids(library, text), text


@given(text=st.text())
@settings(max_examples=150, deadline=None)
def test_any_text_has_the_librarys_ids_and_comes_back(
    both: list[Tokenizer], byte_level: Library, with_blanks: Library, text: str
) -> None:
    for tokenizer, library in zip(both, (byte_level, with_blanks), strict=True):
        assert tokenizer.encode(text, special=True) == library_ids(library, text)
        assert tokenizer.decode(tokenizer.encode(text)) == text.replace("▁", " " if library is with_blanks else "▁")


def test_markers_count_where_they_may(library: Library, tokenizer: Tokenizer) -> None:
    for text in ("<s>a<image>\nWhat?</s>", "<image><image>", " <image> x", "<im<image>age>"):
        assert tokenizer.encode(text, special=True) == library_ids(library, text), text
    assert tokenizer.encode("a<image>b", special=True).count(tokenizer.special_tokens["<image>"]) == 1


def test_text_that_looks_like_a_marker_stays_text(tokenizer: Tokenizer) -> None:
    special = set(tokenizer.special_tokens.values()) - {tokenizer.special_tokens["<unk>"]}
    for marker in MARKERS:
        ids = tokenizer.encode(f"say {marker} twice: {marker}{marker}")
        assert special.isdisjoint(ids)
        assert tokenizer.decode(ids) == f"say {marker} twice: {marker}{marker}"


def test_segments_are_encoded_as_one_text(library: Library, tokenizer: Tokenizer) -> None:
    segments = [("USER: ", True), ("What is", False), (" this?", False), (" ASSISTANT:", True), ("<s>", True)]
    assert tokenizer.encode_segments(segments) == library_ids(library, "".join(text for text, _ in segments))


@pytest.mark.parametrize(
    "segments",
    [
        [("<s>", True), ("<image>", False), ("</s>", True)],
        [("<s><im", True), ("age>", False), ("</s>", True)],
        [("<s>", True), ("<ima", False), ("ge></s>", True)],
        [("<s>", True), ("<imag", False), ("", True), ("e>", False), ("</s>", True)],
    ],
)
def test_plain_text_forges_no_marker(tokenizer: Tokenizer, segments: list[tuple[str, bool]]) -> None:
    ids = tokenizer.encode_segments(segments)
    image = tokenizer.special_tokens["<image>"]
    assert image not in ids
    assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
    assert "<image>" in tokenizer.decode(ids)


def test_a_marker_across_two_trusted_segments_counts(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_segments([("<im", True), ("age>", True)]) == [tokenizer.special_tokens["<image>"]]


@pytest.mark.parametrize("ignore_merges", [False, True])
def test_merges_cannot_spell_a_marker(ignore_merges: bool) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: index for index, letter in enumerate(letters)} | {"<s": 256, "<s>": 257}
    model = {"type": "BPE", "vocab": vocab, "merges": ["< s", "<s >"], "ignore_merges": ignore_merges}
    document = {
        "added_tokens": [{"id": 257, "content": "<s>", "special": True}],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "decoder": {"type": "ByteLevel"},
        "model": model,
    }
    tokenizer = Tokenizer.from_json(json.dumps(document))
    assert tokenizer.encode("<s>") == [256, vocab[">"]]
    assert tokenizer.encode("<s>", special=True) == [257]


def test_added_words_are_found_everywhere_and_brackets_are_not(byte_level: Library) -> None:
    library = Library.from_str(byte_level.to_str())
    library.add_tokens([tokenizers.AddedToken("    "), tokenizers.AddedToken("lapilli"), "<tool_call>"])
    tokenizer = Tokenizer.from_json(library.to_str())
    text = "x    y lapilli"
    assert tokenizer.encode(text) == library_ids(library, text)
    assert tokenizer.token_id("lapilli") in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.token_id("<tool_call>") not in tokenizer.encode("<tool_call>")
    assert tokenizer.encode("<tool_call>", special=True) == [tokenizer.token_id("<tool_call>")]


@pytest.mark.parametrize("flags", [{"lstrip": True}, {"rstrip": True}, {"single_word": True}, {}])
def test_strips_and_words_are_the_librarys(library: Library, flags: dict[str, bool]) -> None:
    library = Library.from_str(library.to_str())
    library.add_special_tokens([tokenizers.AddedToken("<role>", **flags)])
    tokenizer = Tokenizer.from_json(library.to_str())
    for text in ("a <role> b", "a<role>b", "  <role>\n\n<role>  ", "x_<role>", "<role>", " <role><image> <role> "):
        assert tokenizer.encode(text, special=True) == library_ids(library, text), text


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_the_blank_before_words_is_the_librarys(with_blanks: Library, scheme: Any) -> None:
    library = Library.from_str(json.dumps(changed(with_blanks, normalizer=None)))
    library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    library.decoder = decoders.Metaspace(prepend_scheme=scheme)
    tokenizer = Tokenizer.from_json(library.to_str())
    for text in ("the dog", " the dog", "<s>the dog<image>the dog", "", " ", "<s>", "the<s> dog"):
        assert tokenizer.encode(text, special=True) == library_ids(library, text), text
        assert tokenizer.decode(tokenizer.encode(text)) == (text if scheme == "never" else text.removeprefix(" "))
    inside = tokenizer.encode_segments([("the dog", False)], at_start=False)
    assert inside == library_ids(library, "<s>the dog")[1:]


def test_half_a_character_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"U\+D83D\) at position 4"):
        tokenizer.encode("ok: \ud83d")


def test_nothing_becomes_nothing(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("") == tokenizer.encode_segments([]) == []
    assert tokenizer.decode([]) == ""


def test_threads_share_a_tokenizer(tokenizer: Tokenizer, many_texts: list[str]) -> None:
    jobs = [(text + "<image>", special) for text in many_texts for special in (True, False)] * 8
    alone = [tokenizer.encode(text, special=special) for text, special in jobs]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda job: tokenizer.encode(job[0], special=job[1]), jobs)) == alone


@pytest.mark.parametrize("unit", ["a", " ", "\n", "<", "ab\u0301 ", "漢", "😀"])
def test_a_long_run_takes_no_longer_than_a_long_text(tokenizer: Tokenizer, unit: str) -> None:
    started = time.monotonic()
    tokenizer.encode(unit * (200_000 // len(unit.encode())))
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("unit", ["a", "A", " ", "\n", " \n", "'", "1", "あ", "-", "Aあ\u0301", "\r "])
def test_every_rule_is_linear_in_the_text(unit: str) -> None:
    text = unit * (40_000 // len(unit)) + "x"
    for rule in {json.dumps(rule.pre_tokenizer): rule for rule in RULES.values()}.values():
        document = {"model": {"type": "BPE", "vocab": {}, "merges": []}, "pre_tokenizer": rule.pre_tokenizer}
        cut = Library.from_str(json.dumps(document)).pre_tokenizer
        started = time.monotonic()
        assert cut is not None
        cut.pre_tokenize_str(text)
        assert time.monotonic() - started < 3, rule.pre_tokenizer


# Ids to text


def test_text_comes_back(tokenizer: Tokenizer, library: Library, many_texts: list[str]) -> None:
    for text in many_texts:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text == library.decode(ids)


def test_special_tokens_are_shown_on_demand(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<s>dog</s>", special=True)
    assert tokenizer.decode(ids) == "dog"
    assert tokenizer.decode(ids, skip_special=False).replace(" ", "") == "<s>dog</s>"


def test_ids_out_of_the_vocabulary_add_nothing(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("dog")
    assert tokenizer.decode([-1, *ids, tokenizer.vocab_size, 10**9]) == "dog"


def streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = TextStream(tokenizer)
    return [*(stream.push(index) for index in ids), stream.flush()]


@given(data=st.data(), kind=st.integers(0, 1))
@settings(max_examples=150, deadline=None)
def test_a_stream_says_what_the_whole_says(both: list[Tokenizer], kind: int, data: st.DataObject) -> None:
    tokenizer = both[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 3)))
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)


def test_a_stream_never_shows_half_a_character(tokenizer: Tokenizer, many_texts: list[str]) -> None:
    for text in many_texts:
        parts = streamed(tokenizer, tokenizer.encode(text))
        assert "".join(parts) == text
        assert not any("\ufffd" in part for part in parts)


def test_a_stream_shows_the_special_tokens_that_are_kept(tokenizer: Tokenizer) -> None:
    first, second, *_ = sorted(tokenizer.special_tokens)
    ids = [tokenizer.special_tokens[first], *tokenizer.encode("a"), tokenizer.special_tokens[second]]
    for keep in (frozenset[str](), {first}, {first, second, "nowhere"}):
        stream = TextStream(tokenizer, keep=keep)
        text = "".join(map(stream.push, ids)) + stream.flush()
        assert text.replace(" ", "") == f"{first if first in keep else ''}a{second if second in keep else ''}"


def test_a_stream_ends_a_broken_character(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("ok 😀")[:-1]
    assert streamed(tokenizer, ids)[-1] == "\ufffd"
    assert tokenizer.decode(ids) == "ok \ufffd"


# Folders


def write(folder: Path, **files: Any) -> Path:
    for name, value in files.items():
        text = value if isinstance(value, str) else json.dumps(value)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return folder


def test_a_folder_tells_the_roles(tmp_path: Path, byte_level: Library) -> None:
    folder = write(
        tmp_path,
        tokenizer=byte_level.to_str(),
        tokenizer_config={"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": "<unk>"},
        generation_config={"eos_token_id": [2, 4]},
    )
    tokenizer = Tokenizer.from_folder(folder)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 0)
    assert tokenizer.eos_ids == {2, 4}
    assert tokenizer.adds_bos
    assert tokenizer.vocab_size == byte_level.get_vocab_size()
    assert tokenizer.special_tokens == {name: index for index, name in enumerate(MARKERS)}


def test_without_a_list_the_known_ends_of_turns_end(tmp_path: Path, byte_level: Library) -> None:
    folder = write(tmp_path, tokenizer=byte_level.to_str(), tokenizer_config={"eos_token": "</s>"})
    assert Tokenizer.from_folder(folder).eos_ids == {2, MARKERS.index("<|im_end|>")}


@pytest.mark.parametrize(("flag", "expected"), [(True, True), (False, False), (None, True)])
def test_the_configuration_overrules_the_template(byte_level: Library, flag: bool | None, expected: bool) -> None:
    tokenizer = Tokenizer.from_json(byte_level.to_str(), config={**CONFIG, "add_bos_token": flag})
    assert tokenizer.adds_bos is expected


def test_tokens_beside_the_vocabulary_are_read(tmp_path: Path, byte_level: Library) -> None:
    size = byte_level.get_vocab_size()
    folder = write(
        tmp_path,
        tokenizer=byte_level.to_str(),
        tokenizer_config={"added_tokens_decoder": {str(size): {"content": "<new>", "special": True}}},
        added_tokens={"plainword": size + 1},
        special_tokens_map={"pad_token": "<new>"},
    )
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.special_tokens["<new>"] == tokenizer.pad_id == size
    assert tokenizer.encode("a plainword<new>", special=True)[-2:] == [size + 1, size]
    assert tokenizer.vocab_size == size + 2
    tokenizer.save(tmp_path)
    assert Tokenizer.from_folder(tmp_path).encode("a plainword<new>", special=True)[-2:] == [size + 1, size]
    assert Library.from_file(str(tmp_path / "tokenizer.json")).token_to_id("plainword") == size + 1


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"added_tokens_decoder": {"3": {"content": "<other>"}}}, "token 3 is '<image>' and also '<other>'"),
        ({"added_tokens_decoder": {"900": {"content": "<image>"}}}, "two numbers"),
        ({"added_tokens_decoder": {"5000": {"content": "<far>"}}}, "numbers run from 5000 to 5000"),
        ({"added_tokens_decoder": {"x": {"content": "<far>"}}}, "damaged added token"),
        ({"added_tokens_decoder": []}, None),
        ({"added_tokens_decoder": [1]}, "damaged added_tokens_decoder"),
        ({"add_bos_token": True, "bos_token": None}, None),
        ({"additional_special_tokens": "<x>"}, "not a list"),
    ],
)
def test_files_that_disagree_are_refused(byte_level: Library, config: dict[str, Any], said: str | None) -> None:
    if said is None:
        Tokenizer.from_json(byte_level.to_str(), config=config)
        return
    with pytest.raises(TokenizerError, match=said):
        Tokenizer.from_json(byte_level.to_str(), config=config)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        Tokenizer.from_folder(tmp_path)


def test_a_file_past_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(TokenizerError, match="more than 67108864 bytes"):
        Tokenizer.from_folder(tmp_path)


def test_what_is_saved_is_what_was_loaded(tmp_path: Path, tokenizer: Tokenizer, many_texts: list[str]) -> None:
    tokenizer.save(tmp_path, image_token="<image>")
    again = Tokenizer.from_folder(tmp_path)
    for text in [*many_texts, "<s>a<image>b</s>"]:
        for special in (True, False):
            assert again.encode(text, special=special) == tokenizer.encode(text, special=special)
    assert again.special_tokens == tokenizer.special_tokens
    assert (again.bos_id, again.eos_ids, again.pad_id) == (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.pad_id)
    assert again.adds_bos == tokenizer.adds_bos


def test_transformers_opens_what_is_saved(tmp_path: Path, tokenizer: Tokenizer, many_texts: list[str]) -> None:
    from transformers import AutoTokenizer

    tokenizer.save(tmp_path, image_token="<image>")
    theirs = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    bos = [tokenizer.bos_id] if tokenizer.adds_bos else []
    for text in [*many_texts, "<s>a <image>\nb</s>"]:
        assert theirs(text)["input_ids"] == bos + tokenizer.encode(text, special=True), text
        assert theirs.decode(tokenizer.encode(text)) == text
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 2, 0)
    assert (theirs.image_token, theirs.image_token_id) == ("<image>", 3)


@pytest.mark.parametrize("legacy", [True, False])
def test_what_transformers_saves_is_read(
    tmp_path: Path, with_blanks: Library, many_texts: list[str], legacy: bool
) -> None:
    from transformers import LlamaTokenizer

    model = json.loads(with_blanks.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    theirs = LlamaTokenizer(vocab=model["vocab"], merges=merges, legacy=legacy, extra_special_tokens=["<image>"])
    theirs.save_pretrained(tmp_path)
    tokenizer = Tokenizer.from_folder(tmp_path)
    for text in [*many_texts, "<s>a <image>\nthe dog</s>", "USER: <image>\nthe dog ASSISTANT:"]:
        bos = [tokenizer.bos_id] if tokenizer.adds_bos else []
        ids = tokenizer.encode(text, special=True)
        assert theirs(text)["input_ids"] == bos + ids, text
        assert theirs.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)


def test_an_image_token_that_is_not_there_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="'<picture>' is not in the vocabulary"):
        tokenizer.save(tmp_path, image_token="<picture>")


# Sentencepiece


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def sentencepiece_model(library: Library, **changes: bytes) -> bytes:
    ranks = {left + right: rank for rank, (left, right) in enumerate(json.loads(library.to_str())["model"]["merges"])}
    out = b""
    for text in sorted(library.get_vocab(), key=library.get_vocab().__getitem__):
        kind = 6 if text.startswith("<0x") else 2 if text == "<unk>" else 3 if text in MARKERS else 1
        score = struct.pack("<f", -float(ranks.get(text, 0)))
        out += field(1, field(1, text.encode()) + varint(2 << 3 | 5) + score + field(3, kind))
    out += changes.get("trainer", field(2, field(3, 2) + field(43, (1 << 64) - 1)))
    return out + changes.get("normalizer", field(3, field(1, b"identity") + field(4, 0)))


def test_sentencepiece_models_are_read(tmp_path: Path, with_blanks: Library) -> None:
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(with_blanks))
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.adds_bos) == (1, 2, None, True)
    assert tokenizer.special_tokens == {name: index for index, name in enumerate(MARKERS)}
    for text in ("the dog and the fox", "three small circles", " x  y\n", "Übergröße 😀"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("ab", special=True)[0] == tokenizer.encode("ab")[0]
    assert tokenizer.encode("<s>", special=True) == [1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trainer": field(2, field(3, 1))}, "not of the BPE kind"),
        ({"trainer": b""}, "not of the BPE kind"),
        ({"normalizer": field(3, field(2, b"charsmap") + field(4, 0))}, "normalises its text"),
        ({"normalizer": b""}, "normalises its text"),
        ({"normalizer": field(3, b"")[:-1] + b"\x7f"}, "says 127 bytes where 0 are left"),
        ({"normalizer": b"\xff"}, "ends within a number"),
        ({"normalizer": b"\xff" * 11}, "more than 10 bytes"),
        ({"normalizer": b"\x0b"}, "kind 3"),
        ({"normalizer": field(1, field(1, b"\xff"))}, "not valid UTF-8"),
        ({"normalizer": field(1, b"")}, "damaged"),
    ],
)
def test_damaged_sentencepiece_models_are_refused(
    tmp_path: Path, with_blanks: Library, changes: dict[str, bytes], said: str
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(with_blanks, **changes))
    with pytest.raises(TokenizerError, match=said):
        Tokenizer.from_folder(tmp_path)


@given(data=st.binary(max_size=200))
@settings(deadline=None)
def test_random_bytes_are_no_sentencepiece_model(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("model")
    (folder / "tokenizer.model").write_bytes(data)
    with pytest.raises(TokenizerError):
        Tokenizer.from_folder(folder)


# Documents of strangers


def split(expression: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"pre_tokenizer": split("(a+)+$")}, r"not one we know: '\(a\+\)\+\$'"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split(r"\w+x")]}}, "not one we know"),
        ({"normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b"}}, "pattern"),
        ({"normalizer": replace("a", "aa")}, "longer"),
        ({"normalizer": replace("", "")}, "pattern"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "'Precompiled'"),
        ({"normalizer": {"type": "Prepend", "prepend": "x" * 10_000}}, "cannot reproduce"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 17}}, "more than 16 steps"),
        ({"normalizer": {"type": "Sequence"}}, "damaged normalizer"),
        ({"normalizer": []}, "damaged normalizer"),
        ({"pre_tokenizer": {"type": "BertPreTokenizer"}}, "'BertPreTokenizer'"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}] * 2}}, "bytes twice"),
        ({"pre_tokenizer": {"type": "ByteLevel"}}, "library refuses"),
        ({"decoder": {"type": "WordPiece"}}, "'WordPiece'"),
        ({"decoder": {"type": "Fuse"}}, "no decoder"),
        ({"decoder": {"type": "Sequence", "decoders": [replace("a", "b")]}}, "more than blanks"),
        ({"decoder": {"type": "Strip", "content": " ", "start": 9, "stop": 0}}, "more than one blank"),
        ({"added_tokens": {}}, "not a list"),
        ({"added_tokens": [7]}, "not an added token"),
        ({"added_tokens": [{"id": -1, "content": "x"}]}, "number -1"),
        ({"added_tokens": [{"id": 3, "content": "q"}]}, "token 3 is"),
        ({"added_tokens": [{"id": 900, "content": ""}]}, "has 0 characters"),
        ({"model": None}, "no model"),
        ({"model": {"type": "Unigram", "vocab": []}}, "'Unigram'"),
        ({"model": {"type": "BPE", "vocab": [], "merges": []}}, "no vocabulary"),
        ({"model": {"type": "BPE", "vocab": {"a": 2**40}, "merges": []}}, "not one of 0 to"),
        ({"model": {"type": "BPE", "vocab": {"a": True}, "merges": []}}, "number 'True'"),
        ({"model": {"type": "BPE", "vocab": {"a": 1, "b": 1}, "merges": []}}, "same number"),
        (
            {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": [], "post_processor": None},
            "lacks 207 of 208 bytes",
        ),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.1}}, "dropout"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": 3}}, "unk_token"),
        ({"model": {"type": "BPE", "vocab": {"x" * 5000: 0}, "merges": []}}, "has 5000 characters"),
    ],
)
def test_documents_we_cannot_reproduce_are_refused(byte_level: Library, parts: dict[str, Any], said: str) -> None:
    with pytest.raises(TokenizerError, match=said):
        Tokenizer.from_json(json.dumps(changed(byte_level, **parts)))


@pytest.mark.parametrize("merge", ["a", "a b c", ["a"], [1, 2], ["a", "nowhere"], ["a", "Z"], None])
def test_merges_of_nothing_are_refused(byte_level: Library, merge: Any) -> None:
    document = changed(byte_level)
    document["model"]["merges"].append(merge)
    with pytest.raises(TokenizerError, match="merge"):
        Tokenizer.from_json(json.dumps(document))


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{", '{"model": ', "[" * 100_000, b"\xff\xfe", '{"a": "\ud800"}', "1" * 5000]
)
def test_what_is_no_document_is_refused(text: str | bytes) -> None:
    with pytest.raises(TokenizerError):
        Tokenizer.from_json(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_mutilated_document_is_refused_or_works(byte_level: Library, data: st.DataObject) -> None:
    document: Any = changed(byte_level)
    place = document
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else list(range(min(len(place), 3)))
        key = data.draw(st.sampled_from(keys))
        if data.draw(st.booleans()) or not isinstance(place[key], dict | list):
            place[key] = data.draw(JSON)
            break
        place = place[key]
    try:
        tokenizer = Tokenizer.from_json(json.dumps(document))
    except TokenizerError:
        return
    tokenizer.decode(tokenizer.encode("the dog <image> 😀", special=True))
