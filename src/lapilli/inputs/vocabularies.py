"""The three forms a vocabulary comes in, told as one: a `tokenizer.json` document.

GGUF metadata (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, `tokenizer.ggml.*`) and sentencepiece models
list pieces with scores; both become the same byte-pair merges. Merging by score is merging by rank as long as no two
pieces share a score, so a vocabulary where they do is refused, except for runs of one character: they give the same
result in any order, and Llama's own blanks are written like that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from lapilli.errors import TokenizerError
from lapilli.inputs.documents import (
    BLANK,
    END_NAMES,
    MAX_MERGES,
    MAX_TOKEN_CHARACTERS,
    MAX_TOKENS,
    Roles,
    bos_template,
    byte_values,
    prepends,
)
from lapilli.inputs.pretokenizers import Part, flatten, rule, rule_name

_MAX_SCORED_CHARACTERS = 256
_MAX_TOTAL_CHARACTERS = 1 << 23


class TokenType(IntEnum):
    """What a piece is; GGUF and sentencepiece use the same numbers."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    text: str
    type: TokenType
    score: float


def document_from_gguf(metadata: Mapping[str, object]) -> tuple[Part, Roles]:
    """The tokenizer.json document and the roles that `tokenizer.ggml.*` describe; raises TokenizerError."""
    model = metadata.get("tokenizer.ggml.model")
    if not isinstance(model, str) or model not in ("llama", "gpt2"):
        raise TokenizerError(f"tokenizer.ggml.model is {str(model)[:80]!r}; we read 'llama' and 'gpt2'")
    pieces = _gguf_pieces(metadata)
    roles = _gguf_roles(metadata, pieces, scored=model == "llama")
    if model == "llama":
        prefix = _flag(metadata, "tokenizer.ggml.add_space_prefix", True)
        return document_from_pieces(pieces, roles, prefix_blank=prefix, rstrip=_is_phi3(metadata)), roles
    return _byte_level_document(metadata, pieces, roles), roles


def document_from_pieces(pieces: Sequence[Piece], roles: Roles, *, prefix_blank: bool, rstrip: bool = False) -> Part:
    """A document for pieces that merge by score, as sentencepiece's BPE does; raises TokenizerError."""
    unknown = pieces[roles.unk].text if roles.unk is not None else None
    prepend = [{"type": "Prepend", "prepend": BLANK}] if prefix_blank else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix_blank else []
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
    unreplace = {"type": "Replace", "pattern": {"String": BLANK}, "content": " "}
    decoders = [unreplace, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]
    return _document(
        pieces,
        roles,
        normalizer={"type": "Sequence", "normalizers": [*prepend, replace]},
        pre_tokenizer=None,
        decoder={"type": "Sequence", "decoders": decoders},
        model={"unk_token": unknown, "fuse_unk": True, "byte_fallback": True, "merges": _scored_merges(pieces)},
        rstrip=rstrip,
    )


def _byte_level_document(metadata: Mapping[str, object], pieces: Sequence[Piece], roles: Roles) -> Part:
    name = metadata.get("tokenizer.ggml.pre")
    if not isinstance(name, str):
        raise TokenizerError(
            "tokenizer.ggml.pre is missing, so how this model cuts words is unknown; convert it again with a newer tool"
        )
    cut = rule(name)
    merges = []
    for merge in _strings(metadata, "tokenizer.ggml.merges", MAX_MERGES):
        left, _, right = merge[1:].partition(" ")
        merges.append([merge[:1] + left, right])
    return _document(
        pieces,
        roles,
        normalizer=cut.normalizer,
        pre_tokenizer=cut.pre_tokenizer,
        decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        model={
            "unk_token": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": cut.ignore_merges,
            "merges": merges,
        },
    )


