"""What a `tokenizer.json` may hold, and what the files beside it add.

A document comes from strangers, so everything in it is checked before the `tokenizers` library sees it: sizes, kinds,
and that no step could hang or let a short text grow without bound.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lapilli.errors import TokenizerError
from lapilli.inputs.pretokenizers import KNOWN_EXPRESSIONS, Part, flatten, spelling

MAX_TOKENS = 1 << 20
MAX_MERGES = 1 << 22
MAX_TOKEN_CHARACTERS = 4096
_MAX_ADDED = 1 << 16
_MAX_PATTERN = 64
_MAX_STEPS = 16

BLANK = "▁"
BYTE_NAMES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_BRACKETS = frozenset("<>[]{}|｜")

# What ends an answer, by name, where the file does not list it.
END_NAMES = frozenset(
    {
        "<|eot_id|>",
        "<|eom_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<end_of_turn>",
        "<end_of_utterance>",
        "<EOT>",
        "<｜end▁of▁sentence｜>",
    }
)


@dataclass(frozen=True)
class Roles:
    """Which ids begin, end and pad; `ends` are all that end an answer."""

    bos: int | None = None
    eos: int | None = None
    ends: frozenset[int] = frozenset()
    unk: int | None = None
    pad: int | None = None
    adds_bos: bool = False


@dataclass(frozen=True)
class AddedToken:
    """A token that is found before words are cut; the strips say whether it swallows the blanks beside it."""

    id: int
    content: str
    special: bool
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False

    @property
    def is_marker(self) -> bool:
        """Whether it may play a part in a template: special, or written in brackets or bars."""
        return self.special or not _BRACKETS.isdisjoint(self.content)


_NORMALIZERS = {"Prepend", "Replace", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip"}
_PRE_TOKENIZERS = {"ByteLevel", "Split", "Digits", "Punctuation", "Metaspace", "Whitespace", "WhitespaceSplit"}
_DECODERS = {"ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}


def check_document(document: Mapping[str, Any]) -> None:
    model = document.get("model")
    if not isinstance(model, dict):
        raise TokenizerError("tokenizer.json has no model")
    kind = model.get("type", "BPE")
    if kind != "BPE":
        raise TokenizerError(f"tokenizer.json is of the kind {str(kind)[:40]!r}; we read BPE")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise TokenizerError(f"tokenizer.json has {key} {str(model[key])[:40]!r}, which we cannot reproduce")
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict) or not isinstance(merges, list):
        raise TokenizerError("tokenizer.json has no vocabulary or no merges")
    if len(vocab) > MAX_TOKENS or len(merges) > MAX_MERGES:
        raise TokenizerError(
            f"tokenizer.json has {len(vocab)} tokens and {len(merges)} merges, "
            f"{MAX_TOKENS} and {MAX_MERGES} are the most we read"
        )
    for token, index in vocab.items():
        _check_token(token, index)
    if len(set(vocab.values())) != len(vocab):
        raise TokenizerError("tokenizer.json gives two tokens the same number")
    if not isinstance(model.get("unk_token"), str | None):
        raise TokenizerError("tokenizer.json has an unk_token that is not a text")
    for key, allowed in (("normalizer", _NORMALIZERS), ("pre_tokenizer", _PRE_TOKENIZERS), ("decoder", _DECODERS)):
        _check_part(document.get(key), key, allowed, depth=0)
        if len(flatten(document.get(key))) > _MAX_STEPS:
            raise TokenizerError(f"tokenizer.json has a {key} of more than {_MAX_STEPS} steps")
    _check_part(document.get("post_processor"), "post_processor", None, depth=0)
    if sum(step["type"] == "ByteLevel" for step in flatten(document.get("pre_tokenizer"))) > 1:
        raise TokenizerError("tokenizer.json turns text into bytes twice")
    blanks = {"Replace", "Metaspace"} & {step["type"] for step in flatten(document.get("decoder"))}
    if not blanks and not is_byte_level(document):
        raise TokenizerError("tokenizer.json has no decoder that we can reproduce")


def _check_token(token: object, index: object) -> None:
    if not isinstance(token, str) or not isinstance(index, int) or isinstance(index, bool):
        raise TokenizerError(f"token {str(token)[:80]!r} has the number {str(index)[:40]!r}")
    if not token or len(token) > MAX_TOKEN_CHARACTERS:
        raise TokenizerError(f"token {index} has {len(token)} characters, not 1 to {MAX_TOKEN_CHARACTERS}")
    if not 0 <= index < MAX_TOKENS:
        raise TokenizerError(f"token {token[:80]!r} has the number {index}, not one of 0 to {MAX_TOKENS - 1}")


def _check_part(part: object, place: str, allowed: set[str] | None, *, depth: int) -> None:
    if part is None:
        return
    if not isinstance(part, dict) or not isinstance(part.get("type"), str) or depth > 4:
        raise TokenizerError(f"tokenizer.json has a damaged {place}")
    if part["type"] == "Sequence":
        steps = part.get(_SEQUENCES[place])
        if not isinstance(steps, list):
            raise TokenizerError(f"tokenizer.json has a damaged {place}")
        for step in steps:
            _check_part(step, place, allowed, depth=depth + 1)
    elif allowed is not None and part["type"] not in allowed:
        raise TokenizerError(f"tokenizer.json has the {place} {part['type'][:40]!r}, which we cannot reproduce")
    elif allowed is not None:
        _check_step(part, place)


_SEQUENCES = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "decoder": "decoders",
    "post_processor": "processors",
}


def _check_step(step: Mapping[str, Any], place: str) -> None:
    """Refuse what could hang, grow the text without bound, or be decoded otherwise than we do."""
    kind = step["type"]
    pattern = step.get("pattern")
    literal = pattern.get("String") if isinstance(pattern, dict) else None
    if kind in ("Replace", "Split"):
        expression = pattern.get("Regex") if isinstance(pattern, dict) else None
        if isinstance(expression, str) and kind == "Split":
            if spelling(expression) not in KNOWN_EXPRESSIONS:
                raise TokenizerError(
                    f"tokenizer.json cuts words by an expression that is not one we know: {expression[:120]!r}"
                )
        elif not isinstance(literal, str) or not 1 <= len(literal) <= _MAX_PATTERN:
            raise TokenizerError(f"tokenizer.json has a {place} {kind} whose pattern we cannot reproduce")
    if kind == "Replace":
        content = step.get("content")
        if not isinstance(content, str) or len(content) > len(literal or ""):
            raise TokenizerError(f"tokenizer.json has a {place} that makes text longer")
        if place == "decoder" and (literal, content) != (BLANK, " "):
            raise TokenizerError("tokenizer.json has a decoder that replaces more than blanks")
    text = step.get({"Prepend": "prepend", "Metaspace": "replacement", "Strip": "content"}.get(kind, ""), "")
    expected = {"Metaspace": BLANK, "Strip": " "}.get(kind) if place != "normalizer" else None
    if not isinstance(text, str) or len(text) > _MAX_PATTERN or (expected is not None and text != expected):
        raise TokenizerError(f"tokenizer.json has a {place} {kind} that we cannot reproduce")
    if place == "decoder" and kind == "Strip" and (step.get("start"), step.get("stop")) != (1, 0):
        raise TokenizerError("tokenizer.json has a decoder that strips more than one blank")


def check_alphabet(vocab: Mapping[str, int], unknown: str | None, *, byte_level: bool) -> None:
    """Refuse a vocabulary in which ordinary text has no token at all: it would vanish.

    Control characters and planes without characters may be missing, as in Falcon's; they do vanish.
    """
    needed = [c for c, byte in alphabet().items() if byte in _ORDINARY_BYTES] if byte_level else list(BYTE_NAMES)
    missing = sum(token not in vocab for token in needed)
    if missing and unknown is None:
        raise TokenizerError(f"the vocabulary lacks {missing} of {len(needed)} bytes and has no unknown token")


_ORDINARY_BYTES = frozenset({9, 10, *range(0x20, 0x7F), *range(0x80, 0xC0), *range(0xC2, 0xF1)})


def is_byte_level(document: Mapping[str, Any]) -> bool:
    decoder = flatten(document.get("decoder"))
    return any(step["type"] == "ByteLevel" for step in decoder or flatten(document.get("pre_tokenizer")))


def prepends(metaspace: Mapping[str, Any]) -> bool:
    return metaspace.get("prepend_scheme", "always") != "never" and metaspace.get("add_prefix_space") is not False


def prepends_first(document: Mapping[str, Any]) -> bool:
    return any(step.get("prepend_scheme") == "first" for step in flatten(document.get("pre_tokenizer")))


def without_first_blank(part: Part | None) -> Part | None:
    if part is None:
        return None
    if part["type"] == "Sequence":
        return {**part, "pretokenizers": [without_first_blank(step) for step in part["pretokenizers"]]}
    return {**part, "prepend_scheme": "never"} if part.get("prepend_scheme") == "first" else part


def template_begins(post_processor: Part | None) -> str | None:
    """The token that a post-processor puts before a text."""
    for step in flatten(post_processor):
        single = step.get("single")
        if step["type"] == "TemplateProcessing" and isinstance(single, list) and single:
            first = single[0].get("SpecialToken") if isinstance(single[0], dict) else None
            if isinstance(first, dict) and isinstance(first.get("id"), str):
                return str(first["id"])
    return None


def merge_pairs(
    model: Mapping[str, Any], vocab: Mapping[str, int], markers: Mapping[str, AddedToken]
) -> Iterator[tuple[str, str]]:
    """The merges as pairs, less those that would spell a marker."""
    for merge in model["merges"]:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(half, str) for half in pair):
            raise TokenizerError(f"{str(merge)[:80]!r} is not a merge of two tokens")
        left, right = pair
        if left in vocab and right in vocab and left + right in vocab:
            yield left, right
        elif markers.keys().isdisjoint((left, right, left + right)):
            raise TokenizerError(f"the merge of {left[:80]!r} and {right[:80]!r} is not of tokens in the vocabulary")


# Tokens beside the vocabulary, and what they are for


def added_token(entry: object) -> AddedToken:
    if not isinstance(entry, dict):
        raise TokenizerError(f"{str(entry)[:80]!r} is not an added token")
    index, content = entry.get("id"), entry.get("content")
    _check_token(content, index)
    flags = {key: bool(entry.get(key)) for key in ("special", "lstrip", "rstrip", "single_word", "normalized")}
    return AddedToken(id=int(index or 0), content=str(content), **flags)


def all_added(document: Mapping[str, Any], config: Mapping[str, Any], added: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The added tokens of the document, of `added_tokens.json`, of the configuration, and every one named special."""
    vocab: dict[str, int] = document["model"]["vocab"]
    named = _special_names(config)
    entries = _list(document.get("added_tokens"), "added_tokens")
    entries += [
        {"id": index, "content": content, "normalized": content not in named} for content, index in added.items()
    ]
    decoder = config.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise TokenizerError("tokenizer_config.json has a damaged added_tokens_decoder")
    for number, entry in decoder.items():
        if not number.isdecimal() or not isinstance(entry, dict):
            raise TokenizerError(f"tokenizer_config.json has a damaged added token {number[:40]!r}")
        entries.append({**entry, "id": int(number[:10])})
    if len(entries) > _MAX_ADDED:
        raise TokenizerError(f"{len(entries)} tokens are added; {_MAX_ADDED} are the most we read")
    numbers = {index: token for token, index in vocab.items()}
    found: dict[str, AddedToken] = {}
    for token in map(added_token, entries):
        if numbers.setdefault(token.id, token.content) != token.content:
            raise TokenizerError(f"token {token.id} is {numbers[token.id][:80]!r} and also {token.content[:80]!r}")
        if vocab.get(token.content, token.id) != token.id or found.get(token.content, token).id != token.id:
            raise TokenizerError(f"token {token.content[:80]!r} has two numbers, one of them {token.id}")
        found[token.content] = token
    for content in named:
        if content in vocab and content not in found:
            found[content] = AddedToken(vocab[content], content, special=True)
    outside = sorted({token.id for token in found.values()} - set(vocab.values()))
    if outside != list(range(len(vocab), len(vocab) + len(outside))):
        raise TokenizerError(
            f"{len(outside)} tokens are added after {len(vocab)} others, but their numbers run from {outside[0]} to "
            f"{outside[-1]}; save the tokenizer again, so that its files agree"
        )
    return [
        {**dataclasses.asdict(token), "special": token.special or token.content in named} for token in found.values()
    ]