def _document(
    pieces: Sequence[Piece],
    roles: Roles,
    *,
    normalizer: Part | None,
    pre_tokenizer: Part | None,
    decoder: Part,
    model: Part,
    rstrip: bool = False,
) -> Part:
    vocab = {piece.text: index for index, piece in enumerate(pieces)}
    if len(vocab) != len(pieces):
        raise TokenizerError(_duplicate(pieces))
    added = [
        {
            "id": index,
            "content": piece.text,
            "single_word": False,
            "lstrip": False,
            "rstrip": rstrip and piece.text not in ("<unk>", "<s>", "<|endoftext|>"),
            "normalized": False,
            "special": piece.type in (TokenType.CONTROL, TokenType.UNKNOWN),
        }
        for index, piece in enumerate(pieces)
        if piece.type in (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)
    ]
    bos = roles.bos if roles.adds_bos else None
    first = None if bos is None else bos_template(pieces[bos].text, bos)
    head = {"dropout": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "ignore_merges": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": first,
        "decoder": decoder,
        "model": {"type": "BPE", **head, **model, "vocab": vocab},
    }


def _duplicate(pieces: Sequence[Piece]) -> str:
    seen: dict[str, int] = {}
    for index, piece in enumerate(pieces):
        if piece.text in seen:
            return f"token {piece.text[:80]!r} is listed twice, as {seen[piece.text]} and {index}"
        seen[piece.text] = index
    raise AssertionError("no piece is listed twice")


def _scored_merges(pieces: Sequence[Piece]) -> list[list[str]]:
    """Every way to put two pieces together into a third, best score first."""
    ids = {p.text: i for i, p in enumerate(pieces) if p.type in (TokenType.NORMAL, TokenType.UNDEFINED)}
    longest = max(map(len, ids), default=0)
    if longest > _MAX_SCORED_CHARACTERS or sum(map(len, ids)) > _MAX_TOTAL_CHARACTERS:
        raise TokenizerError(
            f"the longest piece has {longest} characters and all together {sum(map(len, ids))}; "
            f"{_MAX_SCORED_CHARACTERS} and {_MAX_TOTAL_CHARACTERS} are the most we read"
        )
    found: list[tuple[float, int, int, int]] = []
    products: dict[float, str] = {}
    for text, index in ids.items():
        score = pieces[index].score
        # the longer left half first: a run of one character then grows from its left end, as it does by score
        splits = [
            (-score, -cut, ids[text[:cut]], ids[text[cut:]])
            for cut in range(1, len(text))
            if text[:cut] in ids and text[cut:] in ids
        ]
        other = products.setdefault(score, text) if splits else text
        if other != text and not set(other) == set(text) == {text[0]}:
            raise TokenizerError(
                f"pieces {other[:40]!r} and {text[:40]!r} share the score {score:g}, so which is merged first is not "
                "said; convert the model again from its tokenizer.json"
            )
        found += splits
    return [[pieces[left].text, pieces[right].text] for _, _, left, right in sorted(found)]


def gguf_from_document(document: Part, roles: Roles, *, rows: int) -> dict[str, object]:
    """The `tokenizer.ggml.*` metadata of a document, `rows` tokens; raises TokenizerError where GGUF cannot say it.

    Arrays of numbers are numpy arrays of the type that the format wants, ids are plain ints.
    """
    model = document["model"]
    byte_level = any(step["type"] == "ByteLevel" for step in flatten(document["decoder"]))
    texts, types = _token_table(document, rows, byte_level=byte_level)
    metadata: dict[str, object] = {"tokenizer.ggml.model": "gpt2" if byte_level else "llama"}
    if byte_level:
        metadata["tokenizer.ggml.pre"] = rule_name(
            document["normalizer"], document["pre_tokenizer"], ignore_merges=bool(model.get("ignore_merges"))
        )
        metadata["tokenizer.ggml.merges"] = [" ".join(merge) for merge in model["merges"]]
    else:
        metadata["tokenizer.ggml.pre"] = "default"
        metadata["tokenizer.ggml.add_space_prefix"] = _prefixes_blank(document)
        metadata["tokenizer.ggml.scores"] = _merge_scores(model, texts, types)
    metadata["tokenizer.ggml.tokens"] = texts
    metadata["tokenizer.ggml.token_type"] = np.array(types, dtype=np.int32)
    named = {"bos": roles.bos, "eos": roles.eos, "unknown": roles.unk, "padding": roles.pad}
    metadata |= {f"tokenizer.ggml.{name}_token_id": index for name, index in named.items() if index is not None}
    turn_ends = sorted(roles.ends - {roles.eos})
    if turn_ends:
        metadata["tokenizer.ggml.eot_token_id"] = turn_ends[0]
    metadata["tokenizer.ggml.add_bos_token"] = roles.adds_bos
    metadata["tokenizer.ggml.add_eos_token"] = False
    return metadata