def _special_names(config: Mapping[str, Any]) -> set[str]:
    keys = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
    extra = config.get("extra_special_tokens") or []
    more = config.get("additional_special_tokens") or []
    values = [config.get(key) for key in keys]
    values += list(extra.values()) if isinstance(extra, dict) else _list(extra, "extra_special_tokens")
    values += _list(more, "additional_special_tokens")
    return {name for value in values if (name := _token_name(value)) is not None}


def _token_name(value: object) -> str | None:
    name = value.get("content") if isinstance(value, dict) else value
    return name if isinstance(name, str) and name else None


def roles_of(
    document: Mapping[str, Any], found: Roles, config: Mapping[str, Any], generation: Mapping[str, Any]
) -> Roles:
    ids: dict[str, int] = dict(document["model"]["vocab"])
    ids |= {token["content"]: token["id"] for token in document["added_tokens"]}

    def role(key: str, otherwise: int | None) -> int | None:
        name = _token_name(config.get(key))
        return otherwise if name is None else ids.get(name, otherwise)

    template = template_begins(document.get("post_processor"))
    bos = role("bos_token", found.bos if template is None else ids.get(template))
    eos = role("eos_token", found.eos)
    listed = generation.get("eos_token_id")
    if listed is None:
        ends = {token["id"] for token in document["added_tokens"] if token["content"] in END_NAMES}
    else:
        ends = set(listed if isinstance(listed, list) else [listed])
    if not all(isinstance(index, int) for index in ends):
        raise TokenizerError(f"generation_config.json has the eos_token_id {str(listed)[:80]!r}")
    adds_bos = config.get("add_bos_token")
    if not isinstance(adds_bos, bool):
        adds_bos = found.adds_bos or template is not None
    if adds_bos and bos is None:
        raise TokenizerError("add_bos_token is true, but no bos_token is named")
    return Roles(
        bos,
        eos,
        frozenset(ends if eos is None else ends | {eos}),
        role("unk_token", found.unk),
        role("pad_token", found.pad),
        adds_bos,
    )


@functools.cache
def alphabet() -> Mapping[str, int]:
    """The printable character that byte-level BPE writes for each byte (GPT-2's)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = sorted(set(range(256)) - set(printable))
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


@functools.cache
def byte_values() -> Mapping[str, int]:
    return {name: byte for byte, name in enumerate(BYTE_NAMES)}


def parse_object(data: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{name} is not JSON: {str(error)[:120]}") from None
    if not isinstance(value, dict):
        raise TokenizerError(f"{name} is not a JSON object")
    return value


def _list(value: object, name: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise TokenizerError(f"{name} is a {type(value).__name__}, not a list")
    return list(value)


def bos_template(bos: str, bos_id: int) -> Part:
    """The `post_processor` that puts one token before the text."""
    first = {"SpecialToken": {"id": bos, "type_id": 0}}
    text, pair = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, {"SpecialToken": {"id": bos, "type_id": 1}}, pair],
        "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}},
    }