def _token_table(document: Part, rows: int, *, byte_level: bool) -> tuple[list[str], list[TokenType]]:
    vocab: dict[str, int] = document["model"]["vocab"]
    added = {token["id"]: token for token in document["added_tokens"]}
    highest = max([*vocab.values(), *added], default=-1)
    if rows <= highest:
        raise TokenizerError(f"the model has {rows} rows, the tokenizer needs {highest + 1}")
    texts = [f"[PAD{index}]" for index in range(rows)]
    types = [TokenType.UNUSED] * rows
    unknown = document["model"].get("unk_token")
    for text, index in vocab.items():
        texts[index] = text
        is_byte = not byte_level and text in byte_values()
        types[index] = TokenType.UNKNOWN if text == unknown else TokenType.BYTE if is_byte else TokenType.NORMAL
    for index, token in added.items():
        texts[index] = token["content"]
        if types[index] is not TokenType.UNKNOWN:
            types[index] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
    return texts, types


def _prefixes_blank(document: Part) -> bool:
    for step in flatten(document["normalizer"]) + flatten(document["pre_tokenizer"]):
        if step["type"] == "Prepend":
            return True
        if step["type"] == "Metaspace":
            return prepends(step)
    return False


def _merge_scores(
    model: Part, texts: Sequence[str], types: Sequence[TokenType]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Scores under which merging by score is merging by rank; raises TokenizerError where no such scores exist."""
    products = [left + right for left, right in model["merges"]]
    last = {product: rank for rank, product in enumerate(products)}
    scores_by_text: dict[str, float] = {}
    score, end = 0.0, -1
    for rank, product in enumerate(products):
        # pieces whose merges are interleaved can only share a score
        score -= 1.0 if rank > end else 0.0
        scores_by_text[product] = score
        end = max(end, last[product])
    scores = np.array([scores_by_text.get(text, 0.0) for text in texts], dtype=np.float32)
    pieces = [Piece(text, kind, float(score)) for text, kind, score in zip(texts, types, scores, strict=True)]
    if {tuple(merge) for merge in _scored_merges(pieces)} != {tuple(merge) for merge in model["merges"]}:
        raise TokenizerError("the merges of this tokenizer cannot be said in scores; keep it as tokenizer.json")
    return scores


def _gguf_pieces(metadata: Mapping[str, object]) -> list[Piece]:
    texts = _strings(metadata, "tokenizer.ggml.tokens", MAX_TOKENS)
    if not texts:
        raise TokenizerError("tokenizer.ggml.tokens is empty")
    types = _numbers(metadata, "tokenizer.ggml.token_type", len(texts), default=TokenType.NORMAL)
    scores = _numbers(metadata, "tokenizer.ggml.scores", len(texts), default=0.0)
    known = {int(kind): kind for kind in TokenType}
    return [
        # llama.cpp too gives a name to a token without one
        Piece(text or f"[EMPTY_{index}]", known.get(int(kind), TokenType.UNDEFINED), score)
        for index, (text, kind, score) in enumerate(zip(texts, types, scores, strict=True))
    ]


def _gguf_roles(metadata: Mapping[str, object], pieces: Sequence[Piece], *, scored: bool) -> Roles:
    def role(name: str, default: int | None = None) -> int | None:
        key = f"tokenizer.ggml.{name}_token_id"
        value = metadata.get(key, default)
        if value is None:
            return None
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise TokenizerError(f"{key} is {str(value)[:40]!r}, not a token's number")
        if not 0 <= value < len(pieces):
            if key in metadata:
                raise TokenizerError(f"{key} is {value}, but there are {len(pieces)} tokens")
            return None
        return int(value)

    bos, eos = role("bos", 1 if scored else None), role("eos", 2 if scored else None)
    special = (TokenType.CONTROL, TokenType.USER_DEFINED)
    named = {i for i, piece in enumerate(pieces) if piece.text in END_NAMES and piece.type in special}
    ends = named | {index for index in (eos, role("eot"), role("eom")) if index is not None}
    pre = metadata.get("tokenizer.ggml.pre")
    usual = scored or (isinstance(pre, str) and rule(pre).adds_bos)
    adds_bos = _flag(metadata, "tokenizer.ggml.add_bos_token", usual)
    if adds_bos and bos is None:
        raise TokenizerError("tokenizer.ggml.add_bos_token is true, but tokenizer.ggml.bos_token_id is missing")
    return Roles(bos, eos, frozenset(ends), role("unknown", 0 if scored else None), role("padding"), adds_bos)


def _is_phi3(metadata: Mapping[str, object]) -> bool:
    """GGUF cannot say that Phi-3's markers swallow the blanks after them, so the model's name must."""
    names = [metadata.get(key) for key in ("general.architecture", "general.name")]
    return any(isinstance(name, str) and re.search("phi-?3", name.lower()) for name in names)


def _array(metadata: Mapping[str, object], key: str, limit: int) -> list[Any]:
    value = metadata.get(key)
    if value is None:
        raise TokenizerError(f"{key} is missing")
    if not isinstance(value, list | tuple | np.ndarray) or (isinstance(value, np.ndarray) and value.ndim != 1):
        raise TokenizerError(f"{key} is a {type(value).__name__}, not a list")
    if len(value) > limit:
        raise TokenizerError(f"{key} has {len(value)} entries; {limit} is the most we read")
    return value.tolist() if isinstance(value, np.ndarray) else list(value)


def _strings(metadata: Mapping[str, object], key: str, limit: int) -> list[str]:
    texts: list[str] = []
    for index, text in enumerate(_array(metadata, key, limit)):
        if not isinstance(text, str):
            raise TokenizerError(f"{key}[{index}] is a {type(text).__name__}, not a text")
        if len(text) > MAX_TOKEN_CHARACTERS:
            raise TokenizerError(
                f"{key}[{index}] has {len(text)} characters; {MAX_TOKEN_CHARACTERS} is the most we read"
            )
        texts.append(str(text))
    if any(not text.isascii() and not _is_unicode(text) for text in texts):
        raise TokenizerError(f"{key} holds text that is not valid UTF-8")
    return texts


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _numbers(metadata: Mapping[str, object], key: str, count: int, default: float) -> list[float]:
    if key not in metadata:
        return [float(default)] * count
    values = _array(metadata, key, MAX_TOKENS)
    if len(values) != count:
        raise TokenizerError(f"{key} has {len(values)} entries for {count} tokens")
    numbers = [float(value) if isinstance(value, int | float) else math.nan for value in values]
    if not all(map(math.isfinite, numbers)):
        raise TokenizerError(f"{key} holds something that is not a number")
    return numbers


def _flag(metadata: Mapping[str, object], key: str, default: bool) -> bool:
    value = metadata.get(key, default)
    if not isinstance(value, bool | np.bool_):
        raise TokenizerError(f"{key} is {str(value)[:40]!r}, not true or false")
    return bool(value)
